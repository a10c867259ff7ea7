/** Opens a bundle file: finds its members and reads manifest, index and chunks, each checked as far as asked. */
import { type FileHandle, open } from 'node:fs/promises';
import { type ChunkIndex, chunkAt, openIndex } from '#/bundle/chunk-index.ts';
import {
  bundleBytes,
  checkDataHeader,
  LEADING_BYTES,
  type Located,
  locateMembers,
  type Member,
  memberNames,
} from '#/bundle/container.ts';
import { decodeEnvelope, MANIFEST_PAYLOAD_TYPE, openEnvelope } from '#/bundle/dsse.ts';
import type { PublicKey } from '#/bundle/keys.ts';
import { artifactIdOf, type Manifest, parseManifest } from '#/bundle/manifest.ts';
import { openChunk } from '#/bundle/open-chunk.ts';
import type { Envelope } from '#/protocol/documents.ts';
import { must, Problem } from '#/protocol/errors.ts';
import type { ArtifactId } from '#/protocol/ids.ts';

/** Keys that must have signed the manifest. */
export interface BundleTrust {
  readonly keys: readonly PublicKey[];
  readonly threshold: number;
}

export interface OpenBundle {
  readonly path: string;
  readonly fileBytes: number;
  readonly located: Located;
  /** The signed payload of the envelope, not the member next to it (C06); they are checked to be the same. */
  readonly manifestBytes: Uint8Array;
  readonly manifest: Manifest;
  readonly artifactId: ArtifactId;
  readonly envelope: Envelope;
  /** Lines of the attestations, as they stand in the file; nothing in them is verified here. */
  readonly attestations: readonly string[];
  /** Read and parsed at the first call. */
  readonly index: () => Promise<ChunkIndex>;
  /** A range of chunks.data; at most `CHUNK_RANGE_MAX_BYTES`. */
  readonly readData: (offset: number, sizeBytes: number) => Promise<Uint8Array>;
  /** Any bytes of the file; E_LENGTH beyond its end. */
  readonly readAt: (offset: number, sizeBytes: number) => Promise<Uint8Array>;
  /** The verified content of chunk `number`. */
  readonly readChunk: (number: number) => Promise<Uint8Array>;
  readonly [Symbol.asyncDispose]: () => Promise<void>;
}

/** What one read may take into memory. */
export const CHUNK_RANGE_MAX_BYTES = 64 * 1024 * 1024;
const ATTESTATIONS_MAX_LINES = 1024;

/**
 * Opens a bundle. With `trust`, the manifest is signed by enough of its keys (E_SIGS); with null, signatures are not looked
 * at. Throws E_SCHEMA, E_SIZE, E_PARSE, E_CANON (not a bundle), E_LENGTH (cut short), E_ARTIFACT (manifest and envelope
 * differ), E_NOT_FOUND, E_IO.
 */
export async function openBundle(path: string, trust: BundleTrust | null): Promise<OpenBundle> {
  const file = await openFile(path);
  try {
    const fileBytes = (await file.stat()).size;
    const leading = await readLeading(file, path, fileBytes);
    const located = leading.located;
    const part = ({ offset, sizeBytes }: Member): Uint8Array =>
      leading.bytes.subarray(offset, offset + sizeBytes);
    const envelope = decodeEnvelope(part(located.envelope));
    const beside = part(located.manifest);
    const manifestBytes =
      trust === null
        ? payloadUnverified(envelope)
        : openEnvelope(envelope, { ...trust, payloadType: MANIFEST_PAYLOAD_TYPE });
    const artifactId = artifactIdOf(manifestBytes);
    if (Buffer.compare(manifestBytes, beside) !== 0) {
      throw new Problem(
        'E_ARTIFACT',
        `${path}: manifest.json is ${artifactIdOf(beside)}, the envelope signs ${artifactId}`,
      );
    }
    const manifest = parseManifest(manifestBytes);
    const expected = bundleBytes(located, manifest.dataBytes);
    if (fileBytes !== expected) {
      throw new Problem('E_LENGTH', `${path} has ${fileBytes} bytes, its members need ${expected}`);
    }
    checkDataHeader(await readAt(file, located.dataHeader, path), manifest.dataBytes);
    let index: Promise<ChunkIndex> | null = null;
    const readIndex = (): Promise<ChunkIndex> => {
      index ??= readAt(file, located.index, path).then((stored) => openIndex(stored, manifest));
      return index;
    };
    const readData = (offset: number, sizeBytes: number): Promise<Uint8Array> => {
      must(
        sizeBytes <= CHUNK_RANGE_MAX_BYTES && offset + sizeBytes <= manifest.dataBytes,
        'a range lies in chunks.data',
      );
      return readAt(file, { offset: located.dataOffset + offset, sizeBytes }, path);
    };
    return {
      path,
      fileBytes,
      located,
      manifestBytes,
      manifest,
      artifactId,
      envelope,
      attestations: linesOf(part(located.attestations)),
      index: readIndex,
      readData,
      readAt: (offset, sizeBytes) => readAt(file, { offset, sizeBytes }, path),
      readChunk: async (number) => {
        const entry = chunkAt(await readIndex(), number);
        return openChunk(await readData(entry.offset, entry.storedSize), entry);
      },
      [Symbol.asyncDispose]: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function openFile(path: string): Promise<FileHandle> {
  try {
    return await open(path, 'r');
  } catch (cause) {
    const missing = cause instanceof Error && 'code' in cause && cause.code === 'ENOENT';
    throw new Problem(
      missing ? 'E_NOT_FOUND' : 'E_IO',
      `open bundle ${path}: ${(cause as Error).message}`,
      {},
      { cause },
    );
  }
}

/** The bytes in front of the index. */
async function readLeading(
  file: FileHandle,
  path: string,
  fileBytes: number,
): Promise<{ readonly bytes: Uint8Array; readonly located: Located }> {
  let wanted = Math.min(LEADING_BYTES, fileBytes);
  // Each turn learns the size of one more member, so there are at most as many turns as members.
  for (const _ of memberNames) {
    const bytes = await readAt(file, { offset: 0, sizeBytes: wanted }, path);
    const located = locateMembers(bytes);
    if (!('needBytes' in located)) return { bytes, located };
    if (located.needBytes > fileBytes) {
      throw new Problem(
        'E_LENGTH',
        `${path} ends after ${fileBytes} bytes, ${located.needBytes} are needed`,
      );
    }
    wanted = located.needBytes;
  }
  throw new Problem('E_SCHEMA', `${path} is not a bundle`);
}

async function readAt(
  file: FileHandle,
  { offset, sizeBytes }: Member,
  path: string,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(sizeBytes);
  for (let done = 0; done < sizeBytes; ) {
    const { bytesRead } = await file.read(bytes, done, sizeBytes - done, offset + done);
    if (bytesRead === 0) throw new Problem('E_LENGTH', `${path} ends at byte ${offset + done}`);
    done += bytesRead;
  }
  return bytes;
}

function payloadUnverified(envelope: Envelope): Uint8Array {
  if (envelope.payloadType !== MANIFEST_PAYLOAD_TYPE) {
    throw new Problem(
      'E_SIGS',
      `envelope of type ${envelope.payloadType}, expected ${MANIFEST_PAYLOAD_TYPE}`,
    );
  }
  return Buffer.from(envelope.payload, 'base64');
}

function linesOf(bytes: Uint8Array): string[] {
  const text = new TextDecoder().decode(bytes);
  const lines = text.split('\n').filter((line) => line !== '');
  if (lines.length > ATTESTATIONS_MAX_LINES) {
    throw new Problem(
      'E_SIZE',
      `bundle has ${lines.length} attestations, the limit is ${ATTESTATIONS_MAX_LINES}`,
    );
  }
  return lines;
}
