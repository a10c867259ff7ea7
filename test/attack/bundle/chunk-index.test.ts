import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  chunkAt,
  type ChunkIndex,
  INDEX_MAX_BYTES,
  openIndex,
  parseIndex,
} from '#/bundle/chunk-index.ts';
import { encodeIndex, packIndex } from '#/bundle/index-encode.ts';
import { encodeManifest, type Manifest, type Payload } from '#/bundle/manifest.ts';
import { CHUNK_MAX_BYTES } from '#/bundle/open-chunk.ts';
import { isProblem } from '#/protocol/errors.ts';
import { causeOf, codeOf } from '#/test/support/bundle/code-of.ts';
import {
  directory,
  fakeChunk,
  file,
  imageIndex,
  manifestOver,
  sha256,
  treeIndex,
} from '#/test/support/bundle/sample-index.ts';

const GiB = 2 ** 30;

/** The index with a 32-bit field at byte `at` replaced; the manifest keeps vouching for it. */
function patched(
  { raw, manifest }: { readonly raw: Uint8Array; readonly manifest: Manifest },
  at: number,
  value: number,
): { readonly raw: Uint8Array; readonly manifest: Manifest } {
  const bytes = Uint8Array.from(raw);
  new DataView(bytes.buffer).setUint32(at, value, true);
  return { raw: bytes, manifest: withIndex(manifest, bytes) };
}

const withIndex = (manifest: Manifest, raw: Uint8Array): Manifest => ({
  ...manifest,
  index: { sha256: sha256(raw), sizeBytes: raw.byteLength },
});
const withPayload = (manifest: Manifest, changes: Partial<Payload>): Manifest => ({
  ...manifest,
  payloads: manifest.payloads.map((payload) => ({ ...payload, ...changes }) as Payload),
});
const parse = ({
  raw,
  manifest,
}: {
  readonly raw: Uint8Array;
  readonly manifest: Manifest;
}): string => codeOf(() => parseIndex(raw, manifest));

describe('sizes', () => {
  it('F14 an image of 5 TiB with holes keeps every position exact', () => {
    const sizes = [40_000, -(2 * 1024 * GiB + 4096), 32_768, -(3 * 1024 * GiB), 20_480];
    const { raw, manifest } = imageIndex(sizes);
    const [payload] = parseIndex(raw, manifest).payloads;
    let position = 0;
    expect([...(payload?.positions ?? [])]).toEqual([
      0,
      ...sizes.map((size) => (position += Math.abs(size))),
    ]);
    expect(payload?.streamBytes).toBe(manifest.payloads[0]?.sizeBytes);
  });

  it('F14 chunks beyond 4 GiB of data have offsets beyond 32 bits', () => {
    const count = 20_000;
    const { raw, manifest } = imageIndex(Array.from({ length: count }, () => CHUNK_MAX_BYTES));
    const index = parseIndex(raw, manifest);
    expect(manifest.dataBytes).toBeGreaterThan(4 * GiB);
    expect(index.offsets[count - 1]).toBe((count - 1) * CHUNK_MAX_BYTES);
    expect(index.offsets[count]).toBe(manifest.dataBytes);
  });

  it('C14 refuses holes that sum up to 2^53 bytes', () => {
    const half = 2 ** 52;
    const { raw, manifest } = imageIndex([-half, 4096, -half], { sizeBytes: 1 });
    expect(parse({ raw, manifest })).toBe('E_SIZE');
  });

  it('C14 refuses a hole of 2^53 bytes and more', () => {
    const sample = imageIndex([4096, -4096]);
    expect(parse(patched(sample, sample.raw.byteLength - 4, 0x20_0000))).toBe('E_SIZE');
    expect(parse(patched(sample, sample.raw.byteLength - 4, 0xffff_ffff))).toBe('E_SIZE');
  });

  it('C14 refuses files of a tree that sum up to 2^53 bytes', () => {
    const huge = { ...file('a'), sizeBytes: 2 ** 53 - 1 } as ReturnType<typeof file>;
    const { raw, manifest } = treeIndex([huge, file('b')], 65_536, { sizeBytes: 1 });
    expect(parse({ raw, manifest })).toBe('E_SIZE');
  });

  it('C14 refuses a manifest whose sizes sum up to 2^53 bytes', () => {
    const { raw, manifest } = imageIndex([4096]);
    const payload = { ...manifest.payloads[0], sizeBytes: 2 ** 52 } as Payload;
    const payloads = [payload, { ...payload, name: 'other' }];
    expect(codeOf(() => encodeManifest(manifestOver(raw, payloads, 0)))).toBe('E_SIZE');
    expect(codeOf(() => encodeManifest({ ...manifest, dataBytes: 2 ** 53 }))).toBe('E_SCHEMA');
  });

  it('C13 refuses a file that is bigger or smaller than declared', () => {
    const entries = [directory('d'), file('d/a', 'x'.repeat(1000))];
    for (const streamBytes of [999, 1001, 1, 500_000]) {
      expect(parse(treeIndex(entries, streamBytes))).toBe('E_SIZE');
    }
    expect(parse(treeIndex(entries, 1000))).toBe('nothing');
  });

  it('C13 refuses an image that is bigger or smaller than declared', () => {
    const { raw, manifest } = imageIndex([4096, -8192]);
    for (const sizeBytes of [0, 4096, 12_287, 12_289, 2 ** 40]) {
      expect(parse({ raw, manifest: withPayload(manifest, { sizeBytes }) })).toBe('E_SIZE');
    }
  });

  it('C13 refuses one digest with two sizes, from which a slot could grow', () => {
    const one = file('a', 'x'.repeat(100));
    const other = { ...one, path: 'b', sizeBytes: 200 } as typeof one;
    expect(parse(treeIndex([one, other], 100))).toBe('E_SIZE');
  });

  it('refuses an empty file with the digest of something', () => {
    const wrong = { ...file('a', ''), sha256: '1'.repeat(64) } as ReturnType<typeof file>;
    expect(parse(treeIndex([wrong], 0))).toBe('E_HASH');
  });

  it.each([
    ['empty', 0, 0],
    ['larger than its limit', CHUNK_MAX_BYTES + 1, 10],
    ['stored in nothing', 4096, 0],
    ['stored in more than its content', 4096, 4097],
  ])('C13 refuses a chunk that is %s', (_, rawSize, storedSize) => {
    const raw = encodeIndex(
      [fakeChunk(0, rawSize, storedSize)],
      [{ chunker: 'acdc-32k', pieces: [{ chunk: 0 }], entries: null }],
    );
    const { manifest } = imageIndex([4096], { sizeBytes: rawSize });
    expect(parse({ raw, manifest: { ...withIndex(manifest, raw), dataBytes: storedSize } })).toBe(
      'E_SIZE',
    );
  });

  it('C13 refuses data that is longer or shorter than its chunks', () => {
    const { raw, manifest } = imageIndex([4096]);
    expect(parse({ raw, manifest: { ...manifest, dataBytes: 4097 } })).toBe('E_SIZE');
    const longer = patched({ raw, manifest }, 24, 4097);
    expect(parse({ ...longer, manifest: { ...longer.manifest, dataBytes: 4097 } })).toBe('E_SIZE');
  });
});

describe('form', () => {
  const sample = imageIndex([4096, -4096, 4096]);

  it.each([
    ['another mark', 0, 0],
    ['a newer version', 8, 2],
    ['another codec', 12, 2],
    ['four thousand million chunks', 16, 0xffff_ffff],
    ['no payload', 20, 0],
    ['four thousand million payloads', 20, 0xffff_ffff],
  ])('refuses %s', (_, at, value) => {
    expect(parse(patched(sample, at, value))).toBe('E_SCHEMA');
  });

  it('C13 refuses a count of pieces that its bytes cannot hold before it allocates', () => {
    const pieceCountAt = 32 + 2 * 40 + 4;
    expect(parse(patched(sample, pieceCountAt, 0xffff_ffff))).toBe('E_SCHEMA');
    expect(parse(patched(sample, pieceCountAt + 4, 0xffff_ffff))).toBe('E_SCHEMA');
    expect(parse(patched(sample, pieceCountAt + 8, 0xffff_ffff))).toBe('E_SCHEMA');
  });

  it('refuses a chunk that no piece uses, and a piece without a chunk', () => {
    const firstPiece = 32 + 2 * 40 + 16;
    expect(parse(patched(sample, firstPiece + 8, -1 >>> 0))).toBe('E_SCHEMA');
    expect(parse(patched(sample, firstPiece, 5))).toBe('E_SCHEMA');
    expect(parse(patched(sample, firstPiece, -5 >>> 0))).toBe('E_SCHEMA');
  });

  it('refuses one chunk in two rows', () => {
    const chunk = fakeChunk(0, 4096);
    const raw = encodeIndex(
      [chunk, chunk],
      [{ chunker: 'acdc-32k', pieces: [{ chunk: 0 }, { chunk: 1 }], entries: null }],
    );
    const { manifest } = imageIndex([4096, 4096]);
    expect(parse({ raw, manifest: withIndex(manifest, raw) })).toBe('E_SCHEMA');
  });

  it('refuses two holes in a row, which would be a second form of one', () => {
    const raw = encodeIndex(
      [],
      [{ chunker: 'acdc-32k', pieces: [{ hole: 1 }, { hole: 2 }], entries: null }],
    );
    const { manifest } = imageIndex([-1, -2]);
    expect(parse({ raw, manifest: withIndex(manifest, raw) })).toBe('E_SCHEMA');
  });

  it.each([
    ['entryCount', { entryCount: 3 }, 'E_SIZE'],
    ['treeSha256', { treeSha256: '1'.repeat(64) }, 'E_HASH'],
    ['chunkCount', { chunkCount: 7 }, 'E_SIZE'],
    ['chunker', { chunker: 'acdc-32k' }, 'E_SCHEMA'],
  ] as const)('refuses an index that differs from its manifest in %s', (_, changes, code) => {
    const { raw, manifest } = treeIndex([directory('d'), file('d/a')], 3);
    expect(parse({ raw, manifest })).toBe('nothing');
    expect(parse({ raw, manifest: withPayload(manifest, changes) })).toBe(code);
  });

  it('refuses a tree where the manifest has an image', () => {
    const { raw } = treeIndex([file('a')], 1);
    const { manifest } = imageIndex([1]);
    expect(parse({ raw, manifest: { ...withIndex(manifest, raw), dataBytes: 1 } })).toBe(
      'E_SCHEMA',
    );
  });
});

describe('the stored index', () => {
  const { raw, manifest } = treeIndex([directory('d'), file('d/a')], 3);

  it('is what was packed', () => {
    expect(openIndex(packIndex(raw), manifest)).toEqual(parseIndex(raw, manifest));
  });

  it('F5 refuses an index that was cut off at any byte', () => {
    const stored = packIndex(raw);
    for (let size = 0; size < stored.byteLength; size += 1) {
      expect(codeOf(() => openIndex(stored.subarray(0, size), manifest))).toBe('E_HASH');
    }
  });

  it('C13 refuses an index that unpacks to more than the manifest says, without unpacking it', () => {
    const bomb = packIndex(new Uint8Array(64 * 1024 * 1024));
    expect(bomb.byteLength).toBeLessThan(10_000);
    expect(codeOf(() => openIndex(bomb, manifest))).toBe('E_HASH');
    expect(causeOf(() => openIndex(bomb, manifest))).toBe('ERR_BUFFER_TOO_LARGE');
  });

  it('C13 refuses an index over the limit before anything is unpacked', () => {
    const index = { sha256: manifest.index.sha256, sizeBytes: INDEX_MAX_BYTES + 1 };
    expect(codeOf(() => openIndex(packIndex(raw), { ...manifest, index }))).toBe('E_SIZE');
  });

  it('C02 refuses the index of another artifact', () => {
    const other = treeIndex([directory('d'), file('d/b')], 3);
    expect(codeOf(() => openIndex(packIndex(other.raw), manifest))).toBe('E_HASH');
    // An image has no listing that would give it away: the digest of the index alone decides.
    const image = imageIndex([4096]);
    const changed = Uint8Array.from(image.raw);
    changed[40] = (changed[40] ?? 0) ^ 1;
    expect(codeOf(() => openIndex(packIndex(changed), image.manifest))).toBe('E_HASH');
  });
});

function encodedAgain(index: ChunkIndex): Uint8Array {
  const chunks = Array.from({ length: index.chunkCount }, (_, number) => chunkAt(index, number));
  const payloads = index.payloads.map(({ chunker, chunks: used, positions, tree }) => ({
    chunker,
    pieces: Array.from(used, (chunk, i) =>
      chunk < 0 ? { hole: (positions[i + 1] ?? 0) - (positions[i] ?? 0) } : { chunk },
    ),
    entries: tree?.entries ?? null,
  }));
  return encodeIndex(chunks, payloads);
}

describe('any bytes', () => {
  it('F5 a damaged index is refused with a code or is the one encoding of what it says', () => {
    const samples = [
      imageIndex([4096, -4096, 8192, -(2 ** 40), 100]),
      treeIndex([directory('d'), file('d/a', 'aaa'), file('d/b', 'bb'), file('d/c', 'bb')], 5),
    ];
    fc.assert(
      fc.property(
        fc.constantFrom(...samples),
        fc.array(fc.tuple(fc.nat(), fc.integer({ min: 1, max: 255 })), {
          minLength: 1,
          maxLength: 3,
        }),
        (sample, flips) => {
          const damaged = Uint8Array.from(sample.raw);
          for (const [at, flip] of flips)
            damaged[at % damaged.byteLength] = (damaged[at % damaged.byteLength] ?? 0) ^ flip;
          // As if the signer had vouched for it: the parser alone has to stand.
          const manifest = withIndex(sample.manifest, damaged);
          let index: ChunkIndex | null = null;
          try {
            index = parseIndex(damaged, manifest);
          } catch (error) {
            if (!isProblem(error)) throw error;
          }
          if (index !== null) expect(Buffer.compare(encodedAgain(index), damaged)).toBe(0);
        },
      ),
      { numRuns: 3000 },
    );
  });

  it('random bytes never do anything but fail with a code', () => {
    const { manifest } = imageIndex([4096]);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (tail) => {
        const bytes = Buffer.concat([imageIndex([4096]).raw.subarray(0, 12), tail]);
        expect(['E_SCHEMA', 'E_SIZE']).toContain(codeOf(() => parseIndex(bytes, manifest)));
      }),
      { numRuns: 500 },
    );
  });
});
