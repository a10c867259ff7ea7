import fc from 'fast-check';
import { expect, it } from 'vitest';
import { comparePaths, type TreeEntry } from '#/bundle/tree-entry.ts';
import { SMALL_FILE_MAX_BYTES, slicesOf, treeLayout } from '#/bundle/tree-layout.ts';
import { directory, file, sha256 } from '#/test/support/bundle/sample-index.ts';

/** A file of `size` bytes with the content number `content`: the same number is the same content. */
const sized = (path: string, size: number, content: number): TreeEntry => ({
  ...file(path),
  kind: 'file',
  sizeBytes: size,
  sha256: size === 0 ? sha256(Buffer.alloc(0)) : sha256(Buffer.from(`${content}/${size}`)),
});

const size = fc.oneof(
  fc.nat(50),
  fc.constantFrom(0, SMALL_FILE_MAX_BYTES - 1, SMALL_FILE_MAX_BYTES, 200_000),
);
const tree = fc
  .array(fc.tuple(size, fc.nat(2)), { maxLength: 12 })
  .map((files) =>
    files
      .map(([bytes, content], i) => sized(`f${i}`, bytes, content))
      .toSorted((a, b) => comparePaths(a.path, b.path)),
  );

it('small files come first, a content comes once, nothing overlaps and no gap is left', () => {
  fc.assert(
    fc.property(tree, (entries) => {
      const { contents, streamBytes, contentBytes } = treeLayout(entries);
      let position = 0;
      let isLarge = false;
      for (const content of contents) {
        expect(content.position).toBe(position);
        position += content.sizeBytes;
        expect(isLarge && content.sizeBytes < SMALL_FILE_MAX_BYTES).toBe(false);
        isLarge = content.sizeBytes >= SMALL_FILE_MAX_BYTES;
      }
      expect(streamBytes).toBe(position);
      const named = contents.flatMap((content) => content.files).toSorted((a, b) => a - b);
      const filled = entries.flatMap((entry, i) =>
        entry.kind === 'file' && entry.sizeBytes > 0 ? [i] : [],
      );
      expect(named).toEqual(filled);
      expect(contentBytes).toBe(
        contents.reduce((sum, one) => sum + one.sizeBytes * one.files.length, 0),
      );
    }),
    { numRuns: 300 },
  );
});

it('every byte of every file is filled exactly once, however the stream is cut', () => {
  fc.assert(
    fc.property(tree, fc.integer({ min: 1000, max: 70_000 }), (entries, step) => {
      const layout = treeLayout(entries);
      const filledTo = entries.map(() => 0);
      for (let from = 0; from < layout.streamBytes; from += step) {
        const bytes = Math.min(step, layout.streamBytes - from);
        for (const slice of slicesOf(layout, from, bytes)) {
          expect(slice.fileOffset).toBe(filledTo[slice.file]);
          expect(slice.rangeOffset + slice.sizeBytes).toBeLessThanOrEqual(bytes);
          filledTo[slice.file] = slice.fileOffset + slice.sizeBytes;
        }
      }
      const sizes = entries.map((entry) => (entry.kind === 'file' ? entry.sizeBytes : 0));
      expect(filledTo).toEqual(sizes);
    }),
    { numRuns: 300 },
  );
});

it('a tree without content has an empty stream', () => {
  expect(treeLayout([directory('a'), file('a/empty', '')])).toEqual({
    streamBytes: 0,
    contentBytes: 0,
    contents: [],
  });
  expect(slicesOf(treeLayout([]), 0, 0)).toEqual([]);
});
