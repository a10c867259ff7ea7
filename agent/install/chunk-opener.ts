/**
 * Stored chunks to their content, with one decoder for all of them where Node lets us keep one: a third of the CPU and none
 * of the garbage of a new decoder per chunk (docs/decisions/0015-one-zstd-decoder-per-thread.md). The way to it is not
 * documented, so it is used only after it passed a test in this very process; otherwise the documented one-shot call is.
 */
import { constants, createZstdDecompress, zstdCompressSync } from 'node:zlib';
import { CHUNK_MAX_BYTES, type ChunkEntry, isChunk, openChunk } from '#/bundle/open-chunk.ts';
import { isSingleFrame } from '#/bundle/zstd-frame.ts';
import { isProblem } from '#/protocol/errors.ts';
import type { StreamInside } from './zstd-inside.ts';

/** The window of the largest chunk, as in bundle/open-chunk.ts. */
const WINDOW_LOG = 18;

export interface ChunkOpener {
  /** The verified content, valid until the next call; null when the stored bytes are not the chunk. */
  open(stored: Uint8Array, entry: ChunkEntry): Uint8Array | null;
  readonly kind: 'kept-decoder' | 'one-shot';
}

/** One per thread. `allowKept` false: the documented call in any case. */
export function createChunkOpener(allowKept = true): ChunkOpener {
  const inflate = allowKept ? keptDecoder() : null;
  if (inflate === null) return oneShot;
  return {
    kind: 'kept-decoder',
    open(stored, entry) {
      const { rawSize, storedSize } = entry;
      if (stored.byteLength !== storedSize) return null;
      if (storedSize === rawSize) return isChunk(stored, entry) ? stored : null;
      const content = isSingleFrame(stored) ? inflate(stored, rawSize) : null;
      return content !== null && isChunk(content, entry) ? content : null;
    },
  };
}

const oneShot: ChunkOpener = {
  kind: 'one-shot',
  open(stored, entry) {
    try {
      return openChunk(stored, entry);
    } catch (error) {
      if (isProblem(error, 'E_CHUNK')) return null;
      throw error;
    }
  },
};

/** Exactly `rawSize` bytes from one frame, or null. */
type Inflate = (stored: Uint8Array, rawSize: number) => Uint8Array | null;

function keptDecoder(): Inflate | null {
  try {
    const params = { [constants.ZSTD_d_windowLogMax]: WINDOW_LOG };
    const inside = createZstdDecompress({ params }) as unknown as StreamInside;
    const { _handle: handle, _writeState: state } = inside;
    if (!(state instanceof Uint32Array) || typeof handle.writeSync !== 'function') return null;
    // One byte more than the largest chunk: a frame that has more to give shows.
    const output = new Uint8Array(CHUNK_MAX_BYTES + 1);
    let failed = false;
    handle.onerror = () => {
      failed = true;
    };
    const inflate: Inflate = (stored, rawSize) => {
      failed = false;
      handle.reset();
      const room = rawSize + 1;
      handle.writeSync(constants.ZSTD_e_end, stored, 0, stored.byteLength, output, 0, room);
      const [roomLeft, inputLeft] = state;
      return failed || inputLeft !== 0 || roomLeft !== 1 ? null : output.subarray(0, rawSize);
    };
    return passesTest(inflate) ? inflate : null;
  } catch {
    // Another inside than the one that is known: the documented way is taken, and nothing is lost but time.
    return null;
  }
}

/** Good frames come out right, also after bad ones; bad, short and long ones are refused. */
function passesTest(inflate: Inflate): boolean {
  const sample = Uint8Array.from({ length: 70_000 }, (_, i) => (i * i) >>> (i % 9));
  const frame = zstdCompressSync(sample);
  const isRight = (): boolean => {
    const content = inflate(frame, sample.byteLength);
    return content !== null && Buffer.compare(content, sample) === 0;
  };
  return (
    isRight() &&
    inflate(frame.subarray(0, frame.byteLength - 9), sample.byteLength) === null &&
    isRight() &&
    inflate(frame, sample.byteLength - 1) === null &&
    inflate(frame, sample.byteLength + 1) === null &&
    inflate(sample.subarray(0, 1000), 5000) === null &&
    isRight()
  );
}
