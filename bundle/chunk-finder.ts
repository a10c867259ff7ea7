/**
 * Finds chunks by their digests. A table of numbers with open addressing: digests are as good as random, so their first bytes
 * serve as the hash. A map from texts would take megabytes per index, in the very process that installs.
 */
import { type ChunkIndex, DIGEST_BYTES } from '#/bundle/chunk-index.ts';

type Digests = Pick<ChunkIndex, 'digests'>;

/** The number of the chunk in the index that has the digest of chunk `number` of `other`; null: none has. */
export type FindChunk = (other: Digests, number: number) => number | null;

const FREE = -1;

/** Over the chunks of `index`. */
export function chunkFinder(index: Digests & Pick<ChunkIndex, 'chunkCount'>): FindChunk {
  const { digests, chunkCount } = index;
  // At most half full, so that a search ends soon.
  const slotCount = 2 ** Math.ceil(Math.log2(Math.max(2, 2 * chunkCount)));
  const slots = new Int32Array(slotCount).fill(FREE);
  /** The slot that holds the digest, or the free one where it would go. */
  const slotOf = (of: Uint8Array, number: number): number => {
    const start = number * DIGEST_BYTES;
    let slot = firstWord(of, start) & (slotCount - 1);
    for (;;) {
      const known = slots[slot] ?? FREE;
      if (known === FREE || isSame(digests, known * DIGEST_BYTES, of, start)) return slot;
      slot = (slot + 1) & (slotCount - 1);
    }
  };
  for (let number = 0; number < chunkCount; number += 1) slots[slotOf(digests, number)] = number;
  return (other, number) => {
    const known = slots[slotOf(other.digests, number)] ?? FREE;
    return known === FREE ? null : known;
  };
}

function firstWord(bytes: Uint8Array, at: number): number {
  const [a = 0, b = 0, c = 0, d = 0] = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
  return a | (b << 8) | (c << 16) | (d << 24);
}

function isSame(a: Uint8Array, aAt: number, b: Uint8Array, bAt: number): boolean {
  for (let i = 0; i < DIGEST_BYTES; i += 1) if (a[aAt + i] !== b[bAt + i]) return false;
  return true;
}
