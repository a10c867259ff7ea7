/**
 * `fastcdc-16k`: cuts anywhere, by a gear hash over the 32 bytes in front of the cut, with normalised sizes (FastCDC, level
 * 2). For trees and for images whose files grow by insertion. docs/specs/bundle-format.md, section 5.2.
 */
import { createHash } from 'node:crypto';
import type { ChunkLimits, FindPiece } from '#/bundle/chunker.ts';

export const fastcdcLimits: ChunkLimits = {
  minBytes: 4 * 1024,
  averageBytes: 16 * 1024,
  maxBytes: 64 * 1024,
};
/** Two bits harder than the average below it, two bits easier above. The top bits see the whole window. */
const MASK_BELOW_AVERAGE = 0xffff_0000 | 0;
const MASK_ABOVE_AVERAGE = 0xfff0_0000 | 0;

const WINDOW_BYTES = 32;

const gear: Int32Array = gearTable();

/** Entry i: the first four bytes, little-endian, of sha256("switchback gear" and the byte i). */
function gearTable(): Int32Array {
  return Int32Array.from({ length: 256 }, (_, i) =>
    createHash('sha256').update('switchback gear').update(Uint8Array.of(i)).digest().readInt32LE(0),
  );
}

/** Finds the next piece. A piece of zeros only is a hole. */
export const findFastcdcPiece: FindPiece = (bytes, from, to, isEnd) => {
  const available = to - from;
  if (available < fastcdcLimits.maxBytes && !isEnd) return null;
  const sizeBytes = cutPoint(bytes, from, Math.min(available, fastcdcLimits.maxBytes));
  return { sizeBytes, isHole: isZero(bytes, from, from + sizeBytes) };
};

function cutPoint(bytes: Uint8Array, from: number, available: number): number {
  const { minBytes, averageBytes } = fastcdcLimits;
  if (available <= minBytes) return available;
  const normal = from + Math.min(available, averageBytes);
  const early = scan(bytes, from + minBytes, normal, 0, MASK_BELOW_AVERAGE);
  if (early !== 0) return early - from;
  if (available <= averageBytes) return available;
  const late = scan(bytes, normal, from + available, windowHash(bytes, normal), MASK_ABOVE_AVERAGE);
  return late === 0 ? available : late - from;
}

/** The hash in front of `at`: bytes farther back than the window have been shifted out. */
function windowHash(bytes: Uint8Array, at: number): number {
  let hash = 0;
  for (let i = at - WINDOW_BYTES; i < at; i += 1) {
    hash = ((hash << 1) + (gear[bytes[i] as number] as number)) | 0;
  }
  return hash;
}

/** Where the first byte after a cut is, 0 when there is none; four bytes a turn, which is half as long as one. */
function scan(bytes: Uint8Array, from: number, to: number, before: number, mask: number): number {
  const table = gear;
  const last = to - 3;
  let d = before;
  let at = from;
  for (; at < last; at += 4) {
    const a = ((d << 1) + (table[bytes[at] as number] as number)) | 0;
    const b = ((a << 1) + (table[bytes[at + 1] as number] as number)) | 0;
    const c = ((b << 1) + (table[bytes[at + 2] as number] as number)) | 0;
    d = ((c << 1) + (table[bytes[at + 3] as number] as number)) | 0;
    if ((a & mask) === 0) return at + 1;
    if ((b & mask) === 0) return at + 2;
    if ((c & mask) === 0) return at + 3;
    if ((d & mask) === 0) return at + 4;
  }
  for (; at < to; at += 1) {
    d = ((d << 1) + (table[bytes[at] as number] as number)) | 0;
    if ((d & mask) === 0) return at + 1;
  }
  return 0;
}

function isZero(bytes: Uint8Array, from: number, to: number): boolean {
  for (let at = from; at < to; at += 1) if (bytes[at] !== 0) return false;
  return true;
}
