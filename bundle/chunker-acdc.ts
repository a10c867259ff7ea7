/**
 * `acdc-32k`: cuts on the 4 KiB grid of file systems, by the content of the block in front of the cut; runs of zero blocks
 * are holes. For raw images, where content moves by whole blocks. docs/specs/bundle-format.md, section 5.1.
 */
import { must } from '#/protocol/errors.ts';
import type { ChunkLimits, FindPiece } from '#/bundle/chunker.ts';

const BLOCK = 4096;
const BLOCK_WORDS = BLOCK / 4;
/** Shorter runs of zero blocks stay in their chunk: a cut on both sides would cost more than it saves. */
const HOLE_MIN_BLOCKS = 4;
export const acdcLimits: ChunkLimits = {
  minBytes: 4 * BLOCK,
  averageBytes: 8 * BLOCK,
  maxBytes: 32 * BLOCK,
};
/** From the minimum on, one block in four ends its chunk. */
const CUT_SHIFT = 30;
/** No cut and no hash: the block is zero. */
const ZERO_BLOCK = -1;

/** Finds the next piece; `from` is on the grid, counted from the last boundary. */
export const findAcdcPiece: FindPiece = (bytes, from, to, isEnd, afterHole) => {
  const words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >>> 2);
  const limit = Math.min(to, from + acdcLimits.maxBytes);
  if (afterHole) {
    const sizeBytes = zeroBytes(bytes, words, from, to, isEnd);
    if (sizeBytes > 0) return { sizeBytes, isHole: true };
  }
  let zeroBlocks = 0;
  let at = from;
  while (at < limit) {
    const size = Math.min(BLOCK, to - at);
    if (size < BLOCK && !isEnd) return null;
    const cut = size === BLOCK ? cutValue(words, at >>> 2) : lastCutValue(bytes, at, to);
    at += size;
    if (cut === ZERO_BLOCK) {
      zeroBlocks += 1;
      const content = at - size - (zeroBlocks - 1) * BLOCK - from;
      if (zeroBlocks === HOLE_MIN_BLOCKS) {
        return content === 0
          ? { sizeBytes: at - from, isHole: true }
          : { sizeBytes: content, isHole: false };
      }
      continue;
    }
    zeroBlocks = 0;
    if (cut === 0 && at - from >= acdcLimits.minBytes)
      return { sizeBytes: at - from, isHole: false };
  }
  if (at - from === acdcLimits.maxBytes || isEnd) return { sizeBytes: at - from, isHole: false };
  return null;
};

/** How many bytes from `from` on are in zero blocks. */
function zeroBytes(
  bytes: Uint8Array,
  words: Int32Array,
  from: number,
  to: number,
  isEnd: boolean,
): number {
  let at = from;
  for (; at + BLOCK <= to; at += BLOCK) if (!isZeroBlock(words, at >>> 2)) return at - from;
  return isEnd && at < to && bytes.subarray(at, to).every((byte) => byte === 0)
    ? to - from
    : at - from;
}

function isZeroBlock(words: Int32Array, first: number): boolean {
  const end = first + BLOCK_WORDS;
  for (let i = first; i < end; i += 1) if (words[i] !== 0) return false;
  return true;
}

/** 0 when a chunk may end after this block, 1 to 3 when not, ZERO_BLOCK when it is zero. */
function cutValue(words: Int32Array, first: number): number {
  let any = 0;
  let a = 0x9e3779b1 | 0;
  let b = 0x85ebca77 | 0;
  let c = 0xc2b2ae3d | 0;
  let d = 0x27d4eb2f | 0;
  const end = first + BLOCK_WORDS;
  for (let i = first; i < end; i += 4) {
    const w = words[i] as number;
    const x = words[i + 1] as number;
    const y = words[i + 2] as number;
    const z = words[i + 3] as number;
    any |= w | x | y | z;
    a = Math.imul(a ^ w, 0x9e3779b1);
    b = Math.imul(b ^ x, 0x85ebca77);
    c = Math.imul(c ^ y, 0xc2b2ae3d);
    d = Math.imul(d ^ z, 0x27d4eb2f);
  }
  if (any === 0) return ZERO_BLOCK;
  let hash = a ^ Math.imul(b, 3) ^ Math.imul(c, 5) ^ Math.imul(d, 7);
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
  hash = Math.imul(hash ^ (hash >>> 12), 0x297a2d39);
  return (hash ^ (hash >>> 15)) >>> CUT_SHIFT;
}

/** The block at the end of a stream, as if zeros followed. */
function lastCutValue(bytes: Uint8Array, at: number, to: number): number {
  must(to - at < BLOCK, 'only the last block is short');
  const block = new Uint8Array(BLOCK);
  block.set(bytes.subarray(at, to));
  return cutValue(new Int32Array(block.buffer), 0);
}
