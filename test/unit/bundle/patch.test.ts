/** Bounds of a patch: everything that it declares is checked before it is used. */
import { describe, expect, it } from 'vitest';
import {
  DICTIONARY_MAX_BYTES,
  dictionaryBuffer,
  encodePatchHeader,
  encodePatchTable,
  inflate,
  openPatchTable,
  packPatchTable,
  packWithDictionary,
  parsePatchHeader,
  patchPathOf,
  type PatchHeader,
  type PatchSegment,
  SEGMENT_MAX_BYTES,
} from '#/bundle/patch.ts';
import { isProblem } from '#/protocol/errors.ts';
import { softwareLike } from '#/test/support/install/payloads.ts';

const OLD_BYTES = 4 * 1024 * 1024;
const wanted = { rawSizes: new Uint32Array(10).fill(60_000) };
const missing = [2, 3, 5, 8];

function segment(changes: Partial<PatchSegment> = {}): PatchSegment {
  const ranges = [{ position: 100, sizeBytes: 5000 }];
  return { chunks: [2, 3], rawBytes: 0, storedBytes: 400, offset: 0, ranges, ...changes };
}
const second = segment({ chunks: [5, 8], storedBytes: 0, ranges: [] });

function headerOf(table: Uint8Array, changes: Partial<PatchHeader> = {}): PatchHeader {
  return {
    from: '1'.repeat(64),
    to: '2'.repeat(64),
    indexStoredBytes: 7,
    tableBytes: table.byteLength,
    tableStoredBytes: packPatchTable(table).byteLength,
    segmentCount: 2,
    dataBytes: 400,
    ...changes,
  };
}

function open(segments: readonly PatchSegment[], changes: Partial<PatchHeader> = {}) {
  const table = encodePatchTable(segments);
  const header = headerOf(table, { segmentCount: segments.length, ...changes });
  return openPatchTable(packPatchTable(table), header, missing, wanted, OLD_BYTES);
}

function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (isProblem(error)) return error.code;
    throw error;
  }
  return 'nothing';
}

describe('the header', () => {
  it('comes back as it was written; anything else is no patch', () => {
    const header = headerOf(new Uint8Array(5));
    const bytes = encodePatchHeader(header);
    expect(parsePatchHeader(bytes, 1000)).toEqual(header);
    expect(codeOf(() => parsePatchHeader(bytes.subarray(0, 99), 1000))).toBe('E_SCHEMA');
    expect(codeOf(() => parsePatchHeader(Buffer.from('<html>'.repeat(30)), 1000))).toBe('E_SCHEMA');
  });

  it.each([
    ['more data than the bundle has', { dataBytes: 1001 }],
    ['a table over the limit', { tableBytes: 2 ** 31 }],
    ['a stored table much larger than the table', { tableStoredBytes: 2 ** 30 }],
    ['an index over the limit', { indexStoredBytes: 2 ** 31 }],
  ])('%s is refused before memory is set aside', (_, changes) => {
    const bytes = encodePatchHeader(headerOf(new Uint8Array(5), changes));
    expect(codeOf(() => parsePatchHeader(bytes, 1000))).toBe('E_SIZE');
  });
});

describe('the table', () => {
  it('gives segments with their chunks, offsets and ranges', () => {
    expect(open([segment(), second])).toMatchObject([
      { chunks: [2, 3], rawBytes: 120_000, storedBytes: 400, offset: 0 },
      { chunks: [5, 8], rawBytes: 120_000, storedBytes: 0, offset: 400, ranges: [] },
    ]);
  });

  const range = (position: number, sizeBytes: number) =>
    segment({ ranges: [{ position, sizeBytes }] });
  it.each([
    ['a range that ends outside of the old version', [range(OLD_BYTES - 10, 11), second], 'E_SIZE'],
    ['an empty range', [range(0, 0), second], 'E_SIZE'],
    ['a dictionary over the limit', [range(0, DICTIONARY_MAX_BYTES + 1), second], 'E_SIZE'],
    ['a segment over the limit', [segment({ chunks: [2, 3, 5, 8, 9] })], 'E_SCHEMA'],
    [
      'stored bytes over the limit',
      [segment({ storedBytes: SEGMENT_MAX_BYTES + 1 }), second],
      'E_SIZE',
    ],
    ['fewer chunks than are missing', [segment()], 'E_SCHEMA'],
    ['a segment without chunks', [segment({ chunks: [] }), second], 'E_SCHEMA'],
    ['more segments than chunks', [0, 1, 2, 3, 4].map(() => second), 'E_SCHEMA'],
  ])('%s is refused', (_, segments, code) => {
    expect(codeOf(() => open(segments))).toBe(code);
  });

  it('five chunks of a quarter of the limit are one too many for a segment', () => {
    const large = { rawSizes: new Uint32Array(10).fill(SEGMENT_MAX_BYTES / 4) };
    const five = segment({ chunks: [0, 1, 2, 3, 4] });
    const table = encodePatchTable([five]);
    const header = headerOf(table, { segmentCount: 1 });
    const read = () =>
      openPatchTable(packPatchTable(table), header, [0, 1, 2, 3, 4], large, OLD_BYTES);
    expect(codeOf(read)).toBe('E_SIZE');
  });

  it('bytes behind it, a wrong size and a wrong sum of data are refused', () => {
    expect(codeOf(() => open([segment(), second], { dataBytes: 401 }))).toBe('E_SIZE');
    expect(codeOf(() => open([segment(), second], { tableBytes: 3 }))).toBe('E_HASH');
    const longer = Buffer.concat([encodePatchTable([segment(), second]), Buffer.of(0)]);
    const read = () =>
      openPatchTable(packPatchTable(longer), headerOf(longer), missing, wanted, OLD_BYTES);
    expect(codeOf(read)).toBe('E_SCHEMA');
  });
});

describe('a segment', () => {
  // Without repetition: each part of it is there once.
  const old = Buffer.from(softwareLike(9000, 1));
  const raw = Buffer.concat([old.subarray(1000, 8000), Buffer.from('new'), old.subarray(0, 500)]);

  it('needs the old content that it was made with', () => {
    const { whole, content } = dictionaryBuffer(old.length);
    content.set(old);
    const stored = packWithDictionary(raw, whole, 19);
    expect(stored.byteLength).toBeLessThan(100);
    expect(Buffer.from(inflate(stored, raw.length, whole) ?? []).equals(raw)).toBe(true);
    content[3000] = (content[3000] ?? 0) ^ 1;
    expect(Buffer.from(inflate(stored, raw.length, whole) ?? []).equals(raw)).toBe(false);
    expect(inflate(stored, raw.length, null)).toBeNull();
    expect(inflate(stored, raw.length - 1, whole)).toBeNull();
  });

  it('old content that looks like a trained dictionary is content like any other', () => {
    const { whole, content } = dictionaryBuffer(old.length);
    content.set(old);
    content.set([0x37, 0xa4, 0x30, 0xec]);
    const out = inflate(packWithDictionary(raw, whole, 3), raw.length, whole);
    expect(Buffer.from(out ?? []).equals(raw)).toBe(true);
  });
});

it('the name of a patch follows from the bundle and the version that it starts from', () => {
  expect(patchPathOf('/mirror/web-2.bundle', 'ab')).toBe('/mirror/web-2.from-ab.patch');
  expect(patchPathOf('/mirror/web', 'ab')).toBe('/mirror/web.from-ab.patch');
});
