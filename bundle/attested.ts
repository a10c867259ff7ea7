/**
 * From the lines of an attestation file to what may be believed: each statement verified, mapped to the attester that the
 * policy names, about this artifact, of a kind that this attester may state. docs/specs/policy-gates.md.
 */
import * as v from 'valibot';
import type { Envelope } from '#/protocol/documents.ts';
import { isProblem, type JsonValue, Problem } from '#/protocol/errors.ts';
import type { ArtifactId } from '#/protocol/ids.ts';
import {
  checkSubject,
  parseStatement,
  PROVENANCE_TYPE,
  type Statement,
  STATEMENT_PAYLOAD_TYPE,
} from './attestation.ts';
import { decodeEnvelope, openEnvelope } from './dsse.ts';
import { verifyFast } from './ed25519.ts';
import { bytesOfHex, publicKeyOf, sha256 } from './keys.ts';
import type { AttestersDocument } from './trust/gates.ts';

/** Lines of one artifact that are looked at. */
const ATTESTATIONS_MAX = 1024;

type Attester = AttestersDocument['attesters'][number];

export interface Attested {
  /** Name of the attester in the policy. */
  readonly attester: string;
  readonly predicateType: string;
  readonly predicate: JsonValue;
  /** sha256 of the statement. */
  readonly digest: string;
}

const provenanceBuilder = v.looseObject({
  runDetails: v.looseObject({ builder: v.looseObject({ id: v.string() }) }),
});

/**
 * What attesters of the policy state about the artifact. Statements by nobody that the policy knows are passed over: rules ask
 * for what must be there, so that a line that is taken away can only deny. `revokedKeyIds` speak for nobody.
 * @throws Problem E_SUBJECT, E_HASHALG, E_BUILDER (provenance of a builder by a key that may not speak for it, or the reverse),
 * E_DUPSIG, E_SCHEMA and others of malformed lines
 */
export function attestedOf(
  lines: readonly string[],
  artifactId: ArtifactId,
  policy: AttestersDocument,
  revokedKeyIds: readonly string[],
): readonly Attested[] {
  if (lines.length > ATTESTATIONS_MAX) {
    throw new Problem('E_SIZE', `${lines.length} attestations, at most ${ATTESTATIONS_MAX}`);
  }
  return lines.flatMap((line) => {
    const envelope = decodeEnvelope(Buffer.from(line, 'utf8'));
    const signers = policy.attesters.filter((each) => hasSigned(each, envelope, revokedKeyIds));
    const payload = Buffer.from(envelope.payload, 'base64');
    const statement = parseStatement(payload);
    const builder = builderOf(statement);
    if (signers.length === 0) {
      if (builder !== null && policy.attesters.some((each) => each.builders.includes(builder))) {
        throw new Problem('E_BUILDER', `provenance of ${builder} by a key that is not its own`);
      }
      return [];
    }
    checkSubject(statement, artifactId);
    return signers.flatMap((each) => factOf(each, statement, builder, sha256(payload)));
  });
}

function hasSigned(attester: Attester, envelope: Envelope, revoked: readonly string[]): boolean {
  const keys = attester.keys
    .map((hex) => publicKeyOf(bytesOfHex(hex, 32) ?? new Uint8Array()))
    .filter((key) => !revoked.includes(key.keyId));
  if (keys.length === 0) return false;
  try {
    openEnvelope(envelope, {
      keys,
      threshold: 1,
      payloadType: STATEMENT_PAYLOAD_TYPE,
      verify: verifyFast,
    });
    return true;
  } catch (error) {
    if (isProblem(error, 'E_SIGS')) return false;
    throw error;
  }
}

function builderOf(statement: Statement): string | null {
  if (statement.predicateType !== PROVENANCE_TYPE) return null;
  const parsed = v.safeParse(provenanceBuilder, statement.predicate);
  return parsed.success ? parsed.output.runDetails.builder.id : null;
}

function factOf(
  attester: Attester,
  statement: Statement,
  builder: string | null,
  digest: string,
): readonly Attested[] {
  const { predicateType } = statement;
  if (!attester.types.includes(predicateType)) return [];
  if (predicateType === PROVENANCE_TYPE && !attester.builders.includes(builder ?? '')) {
    throw new Problem(
      'E_BUILDER',
      `provenance of ${builder ?? 'no builder'} by ${attester.name}, which may not speak for it`,
    );
  }
  const predicate = (statement.predicate ?? null) as JsonValue;
  return [{ attester: attester.name, predicateType, predicate, digest }];
}
