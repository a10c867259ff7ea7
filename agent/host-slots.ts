/** What a host needs of its slots, whatever their kind. */
import { join } from 'node:path';
import type { HostActivator } from './adapters/activator.ts';
import type { GuardFiles } from './adapters/guard-files.ts';
import type { Logger } from './adapters/logging.ts';
import type { Settings } from './config.ts';
import { directoryLayout } from './install/layout.ts';
import type { InstallSettings } from './install/settings.ts';
import type { RequestHeaders } from './install/source.ts';
import type { ReadBackOutcome } from './install/task.ts';
import type { BootView } from './boot-view.ts';
import type { BootControl, Clock, FilePort, Installer, Random, SlotId, Slots } from './ports.ts';

export interface HostSlots {
  readonly slots: Slots;
  readonly installer: Installer;
  readonly bootControl: BootControl;
  readonly activator: HostActivator;
  readonly guard: GuardFiles;
  readonly identityOf: (slot: SlotId) => string | Promise<string>;
  /** Where the live version is seen, for checks. */
  readonly livePath: string;
  /** Whose free space counts, for checks and facts. */
  readonly diskPath: string;
  /** Most tries that the boot loader can count; null where there is none. */
  readonly maxBoots: number | null;
  /** Partitions and boot loader as they are now; null where there are none. */
  readonly boot: (() => Promise<BootView>) | null;
}

export interface SlotsSurroundings {
  readonly settings: Settings;
  readonly files: FilePort;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly install: InstallSettings;
  readonly requestHeaders: RequestHeaders | null;
}

/** Directories that are opened with the state: where slots, their links and their records are. */
export function directoriesOfSlots({ slots, state }: Settings): readonly string[] {
  const records = join(state.directory, 'slots');
  if (slots.kind === 'partition') return [records];
  return [slots.root, directoryLayout(slots.root).releases, records];
}

/** Logs how a read-back went. */
export function readBackLog(log: Logger): (slot: string, outcome: ReadBackOutcome) => void {
  return (slot, { direct, durationMs, differences }) => {
    const seen = { event: 'read-back', slot, direct, durationMs: Math.round(durationMs) };
    if (differences.length > 0) log.warn({ ...seen, differences }, 'slot read back differs');
    else log.debug(seen, direct ? 'slot read back' : 'slot read back through the page cache');
  };
}
