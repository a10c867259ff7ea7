/** Verifies a whole bundle: signatures, members, index, every chunk, and the digest of every image and file. */
import { createHash } from 'node:crypto';
import { checkSubject, parseStatement, STATEMENT_PAYLOAD_TYPE } from '#/bundle/attestation.ts';
import {
  type ChunkIndex,
  chunkAt,
  type PayloadIndex,
  type PayloadTree,
} from '#/bundle/chunk-index.ts';
import { padded } from '#/bundle/container.ts';
import { decodeEnvelope } from '#/bundle/dsse.ts';
import type { Manifest } from '#/bundle/manifest.ts';
import { openChunk } from '#/bundle/open-chunk.ts';
import { quote } from '#/bundle/tree-path.ts';
import { type BundleTrust, type OpenBundle, openBundle } from '#/control/cli/bundle/read.ts';
import { Problem } from '#/protocol/errors.ts';
import type { ArtifactId } from '#/protocol/ids.ts';

/** Holes are digested in steps of this size. */
const ZERO_BYTES = 1024 * 1024;
/** Chunks are read in runs of about this size. */
const RUN_BYTES = 4 * 1024 * 1024;

export interface VerifyProgress {
  readonly doneBytes: number;
  readonly totalBytes: number;
}

export interface VerifyResult {
  readonly artifactId: ArtifactId;
  readonly manifest: Manifest;
  /** Key ids in the envelope; trusted when keys were given. */
  readonly keyIds: readonly string[];
  readonly signaturesChecked: boolean;
  /** Predicate types of the attestations; that they speak of this artifact is checked, not who signed them. */
  readonly attestations: readonly string[];
  readonly chunkCount: number;
  readonly contentBytes: number;
}

export interface VerifyOptions {
  readonly onProgress?: (progress: VerifyProgress) => void;
  readonly signal?: AbortSignal;
}

/**
 * Verifies everything in the bundle at `path`. With `trust` null, signatures are not checked and the result says so. Throws the
 * first fault: E_SIGS, E_ARTIFACT, E_CHUNK, E_HASH, E_SIZE, E_PATH, E_MODE, E_SCHEMA, E_LENGTH, E_SUBJECT.
 */
export async function verifyBundle(
  path: string,
  trust: BundleTrust | null,
  options: VerifyOptions = {},
): Promise<VerifyResult> {
  await using bundle = await openBundle(path, trust);
  const attestations = checkAttestations(bundle);
  const index = await bundle.index();
  await checkPadding(bundle);
  const totalBytes = index.payloads.reduce((sum, payload) => sum + payload.streamBytes, 0);
  let doneBytes = 0;
  const onBytes = (bytes: number): void => {
    options.signal?.throwIfAborted();
    doneBytes += bytes;
    options.onProgress?.({ doneBytes, totalBytes });
  };
  // Every chunk of an index is used by a piece, so walking all pieces verifies all chunks.
  const read = chunkReader(bundle, index);
  const zeros = new Uint8Array(ZERO_BYTES);
  for (const [i, payload] of index.payloads.entries()) {
    const described = bundle.manifest.payloads[i];
    const digest = payload.tree === null ? imageDigest(described) : treeDigests(payload.tree);
    for (let piece = 0; piece < payload.pieceCount; piece += 1) {
      for await (const bytes of piecesOf(payload, piece, read, zeros)) {
        digest.update(bytes);
        onBytes(bytes.byteLength);
      }
    }
    digest.finish();
  }
  return {
    artifactId: bundle.artifactId,
    manifest: bundle.manifest,
    keyIds: bundle.envelope.signatures.map((signature) => signature.keyid),
    signaturesChecked: trust !== null,
    attestations,
    chunkCount: index.chunkCount,
    contentBytes: bundle.manifest.payloads.reduce((sum, payload) => sum + payload.sizeBytes, 0),
  };
}

/** Every attestation is a statement about this artifact and no other (C07). */
function checkAttestations(bundle: OpenBundle): string[] {
  return bundle.attestations.map((line) => {
    const envelope = decodeEnvelope(Buffer.from(line));
    if (envelope.payloadType !== STATEMENT_PAYLOAD_TYPE) {
      throw new Problem(
        'E_SCHEMA',
        `attestation of type ${envelope.payloadType}, expected ${STATEMENT_PAYLOAD_TYPE}`,
      );
    }
    const statement = parseStatement(Buffer.from(envelope.payload, 'base64'));
    checkSubject(statement, bundle.artifactId);
    return statement.predicateType;
  });
}

/** Everything between and behind the members is zero: nothing rides along in a bundle. */
async function checkPadding(bundle: OpenBundle): Promise<void> {
  const { manifest, envelope, attestations, index, dataOffset } = bundle.located;
  const data = { offset: dataOffset, sizeBytes: bundle.manifest.dataBytes };
  for (const member of [manifest, envelope, attestations, index, data]) {
    const from = member.offset + member.sizeBytes;
    const isLast = member === data;
    const to = isLast ? bundle.fileBytes : member.offset + padded(member.sizeBytes);
    const bytes = await bundle.readAt(from, to - from);
    if (bytes.some((byte) => byte !== 0)) {
      throw new Problem(
        'E_SCHEMA',
        `${bundle.path} has bytes outside of its members, after byte ${from}`,
      );
    }
  }
}

/** Reads chunks in runs: they are stored in the order of their first use, so nearly every run serves many. */
function chunkReader(
  bundle: OpenBundle,
  index: ChunkIndex,
): (number: number) => Promise<Uint8Array> {
  let run: Uint8Array = new Uint8Array(0);
  let runOffset = 0;
  return async (number) => {
    const entry = chunkAt(index, number);
    const end = entry.offset + entry.storedSize;
    if (entry.offset < runOffset || end > runOffset + run.byteLength) {
      runOffset = entry.offset;
      run = await bundle.readData(
        runOffset,
        Math.min(RUN_BYTES, bundle.manifest.dataBytes - runOffset),
      );
    }
    return openChunk(run.subarray(entry.offset - runOffset, end - runOffset), entry);
  };
}

async function* piecesOf(
  payload: PayloadIndex,
  piece: number,
  read: (number: number) => Promise<Uint8Array>,
  zeros: Uint8Array,
): AsyncGenerator<Uint8Array> {
  const chunk = payload.chunks[piece] ?? -1;
  if (chunk >= 0) {
    yield await read(chunk);
    return;
  }
  let left = (payload.positions[piece + 1] ?? 0) - (payload.positions[piece] ?? 0);
  for (; left > 0; left -= Math.min(left, ZERO_BYTES))
    yield zeros.subarray(0, Math.min(left, ZERO_BYTES));
}

interface StreamDigest {
  readonly update: (bytes: Uint8Array) => void;
  readonly finish: () => void;
}

function imageDigest(described: Manifest['payloads'][number] | undefined): StreamDigest {
  const hash = createHash('sha256');
  return {
    update: (bytes) => {
      hash.update(bytes);
    },
    finish: () => {
      const found = hash.digest('hex');
      if (described?.kind !== 'image' || found !== described.sha256) {
        throw new Problem('E_HASH', `image ${described?.name} has digest ${found}`);
      }
    },
  };
}

/** Digests each content of the tree as its bytes go by; contents follow one another without a gap. */
function treeDigests({ entries, layout }: PayloadTree): StreamDigest {
  let next = 0;
  let left = 0;
  let hash = createHash('sha256');
  const check = (): void => {
    const file = layout.contents[next - 1]?.files[0] ?? -1;
    const entry = entries[file];
    const found = hash.digest('hex');
    if (entry?.kind !== 'file' || entry.sha256 !== found) {
      throw new Problem('E_HASH', `file ${quote(entry?.path ?? '')} has digest ${found}`);
    }
  };
  return {
    update: (bytes) => {
      for (let at = 0; at < bytes.byteLength; ) {
        if (left === 0) {
          left = layout.contents[next]?.sizeBytes ?? 0;
          next += 1;
          hash = createHash('sha256');
        }
        const size = Math.min(left, bytes.byteLength - at);
        hash.update(bytes.subarray(at, at + size));
        at += size;
        left -= size;
        if (left === 0) check();
      }
    },
    finish: () => {
      if (next !== layout.contents.length || left !== 0)
        throw new Problem('E_SIZE', 'tree is not filled by its chunks');
    },
  };
}
