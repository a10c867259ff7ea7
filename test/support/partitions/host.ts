/** The adapters of a partition host over real block devices; which root is mounted, the test says. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import {
  type BlockDevices,
  kernelBlockDevices,
  deviceNumberOf,
} from '#/agent/adapters/block-devices.ts';
import { bootFilesInstaller } from '#/agent/adapters/boot-files.ts';
import { createPartitionBootControl } from '#/agent/adapters/boot-partition.ts';
import { bootPhases } from '#/agent/adapters/boot-phase.ts';
import { grubBackend } from '#/agent/adapters/boot/grub.ts';
import { nodeRegion } from '#/agent/adapters/boot/raw-region.ts';
import type { BootBackend, PartitionSlot } from '#/agent/adapters/boot/backend.ts';
import { createExec } from '#/agent/adapters/exec.ts';
import { nodeFiles } from '#/agent/adapters/file-port.ts';
import { spaceOf } from '#/agent/adapters/file-system.ts';
import { slotRecords } from '#/agent/adapters/slot-records.ts';
import { slotDisk } from '#/agent/adapters/slots-disk.ts';
import {
  createPartitionSlots,
  type PartitionSlotsOptions,
} from '#/agent/adapters/slots-partition.ts';
import { ticketFile } from '#/agent/adapters/ticket.ts';
import { createPartitionInstaller } from '#/agent/install/installer-partition.ts';
import type { ReadBackOutcome } from '#/agent/install/task.ts';
import type { DownloadResult, Offer, Progress } from '#/agent/ports.ts';
import { testSettings } from '#/test/support/install/host.ts';
import { grubBoots } from './boot.ts';
import { type HostDisk, partUuids as usualPartUuids } from './disk.ts';

export interface PartitionHostOptions {
  readonly disk: HostDisk;
  readonly directory: string;
  /** The slot that runs. */
  readonly live: PartitionSlot;
  readonly run?: 'child' | 'here';
  readonly partUuids?: Readonly<Record<PartitionSlot, string>>;
  readonly slots?: Partial<PartitionSlotsOptions>;
  readonly backend?: (real: BootBackend) => BootBackend;
}

/** A host that has never installed anything. */
export async function makePartitionHost(options: PartitionHostOptions) {
  const { disk, directory, partUuids = usualPartUuids } = options;
  const stateDirectory = join(directory, 'state');
  await mkdir(stateDirectory, { recursive: true });
  const files = nodeFiles();
  const exec = createExec();
  let live = options.live;
  const reboots: { readonly force: boolean }[] = [];
  const devices: BlockDevices = {
    ...bound(kernelBlockDevices()),
    root: async () => ({
      numbers: [(await deviceNumberOf(disk.roots[live].path)) ?? ''],
      commandLine: partUuids[live],
    }),
  };
  const slotsDisk = slotDisk({
    files,
    stateDirectory,
    devices,
    names: {
      a: { by: 'path', path: disk.roots.a.path, partUuid: partUuids.a },
      b: { by: 'path', path: disk.roots.b.path, partUuid: partUuids.b },
    },
  });
  const grub = grubBackend({
    region: nodeRegion(disk.env.path),
    files,
    esp: disk.esp,
    runningArguments: 'quiet',
  });
  const backend = options.backend?.(grub) ?? grub;
  const ticket = () => ticketFile(files, join(stateDirectory, 'ticket')).read();
  const slots = createPartitionSlots({
    disk: slotsDisk,
    backend,
    files,
    stateDirectory,
    ticket,
    space: spaceOf,
    reserveBytes: 0,
    ...options.slots,
  });
  const readBacks: ReadBackOutcome[] = [];
  const children: number[] = [];
  const installer = createPartitionInstaller({
    stateDirectory,
    disk: slotsDisk,
    slots,
    settings: testSettings,
    requestHeaders: null,
    run: options.run ?? 'here',
    onChild: (pid) => children.push(pid),
    installBootFiles: bootFilesInstaller({
      exec,
      disk: slotsDisk,
      backend,
      mountPoint: join(directory, 'slot'),
    }),
    dropCache: async ({ path }) =>
      (await exec.run({ argv: ['blockdev', '--flushbufs', path], timeoutMs: 60_000 })).code === 0,
    onReadBack: (_slot, outcome) => readBacks.push(outcome),
  });
  const never = new AbortController().signal;
  const progress: Progress[] = [];
  return {
    disk,
    partUuids,
    slotsDisk,
    slots,
    installer,
    backend,
    reboots,
    readBacks,
    children,
    progress,
    stateDirectory,
    boot: createPartitionBootControl({
      backend,
      disk: slotsDisk,
      record: (slot) => slotRecords(files, stateDirectory).read(slot),
      ticket,
      phases: bootPhases(files, stateDirectory),
      reboot: async (how) => {
        reboots.push(how);
      },
    }),
    /** What a reboot does: the loader chooses. */
    async reboot(): Promise<PartitionSlot> {
      live = await grubBoots(disk);
      return live;
    },
    async download(offer: Offer, signal: AbortSignal = never): Promise<DownloadResult> {
      const slot = await slots.targetFor(offer.artifactId);
      await slots.begin(offer, slot);
      return await installer.download(offer, slot, (step) => progress.push(step), signal);
    },
    async verify(offer: Offer, signal: AbortSignal = never): Promise<void> {
      const slot = await slots.targetFor(offer.artifactId);
      await installer.verify(offer, slot, (step) => progress.push(step), signal);
    },
  };
}
export type PartitionHost = Awaited<ReturnType<typeof makePartitionHost>>;

function bound(devices: BlockDevices): BlockDevices {
  return {
    find: (name) => devices.find(name),
    usesOf: (device) => devices.usesOf(device),
    root: () => devices.root(),
  };
}
