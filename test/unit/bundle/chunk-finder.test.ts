import fc from 'fast-check';
import { expect, it } from 'vitest';
import { chunkFinder } from '#/bundle/chunk-finder.ts';
import { DIGEST_BYTES } from '#/bundle/chunk-index.ts';

/** One digest per text: its bytes, then zeros, so that equal starts are common. */
function indexOf(texts: readonly string[]) {
  const digests = new Uint8Array(texts.length * DIGEST_BYTES);
  for (const [number, text] of texts.entries())
    digests.set(Buffer.from(text, 'latin1').subarray(0, DIGEST_BYTES), number * DIGEST_BYTES);
  return { chunkCount: texts.length, digests };
}

it('finds each chunk by its whole digest, also among those that start the same', () => {
  const digest = fc.string({ unit: fc.constantFrom('a', 'b'), minLength: 1, maxLength: 8 });
  fc.assert(
    fc.property(fc.uniqueArray(digest, { maxLength: 40 }), fc.array(digest), (held, wanted) => {
      const find = chunkFinder(indexOf(held));
      const other = indexOf(wanted);
      const expected = wanted.map((text) => held.indexOf(text));
      expect(wanted.map((_, number) => find(other, number) ?? -1)).toEqual(expected);
    }),
    { numRuns: 500 },
  );
});

it('an index without chunks holds none', () => {
  expect(chunkFinder(indexOf([]))(indexOf(['a']), 0)).toBeNull();
});
