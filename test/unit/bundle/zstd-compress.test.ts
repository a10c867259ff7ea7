import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { expect, it } from 'vitest';
import { compressFrame } from '#/bundle/zstd-compress.ts';
import { isSingleFrame } from '#/bundle/zstd-frame.ts';

/** Bytes of which `mask` is random, then zeros. */
function content(randomBytes: number, mask: number): Uint8Array {
  const bytes = new Uint8Array(32 * 1024);
  let state = 0x9e3779b9;
  for (let i = 0; i < randomBytes; i += 1) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes[i] = state & mask;
  }
  return bytes;
}

it('a frame that fills the buffer of the runtime to its last byte has no second frame behind it', () => {
  const level = 15;
  const params = { [constants.ZSTD_c_compressionLevel]: level };
  let trapped = 0;
  // Half of each byte is random: 32 KiB become 16, the size of the runtime's buffer.
  for (let randomBytes = 32_512; randomBytes < 32_528; randomBytes += 1) {
    const raw = content(randomBytes, 0x0f);
    if (!isSingleFrame(zstdCompressSync(raw, { params }))) trapped += 1;
    const frame = compressFrame(raw, level);
    expect(isSingleFrame(frame)).toBe(true);
    expect(Buffer.compare(zstdDecompressSync(frame), raw)).toBe(0);
  }
  // Otherwise this test looks beside the trap that it is about.
  expect(trapped).toBeGreaterThan(0);
});

it('incompressible and empty input fit one frame too', () => {
  for (const raw of [new Uint8Array(0), content(32 * 1024, 0xff), content(300, 0xff)]) {
    for (const level of [1, 9, 19]) {
      expect(Buffer.compare(zstdDecompressSync(compressFrame(raw, level)), raw)).toBe(0);
    }
  }
});
