import { createHash } from 'node:crypto';
import { zstdCompressSync } from 'node:zlib';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createChunkOpener } from '#/agent/install/chunk-opener.ts';
import { CHUNK_MAX_BYTES, type ChunkEntry } from '#/bundle/open-chunk.ts';

const openers = [createChunkOpener(), createChunkOpener(false)];

function entryOf(raw: Uint8Array, stored: Uint8Array): ChunkEntry {
  const digest = createHash('sha256').update(raw).digest();
  return { digest, rawSize: raw.length, storedSize: stored.length, offset: 0 };
}

describe('chunk opener', () => {
  it('the decoder of this Node can be kept', () => {
    expect(openers.map(({ kind }) => kind)).toEqual(['kept-decoder', 'one-shot']);
  });

  for (const opener of openers) {
    it(`${opener.kind}: content comes out as it went in, after whatever came before`, () => {
      fc.assert(
        fc.property(
          fc.uint8Array({ minLength: 1, maxLength: 3000 }),
          fc.boolean(),
          (seed, broken) => {
            const raw = Buffer.concat(Array.from({ length: 20 }, () => seed));
            const stored = zstdCompressSync(raw);
            if (stored.length >= raw.length) return;
            if (broken) {
              const bad = Buffer.from(stored);
              bad[seed.length % bad.length] = (bad[seed.length % bad.length] ?? 0) ^ 0xff;
              const opened = opener.open(bad, entryOf(raw, stored));
              if (opened !== null) expect(Buffer.compare(opened, raw)).toBe(0);
            }
            const opened = opener.open(stored, entryOf(raw, stored));
            expect(opened !== null && Buffer.compare(opened, raw) === 0).toBe(true);
          },
        ),
      );
    });

    it(`${opener.kind}: C13 the largest chunk is opened, a bomb is not`, () => {
      const largest = Buffer.alloc(CHUNK_MAX_BYTES, 7);
      const stored = zstdCompressSync(largest);
      expect(opener.open(stored, entryOf(largest, stored))?.length).toBe(CHUNK_MAX_BYTES);
      const bomb = zstdCompressSync(Buffer.alloc(512 * 1024 * 1024));
      const claimed = { ...entryOf(largest, bomb) };
      expect(opener.open(bomb, claimed)).toBeNull();
    });

    it(`${opener.kind}: C01 C02 wrong length, garbage and another chunk are refused`, () => {
      const raw = Buffer.alloc(5000, 'text');
      const stored = zstdCompressSync(raw);
      const entry = entryOf(raw, stored);
      const other = zstdCompressSync(Buffer.alloc(5000, 'other'));
      expect(opener.open(stored.subarray(1), entry)).toBeNull();
      expect(opener.open(Buffer.alloc(stored.length, 1), entry)).toBeNull();
      expect(opener.open(other, { ...entry, storedSize: other.length })).toBeNull();
      expect(opener.open(stored, { ...entry, rawSize: 4999 })).toBeNull();
      expect(opener.open(stored, { ...entry, rawSize: 5001 })).toBeNull();
    });

    it(`${opener.kind}: a chunk that is stored as it is needs no decoder`, () => {
      const raw = Buffer.from('as it is');
      expect(opener.open(raw, entryOf(raw, raw))).toEqual(raw);
      expect(opener.open(Buffer.from('as it Is'), entryOf(raw, raw))).toBeNull();
    });
  }
});
