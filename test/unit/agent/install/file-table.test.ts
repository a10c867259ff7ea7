import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fileOf, packFiles, pathOf } from '#/agent/install/file-table.ts';

const file = fc.record({
  path: fc.string({ unit: 'grapheme' }),
  kind: fc.constantFrom('file', 'image', 'device'),
  sizeBytes: fc.maxSafeNat(),
  sha256: fc
    .uint8Array({ minLength: 32, maxLength: 32 })
    .map((bytes) => Buffer.from(bytes).toString('hex')),
  mode: fc.nat({ max: 0o7777 }),
  uid: fc.nat({ max: 0xffff_ffff }),
  gid: fc.nat({ max: 0xffff_ffff }),
});

describe('file table', () => {
  it('files come out as they went in', () => {
    fc.assert(
      fc.property(fc.array(file), (files) => {
        const table = packFiles(files);
        expect(files.map((_, i) => fileOf(table, i))).toEqual(files);
        expect(files.map((_, i) => pathOf(table, i))).toEqual(files.map(({ path }) => path));
      }),
    );
  });

  it('a number that there is not is no file', () => {
    const table = packFiles([]);
    expect(fileOf(table, 0)).toBeUndefined();
    expect(fileOf(table, -1)).toBeUndefined();
    expect(pathOf(table, 0)).toBe('');
  });
});
