/**
 * Chunks from the sources to the workers: coalesced ranges over several connections, in rounds. What a round could not
 * get, because a connection broke or a chunk was damaged, is asked for in the next, from the source that is best then.
 */
import type { ChunkIndex } from '#/bundle/chunk-index.ts';
import { coalesce, type FetchRange, fetchPlanDefaults } from '#/bundle/fetch-plan.ts';
import { isProblem, Problem } from '#/protocol/errors.ts';
import type { Bandwidth } from './bandwidth.ts';
import { SLAB_BYTES, type Slab, type Slabs } from './slabs.ts';
import type { Source } from './source.ts';
import type { SourceSet } from './source-set.ts';
import type { WorkerPool } from './worker-pool.ts';

/** Times that one chunk may come damaged, per source, before the download fails. */
const DAMAGES_PER_SOURCE = 3;
const EVERYTHING = { gapBytes: Number.MAX_SAFE_INTEGER, rangeBytes: Number.MAX_SAFE_INTEGER };

/** What is fetched, by number: chunks of a bundle or segments of a patch. */
export type StoredParts = Pick<ChunkIndex, 'offsets' | 'storedSizes'>;

export interface FetchContext {
  readonly index: StoredParts;
  readonly dataOffset: number;
  readonly sources: SourceSet;
  readonly pool: Pick<WorkerPool, 'isIdle'>;
  /** Verifies and writes what lies in a slab, each part at its start; gives the numbers that came damaged. */
  readonly store: (
    slab: number,
    parts: readonly number[],
    starts: readonly number[],
  ) => Promise<readonly number[]>;
  readonly slabs: Slabs;
  readonly bandwidth: Bandwidth;
  readonly connections: number;
  readonly nowMs: () => number;
  /** Resolves after so many ms; rejects with the reason of the signal. */
  readonly sleep: (ms: number, signal: AbortSignal) => Promise<void>;
  readonly onFetched: (bytes: number) => void;
  /** Chunks that are verified and written. */
  readonly onStored: (chunks: readonly number[]) => void;
}

/** Fetches, verifies and writes the chunks with these numbers (ascending). Throws when a chunk cannot be had. */
export async function fetchChunks(
  context: FetchContext,
  numbers: readonly number[],
  signal: AbortSignal,
): Promise<void> {
  const fetcher = new Fetcher(context, signal);
  let missing = numbers;
  // Each round delivers something, or a source loses one of its bounded attempts, or a chunk one of its.
  while (missing.length > 0) missing = await fetcher.round(missing);
}

class Fetcher {
  readonly #context: FetchContext;
  readonly #failure = new AbortController();
  readonly #signal: AbortSignal;
  readonly #damages = new Map<number, number>();
  #queue: FetchRange[] = [];
  #left: number[] = [];
  #storing = new Set<Promise<void>>();

  constructor(context: FetchContext, signal: AbortSignal) {
    this.#context = context;
    this.#signal = AbortSignal.any([signal, this.#failure.signal]);
  }

  /** Tries each range once. Gives the numbers that are still missing, ascending. */
  async round(numbers: readonly number[]): Promise<number[]> {
    const { sources, index, connections, nowMs } = this.#context;
    const isRanged = sources.pick(nowMs()).source.describe().ranged;
    this.#queue = coalesce(index, numbers, isRanged ? fetchPlanDefaults : EVERYTHING);
    this.#left = [];
    try {
      await Promise.all(
        Array.from({ length: isRanged ? connections : 1 }, () => this.#pullRanges()),
      );
    } finally {
      await Promise.allSettled(this.#storing);
    }
    this.#signal.throwIfAborted();
    return this.#left.sort((a, b) => a - b);
  }

  async #pullRanges(): Promise<void> {
    for (let range = this.#queue.shift(); range !== undefined; range = this.#queue.shift()) {
      const source = await this.#nextSource();
      let missing: readonly number[] = range.chunks;
      try {
        missing = await this.#stream(range, source, (rest) => {
          missing = rest;
        });
      } catch (error) {
        this.#signal.throwIfAborted();
        if (!isProblem(error)) throw error;
        this.#context.sources.failed(source, error, this.#context.nowMs());
      }
      this.#left.push(...missing);
    }
  }

  async #nextSource(): Promise<Source> {
    const { sources, nowMs, sleep } = this.#context;
    for (;;) {
      const { source, waitMs } = sources.pick(nowMs());
      if (waitMs === 0) return source;
      await sleep(waitMs, this.#signal);
    }
  }

  /** Reads one range into slabs. `onRest` hears after each slab which chunks of the range are still to come. */
  async #stream(
    range: FetchRange,
    source: Source,
    onRest: (rest: readonly number[]) => void,
  ): Promise<readonly number[]> {
    const { dataOffset, bandwidth, onFetched } = this.#context;
    const filler = new RangeFiller(range, this.#context);
    try {
      const offset = dataOffset + range.offset;
      for await (const piece of source.readRange(offset, range.sizeBytes, this.#signal)) {
        onFetched(piece.byteLength);
        for (let used = 0; used < piece.byteLength; ) {
          // On a slow line a chunk is written as soon as it is there, so that a kill loses little (F2).
          if (filler.needsSlab(this.#context.pool.isIdle())) {
            this.#dispatch(filler.takeSlab(), source);
            filler.giveSlab(await this.#context.slabs.acquire());
          }
          used += filler.put(piece.subarray(used));
        }
        await bandwidth.take(piece.byteLength, this.#signal);
      }
    } finally {
      onRest(filler.rest());
      this.#dispatch(filler.takeSlab(), source);
    }
    return filler.rest();
  }

  #dispatch(slab: Slab | null, source: Source): void {
    const { slabs, store } = this.#context;
    if (slab === null) return;
    if (slab.chunks.length === 0) {
      slabs.release(slab);
      return;
    }
    const { number, chunks, starts } = slab;
    const storing = store(number, chunks, starts)
      .then((failed) => this.#stored(source, chunks, failed))
      .catch((error: unknown) => this.#failure.abort(error))
      .finally(() => {
        slabs.release(slab);
        this.#storing.delete(storing);
      });
    this.#storing.add(storing);
  }

  #stored(source: Source, chunks: readonly number[], failed: readonly number[]): void {
    const { sources, onStored, nowMs } = this.#context;
    const good = failed.length === 0 ? chunks : chunks.filter((chunk) => !failed.includes(chunk));
    if (good.length > 0) {
      sources.delivered(source);
      onStored(good);
    }
    if (failed.length === 0) return;
    const problem = new Problem(
      'E_CHUNK',
      `${source.describe().url} sent ${failed.length} damaged chunks, the first is number ${failed[0]}`,
    );
    for (const chunk of failed) {
      const damages = (this.#damages.get(chunk) ?? 0) + 1;
      this.#damages.set(chunk, damages);
      if (damages >= DAMAGES_PER_SOURCE * sources.size) throw problem;
      this.#left.push(chunk);
    }
    sources.failed(source, problem, nowMs());
  }
}

/** Cuts the bytes of a range into chunks and lays whole chunks into slabs; bytes between them are dropped. */
class RangeFiller {
  readonly #range: FetchRange;
  readonly #index: StoredParts;
  #slab: Slab | null = null;
  #position = 0;
  #next = 0;

  constructor(range: FetchRange, { index }: Pick<FetchContext, 'index'>) {
    this.#range = range;
    this.#index = index;
  }

  /** True at the start of a chunk that the slab has no room for, or, with `isUrgent`, that holds any chunk. */
  needsSlab(isUrgent: boolean): boolean {
    const chunk = this.#range.chunks[this.#next];
    if (chunk === undefined || this.#position !== this.#start(chunk)) return false;
    if (this.#slab === null) return true;
    if (isUrgent && this.#slab.usedBytes > 0) return true;
    return this.#slab.usedBytes + this.#size(chunk) > SLAB_BYTES;
  }

  takeSlab(): Slab | null {
    const slab = this.#slab;
    this.#slab = null;
    return slab;
  }

  giveSlab(slab: Slab): void {
    this.#slab = slab;
  }

  /** Takes bytes up to the end of the current chunk or gap; gives how many. */
  put(bytes: Uint8Array): number {
    const chunk = this.#range.chunks[this.#next];
    if (chunk === undefined) return bytes.byteLength;
    const start = this.#start(chunk);
    if (this.#position < start) {
      const skipped = Math.min(start - this.#position, bytes.byteLength);
      this.#position += skipped;
      return skipped;
    }
    const slab = this.#slab;
    if (slab === null) throw new Error('a chunk is put into a slab');
    const done = this.#position - start;
    const size = this.#size(chunk);
    const taken = Math.min(size - done, bytes.byteLength);
    // Not `set`: V8 copies into memory that threads share word by word, at a sixth of the speed.
    Buffer.from(bytes.buffer, bytes.byteOffset, taken).copy(slab.bytes, slab.usedBytes + done);
    this.#position += taken;
    if (done + taken === size) {
      slab.chunks.push(chunk);
      slab.starts.push(slab.usedBytes);
      slab.usedBytes += size;
      this.#next += 1;
    }
    return taken;
  }

  /** Chunks that have not come completely. */
  rest(): readonly number[] {
    return this.#range.chunks.slice(this.#next);
  }

  #start(chunk: number): number {
    return (this.#index.offsets[chunk] ?? 0) - this.#range.offset;
  }

  #size(chunk: number): number {
    return this.#index.storedSizes[chunk] ?? 0;
  }
}
