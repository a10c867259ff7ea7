/** A host of two root partitions: devices, boot loader, slots, and what the guard is told of them. */
import { join } from 'node:path';
import type { Settings } from './config.ts';
import { createPartitionActivator } from './adapters/activator-partition.ts';
import { bootFilesInstaller } from './adapters/boot-files.ts';
import { createPartitionBootControl } from './adapters/boot-partition.ts';
import { bootPhases } from './adapters/boot-phase.ts';
import { createExec } from './adapters/exec.ts';
import { spaceOf } from './adapters/file-system.ts';
import { guardFiles } from './adapters/guard-files.ts';
import { requestReboot } from './adapters/reboot.ts';
import type { SlotDisk } from './adapters/slots-disk.ts';
import { createPartitionSlots } from './adapters/slots-partition.ts';
import { slotRecords } from './adapters/slot-records.ts';
import { ticketFile } from './adapters/ticket.ts';
import { type HostSlots, readBackLog, type SlotsSurroundings } from './host-slots.ts';
import { createPartitionInstaller } from './install/installer-partition.ts';
import { requirePartitionSlot } from './install/partition-layout.ts';
import { partitionNamed, partitionParts, viewBoot } from './partition-parts.ts';

const FLUSH_TIMEOUT_MS = 120_000;

/** The slots `a` and `b`. @throws Problem E_CONFIG */
export async function openPartitionSlots(around: SlotsSurroundings): Promise<HostSlots> {
  const { settings, files, clock, log, install, requestHeaders } = around;
  const stateDirectory = settings.state.directory;
  const exec = createExec(() => clock.monotonicMs());
  const parts = await partitionParts(settings, { files, exec });
  const { disk, backend } = parts;
  const ticket = (): ReturnType<ReturnType<typeof ticketFile>['read']> =>
    ticketFile(files, join(stateDirectory, 'ticket')).read();
  const slots = createPartitionSlots({
    disk,
    backend,
    files,
    stateDirectory,
    ticket,
    space: spaceOf,
    reserveBytes: settings.slots.reserveBytes,
  });
  const phases = bootPhases(files, stateDirectory);
  await phases.markAgent();
  const mountPoint = join(settings.state.runDirectory, 'slot');
  return {
    slots,
    installer: createPartitionInstaller({
      stateDirectory,
      disk,
      slots,
      settings: install,
      requestHeaders,
      run: 'child',
      installBootFiles: bootFilesInstaller({ exec, disk, backend, mountPoint }),
      async dropCache({ path }) {
        const argv = ['blockdev', '--flushbufs', path];
        return (await exec.run({ argv, timeoutMs: FLUSH_TIMEOUT_MS })).code === 0;
      },
      onReadBack: readBackLog(log),
    }),
    bootControl: createPartitionBootControl({
      backend,
      disk,
      record: (slot) => slotRecords(files, stateDirectory).read(slot),
      ticket,
      phases,
      reboot: ({ force }) => requestReboot(exec, { force }),
    }),
    activator: createPartitionActivator(slots),
    guard: guardFiles({
      files,
      stateDirectory,
      runDirectory: settings.state.runDirectory,
      slotsRoot: settings.slots.root,
      heartbeatLostMs: settings.guard.heartbeatLostMs,
      slotPath: () => '/',
      partitions: () => guardLines(settings, disk),
    }),
    identityOf: async (slot) => (await disk.device(requirePartitionSlot(slot))).partUuid,
    livePath: '/',
    diskPath: stateDirectory,
    maxBoots: backend.triesMax,
    boot: () => viewBoot(parts),
  };
}

/** What the guard reads: by links that udev makes, because names of disks change from boot to boot. */
async function guardLines(
  { boot }: Settings,
  disk: SlotDisk,
): Promise<readonly (readonly [string, string])[]> {
  const { a, b } = await disk.partUuids();
  const env = partitionNamed(boot.env);
  const path = env.by === 'path' ? env.path : `/dev/disk/by-${env.by}/${env.value}`;
  return [
    ['mode', 'partition'],
    ['backend', boot.loader],
    ['slot_a', a],
    ['slot_b', b],
    ...(boot.loader === 'grub' ? [['env', path] as const] : []),
    ...(boot.loader === 'custom' ? [['program', boot.program ?? ''] as const] : []),
    ...(boot.loader === 'uboot' || boot.loader === 'custom' ? [] : [['esp', boot.esp] as const]),
  ];
}
