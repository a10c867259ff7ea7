import fc from 'fast-check';
import { expect, it } from 'vitest';
import { type ChunkIndex, parseIndex } from '#/bundle/chunk-index.ts';
import { type FetchPlanOptions, planFetch } from '#/bundle/fetch-plan.ts';
import { imageIndex } from '#/test/support/bundle/sample-index.ts';

const indexOf = (sizes: readonly number[]): ChunkIndex => {
  const { raw, manifest } = imageIndex(sizes);
  return parseIndex(raw, manifest);
};
const options: FetchPlanOptions = { gapBytes: 1000, rangeBytes: 10_000 };

it('asks for everything in one range when nothing is at hand and it fits', () => {
  const plan = planFetch(indexOf([4000, 3000, 2000]), () => false, options);
  expect(plan.ranges).toEqual([{ offset: 0, sizeBytes: 9000, chunks: [0, 1, 2] }]);
  expect(plan).toMatchObject({ reused: [], neededBytes: 9000, fetchBytes: 9000, reusedBytes: 0 });
});

it('asks for nothing when everything is at hand', () => {
  const plan = planFetch(indexOf([4000, 3000]), () => true, options);
  expect(plan).toMatchObject({ ranges: [], reused: [0, 1], fetchBytes: 0, reusedBytes: 7000 });
});

it('fetches a small gap along, and splits at a large one', () => {
  const index = indexOf([2000, 900, 2000, 1100, 2000]);
  const plan = planFetch(index, (number) => number === 1 || number === 3, options);
  expect(plan.ranges).toEqual([
    { offset: 0, sizeBytes: 4900, chunks: [0, 2] },
    { offset: 6000, sizeBytes: 2000, chunks: [4] },
  ]);
  expect(plan).toMatchObject({ neededBytes: 6000, fetchBytes: 6900, reusedBytes: 2000 });
});

it('splits a long range so that parts can travel side by side', () => {
  const plan = planFetch(indexOf([4000, 4000, 4000, 12_000, 100]), () => false, options);
  expect(plan.ranges.map((range) => range.chunks)).toEqual([[0, 1], [2], [3], [4]]);
});

it('every chunk is either reused or in exactly one range, ranges ascend and keep their limits', () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.integer({ min: 1, max: 5000 }), fc.boolean()), { maxLength: 60 }),
      fc.nat(3000),
      fc.integer({ min: 1, max: 20_000 }),
      (chunks, gapBytes, rangeBytes) => {
        const index = indexOf(chunks.map(([size]) => size));
        const plan = planFetch(index, (number) => chunks[number]?.[1] === true, {
          gapBytes,
          rangeBytes,
        });
        const fetched = plan.ranges.flatMap((range) => range.chunks);
        expect([...fetched, ...plan.reused].toSorted((a, b) => a - b)).toEqual([...chunks.keys()]);
        let end = -1;
        for (const range of plan.ranges) {
          expect(range.offset).toBeGreaterThan(end);
          end = range.offset + range.sizeBytes - 1;
          if (range.chunks.length > 1) expect(range.sizeBytes).toBeLessThanOrEqual(rangeBytes);
          const first = range.chunks[0] ?? -1;
          const last = range.chunks.at(-1) ?? -1;
          expect(index.offsets[first]).toBe(range.offset);
          expect(index.offsets[last + 1]).toBe(range.offset + range.sizeBytes);
        }
        expect(plan.neededBytes).toBeLessThanOrEqual(plan.fetchBytes);
      },
    ),
    { numRuns: 300 },
  );
});
