/**
 * GRUB's two pieces for BIOS, joined without grub-bios-setup, which wants a device: the boot sector is told where the core
 * image lies, the core image where it goes on. Offsets: grub-core/boot/i386/pc/boot.S and diskboot.S of GRUB. Pure.
 */
import { Problem } from '#/protocol/errors.ts';
import { SECTOR } from './layout.ts';

/** In the boot sector: first sector of the core image; a jump that only matters on floppies. */
const KERNEL_SECTOR_OFFSET = 0x5c;
const DRIVE_CHECK_OFFSET = 0x66;
/** The first 440 bytes are code; the table of the partitions follows. */
const CODE_BYTES = 440;
/** At the end of the core's first sector: where the rest lies. */
const BLOCK_LIST_OFFSET = SECTOR - 12;

export interface BiosBoot {
  /** For the start of the disk. */
  readonly code: Buffer;
  /** For the partition, which starts at `coreSector`. */
  readonly core: Buffer;
}

/** @param image boot.img @param core what `grub-mkimage -O i386-pc` made. Throws E_SIZE when it has no room. */
export function biosBoot(
  image: Buffer,
  core: Buffer,
  coreSector: number,
  roomBytes: number,
): BiosBoot {
  if (image.length !== SECTOR) throw new Problem('E_SIZE', `boot.img has ${image.length} bytes`);
  if (core.length > roomBytes)
    throw new Problem(
      'E_SIZE',
      `the core image has ${core.length} bytes, its partition ${roomBytes}`,
    );
  const code = Buffer.from(image.subarray(0, CODE_BYTES));
  code.writeBigUInt64LE(BigInt(coreSector), KERNEL_SECTOR_OFFSET);
  code.writeUInt16LE(0x9090, DRIVE_CHECK_OFFSET);
  const placed = Buffer.alloc(Math.ceil(core.length / SECTOR) * SECTOR);
  core.copy(placed);
  placed.writeBigUInt64LE(BigInt(coreSector + 1), BLOCK_LIST_OFFSET);
  placed.writeUInt16LE(placed.length / SECTOR - 1, BLOCK_LIST_OFFSET + 8);
  return { code, core: placed };
}
