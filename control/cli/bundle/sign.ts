/** Adds signatures to a bundle: how a second builder vouches for the bytes that it built as well. */
import { mkdtemp, rm } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { addSignatures, encodeEnvelope } from '#/bundle/dsse.ts';
import type { Signer } from '#/bundle/keys.ts';
import { openBundle } from '#/control/cli/bundle/read.ts';
import { writeBundle } from '#/control/cli/bundle/write-bundle.ts';
import { Problem } from '#/protocol/errors.ts';
import type { ArtifactId } from '#/protocol/ids.ts';

export interface SignResult {
  readonly artifactId: ArtifactId;
  /** All keys that have signed now. */
  readonly keyIds: readonly string[];
  readonly bundleBytes: number;
}

/**
 * Writes the bundle at `path` to `out` (may be the same) with signatures of `signers` over its manifest added; those of the
 * same keys are replaced, everything else stays byte for byte. Throws as `openBundle` does, and E_ARTIFACT when `expected` is
 * another artifact: a builder signs what it built itself, not what it was handed.
 */
export async function signBundle(
  path: string,
  out: string,
  signers: readonly Signer[],
  expected: ArtifactId | null,
  signal?: AbortSignal,
): Promise<SignResult> {
  await using bundle = await openBundle(path, null);
  if (expected !== null && bundle.artifactId !== expected) {
    throw new Problem('E_ARTIFACT', `${path} is ${bundle.artifactId}, not ${expected}`);
  }
  const envelope = addSignatures(bundle.envelope, signers);
  const { attestations, index, dataOffset } = bundle.located;
  const target = resolve(out);
  const scratch = await mkdtemp(join(dirname(target), `.${basename(target)}.`));
  try {
    const bundleBytes = await writeBundle(
      {
        created: bundle.manifest.created,
        manifest: bundle.manifestBytes,
        envelope: encodeEnvelope(envelope),
        attestations: await bundle.readAt(attestations.offset, attestations.sizeBytes),
        index: await bundle.readAt(index.offset, index.sizeBytes),
        readData: (offset, sizeBytes) => bundle.readAt(dataOffset + offset, sizeBytes),
        dataBytes: bundle.manifest.dataBytes,
      },
      join(scratch, 'bundle'),
      target,
      () => {},
      signal,
    );
    const keyIds = envelope.signatures.map((signature) => signature.keyid);
    return { artifactId: bundle.artifactId, keyIds, bundleBytes };
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}
