import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { lowerBound, sampleNeeded, upperBound } from '#/control/core/bounds.ts';

describe('Wilson bounds', () => {
  it('the sample that a limit needs is the published one: 52, 133, 268, 2704', () => {
    expect([0.05, 0.02, 0.01, 0.001].map(sampleNeeded)).toEqual([52, 133, 268, 2704]);
  });

  it('one result fewer than the sample does not prove the limit, the sample does', () => {
    for (const limit of [0.05, 0.02, 0.01, 0.001]) {
      const n = sampleNeeded(limit);
      expect(upperBound(0, n)).toBeLessThanOrEqual(limit);
      expect(upperBound(0, n - 1)).toBeGreaterThan(limit);
    }
  });

  it('the rate lies between its bounds, and more results draw them together', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 5000 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (n, share) => {
          const failures = Math.round(n * share);
          const rate = failures / n;
          expect(lowerBound(failures, n)).toBeLessThanOrEqual(rate + 1e-12);
          expect(upperBound(failures, n)).toBeGreaterThanOrEqual(rate - 1e-12);
          const width = upperBound(failures, n) - lowerBound(failures, n);
          expect(
            upperBound(failures * 4, n * 4) - lowerBound(failures * 4, n * 4),
          ).toBeLessThanOrEqual(width + 1e-12);
        },
      ),
    );
  });

  it('without results nothing is proven', () => {
    expect(upperBound(0, 0)).toBe(1);
    expect(lowerBound(0, 0)).toBe(0);
  });
});
