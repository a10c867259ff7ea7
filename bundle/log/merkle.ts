/**
 * The Merkle tree of RFC 6962: roots, inclusion proofs, consistency proofs. A tree is read through `ReadNode`, which gives the
 * hash of a complete subtree, so the same functions serve memory, tiles on disk and tiles from a server. docs/specs/audit-log.md.
 */
import { hash } from 'node:crypto';
import { must } from '#/protocol/errors.ts';

export const HASH_BYTES = 32;
/** No tree of ours has more leaves: the sizes in proofs and checkpoints are safe integers. */
export const LEVELS_MAX = 53;

/** The hash of the complete subtree of 2^level leaves that starts at leaf `index` * 2^level. */
export type ReadNode = (level: number, index: number) => Uint8Array;

export function leafHash(data: Uint8Array): Uint8Array {
  return hash('sha256', Buffer.concat([LEAF, data]), 'buffer');
}

export function nodeHash(left: Uint8Array, right: Uint8Array): Uint8Array {
  return hash('sha256', Buffer.concat([NODE, left, right]), 'buffer');
}

const LEAF = Uint8Array.of(0);
const NODE = Uint8Array.of(1);

/** The hash of the empty tree. */
export function emptyRoot(): Uint8Array {
  return hash('sha256', '', 'buffer');
}

/** Root of the first `size` leaves. */
export function rootAt(size: number, read: ReadNode): Uint8Array {
  must(Number.isSafeInteger(size) && size >= 0, `L1: a tree of ${size} leaves`);
  return size === 0 ? emptyRoot() : rangeRoot(0, size, read);
}

/** MTH(D[from:to]); `from` is a multiple of the power of two that covers the range, as everywhere in RFC 6962. */
function rangeRoot(from: number, to: number, read: ReadNode): Uint8Array {
  const count = to - from;
  const level = Math.log2(count);
  if (Number.isInteger(level)) return read(level, from / count);
  const left = splitOf(count);
  return nodeHash(rangeRoot(from, from + left, read), rangeRoot(from + left, to, read));
}

/** The largest power of two below `count`, for count > 1. */
function splitOf(count: number): number {
  let split = 1;
  while (split * 2 < count) split *= 2;
  return split;
}

/** PATH(m, D[n]): what proves that leaf `index` is in the tree of `size` leaves. */
export function inclusionProof(index: number, size: number, read: ReadNode): Uint8Array[] {
  must(index >= 0 && index < size, `L2: leaf ${index} of ${size}`);
  const path = (from: number, to: number): Uint8Array[] => {
    if (to - from === 1) return [];
    const middle = from + splitOf(to - from);
    return index < middle
      ? [...path(from, middle), rangeRoot(middle, to, read)]
      : [...path(middle, to), rangeRoot(from, middle, read)];
  };
  return path(0, size);
}

/** PROOF(m, D[n]): what proves that the tree of `older` leaves is the beginning of the tree of `size` leaves. */
export function consistencyProof(older: number, size: number, read: ReadNode): Uint8Array[] {
  must(older >= 0 && older <= size, `L3: ${older} leaves before ${size}`);
  if (older === 0 || older === size) return [];
  const proof = (from: number, to: number, isOldRoot: boolean): Uint8Array[] => {
    if (older === to) return isOldRoot ? [] : [rangeRoot(from, to, read)];
    const middle = from + splitOf(to - from);
    return older <= middle
      ? [...proof(from, middle, isOldRoot), rangeRoot(middle, to, read)]
      : [...proof(middle, to, false), rangeRoot(from, middle, read)];
  };
  return proof(0, size, true);
}

/** RFC 9162, section 2.1.3.2. True when `proof` leads from the leaf to the root; never throws for numbers and hashes. */
export function isIncluded(
  leaf: Uint8Array,
  index: number,
  size: number,
  root: Uint8Array,
  proof: readonly Uint8Array[],
): boolean {
  if (!isCount(index) || !isCount(size) || index >= size || !areHashes(proof)) return false;
  let at = index;
  let last = size - 1;
  let node = leaf;
  for (const other of proof) {
    if (last === 0) return false;
    if (at % 2 === 1 || at === last) {
      node = nodeHash(other, node);
      // Levels at which this is the last node and has no sibling.
      while (at % 2 === 0 && at !== 0) {
        at /= 2;
        last = Math.floor(last / 2);
      }
    } else {
      node = nodeHash(node, other);
    }
    at = Math.floor(at / 2);
    last = Math.floor(last / 2);
  }
  return last === 0 && isSame(node, root);
}

/** RFC 9162, section 2.1.4.2. True when the older tree is the beginning of the newer one. */
export function isConsistent(
  older: { readonly size: number; readonly root: Uint8Array },
  newer: { readonly size: number; readonly root: Uint8Array },
  proof: readonly Uint8Array[],
): boolean {
  if (!isCount(older.size) || !isCount(newer.size) || older.size > newer.size) return false;
  if (!areHashes(proof)) return false;
  if (older.size === newer.size) return proof.length === 0 && isSame(older.root, newer.root);
  if (older.size === 0) return proof.length === 0 && isSame(older.root, emptyRoot());
  const isComplete = Number.isInteger(Math.log2(older.size));
  const [first, ...rest] = isComplete ? [older.root, ...proof] : proof;
  if (first === undefined) return false;
  let at = older.size - 1;
  let last = newer.size - 1;
  while (at % 2 === 1) {
    at = Math.floor(at / 2);
    last = Math.floor(last / 2);
  }
  let oldHash = first;
  let newHash = first;
  for (const other of rest) {
    if (last === 0) return false;
    if (at % 2 === 1 || at === last) {
      oldHash = nodeHash(other, oldHash);
      newHash = nodeHash(other, newHash);
      while (at % 2 === 0 && at !== 0) {
        at /= 2;
        last = Math.floor(last / 2);
      }
    } else {
      newHash = nodeHash(newHash, other);
    }
    at = Math.floor(at / 2);
    last = Math.floor(last / 2);
  }
  return last === 0 && isSame(oldHash, older.root) && isSame(newHash, newer.root);
}

function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}

function areHashes(proof: readonly Uint8Array[]): boolean {
  return proof.length <= 2 * LEVELS_MAX && proof.every((each) => each.length === HASH_BYTES);
}

export function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, at) => byte === b[at]);
}
