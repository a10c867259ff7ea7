import { createHash } from 'node:crypto';

/** `size` bytes that do not compress, the same for the same seed. */
export function noise(size: number, seed: number): Buffer {
  const blocks: Buffer[] = [];
  for (let i = 0; i * 64 < size; i += 1) {
    blocks.push(createHash('sha512').update(`${seed}/${i}`).digest());
  }
  return Buffer.concat(blocks).subarray(0, size);
}
