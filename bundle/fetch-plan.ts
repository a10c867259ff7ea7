/**
 * What to fetch for an installation: chunks that are at hand are reused, the rest becomes few ranges of chunks.data.
 * Pure; the installer does the reading, verifies each reused chunk (F83), and asks again for those that failed.
 */
import type { ChunkIndex } from '#/bundle/chunk-index.ts';

/** A request of HTTP: consecutive chunks, those between them that are not needed included. */
export interface FetchRange {
  /** From the start of chunks.data. */
  readonly offset: number;
  readonly sizeBytes: number;
  /** Numbers of the chunks to take out of it, ascending. Others in the range are skipped. */
  readonly chunks: readonly number[];
}

export interface FetchPlan {
  readonly ranges: readonly FetchRange[];
  /** Numbers of the chunks that are at hand, ascending. */
  readonly reused: readonly number[];
  /** Stored bytes of the missing chunks. */
  readonly neededBytes: number;
  /** Bytes of all ranges: `neededBytes` and the gaps that are fetched along. */
  readonly fetchBytes: number;
  /** Content bytes of the reused chunks. */
  readonly reusedBytes: number;
}

export interface FetchPlanOptions {
  /** A gap of at most this many bytes is fetched along: cheaper than another request. */
  readonly gapBytes: number;
  /** Ranges are split at this size, so that they can be fetched in parallel and resumed. */
  readonly rangeBytes: number;
}

export const fetchPlanDefaults: FetchPlanOptions = {
  gapBytes: 16 * 1024,
  rangeBytes: 4 * 1024 * 1024,
};

/**
 * Plans for the chunks of `index` that are not at hand. `isAtHand` is asked once per chunk number.
 */
export function planFetch(
  index: ChunkIndex,
  isAtHand: (number: number) => boolean,
  options: FetchPlanOptions = fetchPlanDefaults,
): FetchPlan {
  const reused: number[] = [];
  const missing: number[] = [];
  let reusedBytes = 0;
  for (let number = 0; number < index.chunkCount; number += 1) {
    if (isAtHand(number)) {
      reused.push(number);
      reusedBytes += index.rawSizes[number] ?? 0;
    } else {
      missing.push(number);
    }
  }
  const ranges = coalesce(index, missing, options);
  return {
    ranges,
    reused,
    reusedBytes,
    neededBytes: missing.reduce((sum, number) => sum + (index.storedSizes[number] ?? 0), 0),
    fetchBytes: ranges.reduce((sum, range) => sum + range.sizeBytes, 0),
  };
}

/** The given chunks (ascending numbers) as ranges. A single chunk larger than `rangeBytes` is a range of its own. */
export function coalesce(
  index: Pick<ChunkIndex, 'offsets'>,
  numbers: readonly number[],
  options: FetchPlanOptions,
): FetchRange[] {
  const ranges: FetchRange[] = [];
  let chunks: number[] = [];
  let from = 0;
  let to = 0;
  const finish = (): void => {
    if (chunks.length > 0) ranges.push({ offset: from, sizeBytes: to - from, chunks });
  };
  for (const number of numbers) {
    const start = index.offsets[number] ?? 0;
    const end = index.offsets[number + 1] ?? 0;
    if (chunks.length > 0 && start - to <= options.gapBytes && end - from <= options.rangeBytes) {
      chunks.push(number);
    } else {
      finish();
      chunks = [number];
      from = start;
    }
    to = end;
  }
  finish();
  return ranges;
}
