import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ChunkerName } from '#/bundle/chunk-index.ts';
import { chunkLimits, createChunker } from '#/bundle/chunker.ts';
import { noise } from '#/test/support/bundle/noise.ts';

type Piece = { readonly bytes: Uint8Array; readonly isHole: boolean };

/** Pieces of `bytes` when it is pushed in parts of the given sizes, again and again. Adjacent holes are one. */
function cut(name: ChunkerName, bytes: Uint8Array, reads: readonly number[] = [1 << 20]): Piece[] {
  const pieces: Piece[] = [];
  const chunker = createChunker(name, {
    chunk: (chunk) => pieces.push({ bytes: chunk.slice(), isHole: false }),
    hole: (size) => {
      const before = pieces.at(-1)?.isHole === true ? (pieces.pop()?.bytes.byteLength ?? 0) : 0;
      pieces.push({ bytes: new Uint8Array(before + size), isHole: true });
    },
  });
  for (let at = 0, i = 0; at < bytes.byteLength; i += 1) {
    const size = reads[i % reads.length] ?? 1;
    chunker.push(bytes.subarray(at, at + size));
    at += size;
  }
  chunker.end();
  return pieces;
}

const chunksOf = (pieces: readonly Piece[]): string[] =>
  pieces
    .filter((piece) => !piece.isHole)
    .map((piece) => Buffer.from(piece.bytes).toString('base64'));

/** Streams with noise, zero runs of any length and repeated bytes. */
const stream = fc
  .array(
    fc.record({
      kind: fc.constantFrom('noise', 'zero', 'same'),
      size: fc.oneof(fc.nat(5000), fc.nat(200_000), fc.constantFrom(4096, 8192, 16_384, 65_536)),
      seed: fc.nat(1000),
    }),
    { maxLength: 8 },
  )
  .map((parts) =>
    Buffer.concat(
      parts.map(({ kind, size, seed }) =>
        kind === 'noise' ? noise(size, seed) : Buffer.alloc(size, kind === 'zero' ? 0 : 7),
      ),
    ),
  );

describe.each(['acdc-32k', 'fastcdc-16k'] as const)('%s', (name) => {
  const limits = chunkLimits[name];

  it('loses, repeats and reorders no byte', () => {
    fc.assert(
      fc.property(stream, (bytes) => {
        const all = Buffer.concat(cut(name, bytes).map((piece) => piece.bytes));
        expect(all.equals(bytes)).toBe(true);
      }),
      { numRuns: 40 },
    );
  });

  it('cuts the same whatever the sizes of the reads', () => {
    fc.assert(
      fc.property(
        stream,
        fc.array(
          fc.oneof(fc.integer({ min: 1, max: 9000 }), fc.integer({ min: 1, max: 300_000 })),
          {
            minLength: 1,
            maxLength: 5,
          },
        ),
        (bytes, reads) => {
          expect(cut(name, bytes, reads)).toEqual(cut(name, bytes));
        },
      ),
      { numRuns: 40 },
    );
  });

  it('keeps chunks within their limits, and holes zero', () => {
    fc.assert(
      fc.property(stream, (bytes) => {
        const pieces = cut(name, bytes);
        for (const [i, piece] of pieces.entries()) {
          const size = piece.bytes.byteLength;
          if (piece.isHole) {
            expect(piece.bytes.every((byte) => byte === 0)).toBe(true);
            continue;
          }
          expect(size).toBeLessThanOrEqual(limits.maxBytes);
          const isInFrontOfBoundary = i === pieces.length - 1 || pieces[i + 1]?.isHole === true;
          if (!isInFrontOfBoundary) expect(size).toBeGreaterThanOrEqual(limits.minBytes);
        }
      }),
      { numRuns: 40 },
    );
  });

  it('has chunks of about the average size it is named for', () => {
    const bytes = noise(8 * 1024 * 1024, 1);
    const average = bytes.byteLength / cut(name, bytes).length;
    expect(average).toBeGreaterThan(limits.averageBytes * 0.75);
    expect(average).toBeLessThan(limits.averageBytes * 1.5);
  });

  it('finds its cuts again after an edit in the middle', () => {
    const before = noise(4 * 1024 * 1024, 2);
    const after = Buffer.from(before);
    noise(4096, 3).copy(after, 2 * 1024 * 1024);
    const old = new Set(chunksOf(cut(name, before)));
    const changed = chunksOf(cut(name, after)).filter((chunk) => !old.has(chunk));
    expect(changed.length).toBeGreaterThan(0);
    expect(changed.length).toBeLessThanOrEqual(4);
  });

  it('starts anew at a forced boundary', () => {
    const file = noise(300_000, 4);
    const pieces: string[][] = [[], [], []];
    let round = 0;
    const chunker = createChunker(name, {
      chunk: (chunk) => pieces[round]?.push(Buffer.from(chunk).toString('base64')),
      hole: () => {},
    });
    for (const content of [file, noise(12_345, 5), file]) {
      chunker.push(content);
      chunker.end();
      round += 1;
    }
    expect(pieces[2]).toEqual(pieces[0]);
  });

  it('stores no zero byte of a long hole, whatever surrounds it', () => {
    const bytes = Buffer.concat([
      noise(50_000, 6),
      Buffer.alloc(2 * 1024 * 1024),
      noise(50_000, 7),
    ]);
    const pieces = cut(name, bytes);
    const holes = pieces.filter((piece) => piece.isHole);
    expect(holes).toHaveLength(1);
    expect(holes[0]?.bytes.byteLength).toBeGreaterThan(2 * 1024 * 1024 - 2 * limits.maxBytes);
  });

  it('cuts a megabyte of one repeated byte into whole chunks', () => {
    const pieces = cut(name, Buffer.alloc(1024 * 1024, 9));
    expect(pieces.every((piece) => piece.bytes.byteLength <= limits.maxBytes)).toBe(true);
    expect(pieces.reduce((sum, piece) => sum + piece.bytes.byteLength, 0)).toBe(1024 * 1024);
  });
});

describe('fastcdc-16k', () => {
  it('finds its cuts again after bytes were inserted', () => {
    const before = noise(4 * 1024 * 1024, 8);
    const middle = 2 * 1024 * 1024;
    const after = Buffer.concat([
      before.subarray(0, middle),
      noise(777, 9),
      before.subarray(middle),
    ]);
    const old = new Set(chunksOf(cut('fastcdc-16k', before)));
    const changed = chunksOf(cut('fastcdc-16k', after)).filter((chunk) => !old.has(chunk));
    expect(changed.length).toBeLessThanOrEqual(4);
  });
});

describe('acdc-32k', () => {
  it('finds its cuts again after whole blocks were inserted', () => {
    const before = noise(4 * 1024 * 1024, 10);
    const middle = 2 * 1024 * 1024;
    const after = Buffer.concat([
      before.subarray(0, middle),
      noise(3 * 4096, 11),
      before.subarray(middle),
    ]);
    const old = new Set(chunksOf(cut('acdc-32k', before)));
    const changed = chunksOf(cut('acdc-32k', after)).filter((chunk) => !old.has(chunk));
    expect(changed.length).toBeLessThanOrEqual(4);
  });

  it('cuts only on the grid of 4 KiB', () => {
    const pieces = cut('acdc-32k', noise(1_000_001, 12));
    for (const piece of pieces.slice(0, -1)) expect(piece.bytes.byteLength % 4096).toBe(0);
  });

  it('keeps a hole together whose length is no multiple of the shortest hole', () => {
    const bytes = Buffer.concat([noise(16_384, 13), Buffer.alloc(7 * 4096), noise(16_384, 14)]);
    const holes = cut('acdc-32k', bytes).filter((piece) => piece.isHole);
    expect(holes.map((piece) => piece.bytes.byteLength)).toEqual([7 * 4096]);
  });
});

it('cuts known bytes at known places, so that a change of the rule is seen', () => {
  const bytes = noise(256 * 1024, 42);
  const sizes = (name: ChunkerName): number[] =>
    cut(name, bytes).map((piece) => piece.bytes.byteLength);
  expect({ acdc: sizes('acdc-32k'), fastcdc: sizes('fastcdc-16k') }).toMatchInlineSnapshot(`
    {
      "acdc": [
        20480,
        28672,
        20480,
        24576,
        24576,
        16384,
        24576,
        40960,
        36864,
        16384,
        8192,
      ],
      "fastcdc": [
        21857,
        16505,
        23049,
        12135,
        19070,
        24374,
        27453,
        5090,
        18070,
        6878,
        16794,
        23043,
        21165,
        10821,
        15840,
      ],
    }
  `);
});
