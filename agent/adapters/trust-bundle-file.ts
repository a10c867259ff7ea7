/** The envelope in a bundle file: what `install FILE` verifies before anything else of the file is looked at. */
import { pathToFileURL } from 'node:url';
import { createFileSource } from '#/agent/install/source-file.ts';
import type { Source } from '#/agent/install/source.ts';
import { LEADING_BYTES, locateMembers } from '#/bundle/container.ts';
import { decodeEnvelope } from '#/bundle/dsse.ts';
import type { Envelope } from '#/protocol/documents.ts';
import { isProblem, Problem } from '#/protocol/errors.ts';

/** Manifest, envelope and attestations are in front of everything else; more than this is no bundle. */
const LEADING_MAX_BYTES = 32 * 1024 * 1024;
const READS_MAX = 5;

/** Reads the envelope of the bundle at `path`. @throws Problem E_SCHEMA, E_SIZE (no bundle), E_IO */
export async function readBundleEnvelope(path: string): Promise<Envelope> {
  const source = createFileSource(pathToFileURL(path).href);
  try {
    let wantBytes = LEADING_BYTES;
    for (let reads = 0; reads < READS_MAX && wantBytes <= LEADING_MAX_BYTES; reads += 1) {
      const leading = await readLeading(source, wantBytes);
      const located = locateMembers(leading);
      if ('needBytes' in located) {
        if (leading.length < wantBytes) break;
        wantBytes = located.needBytes;
        continue;
      }
      const { offset, sizeBytes } = located.envelope;
      return decodeEnvelope(leading.subarray(offset, offset + sizeBytes));
    }
    throw new Problem('E_SCHEMA', `${path} is no whole bundle`, { path });
  } finally {
    await source.close();
  }
}

/** Up to `wantBytes` from the start; fewer when the file is shorter. */
async function readLeading(source: Source, wantBytes: number): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  try {
    for await (const piece of source.readRange(0, wantBytes, new AbortController().signal)) {
      pieces.push(Uint8Array.from(piece));
    }
  } catch (error) {
    // The file ends before the range does: a small bundle, or no bundle.
    if (!isProblem(error, 'E_LENGTH')) throw error;
  }
  return Buffer.concat(pieces);
}
