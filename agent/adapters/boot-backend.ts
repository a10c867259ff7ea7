/** The backend of the boot loader that the settings name, with its devices and files. */
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import type { Settings } from '#/agent/config.ts';
import type { FilePort } from '#/agent/ports.ts';
import type { BootBackend } from './boot/backend.ts';
import { customBackend } from './boot/custom.ts';
import { efiBackend, type EfiOptions } from './boot/efi.ts';
import { type EspLocation, nodeVariables } from './boot/efi-variables.ts';
import { grubBackend } from './boot/grub.ts';
import { nodeRegion, type RawRegion, readPart } from './boot/raw-region.ts';
import { systemdBootBackend } from './boot/systemd-boot.ts';
import { ubootBackend } from './boot/uboot.ts';
import { readFile as readStateFile, replaceFile } from './durable.ts';
import type { BlockDevices, PartitionName } from './block-devices.ts';
import type { Exec } from './exec.ts';
import type { SlotDisk } from './slots-disk.ts';

const BOOT_ID = '/proc/sys/kernel/random/boot_id';
const EFI_VARIABLES = '/sys/firmware/efi/efivars';
const SEEN_MAX_BYTES = 4096;
/** Where the tools of U-Boot look for its environment. */
const FW_ENV_CONFIG = '/etc/fw_env.config';

export interface BackendSurroundings {
  readonly settings: Settings['boot'];
  readonly env: PartitionName;
  readonly devices: BlockDevices;
  readonly stateDirectory: string;
  /** The partitions of both slots. */
  readonly disk: SlotDisk;
  readonly files: FilePort;
  readonly exec: Exec;
}

/** The backend that `boot.loader` names. */
export async function openBackend(around: BackendSurroundings): Promise<BootBackend> {
  const { settings, files } = around;
  switch (settings.loader) {
    case 'grub':
      return grubBackend({
        region: envRegion(around),
        files,
        esp: settings.esp,
        runningArguments: await runningArguments(),
      });
    case 'systemd-boot':
      return systemdBootBackend({
        files,
        esp: settings.esp,
        partUuid: async (slot) => (await around.disk.device(slot)).partUuid,
      });
    case 'uboot':
      return ubootBackend({
        exec: around.exec,
        config: FW_ENV_CONFIG,
        readConfig: () => readFile(FW_ENV_CONFIG, 'utf8'),
        read: readPart,
      });
    case 'custom':
      return customBackend({ exec: around.exec, program: settings.program ?? '' });
    case 'efi':
      return efiBackend({
        files,
        esp: settings.esp,
        variables: nodeVariables(EFI_VARIABLES),
        espLocation: () => espLocation(around.devices),
        partUuid: async (slot) => (await around.disk.device(slot)).partUuid,
        seen: seenBoot(files, around.stateDirectory),
        bootId: () => readFileSync(BOOT_ID, 'latin1').trim(),
      });
  }
}

/** The partition is found anew at each use: a disk may come back under another name. */
function envRegion({ env, devices }: BackendSurroundings): RawRegion {
  const region = async (): Promise<RawRegion> =>
    nodeRegion(env.by === 'path' ? env.path : (await devices.find(env)).path);
  return {
    read: async (sizeBytes) => await (await region()).read(sizeBytes),
    write: async (position, bytes) => await (await region()).write(position, bytes),
  };
}

/** Arguments of the running kernel without those that say which root it has. */
async function runningArguments(): Promise<string> {
  const line = await readFile('/proc/cmdline', 'utf8');
  return line
    .split(/\s+/)
    .filter(
      (argument) => argument !== '' && argument !== 'ro' && !/^(?:root|BOOT_IMAGE)=/.test(argument),
    )
    .join(' ');
}

/** Where the firmware finds the ESP: entries name the partition, not the disk. */
async function espLocation(devices: BlockDevices): Promise<EspLocation> {
  const esp = await devices.find({ by: 'partlabel', value: 'switchback-esp' });
  const number = async (name: string): Promise<number> =>
    Number(await readFile(`/sys/dev/block/${esp.number}/${name}`, 'utf8'));
  return {
    number: await number('partition'),
    startSector: await number('start'),
    sectors: await number('size'),
    partUuid: esp.partUuid,
  };
}

/** The boot in which our entry was seen first: a text file of one line. */
function seenBoot(files: FilePort, stateDirectory: string): EfiOptions['seen'] {
  const path = `${stateDirectory}/efi-seen-boot`;
  return {
    async read() {
      const bytes = await readStateFile(files, path, SEEN_MAX_BYTES);
      return bytes === null ? null : Buffer.from(bytes).toString('latin1').trim();
    },
    write: (bootId) => replaceFile(files, path, Buffer.from(`${bootId}\n`)),
  };
}
