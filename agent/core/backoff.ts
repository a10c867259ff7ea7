/** Waiting between tries: full jitter, so that hosts that failed together do not come back together (F59). */

/** Milliseconds to wait after failure number `failures` (1, 2, …): uniform in (0, min(cap, base·2^(failures-1))]. */
export function fullJitterMs(
  baseMs: number,
  capMs: number,
  failures: number,
  random: number,
): number {
  const doublings = Math.min(Math.max(failures - 1, 0), 32);
  const ceilingMs = Math.min(capMs, baseMs * 2 ** doublings);
  return Math.max(1, Math.round(ceilingMs * random));
}
