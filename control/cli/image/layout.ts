/** The partitions of a disk with two slots (docs/specs/partitions.md, section 1), as numbers. Pure. */
import { createHash } from 'node:crypto';
import { Problem } from '#/protocol/errors.ts';

export type Loader = 'grub' | 'systemd-boot';
export const loaders: readonly Loader[] = ['grub', 'systemd-boot'];

export interface Partition {
  readonly number: number;
  readonly label: string;
  readonly type: string;
  /** PARTUUID, lower case. */
  readonly uuid: string;
  readonly startBytes: number;
  readonly sizeBytes: number;
}

export interface DiskLayout {
  readonly diskId: string;
  readonly sizeBytes: number;
  readonly bios: Partition | null;
  readonly esp: Partition;
  readonly env: Partition;
  readonly rootA: Partition;
  readonly rootB: Partition;
  readonly data: Partition;
}

export const MIB = 1024 * 1024;
export const SECTOR = 512;
const TYPES = {
  bios: '21686148-6449-6E6F-744E-656564454649',
  esp: 'C12A7328-F81F-11D2-BA4B-00A0C93EC93B',
  linux: '0FC63DAF-8483-4772-8E79-3D69D8477DE4',
};
/** Smaller ones cannot hold two kernels and initrds of systemd-boot, a third on its way, and be FAT32. */
const ESP_MIN_BYTES = 64 * MIB;

export interface LayoutOptions {
  readonly loader: Loader;
  /** Names all ids: the same seed gives the same disk. */
  readonly seed: string;
  readonly espBytes: number;
  readonly slotBytes: number;
  readonly dataBytes: number;
}

/** The layout, aligned to MiB. Throws E_USAGE for sizes that are too small. */
export function diskLayout(options: LayoutOptions): DiskLayout {
  const { loader, seed } = options;
  if (options.espBytes < ESP_MIN_BYTES)
    throw new Problem(
      'E_USAGE',
      `the ESP has ${options.espBytes} bytes; at least ${ESP_MIN_BYTES} are needed`,
    );
  let end = MIB;
  const partition = (number: number, name: string, type: string, wanted: number): Partition => {
    const sizeBytes = Math.ceil(wanted / MIB) * MIB;
    const startBytes = end;
    end += sizeBytes;
    const label = `switchback-${name}`;
    return { number, label, type, uuid: uuidFrom(`${seed} ${label}`), startBytes, sizeBytes };
  };
  const bios = loader === 'grub' ? partition(1, 'bios', TYPES.bios, MIB) : null;
  const esp = partition(2, 'esp', TYPES.esp, options.espBytes);
  const env = partition(3, 'env', TYPES.linux, MIB);
  const rootA = partition(4, 'root-a', TYPES.linux, options.slotBytes);
  const rootB = partition(5, 'root-b', TYPES.linux, options.slotBytes);
  const data = partition(6, 'data', TYPES.linux, options.dataBytes);
  // The last MiB holds the second copy of the table.
  const sizeBytes = end + MIB;
  return { diskId: uuidFrom(`${seed} disk`), sizeBytes, bios, esp, env, rootA, rootB, data };
}

/** All partitions, in the order of the disk. */
export function partitionsOf(layout: DiskLayout): readonly Partition[] {
  const { bios, esp, env, rootA, rootB, data } = layout;
  return [...(bios === null ? [] : [bios]), esp, env, rootA, rootB, data];
}

/** Arguments of sgdisk(8) that make the table. */
export function sgdiskArguments(layout: DiskLayout): readonly string[] {
  const partitions = partitionsOf(layout).flatMap(
    ({ number, startBytes, sizeBytes, type, uuid, label }) => [
      `--new=${number}:${startBytes / SECTOR}:${(startBytes + sizeBytes) / SECTOR - 1}`,
      `--typecode=${number}:${type}`,
      `--partition-guid=${number}:${uuid}`,
      `--change-name=${number}:${label}`,
    ],
  );
  return ['--set-alignment=1', '--clear', `--disk-guid=${layout.diskId}`, ...partitions];
}

/** A UUID (version 8, RFC 9562) that only depends on `text`. */
export function uuidFrom(text: string): string {
  const hex = createHash('sha256').update(`switchback image ${text}`).digest('hex');
  const variant = '89ab'.charAt(Number.parseInt(hex.charAt(16), 16) % 4);
  return [
    hex.slice(0, 8),
    hex.slice(8, 12),
    `8${hex.slice(13, 16)}`,
    `${variant}${hex.slice(17, 20)}`,
    hex.slice(20, 32),
  ].join('-');
}

const units: Readonly<Record<string, number>> = { K: 1024, M: MIB, G: 1024 * MIB };

/** `512M`, `1G`: bytes. Throws E_USAGE. */
export function parseSize(text: string): number {
  const match = /^(\d{1,7})([KMG])$/.exec(text);
  const unit = units[match?.[2] ?? ''];
  if (match?.[1] === undefined || unit === undefined || Number(match[1]) === 0)
    throw new Problem('E_USAGE', `'${text}' is not a size: write 512M or 1G`);
  return Number(match[1]) * unit;
}
