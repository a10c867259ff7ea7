/**
 * Segments of a patch to their content. The documented one-shot call leaves a buffer of 256 KiB as garbage for each of some
 * thousand segments, and V8 lets tens of megabytes of them gather in every thread. So, after a test in this very process,
 * the decoder inside a stream writes into one buffer that is used again (as in chunk-opener.ts); otherwise that call is made.
 */
import { constants, createZstdDecompress, zstdCompressSync } from 'node:zlib';
import { inflate, SEGMENT_MAX_BYTES, windowLogOf } from '#/bundle/patch.ts';
import { isSingleFrame } from '#/bundle/zstd-frame.ts';
import type { StreamInside } from './zstd-inside.ts';

/** Exactly `rawBytes` from one frame, valid until the next call, or null. `dictionary` null: the frame needs none. */
export type OpenSegment = (
  stored: Uint8Array,
  rawBytes: number,
  dictionary: Uint8Array | null,
) => Uint8Array | null;

export interface SegmentOpener {
  readonly open: OpenSegment;
  readonly kind: 'kept-buffer' | 'one-shot';
}

/** The smallest buffer that a stream may have; what it would write into is not used. */
const STREAM_BUFFER_BYTES = 64;

/** One per thread. `allowKept` false: the documented call in any case. */
export function createSegmentOpener(allowKept = true): SegmentOpener {
  const open = allowKept ? keptBuffer() : null;
  return open === null ? { open: inflate, kind: 'one-shot' } : { open, kind: 'kept-buffer' };
}

function keptBuffer(): OpenSegment | null {
  try {
    // One byte more than the largest segment: a frame that has more to give shows.
    const output = new Uint8Array(SEGMENT_MAX_BYTES + 1);
    const open: OpenSegment = (stored, rawBytes, dictionary) =>
      rawBytes < output.byteLength && isSingleFrame(stored)
        ? inflateInto(output, stored, rawBytes, dictionary)
        : null;
    return passesTest(open) ? open : null;
  } catch {
    // Another inside than the one that is known: the documented way is taken, and nothing is lost but memory.
    return null;
  }
}

function inflateInto(
  output: Uint8Array,
  stored: Uint8Array,
  rawBytes: number,
  dictionary: Uint8Array | null,
): Uint8Array | null {
  const { _handle: handle, _writeState: state } = createZstdDecompress({
    chunkSize: STREAM_BUFFER_BYTES,
    params: { [constants.ZSTD_d_windowLogMax]: windowLogOf(rawBytes) },
    ...(dictionary === null ? {} : { dictionary }),
  }) as unknown as StreamInside;
  let failed = false;
  handle.onerror = () => {
    failed = true;
  };
  try {
    handle.writeSync(constants.ZSTD_e_end, stored, 0, stored.byteLength, output, 0, rawBytes + 1);
    const [roomLeft, inputLeft] = state;
    return failed || inputLeft !== 0 || roomLeft !== 1 ? null : output.subarray(0, rawBytes);
  } finally {
    // The decoder and its copy of the dictionary go back now, not when somebody collects.
    handle.close();
  }
}

/** Good frames come out right, also after bad ones; bad, short and long ones and those of another dictionary are refused. */
function passesTest(open: OpenSegment): boolean {
  const dictionary = Uint8Array.from({ length: 50_000 }, (_, i) => (i * i) >>> (i % 9));
  dictionary[0] = 0;
  const sample = dictionary.slice(1);
  sample.fill(7, 20_000, 20_100);
  const frame = zstdCompressSync(sample, { dictionary });
  const plain = zstdCompressSync(sample);
  const size = sample.byteLength;
  const isRight = (stored: Uint8Array, from: Uint8Array | null): boolean => {
    const content = open(stored, size, from);
    return content !== null && Buffer.compare(content, sample) === 0;
  };
  return (
    frame.byteLength < plain.byteLength / 2 &&
    isRight(frame, dictionary) &&
    open(frame.subarray(0, frame.byteLength - 9), size, dictionary) === null &&
    isRight(plain, null) &&
    !isRight(frame, null) &&
    open(frame, size - 1, dictionary) === null &&
    open(frame, size + 1, dictionary) === null &&
    open(sample.subarray(0, 1000), 5000, dictionary) === null &&
    isRight(frame, dictionary)
  );
}
