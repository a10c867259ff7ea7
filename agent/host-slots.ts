/** The slots of this host as its settings say: directories behind a link, or two partitions behind a boot loader. */
import { join } from 'node:path';
import type { ArtifactId } from '#/protocol/ids.ts';
import { createActivator, type HostActivator } from './adapters/activator.ts';
import { createDirectoryBootControl } from './adapters/boot-directory.ts';
import { createExec } from './adapters/exec.ts';
import { mountsBelow, openUp, spaceOf, usedBytesOf } from './adapters/file-system.ts';
import { type GuardFiles, guardFiles } from './adapters/guard-files.ts';
import type { Logger } from './adapters/logging.ts';
import { createDirectorySlots } from './adapters/slots-directory.ts';
import type { Settings } from './config.ts';
import { openPartitionSlots } from './host-partitions.ts';
import { createDirectoryInstaller } from './install/installer.ts';
import { directoryLayout } from './install/layout.ts';
import type { InstallSettings } from './install/settings.ts';
import { readSlotManifest } from './install/slot-manifest.ts';
import type { RequestHeaders } from './install/source.ts';
import type { ReadBackOutcome } from './install/task.ts';
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

const RESERVE_INODES = 1024;

/** Directories that are opened with the state: where slots, their links and their records are. */
export function directoriesOfSlots({ slots, state }: Settings): readonly string[] {
  const records = join(state.directory, 'slots');
  if (slots.kind === 'partition') return [records];
  return [slots.root, directoryLayout(slots.root).releases, records];
}

/** The slots, and all that depends on their kind. @throws Problem E_CONFIG */
export async function openSlots(around: SlotsSurroundings): Promise<HostSlots> {
  const { slots } = around.settings;
  return slots.kind === 'partition' ? await openPartitionSlots(around) : directories(around);
}

/** Logs how a read-back went. */
export function readBackLog(log: Logger): (slot: string, outcome: ReadBackOutcome) => void {
  return (slot, { direct, durationMs, differences }) => {
    const seen = { event: 'read-back', slot, direct, durationMs: Math.round(durationMs) };
    if (differences.length > 0) log.warn({ ...seen, differences }, 'slot read back differs');
    else log.debug(seen, direct ? 'slot read back' : 'slot read back through the page cache');
  };
}

function directories(around: SlotsSurroundings): HostSlots {
  const { settings, files, random, log, install, requestHeaders } = around;
  const { root, reserveBytes } = settings.slots;
  const stateDirectory = settings.state.directory;
  const layout = directoryLayout(root);
  const slots = createDirectorySlots({
    root,
    stateDirectory,
    files,
    space: spaceOf,
    usedBytes: usedBytesOf,
    mountsBelow,
    openUp,
    reserveBytes,
    reserveInodes: RESERVE_INODES,
    newRootId: () => random.hex(16),
  });
  return {
    slots,
    installer: createDirectoryInstaller({
      root,
      slots,
      settings: install,
      requestHeaders,
      run: 'child',
      onReadBack: readBackLog(log),
    }),
    bootControl: createDirectoryBootControl({ root, files }),
    activator: directoryActivator(around),
    guard: guardFiles({
      files,
      stateDirectory,
      runDirectory: settings.state.runDirectory,
      slotsRoot: root,
      heartbeatLostMs: settings.guard.heartbeatLostMs,
      slotPath: layout.release,
    }),
    identityOf: (slot) => layout.release(slot),
    livePath: layout.current,
    diskPath: root,
    maxBoots: null,
  };
}

function directoryActivator({ settings, files, clock, log }: SlotsSurroundings): HostActivator {
  const layout = directoryLayout(settings.slots.root);
  const boot = createDirectoryBootControl({ root: settings.slots.root, files });
  return createActivator({
    settings: settings.activation,
    runDirectory: settings.state.runDirectory,
    stateDirectory: settings.state.directory,
    slotPath: (slot) => layout.release(slot),
    currentLink: layout.current,
    async live() {
      const { defaultSlot: slot } = await boot.observe();
      const manifest = slot === null ? null : await readSlotManifest(files, layout, slot);
      // The slot of a directory host is named by its artifact, and the manifest was checked against that name.
      return slot === null || manifest === null
        ? null
        : { slot, artifactId: slot as ArtifactId, manifest };
    },
    exec: createExec(() => clock.monotonicMs()),
    files,
    heartbeatLostMs: settings.guard.heartbeatLostMs,
    bootId: clock.bootId(),
    onEvent: ({ event, ...fields }) =>
      log[event === 'died' || event === 'start-failed' ? 'warn' : 'info'](
        { event: `service-${event}`, ...fields },
        `service ${event}`,
      ),
  });
}
