/**
 * Verdicts: SLSA verification summaries (VSA v1) in DSSE envelopes. The gate makes them, hosts check them.
 * docs/specs/policy-gates.md.
 */
import * as v from 'valibot';
import type { Envelope } from '#/protocol/documents.ts';
import { isProblem, Problem } from '#/protocol/errors.ts';
import type { ArtifactId } from '#/protocol/ids.ts';
import {
  checkSubject,
  parseStatement,
  type Statement,
  STATEMENT_PAYLOAD_TYPE,
  STATEMENT_TYPE,
} from './attestation.ts';
import { canonicalDocument } from './canonical.ts';
import { openEnvelope, signEnvelope } from './dsse.ts';
import type { PublicKey, Signer } from './keys.ts';
import { dateText } from './trust/shape.ts';

const VSA_TYPE = 'https://slsa.dev/verification_summary/v1';
/** Name of the rules in verdicts: the target path, under no host. */
const POLICY_URI = 'switchback:policy/gates.json';

const predicateSchema = v.looseObject({
  verifier: v.looseObject({ id: v.string() }),
  resourceUri: v.string(),
  policy: v.looseObject({ digest: v.looseObject({ sha256: v.string() }) }),
  verificationResult: v.string(),
});

/** What a verdict is about: an artifact in one stage of the fleet. */
function resourceUri(imageClass: string, group: string): string {
  return `fleet:${imageClass}/${group}`;
}

export interface Verdict {
  readonly artifactId: ArtifactId;
  readonly class: string;
  readonly group: string;
  readonly verifierId: string;
  /** sha256 of gates.json. */
  readonly policyDigest: string;
  /** sha256 of the statements that were looked at. */
  readonly inputs: readonly string[];
  readonly atMs: number;
}

/** A signed verdict that the artifact passed. */
export function signVerdict(verdict: Verdict, signer: Signer): Envelope {
  const statement = canonicalDocument({
    _type: STATEMENT_TYPE,
    subject: [{ digest: { sha256: verdict.artifactId } }],
    predicateType: VSA_TYPE,
    predicate: {
      verifier: { id: verdict.verifierId },
      timeVerified: dateText(Math.floor(verdict.atMs / 1000)),
      resourceUri: resourceUri(verdict.class, verdict.group),
      policy: { uri: POLICY_URI, digest: { sha256: verdict.policyDigest } },
      inputAttestations: verdict.inputs.map((sha256) => ({ digest: { sha256 } })),
      verificationResult: 'PASSED',
      verifiedLevels: [],
    },
  });
  return signEnvelope(STATEMENT_PAYLOAD_TYPE, statement, [signer]);
}

export interface VerdictDemand {
  readonly artifactId: ArtifactId;
  readonly class: string;
  readonly group: string;
  readonly keys: readonly PublicKey[];
  readonly verifierId: string;
  /** null: a verdict under rules that were replaced since is good, as for the version that a host goes back to. */
  readonly policyDigest: string | null;
}

/** Throws E_VSA, saying what every envelope lacks, unless one of them is the verdict that is asked for. */
export function requireVerdict(envelopes: readonly Envelope[], demand: VerdictDemand): void {
  const lacks: string[] = [];
  for (const envelope of envelopes) {
    const lack = lackOf(envelope, demand);
    if (lack === null) return;
    lacks.push(lack);
  }
  const { artifactId, group } = demand;
  throw new Problem(
    'E_VSA',
    `no verdict allows ${artifactId} in ${group}: ${lacks.join('; ') || 'the pin carries none'}`,
    { artifactId, group },
  );
}

/** What the verdict lacks, or null. */
function lackOf(envelope: Envelope, demand: VerdictDemand): string | null {
  let statement: Statement;
  try {
    const { keys } = demand;
    const trust = { keys, threshold: 1, payloadType: STATEMENT_PAYLOAD_TYPE };
    statement = parseStatement(openEnvelope(envelope, trust));
    checkSubject(statement, demand.artifactId);
  } catch (error) {
    if (!isProblem(error)) throw error;
    return error.message;
  }
  const parsed = v.safeParse(predicateSchema, statement.predicate);
  if (statement.predicateType !== VSA_TYPE || !parsed.success) return 'it is no verdict';
  const { verifier, resourceUri: uri, policy, verificationResult } = parsed.output;
  if (verifier.id !== demand.verifierId) return `it is by ${verifier.id}`;
  if (uri !== resourceUri(demand.class, demand.group)) return `it is for ${uri}`;
  if (demand.policyDigest !== null && policy.digest.sha256 !== demand.policyDigest) {
    return `it is under the rules ${policy.digest.sha256.slice(0, 12)}, which are not the current ones`;
  }
  return verificationResult === 'PASSED' ? null : `it says ${verificationResult.slice(0, 32)}`;
}
