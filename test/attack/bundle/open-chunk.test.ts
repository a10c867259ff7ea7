import { createHash } from 'node:crypto';
import { constants, zstdCompressSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CHUNK_MAX_BYTES, type ChunkEntry, openChunk } from '#/bundle/open-chunk.ts';
import { causeOf, codeOf } from '#/test/support/bundle/code-of.ts';
import { noise } from '#/test/support/bundle/noise.ts';

const digestOf = (bytes: Uint8Array): Uint8Array => createHash('sha256').update(bytes).digest();
const text = Buffer.from('all chunks are alike until one is not. '.repeat(500));
const frame = zstdCompressSync(text);
const entry: ChunkEntry = {
  digest: digestOf(text),
  rawSize: text.byteLength,
  storedSize: frame.byteLength,
  offset: 0,
};

/** As if the index of a hostile signer promised this stored form. */
const promising = (stored: Uint8Array, changes: Partial<ChunkEntry> = {}): ChunkEntry => ({
  ...entry,
  storedSize: stored.byteLength,
  ...changes,
});

it('gives the content of a compressed and of a plain chunk', () => {
  expect(Buffer.compare(openChunk(frame, entry), text)).toBe(0);
  const plain = noise(5000, 1);
  const stored = { digest: digestOf(plain), rawSize: 5000, storedSize: 5000, offset: 0 };
  expect(Buffer.compare(openChunk(plain, stored), plain)).toBe(0);
});

it('C01 F8 refuses every single flipped bit of a stored chunk', () => {
  for (let bit = 0; bit < frame.byteLength * 8; bit += 1) {
    const damaged = Uint8Array.from(frame);
    damaged[bit >> 3] = (damaged[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    let opened: Uint8Array | null = null;
    const code = codeOf(() => {
      opened = openChunk(damaged, entry);
    });
    // Zstd has bits without meaning; what comes out is then still what was promised.
    if (code === 'nothing') expect(Buffer.compare(opened ?? new Uint8Array(0), text)).toBe(0);
    else expect(code).toBe('E_CHUNK');
  }
});

it('C01 F8 refuses every single flipped bit of a plain chunk', () => {
  const plain = noise(200, 2);
  const promised = { digest: digestOf(plain), rawSize: 200, storedSize: 200, offset: 0 };
  for (let bit = 0; bit < 1600; bit += 1) {
    const damaged = Uint8Array.from(plain);
    damaged[bit >> 3] = (damaged[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    expect(codeOf(() => openChunk(damaged, promised))).toBe('E_CHUNK');
  }
});

it('C02 refuses a good chunk of another place or another artifact', () => {
  const other = zstdCompressSync(
    Buffer.from('another chunk '.repeat(1300).slice(0, text.byteLength)),
  );
  expect(codeOf(() => openChunk(other, promising(other)))).toBe('E_CHUNK');
});

it('F5 refuses a chunk that was cut off at any byte', () => {
  for (let size = 0; size < frame.byteLength; size += 1) {
    expect(codeOf(() => openChunk(frame.subarray(0, size), entry))).toBe('E_CHUNK');
    // Also when the index itself is of that opinion.
    expect(
      codeOf(() => openChunk(frame.subarray(0, size), promising(frame.subarray(0, size)))),
    ).toBe('E_CHUNK');
  }
});

describe('C13 bombs', () => {
  it('refuses a frame of gigabytes for a chunk of kilobytes, in the memory of the chunk', () => {
    // A window as small as that of any chunk, so that the output alone gives it away.
    const bomb = zstdCompressSync(new Uint8Array(512 * 1024 * 1024), {
      params: { [constants.ZSTD_c_windowLog]: 16 },
    });
    expect(bomb.byteLength).toBeLessThan(100_000);
    expect(codeOf(() => openChunk(bomb, promising(bomb, { rawSize: CHUNK_MAX_BYTES })))).toBe(
      'E_CHUNK',
    );
    expect(causeOf(() => openChunk(bomb, promising(bomb, { rawSize: CHUNK_MAX_BYTES })))).toBe(
      'ERR_BUFFER_TOO_LARGE',
    );
  });

  it('refuses a chunk that is smaller than the index says, though its digest is right', () => {
    for (const rawSize of [text.byteLength + 1, text.byteLength - 1, CHUNK_MAX_BYTES]) {
      expect(codeOf(() => openChunk(frame, { ...entry, rawSize }))).toBe('E_CHUNK');
    }
  });

  it('refuses a frame whose window is larger than any chunk', () => {
    const content = noise(CHUNK_MAX_BYTES, 3);
    const streamed = zstdCompressSync(Buffer.concat([content, content, content, content]), {
      params: { [constants.ZSTD_c_windowLog]: 27, [constants.ZSTD_c_contentSizeFlag]: 0 },
    });
    expect(
      codeOf(() => openChunk(streamed, promising(streamed, { rawSize: 4 * CHUNK_MAX_BYTES }))),
    ).toBe('E_CHUNK');
  });

  it('refuses two frames, an extra byte, and a skippable frame that hides something', () => {
    const hidden = Buffer.concat([
      Buffer.from([0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0]),
      Buffer.from('evil'),
    ]);
    for (const stored of [
      Buffer.concat([frame, frame]),
      Buffer.concat([frame, Buffer.from([1])]),
      Buffer.concat([frame, hidden]),
      Buffer.concat([hidden, frame]),
    ]) {
      expect(codeOf(() => openChunk(stored, promising(stored)))).toBe('E_CHUNK');
    }
  });
});

it('F8 random bytes never do anything but fail with a code', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 300 }), (tail) => {
      const stored = Buffer.concat([frame.subarray(0, 6), tail]);
      expect(codeOf(() => openChunk(stored, promising(stored)))).toBe('E_CHUNK');
    }),
    { numRuns: 1000 },
  );
});
