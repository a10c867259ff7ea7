/** What the workers need to apply the segments of a patch: flat columns, as in write-plan.ts. Pure. */
import type { ChunkIndex } from '#/bundle/chunk-index.ts';
import type { PatchSegment } from '#/bundle/patch.ts';
import { createStreamPlaces } from '#/bundle/stream-place.ts';
import { type PieceColumns, PieceCollector } from './write-plan.ts';

/** Segment i fills the chunks `chunks[chunkStarts[i]]` to `chunks[chunkStarts[i + 1]]`, one after another. */
export interface PatchColumns {
  readonly chunkStarts: Uint32Array;
  readonly chunks: Uint32Array;
  readonly rawBytes: Uint32Array;
  readonly storedBytes: Uint32Array;
  /** Old content of each segment's dictionary: files of the seed. */
  readonly dictionary: PieceColumns;
  readonly dictionaryBytes: Uint32Array;
}

/** Columns for `segments`, whose ranges speak of the streams of `seed`; files are numbered as in its plan of writes. */
export function planPatch(segments: readonly PatchSegment[], seed: ChunkIndex): PatchColumns {
  const placesOf = createStreamPlaces(seed);
  const dictionary = new PieceCollector(segments.length);
  const dictionaryBytes = new Uint32Array(segments.length);
  const chunkStarts = new Uint32Array(segments.length + 1);
  for (const [number, { chunks, ranges }] of segments.entries()) {
    chunkStarts[number + 1] = (chunkStarts[number] ?? 0) + chunks.length;
    let filled = 0;
    for (const range of ranges) {
      for (const { file, fileOffset, rangeOffset, sizeBytes } of placesOf(range)) {
        dictionary.add(number, file, fileOffset, filled + rangeOffset, sizeBytes);
      }
      filled += range.sizeBytes;
    }
    dictionaryBytes[number] = filled;
  }
  return {
    chunkStarts,
    chunks: Uint32Array.from(segments.flatMap(({ chunks }) => chunks)),
    rawBytes: Uint32Array.from(segments, ({ rawBytes }) => rawBytes),
    storedBytes: Uint32Array.from(segments, ({ storedBytes }) => storedBytes),
    dictionary: dictionary.done(),
    dictionaryBytes,
  };
}

/** The segments that are worth fetching: smaller than those of their chunks that are still missing. */
export function usefulSegments(
  segments: readonly PatchSegment[],
  index: Pick<ChunkIndex, 'storedSizes'>,
  isMissing: (chunk: number) => boolean,
): number[] {
  const useful: number[] = [];
  for (const [number, { chunks, storedBytes }] of segments.entries()) {
    const chunkBytes = chunks.reduce(
      (sum, chunk) => sum + (isMissing(chunk) ? (index.storedSizes[chunk] ?? 0) : 0),
      0,
    );
    if (storedBytes > 0 && storedBytes < chunkBytes) useful.push(number);
  }
  return useful;
}
