/** How sure are we? One-sided 95 % Wilson bounds of a failure rate (rules 3 and 4 of docs/specs/rollout.md). */

/** One-sided 95 % quantile of the normal distribution. */
const Z = 1.645;

function wilson(failures: number, results: number, sign: 1 | -1): number {
  const rate = failures / results;
  const z2 = Z * Z;
  const centre = rate + z2 / (2 * results);
  const spread = Z * Math.sqrt((rate * (1 - rate)) / results + z2 / (4 * results * results));
  return (centre + sign * spread) / (1 + z2 / results);
}

/** The rate is surely (95 %) below this. 1 without results. */
export function upperBound(failures: number, results: number): number {
  return results === 0 ? 1 : Math.min(1, wilson(failures, results, 1));
}

/** The rate is surely (95 %) above this. 0 without results or failures. */
export function lowerBound(failures: number, results: number): number {
  return results === 0 || failures === 0 ? 0 : Math.max(0, wilson(failures, results, -1));
}

/** Results without any failure that are needed to show that the rate is at most `limit` (0 to 1): 52 for 5 %. */
export function sampleNeeded(limit: number): number {
  if (limit <= 0) return Number.POSITIVE_INFINITY;
  const z2 = Z * Z;
  return Math.ceil((z2 * (1 - limit)) / limit);
}
