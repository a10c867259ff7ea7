/** Devices and boot loader of a partition host, as its settings name them: for the daemon and for doctor. */
import type { Settings } from './config.ts';
import {
  type BlockDevices,
  kernelBlockDevices,
  type PartitionName,
} from './adapters/block-devices.ts';
import { openBackend } from './adapters/boot-backend.ts';
import { type BootBackend, partitionSlots } from './adapters/boot/backend.ts';
import type { Exec } from './adapters/exec.ts';
import { type SlotDisk, slotDisk } from './adapters/slots-disk.ts';
import type { BootView } from './boot-view.ts';
import type { FilePort } from './ports.ts';
import { isProblem } from '#/protocol/errors.ts';

export interface PartitionParts {
  readonly devices: BlockDevices;
  readonly disk: SlotDisk;
  readonly backend: BootBackend;
}

/** A partition as the settings name it; `uuid` is what it has to be. */
export function partitionNamed(text: string, uuid?: string): PartitionName {
  const [, by, value = ''] = /^(PARTUUID|PARTLABEL)=(.*)$/.exec(text) ?? [];
  if (by === 'PARTUUID') return { by: 'partuuid', value };
  if (by === 'PARTLABEL') return { by: 'partlabel', value };
  return { by: 'path', path: text, partUuid: uuid ?? null };
}

/** The parts of the host that these settings describe. */
export async function partitionParts(
  settings: Settings,
  { files, exec }: { readonly files: FilePort; readonly exec: Exec },
): Promise<PartitionParts> {
  const { slots, boot, state } = settings;
  const devices = kernelBlockDevices();
  const names = {
    a: partitionNamed(slots.partitionA, slots.partitionAUuid),
    b: partitionNamed(slots.partitionB, slots.partitionBUuid),
  };
  const disk = slotDisk({ files, stateDirectory: state.directory, devices, names });
  const env = partitionNamed(boot.env);
  const stateDirectory = state.directory;
  const around = { settings: boot, disk, env, devices, files, exec, stateDirectory };
  return { devices, disk, backend: await openBackend(around) };
}

/** Looks at partitions and loader; what cannot be read is told, not thrown. */
export async function viewBoot({ disk, backend }: PartitionParts): Promise<BootView> {
  const problems: string[] = [];
  const told = async <T>(look: () => Promise<T>): Promise<T | null> => {
    try {
      return await look();
    } catch (error) {
      if (!isProblem(error)) throw error;
      problems.push(`${error.code}: ${error.message}`);
      return null;
    }
  };
  const record = await told(() => backend.observe());
  const live = await told(() => disk.live());
  const slots: BootView['slots'][number][] = [];
  for (const slot of partitionSlots) {
    const device = await told(() => disk.device(slot));
    slots.push({
      slot,
      running: slot === live,
      partUuid: device?.partUuid ?? null,
      device: device?.path ?? null,
      sizeBytes: device?.sizeBytes ?? null,
    });
  }
  return {
    loader: backend.kind,
    default: record?.default ?? null,
    trial: record?.trial ?? null,
    bad: record?.bad ?? [],
    problems: [...(record?.problems ?? []), ...problems],
    slots,
  };
}
