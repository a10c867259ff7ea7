/** Which files of a slot boot it, and with which kernel arguments (docs/specs/partitions.md, section 1). */
import { open } from 'node:fs/promises';
import type { Manifest } from '#/bundle/manifest.ts';
import { Problem } from '#/protocol/errors.ts';
import { imagePayload } from '#/agent/install/partition-layout.ts';
import type { Offer } from '#/agent/ports.ts';
import type { BootBackend, BootFiles, PartitionSlot } from './boot/backend.ts';
import type { BlockDevice } from './block-devices.ts';
import type { Exec } from './exec.ts';
import { resolveInside, withMounted } from './slot-files.ts';
import type { SlotDisk } from './slots-disk.ts';

const KERNEL = '/boot/vmlinuz';
const INITRD = '/boot/initrd.img';
const UKI = '/boot/uki.efi';
const ARGUMENTS = '/etc/kernel/cmdline';
const ARGUMENTS_MAX_BYTES = 4096;

export interface BootFilesOptions {
  readonly exec: Exec;
  readonly disk: SlotDisk;
  readonly backend: BootBackend;
  /** Where the slot is mounted meanwhile: gone after a reboot. */
  readonly mountPoint: string;
}

/** P5: mounts the slot, read-only, and hands its boot files to the backend. */
export function bootFilesInstaller(
  options: BootFilesOptions,
): (slot: PartitionSlot, offer: Offer) => Promise<void> {
  const { exec, disk, backend, mountPoint } = options;
  return async (slot, { artifactId, manifest }) => {
    const device = await disk.device(slot);
    await withMounted(exec, device, mountPoint, async (root) => {
      await backend.installBootFiles(slot, {
        artifactId,
        version: manifest.version,
        source: await bootSource(root, backend),
        kernelArguments: [await argumentsIn(root), ...verityArguments(manifest, device)]
          .filter((argument) => argument !== '')
          .join(' '),
      });
    });
  };
}

/** EFI alone starts only a unified image; the others take it where there is no kernel beside it. */
async function bootSource(root: string, backend: BootBackend): Promise<BootFiles['source']> {
  const kernel = await resolveInside(root, KERNEL);
  const image = await resolveInside(root, UKI);
  const prefersImage = backend.kind === 'efi' || kernel === null;
  if (image !== null && prefersImage) return { kind: 'uki', image };
  if (kernel !== null && backend.kind !== 'efi') {
    return { kind: 'linux', kernel, initrd: await resolveInside(root, INITRD) };
  }
  const wanted = backend.kind === 'efi' ? UKI : `${KERNEL} or ${UKI}`;
  throw new Problem('E_SLOT', `the image cannot be booted: it has no ${wanted}`, { wanted });
}

/** `root=` and `ro` are the backend's: the image does not know in which slot it lies. */
async function argumentsIn(root: string): Promise<string> {
  const path = await resolveInside(root, ARGUMENTS);
  if (path === null) return '';
  const bytes = Buffer.alloc(ARGUMENTS_MAX_BYTES + 1);
  await using file = await open(path, 'r');
  const { bytesRead } = await file.read(bytes, 0, bytes.byteLength, 0);
  if (bytesRead > ARGUMENTS_MAX_BYTES) {
    throw new Problem('E_SLOT', `${ARGUMENTS} in the image is longer than ${ARGUMENTS_MAX_BYTES}`);
  }
  return bytes
    .toString('utf8', 0, bytesRead)
    .split(/\s+/)
    .filter((argument) => argument !== '' && argument !== 'ro' && !argument.startsWith('root='))
    .join(' ');
}

/**
 * How systemd's initrd sets dm-verity up over the slot: the signed root hash, data and tree in the one partition. The later
 * `root=` wins over the backend's, which stays as what tells the slot.
 */
export function verityArguments(
  manifest: Manifest,
  { partUuid }: Pick<BlockDevice, 'partUuid'>,
): readonly string[] {
  const { verityRootHash, verityHashOffsetBytes } = imagePayload(manifest);
  if (verityRootHash === undefined || verityHashOffsetBytes === undefined) return [];
  return [
    `roothash=${verityRootHash}`,
    `systemd.verity_root_data=PARTUUID=${partUuid}`,
    `systemd.verity_root_hash=PARTUUID=${partUuid}`,
    `systemd.verity_root_options=hash-offset=${verityHashOffsetBytes}`,
    'root=/dev/mapper/root',
  ];
}
