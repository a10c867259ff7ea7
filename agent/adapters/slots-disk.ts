/**
 * The two partitions of this host, told apart from those of another disk (F37, F65): their PARTUUIDs are written down at
 * first use. A partition of the right name and another PARTUUID is not the one that this host was set up on.
 * Format: docs/specs/slot-layout.md, section 7.
 */
import * as v from 'valibot';
import type { FilePort } from '#/agent/ports.ts';
import { partitionSlots, type PartitionSlot } from './boot/backend.ts';
import { isProblem, Problem } from '#/protocol/errors.ts';
import { partitionLayout } from '#/agent/install/partition-layout.ts';
import {
  nameText,
  type BlockDevice,
  type BlockDevices,
  type PartitionName,
} from './block-devices.ts';
import { makeDirectory } from './durable.ts';
import { stateFile, type StateFormat } from './state-file.ts';

type Known = Readonly<Record<PartitionSlot, string>>;
const partUuid = v.pipe(v.string(), v.regex(/^[0-9a-f][0-9a-f-]{0,63}$/));
const format: StateFormat<Known> = {
  kind: 'slots-disk',
  version: 1,
  limitBytes: 4096,
  schema: v.object({ a: partUuid, b: partUuid }),
};

export interface SlotDisk {
  /**
   * The partition of a slot, found anew at each call. @throws Problem E_DISK when it is missing or another one.
   */
  device(slot: PartitionSlot): Promise<BlockDevice>;
  /** What both slots are known by, also while one of them is missing. @throws Problem E_DISK: one was never seen. */
  partUuids(): Promise<Readonly<Record<PartitionSlot, string>>>;
  /** Writes down which partitions these are, where that is not known yet. Before the first write to one of them. */
  pin(): Promise<void>;
  /**
   * The slot that is mounted as the root of the running system. Null: neither, or the kernel was told another root than the
   * one that is mounted (F35).
   */
  live(): Promise<PartitionSlot | null>;
  /** What uses the partition of a slot now, in words. */
  usesOf(slot: PartitionSlot): Promise<readonly string[]>;
}

export interface SlotDiskOptions {
  readonly files: FilePort;
  readonly stateDirectory: string;
  readonly devices: BlockDevices;
  readonly names: Readonly<Record<PartitionSlot, PartitionName>>;
}

/** The partitions that the settings name. */
export function slotDisk(options: SlotDiskOptions): SlotDisk {
  const { files, stateDirectory, devices, names } = options;
  const file = stateFile(files, partitionLayout(stateDirectory).diskFile, format);
  const found = async (): Promise<Readonly<Record<PartitionSlot, BlockDevice>>> => {
    const [a, b] = [await devices.find(names.a), await devices.find(names.b)];
    if (a.number === b.number) {
      const both = `${nameText(names.a)} and ${nameText(names.b)}`;
      throw new Problem('E_DISK', `${both} are one partition, ${a.path}`, { path: a.path });
    }
    return { a, b };
  };
  const firstSeen = async (): Promise<Known> => {
    const { a, b } = await found();
    return { a: a.partUuid, b: b.partUuid };
  };
  /** What was written down; a damaged file says nothing. */
  const written = async (): Promise<Known | null> => {
    try {
      return await file.read();
    } catch (error) {
      if (isProblem(error, 'E_STATE')) return null;
      throw error;
    }
  };
  const known = async (): Promise<Known> => (await written()) ?? (await firstSeen());
  const device = async (slot: PartitionSlot): Promise<BlockDevice> => {
    const wanted = (await known())[slot];
    const one = await devices.find(names[slot]);
    if (one.partUuid === wanted) return one;
    throw new Problem(
      'E_DISK',
      `slot ${slot} is partition ${wanted} on this host, ${nameText(names[slot])} is now ${one.partUuid}`,
      { slot, known: wanted, found: one.partUuid, path: one.path },
    );
  };
  return {
    device,
    partUuids: known,
    usesOf: async (slot) => await devices.usesOf(await device(slot)),
    async pin() {
      if ((await written()) !== null) return;
      const first = await firstSeen();
      await makeDirectory(files, stateDirectory);
      await file.write(first);
    },
    async live() {
      const root = await devices.root();
      const seen: Partial<Record<PartitionSlot, BlockDevice>> = {};
      for (const slot of partitionSlots) {
        const one = await deviceOrNull(device, slot);
        if (one !== null) seen[slot] = one;
      }
      const slotWith = (is: (device: BlockDevice) => boolean): PartitionSlot | null =>
        partitionSlots.find((slot) => seen[slot] !== undefined && is(seen[slot])) ?? null;
      const mounted = slotWith(({ number }) => root.numbers.includes(number));
      if (root.commandLine === null) return mounted;
      const named = slotWith(({ partUuid: uuid }) => uuid === root.commandLine);
      // A root without any device of its own, as overlayroot makes it: then only the command line can tell.
      return root.numbers.length === 0 || named === mounted ? named : null;
    },
  };
}

/** A partition that is missing is not the root. */
async function deviceOrNull(
  device: SlotDisk['device'],
  slot: PartitionSlot,
): Promise<BlockDevice | null> {
  try {
    return await device(slot);
  } catch (error) {
    if (isProblem(error, 'E_DISK')) return null;
    throw error;
  }
}
