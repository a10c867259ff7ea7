/**
 * Takes out of an ext4 image what only says when and where it was made: mke2fs copies access and change times of the
 * directory that it reads, and nobody can set those. For file systems without checksums of metadata (makeRootFilesystem).
 * Offsets: https://docs.kernel.org/filesystems/ext4/, "Super Block", "Group Descriptors", "Index Nodes".
 */
import { open } from 'node:fs/promises';
import { Problem } from '#/protocol/errors.ts';

const SUPER_OFFSET = 1024;
const SUPER_BYTES = 1024;
const DESCRIPTOR_BYTES = 32;
const INCOMPAT_64BIT = 0x80;
const RO_COMPAT_METADATA_CSUM = 0x400;
/** In an inode: access, change, and modification time; its size after the first 128 bytes; the parts of times in there. */
const [ATIME, CTIME, MTIME, LINKS, EXTRA_SIZE] = [0x08, 0x0c, 0x10, 0x1a, 0x80];
const [CTIME_EXTRA, MTIME_EXTRA, ATIME_EXTRA, CRTIME, CRTIME_EXTRA] = [
  0x84, 0x88, 0x8c, 0x90, 0x94,
];
const GENERATION = 0x64;

/** Every inode: access and change are its modification, creation is `epoch` (seconds), no nanoseconds. Throws E_IO for another format. */
export async function settleInodes(path: string, epoch: number): Promise<void> {
  await using file = await open(path, 'r+');
  const read = async (offset: number, sizeBytes: number): Promise<Buffer> => {
    const buffer = Buffer.alloc(sizeBytes);
    const { bytesRead } = await file.read(buffer, 0, sizeBytes, offset);
    if (bytesRead !== sizeBytes) throw new Problem('E_IO', `${path} ends at ${offset + bytesRead}`);
    return buffer;
  };
  const superblock = await read(SUPER_OFFSET, SUPER_BYTES);
  const u32 = (offset: number): number => superblock.readUInt32LE(offset);
  const isKnown =
    superblock.readUInt16LE(0x38) === 0xef53 &&
    (u32(0x60) & INCOMPAT_64BIT) === 0 &&
    (u32(0x64) & RO_COMPAT_METADATA_CSUM) === 0;
  if (!isKnown) throw new Problem('E_IO', `${path} is not an ext4 image that this program made`);
  const blockBytes = 1024 << u32(0x18);
  const [perGroup, inodeBytes] = [u32(0x28), superblock.readUInt16LE(0x58)];
  const groups = Math.ceil(u32(0x00) / perGroup);
  const descriptors = await read((u32(0x14) + 1) * blockBytes, groups * DESCRIPTOR_BYTES);
  for (let group = 0; group < groups; group += 1) {
    const offset = descriptors.readUInt32LE(group * DESCRIPTOR_BYTES + 8) * blockBytes;
    const table = await read(offset, perGroup * inodeBytes);
    for (let at = 0; at < table.length; at += inodeBytes) settleInode(table, at, epoch);
    await file.write(table, 0, table.length, offset);
  }
}

function settleInode(table: Buffer, at: number, epoch: number): void {
  if (table.readUInt16LE(at + LINKS) === 0) return;
  const modified = Math.min(table.readUInt32LE(at + MTIME), epoch);
  for (const field of [ATIME, CTIME, MTIME]) table.writeUInt32LE(modified, at + field);
  table.writeUInt32LE(0, at + GENERATION);
  if (table.readUInt16LE(at + EXTRA_SIZE) < 24) return;
  for (const field of [CTIME_EXTRA, MTIME_EXTRA, ATIME_EXTRA, CRTIME_EXTRA])
    table.writeUInt32LE(0, at + field);
  table.writeUInt32LE(epoch, at + CRTIME);
}
