/** Bodies that are read as a whole. */
import { ENTRY_BUNDLE_MAX_BYTES } from '#/bundle/log/entry.ts';
import { Problem } from '#/protocol/errors.ts';

/** The bytes of a body. @throws Problem E_TOOBIG past the largest file that a log has */
export async function collect(body: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const part of body) {
    sizeBytes += part.byteLength;
    if (sizeBytes > ENTRY_BUNDLE_MAX_BYTES) {
      throw new Problem('E_TOOBIG', `more than ${ENTRY_BUNDLE_MAX_BYTES} bytes of a log file`);
    }
    parts.push(part);
  }
  return Buffer.concat(parts);
}
