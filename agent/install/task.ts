/** What the heavy part of an installation is given and gives back. Plain data: it travels to the child process and back. */
import type { SourceFailure } from './source-set.ts';
import type { InstallSettings } from './settings.ts';
import type { PayloadTarget } from './write-plan.ts';

export interface KeptVersion {
  readonly artifactId: string;
  readonly manifestBytes: Uint8Array;
  readonly rawIndex: Uint8Array;
  readonly targets: readonly PayloadTarget[];
}

export interface DownloadTask {
  readonly artifactId: string;
  readonly manifestBytes: Uint8Array;
  readonly sources: readonly string[];
  readonly targets: readonly PayloadTarget[];
  /** Directory that everything is written into, synced as a whole; null for devices. */
  readonly staging: string | null;
  /** Devices: what is there is checked and kept where it fits, because an interrupted run may have left it. */
  readonly resumesDevice: boolean;
  /** Directory for manifest and index; null: not kept. */
  readonly meta: string | null;
  readonly seed: KeptVersion | null;
  readonly settings: InstallSettings;
}

export interface DownloadOutcome {
  readonly fetchedBytes: number;
  /** From the seed. */
  readonly reusedBytes: number;
  /** Already in place from an earlier, interrupted run. */
  readonly resumedBytes: number;
  readonly durationMs: number;
  readonly failedSources: readonly SourceFailure[];
  readonly rottenSeedChunks: number;
  /** How the content came: over a patch (and chunks where it failed), by the chunks that were missing, or all of it. */
  readonly way: 'patch' | 'chunks' | 'whole';
  /** Null when a patch gave all it promised. `off`, `no-seed`, `none` (no source has one), `dearer`, or the code of what was wrong. */
  readonly whyNoPatch: string | null;
  /** Chunks that a patch promised and did not give. */
  readonly unpatchedChunks: number;
  /** What was not fetched of the bundle's data. */
  readonly savedBytes: number;
}

export interface ReadBackTask {
  readonly artifactId: string;
  readonly manifestBytes: Uint8Array;
  readonly rawIndex: Uint8Array;
  readonly targets: readonly PayloadTarget[];
  /** Directory that holds exactly what the listing says; null for devices. */
  readonly directory: string | null;
  readonly workers: number;
}

export interface ReadBackOutcome {
  /** What differs, for messages; empty when the slot is exactly the manifest's. At most `DIFFERENCES_MAX`. */
  readonly differences: readonly string[];
  /** Files whose content differs: to be written anew. */
  readonly damagedFiles: readonly string[];
  /** False when some file could only be read through the page cache. */
  readonly direct: boolean;
  readonly durationMs: number;
}
export const DIFFERENCES_MAX = 100;

export interface TaskProgress {
  readonly doneBytes: number;
  readonly totalBytes: number;
  readonly fetchedBytes: number;
  readonly reusedBytes: number;
}
