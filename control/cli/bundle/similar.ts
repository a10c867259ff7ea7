/**
 * Where in old content something like new content lies. Both are sampled at places that the content itself chooses, so that
 * what moved is found: a gear hash runs over the bytes, and where its top bits are zero the bytes before are a sample.
 */
import { createHash } from 'node:crypto';
import { DICTIONARY_MAX_BYTES, type OldRange, RANGES_MAX } from '#/bundle/patch.ts';

const SAMPLE_BYTES = 32;
/** Samples of all old content: about 100 MB of memory at most. */
const SAMPLES_MAX = 6 * 1024 * 1024;
/** One sample in so many bytes, as bits, unless there is too much old content. */
const SPARSE_BITS = 7;
/** Old content is chosen in blocks of this size. */
const BLOCK_BYTES = 32 * 1024;
const EMPTY = 0;

function gearTable(): Uint32Array {
  const table = new Uint32Array(256);
  for (let i = 0; i < 256; i += 1) {
    const seed = Buffer.concat([Buffer.from('switchback similar'), Buffer.of(i)]);
    table[i] = createHash('sha256').update(seed).digest().readUInt32LE(0);
  }
  return table;
}

export interface Similarity {
  /** Old content from `position` of the old stream. */
  readonly add: (content: Uint8Array, position: number) => void;
  /** The parts of the old stream that are most like `content`, ascending, at most a dictionary full. */
  readonly find: (content: Uint8Array) => OldRange[];
}

/** For an old stream of `streamBytes`, of which `contentBytes` are no holes. */
export function createSimilarity(streamBytes: number, contentBytes: number): Similarity {
  const gear = gearTable();
  let bits = SPARSE_BITS;
  while (contentBytes / 2 ** bits > SAMPLES_MAX / 2) bits += 1;
  const slots = 2 ** Math.ceil(Math.log2(Math.max(1024, (contentBytes / 2 ** bits) * 2)));
  const keys = new Uint32Array(slots);
  /** Number of the block, plus one. */
  const blocks = new Uint32Array(slots);
  const sample = (content: Uint8Array, take: (key: number, at: number) => void): void => {
    const view = new DataView(content.buffer, content.byteOffset, content.byteLength);
    const shift = 32 - bits;
    let hash = 0;
    for (let at = 0; at < content.byteLength; at += 1) {
      hash = ((hash << 1) + (gear[content[at] ?? 0] ?? 0)) | 0;
      if (hash >>> shift !== 0 || at < SAMPLE_BYTES) continue;
      take(keyOf(view, at + 1 - SAMPLE_BYTES), at);
    }
  };
  return {
    add(content, position) {
      sample(content, (key, at) => {
        let slot = key & (slots - 1);
        for (let probes = 0; probes < 8; probes += 1, slot = (slot + 1) & (slots - 1)) {
          // What stands at many places says little about one: the first is kept.
          if (keys[slot] === key) return;
          if (blocks[slot] !== EMPTY) continue;
          keys[slot] = key;
          blocks[slot] = Math.floor((position + at) / BLOCK_BYTES) + 1;
          return;
        }
      });
    },
    find(content) {
      const votes = new Map<number, number>();
      sample(content, (key) => {
        let slot = key & (slots - 1);
        for (let probes = 0; probes < 8; probes += 1, slot = (slot + 1) & (slots - 1)) {
          if (blocks[slot] === EMPTY) return;
          if (keys[slot] !== key) continue;
          const block = (blocks[slot] ?? 1) - 1;
          votes.set(block, (votes.get(block) ?? 0) + 1);
          return;
        }
      });
      return rangesOf(chooseBlocks(votes, streamBytes), streamBytes);
    },
  };
}

/** 32 bits over the bytes of a sample; never 0. */
function keyOf(view: DataView, from: number): number {
  let key = 0x811c9dc5;
  for (let i = 0; i < SAMPLE_BYTES; i += 4) {
    key = Math.imul(key ^ view.getUint32(from + i, true), 0x01000193);
    key = Math.imul(key ^ (key >>> 15), 0x85ebca6b);
  }
  return (key ^ (key >>> 13)) >>> 0 || 1;
}

/** Blocks with the most votes, each with a share of the votes of its neighbours, until a dictionary is full. */
function chooseBlocks(votes: ReadonlyMap<number, number>, streamBytes: number): number[] {
  const last = Math.ceil(streamBytes / BLOCK_BYTES) - 1;
  const scores = new Map<number, number>();
  const give = (block: number, score: number): void => {
    if (block < 0 || block > last) return;
    scores.set(block, (scores.get(block) ?? 0) + score);
  };
  for (const [block, count] of votes) {
    give(block, count);
    for (const distance of [1, 2, 3]) {
      give(block - distance, count / 4 ** distance);
      give(block + distance, count / 4 ** distance);
    }
  }
  return [...scores]
    .sort(([a, x], [b, y]) => y - x || a - b)
    .slice(0, Math.floor(DICTIONARY_MAX_BYTES / BLOCK_BYTES))
    .map(([block]) => block)
    .sort((a, b) => a - b);
}

function rangesOf(blocks: readonly number[], streamBytes: number): OldRange[] {
  const ranges: { position: number; sizeBytes: number }[] = [];
  for (const block of blocks) {
    const position = block * BLOCK_BYTES;
    const sizeBytes = Math.min(BLOCK_BYTES, streamBytes - position);
    const before = ranges.at(-1);
    if (before !== undefined && before.position + before.sizeBytes === position) {
      before.sizeBytes += sizeBytes;
    } else {
      ranges.push({ position, sizeBytes });
    }
  }
  return ranges.slice(0, RANGES_MAX);
}
