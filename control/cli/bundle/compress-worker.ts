/** Thread of the builder: compresses batches of chunks. One batch in, one batch out; nothing is kept between them. Null ends it. */
import { parentPort } from 'node:worker_threads';
import { compressFrame } from '#/bundle/zstd-compress.ts';
import type { CompressJob, CompressResult } from '#/control/cli/bundle/compress-pool.ts';

const port = parentPort;
if (port === null) throw new Error('this file runs as a worker thread');

port.on('message', (job: CompressJob | null) => {
  if (job === null) {
    port.close();
    return;
  }
  const { result, buffer } = compress(job);
  port.postMessage(result, [buffer]);
});

/** Each chunk as a zstd frame, or as it is where that is not smaller. */
function compress({ bytes, sizes, level, dictionary }: CompressJob): {
  result: CompressResult;
  buffer: ArrayBuffer;
} {
  const stored = new Uint8Array(bytes.byteLength);
  const storedSizes = new Uint32Array(sizes.length);
  let from = 0;
  let to = 0;
  for (const [i, size] of sizes.entries()) {
    const raw = bytes.subarray(from, from + size);
    const frame = compressFrame(raw, level, dictionary ?? null);
    const smaller = frame.byteLength < size ? frame : raw;
    stored.set(smaller, to);
    storedSizes[i] = smaller.byteLength;
    from += size;
    to += smaller.byteLength;
  }
  return { result: { stored: stored.subarray(0, to), storedSizes }, buffer: stored.buffer };
}
