/**
 * Bytes to exactly one zstd frame. The runtime's call compresses into pieces of `chunkSize`; when a frame happens to fill one
 * to its last byte, it calls the compressor once more and gets an empty second frame, which `isSingleFrame` refuses: about one
 * chunk in 20,000 could not be installed. So the piece is larger than any frame of the input can be.
 */
import { constants, zstdCompressSync } from 'node:zlib';
import { must } from '#/protocol/errors.ts';
import { isSingleFrame } from '#/bundle/zstd-frame.ts';

/** Above ZSTD_COMPRESSBOUND: an incompressible input grows by a few bytes per block, and small ones by a little more. */
const boundBytes = (rawBytes: number): number => rawBytes + (rawBytes >>> 8) + 1024;
/** The windows that the format of zstd allows, and the largest that a reader of ours accepts. */
const WINDOW_LOG_MIN = 10;
const WINDOW_LOG_MAX = 25;

/**
 * One frame; the same bytes for the same input, level and runtime. With `dictionary`, the window reaches over all of it and
 * a reader needs the same bytes.
 */
export function compressFrame(
  raw: Uint8Array,
  level: number,
  dictionary: Uint8Array | null = null,
): Uint8Array {
  const reach = raw.byteLength + (dictionary?.byteLength ?? 0);
  const windowLog = Math.ceil(Math.log2(Math.max(2, reach)));
  const frame = zstdCompressSync(raw, {
    chunkSize: boundBytes(raw.byteLength),
    params: {
      [constants.ZSTD_c_compressionLevel]: level,
      ...(dictionary === null
        ? {}
        : {
            [constants.ZSTD_c_windowLog]: Math.min(
              WINDOW_LOG_MAX,
              Math.max(WINDOW_LOG_MIN, windowLog),
            ),
          }),
    },
    ...(dictionary === null ? {} : { dictionary }),
  });
  must(isSingleFrame(frame), 'a compressed chunk is one frame');
  return frame;
}
