/** A disk image out of its parts: the table by sgdisk, each part copied to its place with its holes. */
import { type FileHandle, open, readFile, rm } from 'node:fs/promises';
import { biosBoot } from './grub-bios.ts';
import { type DiskLayout, type Partition, SECTOR, sgdiskArguments } from './layout.ts';
import { grubBootSector } from './esp.ts';
import { runProgram } from './programs.ts';
import { Problem } from '#/protocol/errors.ts';

export interface DiskParts {
  /** Paths of images, none larger than its partition. */
  readonly esp: string;
  readonly env: string;
  readonly rootA: string;
  readonly data: string;
  /** GRUB's core image; null: this disk does not boot by BIOS. */
  readonly biosCore: Buffer | null;
}

const PIECE_BYTES = 1024 * 1024;

/** Makes the disk at `out`, replaced. Throws E_IO, E_SIZE, E_CONFIG. `onBytes`: how many were gone through. */
export async function makeDisk(
  out: string,
  layout: DiskLayout,
  parts: DiskParts,
  options: { readonly signal: AbortSignal; readonly onBytes: (bytes: number) => void },
): Promise<void> {
  await rm(out, { force: true });
  await using disk = await open(out, 'wx+');
  await disk.truncate(layout.sizeBytes);
  await runProgram(['sgdisk', ...sgdiskArguments(layout), out], { signal: options.signal });
  if (parts.biosCore !== null && layout.bios !== null) {
    const { startBytes, sizeBytes } = layout.bios;
    const boot = biosBoot(await grubBootSector(), parts.biosCore, startBytes / SECTOR, sizeBytes);
    await disk.write(boot.code, 0, boot.code.length, 0);
    await disk.write(boot.core, 0, boot.core.length, startBytes);
  }
  await place(disk, layout.esp, parts.esp, options);
  await disk.write(await readFile(parts.env), 0, undefined, layout.env.startBytes);
  await place(disk, layout.rootA, parts.rootA, options);
  await place(disk, layout.data, parts.data, options);
  await disk.sync();
}

async function place(
  disk: FileHandle,
  partition: Partition,
  path: string,
  options: { readonly signal: AbortSignal; readonly onBytes: (bytes: number) => void },
): Promise<void> {
  await using from = await open(path, 'r');
  const { size } = await from.stat();
  if (size > partition.sizeBytes)
    throw new Problem(
      'E_SIZE',
      `${path} has ${size} bytes, ${partition.label} only ${partition.sizeBytes}`,
    );
  const buffer = Buffer.alloc(PIECE_BYTES);
  const zeros = Buffer.alloc(PIECE_BYTES);
  for (let at = 0; at < size; ) {
    options.signal.throwIfAborted();
    const { bytesRead } = await from.read(buffer, 0, PIECE_BYTES, at);
    if (bytesRead === 0) throw new Problem('E_IO', `${path} has become shorter`);
    const piece = buffer.subarray(0, bytesRead);
    // What is zero stays a hole of the file.
    if (!piece.equals(zeros.subarray(0, bytesRead)))
      await disk.write(piece, 0, bytesRead, partition.startBytes + at);
    at += bytesRead;
    options.onBytes(bytesRead);
  }
}
