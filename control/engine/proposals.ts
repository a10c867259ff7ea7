/**
 * Changes that were signed away from control: what they publish, and what follows from it. A signed pin starts its rollout, a
 * signed revocation takes its offers back, in the same transaction. docs/specs/trust.md, section 8.
 */
import {
  groupRole,
  POLICY_ROLE,
  hostDesiredPath,
  desiredPath,
  readDocument,
} from '#/bundle/trust/documents.ts';
import { acceptProposal, proposedDocuments, signNeeded } from '#/control/trust/proposal.ts';
import { hasRole } from '#/control/trust/delegations.ts';
import {
  readRoleDocument,
  readTarget,
  type Repository,
  type TargetsDocument,
  withFiles,
} from '#/control/trust/repository.ts';
import { type DesiredDocument, desiredDocument } from '#/protocol/documents.ts';
import { isProblem, Problem } from '#/protocol/errors.ts';
import type { GroupName, HostId } from '#/protocol/ids.ts';
import type { Proposal } from '#/protocol/proposal.ts';
import { readRevoked } from '#/control/trust/targets.ts';
import { followConfigs } from './configs.ts';
import { type Desk, repositoryOf } from './desk.ts';
import type { Draft } from './draft.ts';
import { adoptPin, forgetGroupPin, forgetHostPin } from './pins.ts';
import { keepRevocation } from './releases.ts';

export interface Accepted {
  readonly documents: readonly { readonly role: string; readonly version: number }[];
}

/**
 * Publishes a proposal. Control adds the signatures of its own keys where their roles still list them; everything else must
 * be signed already. A refusal is written into the audit log.
 * @throws Problem E_SIGS, E_CONFLICT, E_EXPIRED, E_SCHEMA, E_HASH, and what a pin can be refused with
 */
export async function publishProposal(
  desk: Desk,
  proposal: Proposal,
  actor: string,
): Promise<Accepted> {
  try {
    return await desk.engine.change((draft) => publishIn(desk, draft, proposal, actor));
  } catch (error) {
    if (isProblem(error) && error.code !== 'E_UNAVAILABLE')
      await recordRefusal(desk, proposal, actor, error);
    throw error;
  }
}

function recordRefusal(
  desk: Desk,
  proposal: Proposal,
  actor: string,
  { code, message }: Problem,
): Promise<void> {
  const roles = [...new Set(proposal.needs.map((need) => need.role))];
  return desk.engine.change(async (draft) => {
    await draft.audit(actor, 'trust.refused', 'trust', {
      reason: proposal.reason,
      roles,
      code,
      message,
    });
  });
}

async function publishIn(
  desk: Desk,
  draft: Draft,
  given: Proposal,
  actor: string,
): Promise<Accepted> {
  const repository = repositoryOf(desk, draft);
  const { proposal } = signNeeded(given, desk.keys);
  const files = acceptProposal(repository, proposal);
  const next = { ...repository, store: withFiles(repository.store, files) };
  const documents = proposedDocuments(proposal);
  // Before anything is published: the draft reads through its own changes, and what was is compared with what comes.
  for (const { role } of documents) {
    if (role.startsWith('grp-'))
      await followPins(desk, draft, { repository, next }, role.slice(4) as GroupName, actor);
    if (role.startsWith('cfg-')) {
      const { before } = listings({ repository, next }, role);
      await followConfigs(draft, next, before, role.slice('cfg-'.length), actor);
    }
    if (role === POLICY_ROLE)
      await followRevocations(draft, { repository, next }, proposal.reason, actor);
  }
  await draft.publish(files);
  const shown = documents.map(({ role, signed, keyIds }) => ({
    role,
    version: signed.version,
    keyIds: [...keyIds],
  }));
  await draft.audit(actor, 'trust.publish', 'trust', {
    reason: proposal.reason,
    documents: shown,
  });
  return { documents: shown.map(({ role, version }) => ({ role, version })) };
}

interface BeforeAfter {
  readonly repository: Repository;
  readonly next: Repository;
}

/** What the role listed before and lists now. A role that is new listed nothing. */
function listings(
  { repository, next }: BeforeAfter,
  role: string,
): { readonly before: TargetsDocument['targets']; readonly now: TargetsDocument } {
  const now = readRoleDocument(next, role);
  const before = hasRole(repository, role) ? readRoleDocument(repository, role).targets : {};
  return { before, now };
}

/** Pins in a role of a group that changed, appeared or are gone. */
async function followPins(
  desk: Desk,
  draft: Draft,
  repositories: BeforeAfter,
  group: GroupName,
  actor: string,
): Promise<void> {
  const { before, now } = listings(repositories, groupRole(group));
  const pins = Object.entries(now.targets)
    .filter(([path, target]) => before[path]?.hashes.sha256 !== target.hashes.sha256)
    .map(([path]) => pinAt(repositories.next, now, path))
    .sort((a, b) => a.seq - b.seq);
  for (const pin of pins) await adoptPin(desk, draft, pin, actor);
  for (const path of Object.keys(before)) {
    if (now.targets[path] !== undefined) continue;
    const id = /\/host-(h-[0-9a-f]{32})\.json$/.exec(path)?.[1] as HostId | undefined;
    if (id !== undefined) await forgetHostPin(draft, id, actor);
    else if (path === desiredPath(group)) await forgetGroupPin(draft, group, actor);
  }
}

/** The pin that is signed under this path. @throws Problem E_PIN when it is one of another group or host */
function pinAt(repository: Repository, role: TargetsDocument, path: string): DesiredDocument {
  const bytes = readTarget(repository, role, path) ?? new Uint8Array();
  const pin = readDocument(path, desiredDocument, bytes);
  const own =
    pin.host === undefined ? desiredPath(pin.group) : hostDesiredPath(pin.group, pin.host);
  if (own !== path) throw new Problem('E_PIN', `${path} holds the pin ${own}`, { path });
  return pin;
}

async function followRevocations(
  draft: Draft,
  { repository, next }: BeforeAfter,
  reason: string,
  actor: string,
): Promise<void> {
  const [before, now] = [readRevoked(repository), readRevoked(next)];
  for (const artifactId of now.artifacts) {
    if (before.artifacts.includes(artifactId)) continue;
    const release = draft.fleet.releases.get(artifactId as never);
    if (release === undefined || release.revoked !== null) continue;
    await keepRevocation(draft, release, reason, actor);
  }
}
