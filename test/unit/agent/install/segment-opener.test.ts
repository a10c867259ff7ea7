import { zstdCompressSync } from 'node:zlib';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createSegmentOpener } from '#/agent/install/segment-opener.ts';
import {
  DICTIONARY_MAX_BYTES,
  dictionaryBuffer,
  packWithDictionary,
  SEGMENT_MAX_BYTES,
} from '#/bundle/patch.ts';

const LEVEL = 3;
const openers = [createSegmentOpener(), createSegmentOpener(false)];

/** Bytes that do not compress, the same for the same seed. */
function noise(sizeBytes: number, seed: number): Uint8Array {
  let state = seed | 1;
  return Uint8Array.from({ length: sizeBytes }, () => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return state >>> 24;
  });
}

function dictionaryOf(content: Uint8Array): Uint8Array {
  const dictionary = dictionaryBuffer(content.byteLength);
  dictionary.content.set(content);
  return dictionary.whole;
}

const isSame = (a: Uint8Array | null, b: Uint8Array): boolean =>
  a !== null && Buffer.compare(a, b) === 0;

describe('segment opener', () => {
  it('the decoder of this Node can write into a buffer that is kept', () => {
    expect(openers.map(({ kind }) => kind)).toEqual(['kept-buffer', 'one-shot']);
  });

  for (const { kind, open } of openers) {
    it(`${kind}: content comes out as it went in, after whatever came before`, () => {
      fc.assert(
        fc.property(
          fc.uint8Array({ minLength: 1, maxLength: 3000 }),
          fc.uint8Array({ minLength: 1, maxLength: 3000 }),
          fc.nat(),
          (raw, old, place) => {
            const dictionary = dictionaryOf(old);
            const stored = packWithDictionary(raw, dictionary, LEVEL);
            const bad = Buffer.from(stored);
            bad[place % bad.length] = (bad[place % bad.length] ?? 0) ^ 0xff;
            const opened = open(bad, raw.byteLength, dictionary);
            expect(opened === null || opened.byteLength === raw.byteLength).toBe(true);
            expect(isSame(open(stored, raw.byteLength, dictionary), raw)).toBe(true);
          },
        ),
      );
    });

    it(`${kind}: the largest segment with the largest dictionary`, () => {
      const old = noise(DICTIONARY_MAX_BYTES, 1);
      const raw = old.slice(0, SEGMENT_MAX_BYTES);
      const dictionary = dictionaryOf(old);
      const stored = packWithDictionary(raw, dictionary, LEVEL);
      expect(stored.byteLength).toBeLessThan(1000);
      expect(isSame(open(stored, raw.byteLength, dictionary), raw)).toBe(true);
    });

    it(`${kind}: C13 a frame that has more or less content than is said, and a bomb`, () => {
      const raw = noise(5000, 2);
      const dictionary = dictionaryOf(raw);
      const stored = packWithDictionary(raw, dictionary, LEVEL);
      expect(open(stored, 4999, dictionary)).toBeNull();
      expect(open(stored, 5001, dictionary)).toBeNull();
      expect(open(stored.subarray(0, stored.byteLength - 1), 5000, dictionary)).toBeNull();
      const bomb = zstdCompressSync(Buffer.alloc(64 * 1024 * 1024));
      expect(open(bomb, SEGMENT_MAX_BYTES, null)).toBeNull();
      expect(open(bomb, 100, dictionary)).toBeNull();
    });

    it(`${kind}: F83 old content that is another gives other content or none, never a crash`, () => {
      const raw = noise(5000, 3);
      const stored = packWithDictionary(raw, dictionaryOf(raw), LEVEL);
      expect(isSame(open(stored, 5000, dictionaryOf(noise(5000, 4))), raw)).toBe(false);
      expect(isSame(open(stored, 5000, dictionaryOf(raw.subarray(0, 10))), raw)).toBe(false);
      expect(isSame(open(stored, 5000, null), raw)).toBe(false);
      expect(isSame(open(stored, 5000, dictionaryOf(raw)), raw)).toBe(true);
    });
  }
});
