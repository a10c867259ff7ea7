/** Verifies a whole bundle: signatures, members, index, every chunk, and the digest of every image and file. */
import { createHash, type Hash } from 'node:crypto';
import { type ChunkIndex, chunkAt, type PayloadIndex } from '#/bundle/chunk-index.ts';
import { BLOCK_BYTES, padded } from '#/bundle/container.ts';
import type { Manifest } from '#/bundle/manifest.ts';
import { openChunk } from '#/bundle/open-chunk.ts';
import { type BundleTrust, type OpenBundle, openBundle } from '#/control/cli/bundle/read.ts';
import { Problem } from '#/protocol/errors.ts';
import type { ArtifactId } from '#/protocol/ids.ts';

const ZEROS = 1024 * 1024;
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
  readonly chunkCount: number;
  readonly contentBytes: number;
}

export interface VerifyOptions {
  readonly onProgress?: (progress: VerifyProgress) => void;
  readonly signal?: AbortSignal;
}

/**
 * Verifies everything in the bundle at `path`. With `trust` null, signatures are not checked and the result says so. Throws the
 * first fault: E_SIGS, E_ARTIFACT, E_CHUNK, E_HASH, E_SIZE, E_PATH, E_MODE, E_SCHEMA, E_LENGTH.
 */
export async function verifyBundle(
  path: string,
  trust: BundleTrust | null,
  options: VerifyOptions = {},
): Promise<VerifyResult> {
  await using bundle = await openBundle(path, trust);
  const index = await bundle.index();
  await checkPadding(bundle);
  const chunkAtHand = await verifyChunks(bundle, index, options);
  for (const [i, payload] of index.payloads.entries()) {
    const described = bundle.manifest.payloads[i];
    if (described?.kind === 'image') await verifyImage(bundle, payload, described, chunkAtHand);
    else await verifyTree(bundle, payload, chunkAtHand);
  }
  return {
    artifactId: bundle.artifactId,
    manifest: bundle.manifest,
    keyIds: bundle.envelope.signatures.map((signature) => signature.keyid),
    signaturesChecked: trust !== null,
    chunkCount: index.chunkCount,
    contentBytes: bundle.manifest.payloads.reduce((sum, payload) => sum + payload.sizeBytes, 0),
  };
}
