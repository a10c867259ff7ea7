/** Where bytes of a version's payload streams lie in its files: what the dictionaries of a patch are read from. Pure. */
import type { ChunkIndex } from '#/bundle/chunk-index.ts';
import { slicesOf } from '#/bundle/tree-layout.ts';
import type { OldRange } from '#/bundle/patch.ts';

/** A part of the old content in one file. */
export interface StreamPlace {
  /** Number of the file: all files of trees and all images, in the order of payloads and listings. */
  readonly file: number;
  readonly fileOffset: number;
  /** From the start of the range. */
  readonly rangeOffset: number;
  readonly sizeBytes: number;
}

/** For each payload: where its stream starts among all, and the number of its first file. */
export function createStreamPlaces(index: ChunkIndex): (range: OldRange) => StreamPlace[] {
  let position = 0;
  let file = 0;
  const payloads = index.payloads.map((payload) => {
    const entries = payload.tree?.entries ?? null;
    let files = 0;
    const fileOfEntry = entries?.map(({ kind }) => (kind === 'file' ? files++ : -1)) ?? null;
    const start = { payload, position, file, fileOfEntry };
    position += payload.streamBytes;
    file += fileOfEntry === null ? 1 : files;
    return start;
  });
  return ({ position: from, sizeBytes }) => {
    const places: StreamPlace[] = [];
    for (const start of payloads) {
      const { payload, fileOfEntry } = start;
      const first = Math.max(from, start.position);
      const end = Math.min(from + sizeBytes, start.position + payload.streamBytes);
      if (first >= end) continue;
      const base = first - from;
      if (payload.tree === null) {
        const fileOffset = first - start.position;
        places.push({ file: start.file, fileOffset, rangeOffset: base, sizeBytes: end - first });
        continue;
      }
      let filled = 0;
      for (const slice of slicesOf(payload.tree.layout, first - start.position, end - first)) {
        // Content that several files share is read from the first of them.
        if (slice.rangeOffset < filled) continue;
        filled = slice.rangeOffset + slice.sizeBytes;
        places.push({
          file: start.file + (fileOfEntry?.[slice.file] ?? 0),
          fileOffset: slice.fileOffset,
          rangeOffset: base + slice.rangeOffset,
          sizeBytes: slice.sizeBytes,
        });
      }
    }
    return places;
  };
}
