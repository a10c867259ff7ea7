/** The gates before a pin: facts from what was verified, the rules asked in a thread, the verdict signed and logged. */
import { attestedOf } from '#/bundle/attested.ts';
import { parseStatement } from '#/bundle/attestation.ts';
import { bytesOfHex, hexOf, publicKeyOf, sha256 } from '#/bundle/keys.ts';
import { desiredPath, groupRole, readDocument } from '#/bundle/trust/documents.ts';
import { coversGroup } from '#/bundle/trust/gates.ts';
import { requireVerdict, signVerdict } from '#/bundle/vsa.ts';
import { artifactOf, type ArtifactId, type GroupName, type VersionId } from '#/protocol/ids.ts';
import { isProblem, Problem } from '#/protocol/errors.ts';
import { type DesiredDocument, desiredDocument, type Envelope } from '#/protocol/documents.ts';
import type { Release } from '#/control/core/model.ts';
import { factsOf, type StageFacts } from '#/control/policy/facts.ts';
import { judge } from '#/control/policy/judge.ts';
import {
  addAttestations,
  readAttestations,
  readAttesters,
  readGates,
} from '#/control/trust/gates.ts';
import { hasRole } from '#/control/trust/delegations.ts';
import { readRoleDocument, readTarget } from '#/control/trust/repository.ts';
import { readRevoked } from '#/control/trust/targets.ts';
import { type Desk, refOf, repositoryOf } from './desk.ts';
import type { Draft } from './draft.ts';

interface Question {
  readonly release: Release;
  readonly group: string;
  readonly reason: string;
}

/**
 * The verdict for a pin, or null where the policy asks for none. @throws Problem E_GATE with the rules that denied, and what
 * attestations can be refused with
 */
async function passGates(
  desk: Desk,
  draft: Draft,
  question: Question,
  actor: string,
): Promise<Envelope | null> {
  const repository = repositoryOf(desk, draft);
  const policy = readGates(repository);
  const { release, group, reason } = question;
  if (policy === null || !coversGroup(policy.gates.groups, group)) return null;
  const signer = desk.gateKey;
  if (signer === null || !policy.gates.keys.includes(hexOf(signer.key.bytes))) {
    throw new Problem('E_GATE', 'control does not hold a key of the gates that the policy names');
  }
  const attested = attestedOf(
    readAttestations(repository, release),
    release.artifactId,
    readAttesters(repository),
    readRevoked(repository).keyIds,
  );
  const { artifactId, version } = release;
  const facts = factsOf(
    {
      nowS: Math.floor(draft.now / 1000),
      artifact: { artifactId, class: release.class, version, release: release.release },
      group,
      reason,
      stages: stagesOf(draft, release),
    },
    attested,
  );
  const rules = policy.gates.rules.filter((rule) => coversGroup(rule.groups, group));
  const results = await judge(rules, facts);
  const denied = results.filter((result) => !result.isAllowed);
  if (rules.length === 0 || denied.length > 0) {
    const why = denied.map(({ name, why: words }) => `${name}: ${words}`);
    throw new Problem(
      'E_GATE',
      `the gates deny ${version} in ${group}: ${why.join('; ') || 'no rule speaks of this group'}`,
      { artifactId, group, denied: denied.map((each) => each.name), policyDigest: policy.digest },
    );
  }
  const inputs = attested.map((each) => each.digest);
  const verdict = signVerdict(
    {
      artifactId,
      class: release.class,
      group,
      verifierId: policy.gates.verifierId,
      policyDigest: policy.digest,
      inputs,
      atMs: draft.now,
    },
    signer,
  );
  await draft.audit(actor, 'gate.pass', `release/${artifactId}`, {
    group,
    policyDigest: policy.digest,
    rules: rules.map((rule) => rule.name),
    inputs,
    approvers: [...facts.approvers],
    verdict: sha256(Buffer.from(verdict.payload, 'base64')),
  });
  return verdict;
}

/** How the artifact does in each group. */
function stagesOf(draft: Draft, release: Release): Record<string, StageFacts> {
  const { fleet, now } = draft;
  const isOf = (version: VersionId | null): boolean =>
    version !== null && artifactOf(version) === release.artifactId;
  const stages: Record<string, StageFacts> = {};
  for (const [name, group] of fleet.groups) {
    const hosts = [...(fleet.hostsOf.get(name) ?? [])].flatMap((id) => fleet.hosts.get(id) ?? []);
    const attempts = hosts.flatMap((host) =>
      host.attempts.filter((attempt) => isOf(attempt.artifactId)),
    );
    const isPinned = isOf(group.pin?.artifactId ?? null);
    stages[name] = {
      hosts: hosts.length,
      confirmed: hosts.filter((host) => isOf(host.running)).length,
      failed: attempts.filter((a) => a.endedAtMs !== null && a.outcome !== 'confirmed').length,
      soakedS: isPinned ? Math.floor((now - (group.pin?.createdAtMs ?? now)) / 1000) : 0,
    };
  }
  return stages;
}

/** The pin with the verdicts that its hosts will ask for. @throws Problem as passGates */
export async function gated(
  desk: Desk,
  draft: Draft,
  document: DesiredDocument,
  release: Release,
  actor: string,
): Promise<DesiredDocument> {
  const question = { release, group: document.group, reason: document.reason };
  return verdictsOf(desk, draft, document, await passGates(desk, draft, question, actor));
}

/** Verdicts for a pin that is signed elsewhere. @throws Problem as passGates */
export function askGates(
  desk: Desk,
  group: GroupName,
  request: { readonly artifactId: ArtifactId; readonly reason: string },
  actor: string,
): Promise<readonly Envelope[]> {
  const ask = async (draft: Draft): Promise<readonly Envelope[]> => {
    const { current, pinSeq } = draft.group(group);
    const release = draft.release(request.artifactId);
    const before = current === null ? null : artifactOf(current);
    const isOther = before !== null && before !== release.artifactId;
    const document: DesiredDocument = {
      schema: 'switchback.desired/1',
      group,
      seq: pinSeq + 1,
      artifact: refOf(release),
      ...(isOther ? { previous: refOf(draft.release(before)) } : {}),
      reason: request.reason,
      waves: [],
    };
    return (await gated(desk, draft, document, release, actor)).verdicts ?? [];
  };
  return loggingDenials(desk, actor, `group/${group}`, () => desk.engine.change(ask));
}

/** A pin that was signed elsewhere carries the verdict that its hosts will ask for. @throws Problem E_VSA */
export function requirePassed(desk: Desk, draft: Draft, document: DesiredDocument): void {
  const policy = readGates(repositoryOf(desk, draft));
  if (policy === null || !coversGroup(policy.gates.groups, document.group)) return;
  requireVerdict(document.verdicts ?? [], {
    artifactId: document.artifact.artifactId,
    class: document.artifact.class,
    group: document.group,
    keys: policy.gates.keys.map((hex) => publicKeyOf(bytesOfHex(hex, 32) ?? new Uint8Array())),
    verifierId: policy.gates.verifierId,
    policyDigest: policy.digest,
  });
}

/** Verdicts that a pin carries: of what it pins, and the one under which what it replaces was pinned. */
function verdictsOf(
  desk: Desk,
  draft: Draft,
  document: DesiredDocument,
  verdict: Envelope | null,
): DesiredDocument {
  const kept = document.previous === undefined ? [] : publishedVerdicts(desk, draft, document);
  const verdicts = [...(verdict === null ? [] : [verdict]), ...kept];
  return verdicts.length === 0 ? document : { ...document, verdicts };
}

function publishedVerdicts(
  desk: Desk,
  draft: Draft,
  { group, previous }: DesiredDocument,
): readonly Envelope[] {
  const repository = repositoryOf(desk, draft);
  const role = groupRole(group);
  if (!hasRole(repository, role)) return [];
  const path = desiredPath(group);
  const bytes = readTarget(repository, readRoleDocument(repository, role), path);
  if (bytes === null) return [];
  const { verdicts } = readDocument(path, desiredDocument, bytes);
  const isOfPrevious = (each: Envelope): boolean =>
    parseStatement(Buffer.from(each.payload, 'base64')).subject.some(
      (subject) => subject.digest['sha256'] === previous?.artifactId,
    );
  return (verdicts ?? []).filter(isOfPrevious).slice(0, 1);
}

/** Runs a change; that the gates denied it is written down, although nothing else of it is. */
export async function loggingDenials<T>(
  desk: Desk,
  actor: string,
  subject: string,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (isProblem(error, 'E_GATE', 'E_BUILDER', 'E_SUBJECT')) {
      const { code, message, details } = error;
      await desk.engine.change((draft) =>
        draft.audit(actor, 'gate.deny', subject, { ...details, code, message }),
      );
    }
    throw error;
  }
}

/** Lists statements about a release under its role. @throws Problem E_SUBJECT, E_BUILDER, E_SIGS (control holds no key of it) */
async function keepAttestations(
  desk: Desk,
  draft: Draft,
  release: Release,
  envelopes: readonly Envelope[],
  actor: string,
): Promise<void> {
  const repository = repositoryOf(desk, draft);
  const lines = envelopes.map((each) => JSON.stringify(each));
  attestedOf(lines, release.artifactId, readAttesters(repository), readRevoked(repository).keyIds);
  const files = addAttestations(repository, refOf(release), envelopes);
  if (files.length === 0) return;
  await draft.publish(files);
  await draft.audit(actor, 'release.attest', `release/${release.artifactId}`, {
    statements: envelopes.map((each) => {
      const payload = Buffer.from(each.payload, 'base64');
      return { type: parseStatement(payload).predicateType, digest: sha256(payload) };
    }),
  });
}

/** Statements of someone who sends them for a release. */
export function attestRelease(
  desk: Desk,
  id: ArtifactId,
  envelopes: readonly Envelope[],
  actor: string,
): Promise<Release> {
  return desk.engine.change(async (draft) => {
    const release = draft.release(id);
    await keepAttestations(desk, draft, release, envelopes, actor);
    return release;
  });
}

/**
 * Statements that came with a bundle. They are listed when the policy knows attesters; where control holds no key of the role
 * they are left out, and whoever holds them sends them later.
 */
export async function keepBundled(
  desk: Desk,
  draft: Draft,
  release: Release,
  envelopes: readonly Envelope[],
  actor: string,
): Promise<void> {
  if (readAttesters(repositoryOf(desk, draft)).attesters.length === 0) return;
  try {
    await keepAttestations(desk, draft, release, envelopes, actor);
  } catch (error) {
    if (!isProblem(error, 'E_SIGS')) throw error;
    await draft.audit(actor, 'release.attest-left-out', `release/${release.artifactId}`, {
      message: error.message,
    });
  }
}
