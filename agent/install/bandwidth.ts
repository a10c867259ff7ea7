/** A bandwidth cap over all connections of a download: a token bucket that is paid after the bytes came. */
import type { InstallSettings } from './settings.ts';

/** How far ahead of the cap a burst may run. */
const BURST_MS = 250;

export interface Bandwidth {
  /** Resolves when `bytes` more are within the cap. */
  take(bytes: number, signal: AbortSignal): Promise<void>;
}

/** `sleep` resolves after so many ms, or earlier when the signal fires. */
export function createBandwidth(
  settings: Pick<InstallSettings, 'bandwidthBytesPerSecond'>,
  nowMs: () => number,
  sleep: (ms: number, signal: AbortSignal) => Promise<void>,
): Bandwidth {
  const rate = settings.bandwidthBytesPerSecond;
  if (rate === null) return { take: async () => undefined };
  /** The moment up to which the bytes that came are paid for. */
  let paidUntilMs = nowMs() - BURST_MS;
  return {
    async take(bytes, signal) {
      const now = nowMs();
      paidUntilMs = Math.max(paidUntilMs, now - BURST_MS) + (bytes * 1000) / rate;
      if (paidUntilMs > now) await sleep(paidUntilMs - now, signal);
    },
  };
}
