/** Settings of a download, with the defaults that the agent's configuration starts from. Plain data: it travels to the child. */
import type { InstallPriority } from './priority.ts';

export interface InstallSettings {
  /** Bytes per second over all connections; null: no cap. */
  readonly bandwidthBytesPerSecond: number | null;
  /** Range requests in flight at once. */
  readonly connections: number;
  /** Worker threads that verify, decompress and write. */
  readonly workers: number;
  readonly connectTimeoutMs: number;
  /** From the request to the first byte of the answer. */
  readonly headerTimeoutMs: number;
  /** Longest silence in the middle of a body. */
  readonly idleTimeoutMs: number;
  /** A source slower than this over `throughputWindowMs` is given up (slow drip). */
  readonly minBytesPerSecond: number;
  readonly throughputWindowMs: number;
  /** Failed requests in a row, without one new verified byte, before a source is given up. */
  readonly attemptsPerSource: number;
  /** First pause after a failure; doubles up to `backoffMaxMs`. */
  readonly backoffMs: number;
  readonly backoffMaxMs: number;
  /** Longest `Retry-After` that is waited for inside one download. */
  readonly retryAfterMaxMs: number;
  /** PEM of the only CA that is accepted; null: the CAs of the system. */
  readonly caPem: string | null;
  /** Directory slots: `syncfs` instead of one fsync per file from this many files on. */
  readonly syncfsFromFiles: number;
  /** Patches from the live version are used where a source has them. */
  readonly patches: boolean;
  readonly priority: InstallPriority;
}

export const defaultInstallSettings: InstallSettings = {
  bandwidthBytesPerSecond: null,
  connections: 3,
  workers: 2,
  connectTimeoutMs: 10_000,
  headerTimeoutMs: 15_000,
  idleTimeoutMs: 20_000,
  minBytesPerSecond: 1024,
  throughputWindowMs: 30_000,
  attemptsPerSource: 8,
  backoffMs: 500,
  backoffMaxMs: 30_000,
  retryAfterMaxMs: 60_000,
  caPem: null,
  syncfsFromFiles: 64,
  patches: true,
  priority: { cpu: 'low', io: 'low' },
};
