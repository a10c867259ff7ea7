/** Statements about a bundle: in-toto, signed, kept in the bundle itself; and the proof that it can be built again. */
import { mkdtemp, rm } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { parseStatement, STATEMENT_PAYLOAD_TYPE, STATEMENT_TYPE } from '#/bundle/attestation.ts';
import { canonicalDocument } from '#/bundle/canonical.ts';
import { encodeEnvelope, signEnvelope } from '#/bundle/dsse.ts';
import { type Signer, sha256 } from '#/bundle/keys.ts';
import type { Payload } from '#/bundle/manifest.ts';
import { type BuildOptions, type BuildResult, buildBundle } from '#/control/cli/bundle/build.ts';
import { openBundle } from '#/control/cli/bundle/read.ts';
import { writeBundle } from '#/control/cli/bundle/write-bundle.ts';
import type { Envelope } from '#/protocol/documents.ts';
import { type JsonValue, Problem } from '#/protocol/errors.ts';
import type { ArtifactId } from '#/protocol/ids.ts';

export interface Attestation {
  readonly predicateType: string;
  readonly predicate: JsonValue;
}

/** A signed in-toto statement about an artifact. @throws Problem E_SCHEMA, E_CANON for what no statement can hold */
function attestationOf(
  artifactId: ArtifactId,
  name: string,
  { predicateType, predicate }: Attestation,
  signers: readonly Signer[],
): Envelope {
  const payload = canonicalDocument({
    _type: STATEMENT_TYPE,
    subject: [{ name, digest: { sha256: artifactId } }],
    predicateType,
    predicate,
  });
  parseStatement(payload);
  return signEnvelope(STATEMENT_PAYLOAD_TYPE, payload, signers);
}

export interface AttestResult {
  readonly artifactId: ArtifactId;
  readonly predicateType: string;
  /** sha256 of the statement. */
  readonly digest: string;
  readonly statements: number;
  readonly bundleBytes: number;
  readonly envelope: Envelope;
}

/** Writes the bundle at `path` to `out` (may be the same) with one more statement; everything else stays byte for byte. */
export async function attestBundle(
  path: string,
  out: string,
  attestation: Attestation,
  signers: readonly Signer[],
  signal?: AbortSignal,
): Promise<AttestResult> {
  await using bundle = await openBundle(path, null);
  const { manifest, artifactId } = bundle;
  const name = `${manifest.name}-${manifest.version}`;
  const envelope = attestationOf(artifactId, name, attestation, signers);
  const line = Buffer.from(encodeEnvelope(envelope)).toString('utf8');
  const lines = [...new Set([...bundle.attestations, line])];
  const { index, dataOffset } = bundle.located;
  const target = resolve(out);
  const scratch = await mkdtemp(join(dirname(target), `.${basename(target)}.`));
  try {
    const bundleBytes = await writeBundle(
      {
        created: manifest.created,
        manifest: bundle.manifestBytes,
        envelope: encodeEnvelope(bundle.envelope),
        attestations: Buffer.from(lines.map((each) => `${each}\n`).join(''), 'utf8'),
        index: await bundle.readAt(index.offset, index.sizeBytes),
        readData: (offset, sizeBytes) => bundle.readAt(dataOffset + offset, sizeBytes),
        dataBytes: manifest.dataBytes,
      },
      join(scratch, 'bundle'),
      target,
      () => {},
      signal,
    );
    return {
      artifactId,
      predicateType: attestation.predicateType,
      digest: sha256(Buffer.from(envelope.payload, 'base64')),
      statements: lines.length,
      bundleBytes,
      envelope,
    };
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

/**
 * Builds again what the bundle at `path` says it is made of, and compares. @throws Problem E_ARTIFACT naming what differs; E_CONFIG
 * when the definition is of another release
 */
export async function rebuildAndCompare(
  path: string,
  options: Omit<BuildOptions, 'out' | 'sourceDateEpoch'>,
): Promise<BuildResult> {
  await using bundle = await openBundle(path, null);
  const { manifest } = bundle;
  const scratch = await mkdtemp(join(dirname(resolve(path)), '.rebuild.'));
  try {
    const built = await buildBundle({
      ...options,
      out: join(scratch, 'bundle'),
      sourceDateEpoch: manifest.created,
    });
    if (built.artifactId === bundle.artifactId) return built;
    const fields = (['name', 'class', 'arch', 'version', 'release'] as const).filter(
      (field) => built.manifest[field] !== manifest[field],
    );
    const payloads = manifest.payloads.filter(
      (payload) => digestOf(built.manifest.payloads, payload.name) !== digestOf([payload]),
    );
    const what =
      fields.length > 0
        ? fields.join(', ')
        : payloads.length > 0
          ? `payload ${payloads.map((payload) => payload.name).join(', ')}`
          : built.manifest.index.sha256 === manifest.index.sha256
            ? 'the manifest'
            : 'the chunks, as another version of the compressor makes them';
    throw new Problem(
      'E_ARTIFACT',
      `${path} is ${bundle.artifactId}, the rebuild is ${built.artifactId}: ${what} differs`,
      { artifactId: bundle.artifactId, rebuilt: built.artifactId },
    );
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

function digestOf(payloads: readonly Payload[], name?: string): string | undefined {
  const payload = payloads.find((each) => name === undefined || each.name === name);
  return payload?.kind === 'image' ? payload.sha256 : payload?.treeSha256;
}
