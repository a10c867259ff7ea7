/** A host whose versions are directories behind a link. */
import type { VersionId } from '#/protocol/ids.ts';
import { createActivator, type HostActivator } from './adapters/activator.ts';
import { createDirectoryBootControl } from './adapters/boot-directory.ts';
import { createExec } from './adapters/exec.ts';
import { mountsBelow, openUp, spaceOf, usedBytesOf } from './adapters/file-system.ts';
import { guardFiles } from './adapters/guard-files.ts';
import { secretsPath } from './adapters/secrets.ts';
import { createDirectorySlots } from './adapters/slots-directory.ts';
import { type HostSlots, readBackLog, type SlotsSurroundings } from './host-slots.ts';
import { createDirectoryInstaller } from './install/installer.ts';
import { directoryLayout } from './install/layout.ts';
import { readSlotManifest } from './install/slot-manifest.ts';

const RESERVE_INODES = 1024;

/** The slots below `slots.root`. */
export function openDirectorySlots(around: SlotsSurroundings): HostSlots {
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
    boot: null,
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
    configPath: (version) => secretsPath(settings.config.directory, version),
    async live() {
      const { defaultSlot: slot } = await boot.observe();
      const manifest = slot === null ? null : await readSlotManifest(files, layout, slot);
      // The slot of a directory host is named by its version, and the manifest was checked against that name.
      return slot === null || manifest === null
        ? null
        : { slot, artifactId: slot as VersionId, manifest };
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
