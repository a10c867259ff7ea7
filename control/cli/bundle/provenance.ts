/** How a bundle came to be, as a signed in-toto statement with SLSA v1 provenance: one line of the attestations. */
import { PROVENANCE_TYPE, STATEMENT_PAYLOAD_TYPE, STATEMENT_TYPE } from '#/bundle/attestation.ts';
import { canonicalDocument } from '#/bundle/canonical.ts';
import { encodeEnvelope, signEnvelope } from '#/bundle/dsse.ts';
import type { Signer } from '#/bundle/keys.ts';
import type { Manifest } from '#/bundle/manifest.ts';
import type { ArtifactId } from '#/protocol/ids.ts';

export const BUILD_TYPE = 'https://switchback.invalid/bundle-build/v1';
const DEFAULT_BUILDER = 'https://switchback.invalid/builder/local';

export interface ProvenanceInput {
  readonly artifactId: ArtifactId;
  readonly manifest: Manifest;
  readonly builderId?: string | undefined;
  readonly source?:
    | { readonly uri: string; readonly digest: Readonly<Record<string, string>> }
    | undefined;
  readonly compressionLevel: number;
  /** Versions of what shaped the bytes: this program, the runtime, the compressor. */
  readonly versions: Readonly<Record<string, string>>;
}

/** The statement as canonical JSON; no time but the manifest's, so that a rebuild gives the same bytes. */
export function provenanceStatement(input: ProvenanceInput): Uint8Array {
  const { manifest } = input;
  return canonicalDocument({
    _type: STATEMENT_TYPE,
    subject: [
      { name: `${manifest.name}-${manifest.version}`, digest: { sha256: input.artifactId } },
    ],
    predicateType: PROVENANCE_TYPE,
    predicate: {
      buildDefinition: {
        buildType: BUILD_TYPE,
        externalParameters: {
          name: manifest.name,
          class: manifest.class,
          arch: manifest.arch,
          version: manifest.version,
          release: manifest.release,
          sourceDateEpoch: manifest.created,
        },
        internalParameters: { compressionLevel: input.compressionLevel },
        resolvedDependencies: [
          ...(input.source === undefined ? [] : [input.source]),
          ...manifest.payloads.map((payload) => ({
            name: payload.name,
            digest: { sha256: payload.kind === 'image' ? payload.sha256 : payload.treeSha256 },
          })),
        ],
      },
      runDetails: { builder: { id: input.builderId ?? DEFAULT_BUILDER, version: input.versions } },
    },
  });
}

/** The signed statement as a line of attestations.intoto.jsonl. */
export function provenanceLine(input: ProvenanceInput, signers: readonly Signer[]): Uint8Array {
  const envelope = signEnvelope(STATEMENT_PAYLOAD_TYPE, provenanceStatement(input), signers);
  return Buffer.concat([encodeEnvelope(envelope), Buffer.from('\n')]);
}
