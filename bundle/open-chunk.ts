/** One stored chunk to its verified bytes. Format: docs/specs/bundle-format.md, section 3.3. */
import { hash } from 'node:crypto';
import { constants, zstdDecompressSync } from 'node:zlib';
import { isSingleFrame } from '#/bundle/zstd-frame.ts';
import { Problem } from '#/protocol/errors.ts';

/** The largest content of one chunk. Buffers of the readers are sized by it. */
export const CHUNK_MAX_BYTES = 256 * 1024;
/** The decoder's window: as large as the largest chunk, so a hostile frame cannot ask for more memory. */
const CHUNK_WINDOW_LOG = 18;

export interface ChunkEntry {
  /** sha256 of the content. */
  readonly digest: Uint8Array;
  readonly rawSize: number;
  /** Equal to rawSize: stored as it is. Smaller: one zstd frame. Never larger. */
  readonly storedSize: number;
  /** From the start of chunks.data. */
  readonly offset: number;
}

/**
 * The content of a stored chunk, verified. Throws E_CHUNK when the bytes are not what the index promised: wrong length,
 * not one zstd frame, more content than declared, another digest. The output is bounded by `rawSize`.
 */
export function openChunk(stored: Uint8Array, entry: ChunkEntry): Uint8Array {
  if (stored.byteLength !== entry.storedSize) {
    throw new Problem(
      'E_CHUNK',
      `chunk is ${stored.byteLength} bytes long, ${entry.storedSize} were promised`,
    );
  }
  const raw = entry.storedSize === entry.rawSize ? stored : inflate(stored, entry.rawSize);
  if (!isChunk(raw, entry)) {
    throw new Problem(
      'E_CHUNK',
      `chunk does not have the digest ${Buffer.from(entry.digest).toString('hex')}`,
    );
  }
  return raw;
}

/** True when `raw` is the content of `entry`; for pieces that come from a local seed (F83). */
export function isChunk(raw: Uint8Array, entry: Pick<ChunkEntry, 'digest' | 'rawSize'>): boolean {
  if (raw.byteLength !== entry.rawSize) return false;
  return Buffer.compare(hash('sha256', raw, 'buffer'), entry.digest) === 0;
}

function inflate(stored: Uint8Array, rawSize: number): Uint8Array {
  if (!isSingleFrame(stored)) {
    throw new Problem('E_CHUNK', `chunk of ${stored.byteLength} bytes is not one zstd frame`);
  }
  try {
    return zstdDecompressSync(stored, {
      maxOutputLength: rawSize,
      params: { [constants.ZSTD_d_windowLogMax]: CHUNK_WINDOW_LOG },
    });
  } catch (cause) {
    throw new Problem(
      'E_CHUNK',
      `chunk of ${stored.byteLength} bytes cannot be decompressed`,
      {},
      { cause },
    );
  }
}
