/**
 * Attestations: in-toto statements in DSSE envelopes. What is checked here needs no keys: that a statement is one, and that it
 * speaks of this artifact. Who may say what is a matter of policy. docs/specs/bundle-format.md, section 1.
 */
import * as v from 'valibot';
import { parseStrictJson } from '#/bundle/strict-json.ts';
import { Problem } from '#/protocol/errors.ts';
import type { ArtifactId } from '#/protocol/ids.ts';

export const STATEMENT_PAYLOAD_TYPE = 'application/vnd.in-toto+json';
export const STATEMENT_TYPE = 'https://in-toto.io/Statement/v1';
export const PROVENANCE_TYPE = 'https://slsa.dev/provenance/v1';
/** Larger statements are refused before they are parsed. */
export const STATEMENT_MAX_BYTES = 1024 * 1024;

/** Predicates are of many types; here they only have to be there. */
const statementSchema = v.looseObject({
  _type: v.literal(STATEMENT_TYPE),
  subject: v.pipe(
    v.array(
      v.looseObject({
        name: v.optional(v.pipe(v.string(), v.maxLength(1024))),
        digest: v.record(v.string(), v.string()),
      }),
    ),
    v.minLength(1),
    v.maxLength(64),
  ),
  predicateType: v.pipe(v.string(), v.minLength(1), v.maxLength(1024)),
  predicate: v.optional(v.unknown()),
});
export type Statement = v.InferOutput<typeof statementSchema>;

/** The statement in the payload of an envelope. Throws E_TOOBIG, E_PARSE, E_CANON, E_SCHEMA. */
export function parseStatement(payload: Uint8Array): Statement {
  const value = parseStrictJson(payload, { maxBytes: STATEMENT_MAX_BYTES, numbers: 'shortest' });
  const result = v.safeParse(statementSchema, value);
  if (!result.success) {
    const issue = result.issues[0];
    throw new Problem(
      'E_SCHEMA',
      `statement: ${v.getDotPath(issue) ?? 'document'}: ${issue.message}`,
    );
  }
  return result.output;
}

/** Throws E_HASHALG when a subject has no sha256, E_SUBJECT unless one of the subjects is the artifact (C07, C16). */
export function checkSubject(statement: Statement, artifactId: ArtifactId): void {
  const digests = statement.subject.map(({ digest }) => digest['sha256']);
  if (digests.includes(undefined)) {
    throw new Problem(
      'E_HASHALG',
      `statement ${statement.predicateType} has a subject without sha256`,
    );
  }
  if (!digests.includes(artifactId)) {
    throw new Problem(
      'E_SUBJECT',
      `statement ${statement.predicateType} speaks of ${digests.join(', ')}, not of ${artifactId}`,
    );
  }
}
