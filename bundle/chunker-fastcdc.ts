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
  if (available <= fastcdcLimits.minBytes) return available;
  const normal = from + Math.min(available, fastcdcLimits.averageBytes);
  const end = from + available;
  let hash = 0;
  let at = from + fastcdcLimits.minBytes;
  for (; at < normal; at += 1) {
    hash = ((hash << 1) + (gear[bytes[at] as number] as number)) | 0;
    if ((hash & MASK_BELOW_AVERAGE) === 0) return at + 1 - from;
  }
  for (; at < end; at += 1) {
    hash = ((hash << 1) + (gear[bytes[at] as number] as number)) | 0;
    if ((hash & MASK_ABOVE_AVERAGE) === 0) return at + 1 - from;
  }
  return available;
}

function isZero(bytes: Uint8Array, from: number, to: number): boolean {
  for (let at = from; at < to; at += 1) if (bytes[at] !== 0) return false;
  return true;
}
