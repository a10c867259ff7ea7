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

/** One frame; the same bytes for the same input, level and runtime. */
export function compressFrame(raw: Uint8Array, level: number): Uint8Array {
  const frame = zstdCompressSync(raw, {
    chunkSize: boundBytes(raw.byteLength),
    params: { [constants.ZSTD_c_compressionLevel]: level },
  });
  must(isSingleFrame(frame), 'a compressed chunk is one frame');
  return frame;
}
