import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createReadBack } from '#/agent/install/read-back.ts';

const directory = mkdtempSync(join(tmpdir(), 'switchback-read-back-'));
const path = join(directory, 'image');
/** Pieces across the reads of 1 MiB and off the grid: content, a hole, content, content up to an odd end. */
const positions = Float64Array.from([0, 700_001, 2_900_000, 3_100_003, 3_300_007]);
const chunks = Int32Array.from([1, -1, 0, 2]);
const content = new Uint8Array(3_300_007);
const digests = new Uint8Array(3 * 32);

beforeAll(() => {
  for (const [piece, chunk] of chunks.entries()) {
    if (chunk < 0) continue;
    const part = content.subarray(positions[piece], positions[piece + 1]);
    for (let i = 0; i < part.length; i += 1) part[i] = (i * 31 + piece * 7 + (i >>> 9)) & 0xff;
    digests.set(createHash('sha256').update(part).digest(), chunk * 32);
  }
});
afterAll(() => rmSync(directory, { recursive: true }));

function compare(from: number, to: number): boolean {
  const pieces = { chunks, positions, digests };
  return createReadBack().compare(path, content.length, pieces, from, to).same;
}

it('F24 an image is what its chunks and holes say, read in any parts', () => {
  writeFileSync(path, content);
  expect(compare(0, 4)).toBe(true);
  for (let from = 0; from < 4; from += 1) expect(compare(from, from + 1)).toBe(true);
});

it('F24 one changed byte is seen, also in a hole and at the very ends, and nowhere else', () => {
  for (const at of [0, 700_000, 700_001, 1_900_000, 2_899_999, 2_900_000, 3_300_006]) {
    const damaged = Uint8Array.from(content);
    damaged[at] = (damaged[at] ?? 0) ^ 1;
    writeFileSync(path, damaged);
    expect(compare(0, 4)).toBe(false);
    for (let piece = 0; piece < 4; piece += 1) {
      const isIn = at >= (positions[piece] ?? 0) && at < (positions[piece + 1] ?? 0);
      expect(compare(piece, piece + 1)).toBe(!isIn);
    }
  }
});

it('F24 an image that is cut short, longer or gone is not the image', () => {
  writeFileSync(path, content);
  truncateSync(path, content.length - 1);
  expect(compare(0, 1)).toBe(false);
  truncateSync(path, content.length + 1);
  expect(compare(0, 1)).toBe(false);
  rmSync(path);
  expect(compare(0, 4)).toBe(false);
});
