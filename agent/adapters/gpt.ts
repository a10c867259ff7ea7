/** The GUID partition table of a disk, read to tell a partition's PARTUUID where neither kernel nor udev does. */
import { open } from 'node:fs/promises';
import { crc32 } from 'node:zlib';

const SECTOR_SIZES = [512, 4096] as const;
const HEADER_BYTES = 92;
const ENTRY_MAX_BYTES = 4096;
const ENTRIES_MAX = 1024;

export interface GptPartition {
  /** From 1, as the kernel counts. */
  readonly number: number;
  /** Lower case. */
  readonly partUuid: string;
  readonly label: string;
  readonly firstByte: number;
  readonly sizeBytes: number;
}

/** The partitions of a table whose checksums are right; null when it is none. `read` gives bytes of the disk. */
export async function readGpt(
  read: (position: number, sizeBytes: number) => Promise<Uint8Array>,
): Promise<readonly GptPartition[] | null> {
  for (const sectorBytes of SECTOR_SIZES) {
    const header = Buffer.from(await read(sectorBytes, HEADER_BYTES));
    if (header.byteLength < HEADER_BYTES || header.toString('latin1', 0, 8) !== 'EFI PART')
      continue;
    const zeroed = Buffer.from(header);
    zeroed.writeUInt32LE(0, 16);
    if (header.readUInt32LE(12) !== HEADER_BYTES) continue;
    if (crc32(zeroed) !== header.readUInt32LE(16)) continue;
    const count = header.readUInt32LE(80);
    const entryBytes = header.readUInt32LE(84);
    if (count > ENTRIES_MAX || entryBytes < 128 || entryBytes > ENTRY_MAX_BYTES) continue;
    const at = Number(header.readBigUInt64LE(72)) * sectorBytes;
    const entries = Buffer.from(await read(at, count * entryBytes));
    if (crc32(entries) !== header.readUInt32LE(88)) continue;
    return entriesOf(entries, count, entryBytes, sectorBytes);
  }
  return null;
}

function entriesOf(
  bytes: Buffer,
  count: number,
  entryBytes: number,
  sectorBytes: number,
): readonly GptPartition[] {
  const partitions: GptPartition[] = [];
  for (let i = 0; i < count; i += 1) {
    const entry = bytes.subarray(i * entryBytes, (i + 1) * entryBytes);
    // A type of zeros is an unused entry.
    if (entry.subarray(0, 16).every((byte) => byte === 0)) continue;
    const first = Number(entry.readBigUInt64LE(32));
    const last = Number(entry.readBigUInt64LE(40));
    partitions.push({
      number: i + 1,
      partUuid: guidText(entry.subarray(16, 32)),
      label: entry.toString('utf16le', 56, 128).replace(/\0.*$/s, ''),
      firstByte: first * sectorBytes,
      sizeBytes: (last - first + 1) * sectorBytes,
    });
  }
  return partitions;
}

/** The first three fields of a GUID are little-endian. */
function guidText(bytes: Buffer): string {
  const part = (from: number, to: number): Buffer => Buffer.from(bytes.subarray(from, to));
  return [
    part(0, 4).reverse(),
    part(4, 6).reverse(),
    part(6, 8).reverse(),
    part(8, 10),
    part(10, 16),
  ]
    .map((one) => one.toString('hex'))
    .join('-');
}

/** The PARTUUID of partition `number` of a disk; null when its table does not tell. */
export async function readPartUuid(disk: string, number: number): Promise<string | null> {
  try {
    await using file = await open(disk, 'r');
    const partitions = await readGpt(async (position, sizeBytes) => {
      const bytes = Buffer.alloc(sizeBytes);
      const { bytesRead } = await file.read(bytes, 0, sizeBytes, position);
      return bytes.subarray(0, bytesRead);
    });
    return partitions?.find((partition) => partition.number === number)?.partUuid ?? null;
  } catch {
    return null;
  }
}
