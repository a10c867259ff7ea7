/** What operators do to one host. */
import { type Host, openAttempt } from '#/control/core/model.ts';
import { bytesOfHex, publicKeyOf } from '#/bundle/keys.ts';
import { requireSealKey } from '#/bundle/seal.ts';
import { desiredOf, versionOf } from '#/control/core/desired.ts';
import type { KeyChange } from '#/protocol/agent-plane.ts';
import { Problem } from '#/protocol/errors.ts';
import type { HostActionRequest } from '#/protocol/host.ts';
import type { GroupName, HostId } from '#/protocol/ids.ts';
import type { Labels } from '#/protocol/selector.ts';
import { type Desk, notAllowedNow } from './desk.ts';
import type { Draft } from './draft.ts';
import { addJoinToken } from './enrol.ts';
import { dropHostPin } from './pins.ts';
import { signStatement } from './statements.ts';

const REENROL_TTL_SECONDS = 3600;

export function holdHost(desk: Desk, id: HostId, reason: string, actor: string): Promise<Host> {
  return desk.engine.change(async (draft) => {
    const host = { ...draft.host(id), hold: { reason, actor, atMs: draft.now } };
    await draft.putHost(host);
    await draft.audit(actor, 'hold', `host/${id}`, { reason });
    return host;
  });
}

export function unholdHost(desk: Desk, id: HostId, actor: string): Promise<Host> {
  return desk.engine.change(async (draft) => {
    const host = { ...draft.host(id), hold: null };
    await draft.putHost(host);
    await draft.audit(actor, 'unhold', `host/${id}`, {});
    return host;
  });
}

export function labelHost(desk: Desk, id: HostId, labels: Labels, actor: string): Promise<Host> {
  return desk.engine.change(async (draft) => {
    const host = { ...draft.host(id), labels };
    await draft.putHost(host);
    await draft.audit(actor, 'labels', `host/${id}`, { labels });
    return host;
  });
}

/** New keys for a host; the change was verified to be signed by the old and by the new key. The old key is nobody's from here on. */
export function rotateHostKey(desk: Desk, change: KeyChange): Promise<Host> {
  return desk.engine.change(async (draft) => {
    const host = draft.host(change.host);
    const { keyId } = publicKeyOf(bytesOfHex(change.signKey, 32) ?? new Uint8Array());
    if ([...desk.engine.fleet.hosts.values()].some((other) => other.keyId === keyId))
      throw new Problem('E_CONFLICT', `key ${keyId} is that of a host already`);
    const { signKey, sealKey } = change;
    requireSealKey(bytesOfHex(sealKey, 32) ?? new Uint8Array());
    const statement = signStatement(desk.enrolment, {
      schema: 'switchback.host-statement/1',
      host: host.id,
      group: host.group,
      class: host.class,
      arch: host.arch === 'arm64' ? 'arm64' : 'amd64',
      signKey,
      sealKey,
      seq: statementSeq(host) + 1,
      issuedAtMs: draft.now,
    });
    const next = { ...host, keyId, signKey, sealKey, statement };
    await draft.putHost(next);
    await draft.audit(`host/${host.id}`, 'host.rotate-key', `host/${host.id}`, {
      from: host.keyId,
      keyId,
      sealKey,
    });
    return next;
  });
}

/** The result in words, and the token of `re-enrol`. */
export function actOnHost(
  desk: Desk,
  id: HostId,
  request: HostActionRequest,
  actor: string,
): Promise<{ words: string; token: string | null }> {
  return desk.engine.change(async (draft) => {
    const host = draft.host(id);
    const result = await act(desk, draft, host, request, actor);
    await draft.audit(actor, `host.${request.action}`, `host/${id}`, {
      reason: request.reason,
      ...(request.action === 'move' ? { from: host.group, to: request.group } : {}),
    });
    return result;
  });
}

async function act(
  desk: Desk,
  draft: Draft,
  host: Host,
  request: HostActionRequest,
  actor: string,
): Promise<{ words: string; token: string | null }> {
  switch (request.action) {
    case 'retry':
      return { words: await retry(draft, host), token: null };
    case 'rollback': {
      if (host.previous === null)
        throw notAllowedNow(`host ${host.id} reports no previous version`);
      const next = host.rollbackGeneration + 1;
      await draft.putHost({ ...host, rollbackGeneration: next });
      const version = versionOf({ releases: draft.fleet.releases }, host.previous);
      return { words: `told to go back to ${version} at its next poll`, token: null };
    }
    case 'forget': {
      await dropHostPin(desk, draft, host);
      await draft.deleteHost(host.id);
      return { words: `${host.id} is forgotten; its key is no longer accepted`, token: null };
    }
    case 're-enrol': {
      const order = {
        group: host.group,
        labels: host.labels,
        description: `re-enrolment of ${host.id}`,
        ttlSeconds: REENROL_TTL_SECONDS,
        replacesHost: host.id,
      };
      const { token } = await addJoinToken(desk, draft, order, actor);
      return {
        words: `enrol with this token; the new identity takes the place of ${host.id}`,
        token,
      };
    }
    case 'move':
      return { words: await move(desk, draft, host, request.group), token: null };
  }
}

/** Forgives what failed: the version that the host should run is offered once more, above its own deny-list. */
async function retry(draft: Draft, host: Host): Promise<string> {
  if (openAttempt(host) !== null) throw notAllowedNow(`host ${host.id} is in an attempt`);
  const { target, isReached } = desiredOf(draft.scene(draft.group(host.group)), host);
  const failed = host.attempts.findLast((attempt) => attempt.outcome !== 'confirmed');
  // What it should run comes first: an older failure stands in nobody's way.
  const wanted = host.denied.find((entry) => !isReached && entry.artifactId === target?.artifactId);
  const artifactId = (wanted ?? failed ?? host.denied.at(-1))?.artifactId;
  if (artifactId === undefined) throw notAllowedNow(`nothing failed on host ${host.id}`);
  const n = Math.max(1, host.attempts.at(-1)?.n ?? 0);
  const retries = { ...host.retries, [artifactId]: (host.retries[artifactId] ?? 0) + 1 };
  await draft.putHost({ ...host, retries, forgiven: { ...host.forgiven, [artifactId]: n } });
  return `${versionOf({ releases: draft.fleet.releases }, artifactId)} may be tried again`;
}

/** A new statement: the host learns its new group with its next token. */
async function move(desk: Desk, draft: Draft, host: Host, to: GroupName): Promise<string> {
  const group = draft.group(to);
  if (group.name === host.group) throw notAllowedNow(`host ${host.id} is in group ${to} already`);
  if (openAttempt(host) !== null)
    throw notAllowedNow(`host ${host.id} is in an attempt; wait for its end`);
  await dropHostPin(desk, draft, host);
  const statement = signStatement(desk.enrolment, {
    schema: 'switchback.host-statement/1',
    host: host.id,
    group: to,
    class: host.class,
    arch: host.arch === 'arm64' ? 'arm64' : 'amd64',
    signKey: host.signKey,
    sealKey: host.sealKey,
    seq: statementSeq(host) + 1,
    issuedAtMs: draft.now,
  });
  await draft.putHost({ ...host, group: to, pin: null, statement });
  return `moved to ${to}; the host takes its new statement with its next token, within the hour`;
}

function statementSeq(host: Host): number {
  const envelope = JSON.parse(host.statement) as { payload: string };
  const text = Buffer.from(envelope.payload, 'base64').toString('utf8');
  return (JSON.parse(text) as { seq: number }).seq;
}
