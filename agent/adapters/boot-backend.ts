/** The backend of the boot loader that the settings name, with its devices and files. */
import { readFile } from 'node:fs/promises';
import type { Settings } from '#/agent/config.ts';
import type { FilePort } from '#/agent/ports.ts';
import { Problem } from '#/protocol/errors.ts';
import type { BootBackend } from './boot/backend.ts';
import { customBackend } from './boot/custom.ts';
import { grubBackend } from './boot/grub.ts';
import { nodeRegion, type RawRegion, readPart } from './boot/raw-region.ts';
import { systemdBootBackend } from './boot/systemd-boot.ts';
import { ubootBackend } from './boot/uboot.ts';
import type { BlockDevices, PartitionName } from './block-devices.ts';
import type { Exec } from './exec.ts';
import type { SlotDisk } from './slots-disk.ts';

/** Where the tools of U-Boot look for its environment. */
const FW_ENV_CONFIG = '/etc/fw_env.config';

export interface BackendSurroundings {
  readonly settings: Settings['boot'];
  readonly env: PartitionName;
  readonly devices: BlockDevices;
  /** The partitions of both slots. */
  readonly disk: SlotDisk;
  readonly files: FilePort;
  readonly exec: Exec;
}

/** @throws Problem E_CONFIG: this agent has none for that loader. */
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
      throw new Problem(
        'E_CONFIG',
        `boot.loader: this agent has no backend for ${settings.loader}`,
      );
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
