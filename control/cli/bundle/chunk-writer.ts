/**
 * Has new chunks compressed on all cores, in batches, and writes them in the order in which they were added, whatever order
 * the threads finish in.
 */
import type { FileHandle } from 'node:fs/promises';
import type { StoredChunk } from '#/bundle/index-encode.ts';
import { CHUNK_MAX_BYTES } from '#/bundle/open-chunk.ts';
import type { CompressPool } from '#/control/cli/bundle/compress-pool.ts';

const BATCH_BYTES = 1024 * 1024;
/** Batches in work per thread; more would only cost memory. */
const BATCHES_PER_WORKER = 3;

export interface ChunkWriter {
  /** Adds a chunk; `bytes` are copied. Returns its number. */
  readonly add: (digest: Uint8Array, bytes: Uint8Array) => number;
  /** Waits until so little is in work that more can be added. Throws what failed. */
  readonly drain: () => Promise<void>;
  /** Waits for everything. All chunks as they stand in the file. */
  readonly finish: () => Promise<readonly StoredChunk[]>;
  readonly storedBytes: () => number;
}

/** A writer that appends to `file`. */
export function createChunkWriter(
  file: FileHandle,
  pool: CompressPool,
  options: { readonly workers: number; readonly level: number },
): ChunkWriter {
  const chunks: { digest: Uint8Array; rawSize: number; storedSize: number }[] = [];
  const emptyBatch = (): Uint8Array<ArrayBuffer> => new Uint8Array(BATCH_BYTES + CHUNK_MAX_BYTES);
  let batch = emptyBatch();
  let batchBytes = 0;
  let batchFirst = 0;
  let storedBytes = 0;
  /** One after another, oldest first; a failure stays and is thrown by the next wait. */
  const inWork: Promise<void>[] = [];
  let failure: { readonly error: unknown } | null = null;

  const work = async (
    before: Promise<void>,
    first: number,
    job: ReturnType<CompressPool['run']>,
  ): Promise<void> => {
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
    }
  };
  const flush = (): void => {
    if (batchBytes === 0) return;
    const sizes = Uint32Array.from(chunks.slice(batchFirst), (chunk) => chunk.rawSize);
    const job = pool.run({ bytes: batch.subarray(0, batchBytes), sizes, level: options.level });
    inWork.push(work(inWork.at(-1) ?? Promise.resolve(), batchFirst, job));
    batch = emptyBatch();
    batchBytes = 0;
    batchFirst = chunks.length;
  };
  const waitWhile = async (limit: number): Promise<void> => {
    while (inWork.length >= limit) {
      await inWork[0];
      void inWork.shift();
    }
    if (failure !== null) throw failure.error;
  };
  return {
    add: (digest, bytes) => {
      chunks.push({ digest, rawSize: bytes.byteLength, storedSize: 0 });
      batch.set(bytes, batchBytes);
      batchBytes += bytes.byteLength;
      if (batchBytes >= BATCH_BYTES) flush();
      return chunks.length - 1;
    },
    drain: () => waitWhile(options.workers * BATCHES_PER_WORKER),
    finish: async () => {
      flush();
      await waitWhile(1);
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
