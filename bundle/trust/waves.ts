/** Waves that the signed pin opens: which one a host is in follows from its id alone, so that control cannot choose. */

/** Where a host stands between 0 and 100, from the random digits of its id. */
export function waveRank(host: string): number {
  return (Number.parseInt(host.slice(2, 10), 16) / 2 ** 32) * 100;
}

/**
 * Seconds since 1970 at which the wave of the host opens; 0 without waves. `percent` is cumulative: a host is in the first
 * wave whose percent is above its rank, a host beyond all of them in none (Infinity).
 */
export function openWaveAt(
  waves: readonly { readonly percent: number; readonly notBefore: number }[],
  host: string,
): number {
  if (waves.length === 0) return 0;
  const rank = waveRank(host);
  return waves.find((wave) => wave.percent > rank)?.notBefore ?? Number.POSITIVE_INFINITY;
}
