/** The leading members of a bundle from a source: is it the offered bundle, and what is its index. */
import { createHash } from 'node:crypto';
import { type ChunkIndex, parseIndex, unpackIndex } from '#/bundle/chunk-index.ts';
import {
  BLOCK_BYTES,
  checkDataHeader,
  LEADING_BYTES,
  type Located,
  locateMembers,
  type Member,
} from '#/bundle/container.ts';
import { type Manifest, parseManifest } from '#/bundle/manifest.ts';
import { Problem } from '#/protocol/errors.ts';
import type { Source } from './source.ts';

/** The members in front of the index are the limit of what is read before anything is verified. */
const MAX_LEADING_BYTES = 32 * 1024 * 1024;
const MAX_LEADING_READS = 5;
/** What a frame adds to an index that does not compress. */
const INDEX_SLACK_BYTES = 64 * 1024;

export interface OpenedBundle {
  readonly index: ChunkIndex;
  /** The index as it is kept beside the slot. */
  readonly rawIndex: Uint8Array;
  /** Where chunks.data starts in the bundle file. */
  readonly dataOffset: number;
  /** Bytes read from the source for this. */
  readonly fetchedBytes: number;
}

/** The manifest of an offer, from the exact bytes whose digest is its id; E_ARTIFACT when they are not (C06). */
export function manifestOf(artifactId: string, manifestBytes: Uint8Array): Manifest {
  const digest = createHash('sha256').update(manifestBytes).digest('hex');
  if (digest !== artifactId) {
    throw new Problem('E_ARTIFACT', `the manifest has digest ${digest}, ${artifactId} was pinned`);
  }
  return parseManifest(manifestBytes);
}

/**
 * Opens the bundle at a source. E_ARTIFACT when it is another bundle (F6, F9, C03); E_HASH, E_SIZE, E_SCHEMA, E_PATH, E_MODE
 * for its index; the transport problems of source.ts.
 */
export async function openBundle(
  source: Source,
  manifest: Manifest,
  manifestBytes: Uint8Array,
  signal: AbortSignal,
): Promise<OpenedBundle> {
  const { located, leading } = await readLeading(source, manifest, signal);
  const found = slice(leading, located.manifest);
  if (Buffer.compare(found, manifestBytes) !== 0) {
    throw new Problem('E_ARTIFACT', `${source.describe().url} has another bundle than was offered`);
  }
  // Declared by the container, not signed: bounded by what is signed before memory is set aside for it.
  if (located.index.sizeBytes > manifest.index.sizeBytes + INDEX_SLACK_BYTES) {
    throw new Problem('E_SIZE', `${source.describe().url} has an index that is too large`);
  }
  const tail = located.index.offset + located.index.sizeBytes;
  const end = located.dataHeader.offset + BLOCK_BYTES;
  const rest = await readAt(source, leading, located.index.offset, end, signal);
  const stored = rest.subarray(0, tail - located.index.offset);
  const rawIndex = unpackIndex(stored, manifest);
  const header = rest.subarray(located.dataHeader.offset - located.index.offset);
  checkDataHeader(header, manifest.dataBytes);
  return {
    index: parseIndex(rawIndex, manifest),
    rawIndex,
    dataOffset: located.dataOffset,
    fetchedBytes: Math.max(leading.byteLength, end),
  };
}

async function readLeading(
  source: Source,
  manifest: Manifest,
  signal: AbortSignal,
): Promise<{ located: Located; leading: Uint8Array }> {
  // A small bundle may be shorter than the usual first read; every bundle holds its manifest's own bytes of data.
  let wantBytes = Math.min(LEADING_BYTES, leastBundleBytes(manifest));
  for (let reads = 0; reads < MAX_LEADING_READS; reads += 1) {
    const leading = await readAll(source, 0, wantBytes, signal);
    let located: ReturnType<typeof locateMembers>;
    try {
      located = locateMembers(leading);
    } catch (error) {
      // An HTML page, a login form, a redirect's body: not a bundle, whatever its status was (F6).
      throw new Problem(
        'E_ARTIFACT',
        `${source.describe().url} is no bundle`,
        {},
        { cause: error },
      );
    }
    if (!('needBytes' in located)) return { located, leading };
    if (located.needBytes > MAX_LEADING_BYTES) break;
    wantBytes = located.needBytes;
  }
  throw new Problem('E_SIZE', `${source.describe().url} has too much in front of its index`);
}

/** A lower bound: the five headers, the manifest, the data, the end. */
function leastBundleBytes(manifest: Manifest): number {
  return 5 * BLOCK_BYTES + manifest.dataBytes + 2 * BLOCK_BYTES;
}

async function readAt(
  source: Source,
  leading: Uint8Array,
  from: number,
  to: number,
  signal: AbortSignal,
): Promise<Uint8Array> {
  if (to <= leading.byteLength) return leading.subarray(from, to);
  const known = leading.subarray(Math.min(from, leading.byteLength));
  const whole = new Uint8Array(to - from);
  whole.set(known);
  const more = await readAll(
    source,
    from + known.byteLength,
    whole.byteLength - known.byteLength,
    signal,
  );
  whole.set(more, known.byteLength);
  return whole;
}

/** A range of a source as one buffer. */
export async function readAll(
  source: Source,
  offset: number,
  sizeBytes: number,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const whole = new Uint8Array(sizeBytes);
  let done = 0;
  for await (const piece of source.readRange(offset, sizeBytes, signal)) {
    whole.set(piece, done);
    done += piece.byteLength;
  }
  return whole;
}

function slice(bytes: Uint8Array, member: Member): Uint8Array {
  return bytes.subarray(member.offset, member.offset + member.sizeBytes);
}
