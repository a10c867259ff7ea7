/**
 * Collects the distinct chunks of a build: digests them, has the new ones compressed on all cores, and writes them in the
 * order of their first use, whatever order the threads finish in.
 */
import { createHash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import type { PayloadPieces, StoredChunk } from '#/bundle/chunk-index.ts';
import { CHUNK_MAX_BYTES } from '#/bundle/open-chunk.ts';
import type { CompressPool } from '#/control/cli/bundle/compress-pool.ts';

const BATCH_BYTES = 1024 * 1024;
/** Batches in work per thread; more would only cost memory. */
const BATCHES_PER_WORKER = 3;

export type Piece = PayloadPieces['pieces'][number];

export interface ChunkStore {
  /** A chunk of the payload; `bytes` are copied. */
  readonly chunk: (bytes: Uint8Array) => void;
  readonly hole: (sizeBytes: number) => void;
  /** Waits until so little is in work that more can be added. Throws what failed. */
  readonly drain: () => Promise<void>;
  /** The pieces since the last call. */
  readonly takePieces: () => Piece[];
  /** Waits for everything. All chunks in the order of their first use, as they stand in the file. */
  readonly finish: () => Promise<readonly StoredChunk[]>;
  readonly storedBytes: () => number;
}

/** A store that appends to `file`. */
export function createChunkStore(
  file: FileHandle,
  pool: CompressPool,
  options: { readonly workers: number; readonly level: number },
): ChunkStore {
  const known = new Map<string, number>();
  const chunks: { digest: Uint8Array; rawSize: number; storedSize: number }[] = [];
  let pieces: Piece[] = [];
  let batch = new Uint8Array(BATCH_BYTES + CHUNK_MAX_BYTES);
  let batchBytes = 0;
  let batchFirst = 0;
  let inWork = 0;
  let storedBytes = 0;
  /** Writes happen one after another; a failure stays and is thrown by the next wait. */
  let written: Promise<void> = Promise.resolve();
  let failure: { readonly error: unknown } | null = null;
  const ends: Promise<void>[] = [];

  const flush = (): void => {
    if (batchBytes === 0) return;
    const first = batchFirst;
    const sizes = Uint32Array.from(chunks.slice(first), (chunk) => chunk.rawSize);
    const job = pool.run({ bytes: batch.subarray(0, batchBytes), sizes, level: options.level });
    batch = new Uint8Array(BATCH_BYTES + CHUNK_MAX_BYTES);
    batchBytes = 0;
    batchFirst = chunks.length;
    inWork += 1;
    const before = written;
    const end = (async () => {
      try {
        const { stored, storedSizes } = await job;
        await before;
        for (const [i, size] of storedSizes.entries()) {
          const chunk = chunks[first + i];
          if (chunk !== undefined) chunk.storedSize = size;
        }
        if (failure === null) await writeAll(file, stored, storedBytes);
        storedBytes += stored.byteLength;
      } catch (error) {
        failure ??= { error };
      } finally {
        inWork -= 1;
      }
    })();
    written = end;
    ends.push(end);
  };
  const throwFailure = (): void => {
    if (failure !== null) throw failure.error;
  };
  return {
    chunk: (bytes) => {
      const digest = createHash('sha256').update(bytes).digest();
      const key = digest.toString('latin1');
      const number = known.get(key);
      if (number !== undefined) {
        pieces.push({ chunk: number });
        return;
      }
      known.set(key, chunks.length);
      pieces.push({ chunk: chunks.length });
      chunks.push({ digest, rawSize: bytes.byteLength, storedSize: 0 });
      batch.set(bytes, batchBytes);
      batchBytes += bytes.byteLength;
      if (batchBytes >= BATCH_BYTES) flush();
    },
    hole: (sizeBytes) => {
      const last = pieces.at(-1);
      if (last !== undefined && 'hole' in last)
        pieces[pieces.length - 1] = { hole: last.hole + sizeBytes };
      else pieces.push({ hole: sizeBytes });
    },
    drain: async () => {
      while (inWork >= options.workers * BATCHES_PER_WORKER) await ends.shift();
      throwFailure();
    },
    takePieces: () => {
      const taken = pieces;
      pieces = [];
      return taken;
    },
    finish: async () => {
      flush();
      await written;
      throwFailure();
      return chunks;
    },
    storedBytes: () => storedBytes,
  };
}

/** Writes all of `bytes` at `position`; the system may take a part at a time. */
export async function writeAll(
  file: FileHandle,
  bytes: Uint8Array,
  position: number,
): Promise<void> {
  for (let done = 0; done < bytes.byteLength; ) {
    const { bytesWritten } = await file.write(
      bytes,
      done,
      bytes.byteLength - done,
      position + done,
    );
    done += bytesWritten;
  }
}
