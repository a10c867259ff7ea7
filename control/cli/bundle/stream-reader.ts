/** The payload streams of a bundle as one: what the ranges of a patch speak of. Chunks are verified as they are read. */
import type { ChunkIndex } from '#/bundle/chunk-index.ts';
import type { OldRange } from '#/bundle/patch.ts';
import type { OpenBundle } from '#/control/cli/bundle/read.ts';

/** Unpacked chunks that are kept: neighbouring segments refer to neighbouring content. */
const CACHED_CHUNKS = 256;

export interface StreamReader {
  /** Fills `into`, which is zeros, with the range. */
  readonly read: (range: OldRange, into: Uint8Array) => Promise<void>;
}

export function createStreamReader(bundle: OpenBundle, index: ChunkIndex): StreamReader {
  const cache = new Map<number, Uint8Array>();
  const chunkOf = async (chunk: number): Promise<Uint8Array> => {
    const known = cache.get(chunk);
    if (known !== undefined) {
      cache.delete(chunk);
      cache.set(chunk, known);
      return known;
    }
    const content = await bundle.readChunk(chunk);
    cache.set(chunk, content);
    const [oldest] = cache.keys();
    if (cache.size > CACHED_CHUNKS && oldest !== undefined) cache.delete(oldest);
    return content;
  };
  return {
    async read({ position, sizeBytes }, into) {
      const end = position + sizeBytes;
      let base = 0;
      for (const { chunks, positions, streamBytes } of index.payloads) {
        const from = Math.max(position - base, 0);
        const to = Math.min(end - base, streamBytes);
        for (let piece = pieceAt(positions, from); from < to; piece += 1) {
          const start = positions[piece] ?? streamBytes;
          if (start >= to) break;
          const chunk = chunks[piece] ?? -1;
          if (chunk < 0) continue;
          const content = await chunkOf(chunk);
          const part = content.subarray(
            Math.max(0, from - start),
            Math.min(content.byteLength, to - start),
          );
          into.set(part, Math.max(start, from) + base - position);
        }
        base += streamBytes;
      }
    },
  };
}

/** Number of the piece that holds `position`. */
function pieceAt(positions: Float64Array, position: number): number {
  let low = 0;
  let high = Math.max(0, positions.length - 2);
  while (low < high) {
    const middle = (low + high + 1) >>> 1;
    if ((positions[middle] ?? 0) <= position) low = middle;
    else high = middle - 1;
  }
  return low;
}
