/** Pins: the change, its signed document, its rollout and its audit entry are one transaction. */
import type { Group, Host, Pin, Release, Rollout } from '#/control/core/model.ts';
import { subjectDigest } from '#/bundle/log/entry.ts';
import type { RepositoryFile } from '#/control/trust/repository.ts';
import {
  clearDesired,
  clearHostDesired,
  setDesired,
  setHostDesired,
} from '#/control/trust/targets.ts';
import type { ConfigRef, DesiredDocument } from '#/protocol/documents.ts';
import { isProblem, Problem } from '#/protocol/errors.ts';
import type { AuditEntry } from '#/protocol/operator-plane.ts';
import {
  artifactOf,
  configOf,
  type GroupName,
  type HostId,
  type VersionId,
  versionIdOf,
} from '#/protocol/ids.ts';
import type { PinRequest } from '#/protocol/pin.ts';
import { configFor, listedConfig } from './configs.ts';
import { type Desk, refOf, repositoryOf } from './desk.ts';
import type { Draft } from './draft.ts';
import { gated, loggingDenials, requirePassed } from './gates.ts';
import { keepPinEntry, stapled } from './log.ts';
import { endRollout, startRollout } from './rollouts.ts';

function pinnable(draft: Draft, request: PinRequest, now: number): Release {
  const release = draft.release(request.artifactId);
  if (release.revoked !== null)
    throw new Problem('E_REVOKED', `${release.version} was revoked: ${release.revoked.reason}`);
  if (request.expiresAtMs !== undefined && request.expiresAtMs <= now)
    throw new Problem('E_USAGE', 'the pin would be expired at once');
  return release;
}

/** A version with what signed documents say of it. */
interface Pinned {
  readonly release: Release;
  readonly config: ConfigRef | null;
}

/** What a pin replaces; null for nothing, and for what is not known here. */
function formerOf(desk: Desk, draft: Draft, version: VersionId | null): Pinned | null {
  const release = version === null ? undefined : draft.fleet.releases.get(artifactOf(version));
  if (version === null || release === undefined) return null;
  const configId = configOf(version);
  if (configId === null) return { release, config: null };
  const config = listedConfig(repositoryOf(desk, draft), configId);
  return config === null ? null : { release, config };
}

function isSame(a: Pinned, b: Pinned): boolean {
  return a.release.artifactId === b.release.artifactId && a.config?.configId === b.config?.configId;
}

function documentOf(
  pin: Pin,
  pinned: Pinned,
  request: PinRequest,
  previous: Pinned | null,
): DesiredDocument {
  const before = previous === null || isSame(previous, pinned) ? null : previous;
  return {
    schema: 'switchback.desired/1',
    group: pin.group,
    ...(pin.host === null ? {} : { host: pin.host }),
    seq: pin.seq,
    artifact: refOf(pinned.release),
    ...(pinned.config === null ? {} : { config: pinned.config }),
    ...(before === null ? {} : { previous: refOf(before.release) }),
    ...(before?.config == null ? {} : { previousConfig: before.config }),
    reason: pin.reason,
    waves: (request.waves ?? []).map((wave) => ({
      percent: Math.round(wave.percent),
      notBefore: Math.floor(wave.notBeforeMs / 1000),
    })),
    ...(pin.expiresAtMs === null ? {} : { expiresAt: Math.ceil(pin.expiresAtMs / 1000) }),
  };
}

function newPin(
  draft: Draft,
  group: Group,
  host: HostId | null,
  request: PinRequest,
  actor: string,
): Pin {
  return {
    group: group.name,
    host,
    artifactId: versionIdOf(request.artifactId, request.configId),
    seq: group.pinSeq + 1,
    reason: request.reason,
    ticket: request.ticket ?? null,
    actor,
    createdAtMs: draft.now,
    expiresAtMs: request.expiresAtMs ?? null,
    epoch: draft.fleet.epoch,
  };
}

/** Writes the pin into the audit log, with the digest of its document: what hosts ask the log for. */
async function record(
  draft: Draft,
  pin: Pin,
  release: Release,
  document: DesiredDocument,
): Promise<AuditEntry> {
  const subject = pin.host === null ? `group/${pin.group}` : `host/${pin.host}`;
  const { artifactId, seq, reason, ticket, expiresAtMs } = pin;
  const entry = await draft.audit(pin.actor, 'pin', subject, {
    group: pin.group,
    artifactId: artifactOf(artifactId),
    ...(document.config === undefined ? {} : { configId: document.config.configId }),
    version: release.version,
    seq,
    reason,
    ticket,
    expiresAtMs,
    digest: subjectDigest(document),
  });
  await keepPinEntry(draft, document, entry);
  return entry;
}

/** Every class that the hosts of the group have must be the one of the release. */
function refuseOtherClass(draft: Draft, group: Group, release: Release): void {
  for (const id of draft.fleet.hostsOf.get(group.name) ?? []) {
    const host = draft.fleet.hosts.get(id);
    if (host !== undefined && host.class !== release.class)
      throw new Problem(
        'E_CLASS',
        `${release.version} is of class ${release.class}, host ${id} of ${group.name} is of class ${host.class}`,
      );
  }
}

function configOfRequest(
  desk: Desk,
  draft: Draft,
  release: Release,
  group: string,
  request: PinRequest,
): ConfigRef | null {
  return configFor(repositoryOf(desk, draft), release, group, request.configId ?? null);
}

/** Pins a group: a signed document, and a rollout that brings its hosts there. */
export function pinGroup(
  desk: Desk,
  name: GroupName,
  request: PinRequest,
  actor: string,
): Promise<{ pin: Pin; rollout: Rollout }> {
  const change = async (draft: Draft): Promise<{ pin: Pin; rollout: Rollout }> => {
    const group = draft.group(name);
    const release = pinnable(draft, request, draft.now);
    refuseOtherClass(draft, group, release);
    const config = configOfRequest(desk, draft, release, name, request);
    const pin = newPin(draft, group, null, request, actor);
    const previous = formerOf(desk, draft, group.current);
    const plain = documentOf(pin, { release, config }, request, previous);
    const document = await gated(desk, draft, plain, release, actor);
    const entry = await record(draft, pin, release, document);
    const logged = await stapled(desk, draft, document, entry);
    await draft.publish(setDesired(repositoryOf(desk, draft), logged));
    return { pin, rollout: await keepGroupPin(desk, draft, group, pin) };
  };
  return loggingDenials(desk, actor, `group/${name}`, () => desk.engine.change(change));
}

async function keepGroupPin(desk: Desk, draft: Draft, group: Group, pin: Pin): Promise<Rollout> {
  await draft.writer.removePin(group.name, null, draft.now);
  await draft.addPin(pin);
  await draft.putGroup({ ...group, pin, pinSeq: pin.seq }, true);
  return startRollout(desk, draft, draft.group(group.name), pin);
}

/**
 * The pin that operators signed elsewhere, inside the change that publishes it.
 * @throws Problem E_CONFLICT (its seq does not grow), E_NOT_FOUND, E_CLASS, E_REVOKED, E_PIN (it is another host's), E_VSA
 */
export async function adoptPin(
  desk: Desk,
  draft: Draft,
  document: DesiredDocument,
  actor: string,
): Promise<void> {
  const group = draft.group(document.group);
  if (document.seq <= group.pinSeq)
    throw new Problem(
      'E_CONFLICT',
      `pins of ${group.name} are at seq ${group.pinSeq}, the signed one has ${document.seq}`,
      { seq: group.pinSeq },
    );
  const request: PinRequest = {
    artifactId: document.artifact.artifactId,
    ...(document.config === undefined ? {} : { configId: document.config.configId }),
    reason: document.reason,
    ...(document.expiresAt === undefined ? {} : { expiresAtMs: document.expiresAt * 1000 }),
  };
  const release = pinnable(draft, request, draft.now);
  configOfRequest(desk, draft, release, group.name, request);
  const id = document.host ?? null;
  requirePassed(desk, draft, document);
  const pin = { ...newPin(draft, group, id, request, actor), seq: document.seq };
  if (id === null) {
    refuseOtherClass(draft, group, release);
    await record(draft, pin, release, document);
    await keepGroupPin(desk, draft, group, pin);
    return;
  }
  const host = draft.host(id);
  if (host.group !== group.name)
    throw new Problem('E_PIN', `host ${id} is in group ${host.group}, the pin in ${group.name}`);
  await record(draft, pin, release, document);
  await keepHostPin(draft, group, host, pin, release);
}

/**
 * Removes the pin of a group: its hosts stay where they are, its rollout ends, and its role is signed anew without the pin. Where
 * the keys of the group are elsewhere, control only stops offering: the signed pin stays until its operators sign another.
 */
export function unpinGroup(desk: Desk, name: GroupName, actor: string): Promise<void> {
  return desk.engine.change(async (draft) => {
    if (draft.group(name).pin === null)
      throw new Problem('E_NOT_FOUND', `group ${name} is not pinned`);
    await draft.publish(whereHeld(() => clearDesired(repositoryOf(desk, draft), name)));
    await forgetGroupPin(draft, name, actor);
  });
}

/** Nothing is published where the keys of the role are elsewhere. */
function whereHeld(change: () => readonly RepositoryFile[]): readonly RepositoryFile[] {
  try {
    return change();
  } catch (error) {
    if (isProblem(error, 'E_SIGS')) return [];
    throw error;
  }
}

/** The pin of a group was signed away, here or elsewhere, inside the change that publishes that. */
export async function forgetGroupPin(draft: Draft, name: GroupName, actor: string): Promise<void> {
  const group = draft.group(name);
  if (group.pin === null) return;
  await endRollout(draft, group, `the pin was removed by ${actor}`);
  await draft.writer.removePin(name, null, draft.now);
  await draft.putGroup({ ...group, pin: null }, true);
  await draft.audit(actor, 'unpin', `group/${name}`, { artifactId: group.pin.artifactId });
}

/** Pins one host; this goes before the pin of its group, and starts no rollout. */
export function pinHost(desk: Desk, id: HostId, request: PinRequest, actor: string): Promise<Pin> {
  const change = async (draft: Draft): Promise<Pin> => {
    const host = draft.host(id);
    const group = draft.group(host.group);
    const release = pinnable(draft, request, draft.now);
    const config = configOfRequest(desk, draft, release, group.name, request);
    const pin = newPin(draft, group, id, request, actor);
    const previous = formerOf(desk, draft, host.running);
    const plain = documentOf(pin, { release, config }, request, previous);
    const document = await gated(desk, draft, plain, release, actor);
    const entry = await record(draft, pin, release, document);
    const logged = await stapled(desk, draft, document, entry);
    await draft.publish(setHostDesired(repositoryOf(desk, draft), logged));
    await keepHostPin(draft, group, host, pin, release);
    return pin;
  };
  return loggingDenials(desk, actor, `host/${id}`, () => desk.engine.change(change));
}

async function keepHostPin(
  draft: Draft,
  group: Group,
  host: Host,
  pin: Pin,
  release: Release,
): Promise<void> {
  if (release.class !== host.class)
    throw new Problem(
      'E_CLASS',
      `${release.version} is of class ${release.class}, the host of class ${host.class}`,
    );
  await draft.writer.removePin(group.name, host.id, draft.now);
  await draft.addPin(pin);
  await draft.putGroup({ ...group, pinSeq: pin.seq }, false);
  await draft.putHost({ ...host, pin });
}

/**
 * Takes the pin of a host that goes out of the store and of the signed targets, inside a change that goes on. Where the keys of
 * the group are elsewhere it stays signed: nobody asks for it any more.
 */
export async function dropHostPin(desk: Desk, draft: Draft, host: Host): Promise<void> {
  const { pin } = host;
  if (pin === null) return;
  const repository = repositoryOf(desk, draft);
  await draft.publish(whereHeld(() => clearHostDesired(repository, pin.group, host.id)));
  await draft.writer.removePin(pin.group, host.id, draft.now);
}

/** The pin of one host was signed away elsewhere, inside the change that publishes that. */
export async function forgetHostPin(draft: Draft, id: HostId, actor: string): Promise<void> {
  const host = draft.fleet.hosts.get(id);
  if (host === undefined || host.pin === null) return;
  await draft.writer.removePin(host.pin.group, id, draft.now);
  await draft.putHost({ ...host, pin: null });
  await draft.audit(actor, 'unpin', `host/${id}`, { artifactId: host.pin.artifactId });
}

/** The host follows its group again. */
export function unpinHost(desk: Desk, id: HostId, actor: string): Promise<void> {
  return desk.engine.change(async (draft) => {
    const host = draft.host(id);
    if (host.pin === null) throw new Problem('E_NOT_FOUND', `host ${id} has no pin of its own`);
    await draft.publish(clearHostDesired(repositoryOf(desk, draft), host.pin.group, host.id));
    await draft.writer.removePin(host.pin.group, host.id, draft.now);
    await draft.putHost({ ...host, pin: null });
    await draft.audit(actor, 'unpin', `host/${id}`, { artifactId: host.pin.artifactId });
  });
}
