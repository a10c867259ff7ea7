/** Enrolment: join tokens, and the host that one of them lets in (E13, E14). */
import { createHash } from 'node:crypto';
import { requireSealKey } from '#/bundle/seal.ts';
import { bytesOfHex, hexOf, publicKeyOf } from '#/bundle/keys.ts';
import type { Host } from '#/control/core/model.ts';
import type { JoinToken } from '#/control/store/port.ts';
import type { EnrollRequest } from '#/protocol/agent-plane.ts';
import { Problem } from '#/protocol/errors.ts';
import type { GroupName, HostId } from '#/protocol/ids.ts';
import { type Labels, parseSelector, selects } from '#/protocol/selector.ts';
import { type Desk, freshId } from './desk.ts';
import type { Draft } from './draft.ts';
import { dropHostPin } from './pins.ts';
import { signStatement } from './statements.ts';

/** Tokens and their hashes: 128 random bits need no slow hash. */
export function hashOf(token: string): string {
  return createHash('sha256').update(token).digest('hex');
}

export interface TokenOrder {
  readonly group: GroupName | null;
  readonly labels: Labels;
  readonly description: string;
  readonly ttlSeconds: number;
  readonly replacesHost: HostId | null;
}

/** Adds a token inside a change. The secret is given back once and never stored. */
export async function addJoinToken(
  desk: Desk,
  draft: Draft,
  order: TokenOrder,
  actor: string,
): Promise<{ token: string; stored: JoinToken }> {
  if (order.group !== null) draft.group(order.group);
  const token = `sbj_${Buffer.from(desk.random(16)).toString('base64url')}`;
  const stored: JoinToken = {
    id: freshId(desk, 'jt'),
    hash: hashOf(token),
    group: order.group,
    labels: order.labels,
    description: order.description,
    replacesHost: order.replacesHost,
    createdAtMs: draft.now,
    expiresAtMs: draft.now + order.ttlSeconds * 1000,
    usedAtMs: null,
    usedBy: null,
    actor,
  };
  await draft.writer.addJoinToken(stored);
  await draft.audit(actor, 'join-token.create', `join-token/${stored.id}`, {
    group: order.group,
    labels: order.labels,
    replacesHost: order.replacesHost,
    expiresAtMs: stored.expiresAtMs,
  });
  return { token, stored };
}

export function createJoinToken(
  desk: Desk,
  order: TokenOrder,
  actor: string,
): Promise<{ token: string; stored: JoinToken }> {
  return desk.engine.change((draft) => addJoinToken(desk, draft, order, actor));
}

/** Exactly one owner: the highest priority whose selector matches. A tie is nobody's (MultipleOwners). */
export function ownerOf(draft: Draft, labels: Labels): GroupName {
  const matching = [...draft.fleet.groups.values()]
    .filter((group) => group.selector !== null && selects(parseSelector(group.selector), labels))
    .sort((a, b) => b.priority - a.priority);
  const [first, second] = matching;
  if (first === undefined)
    throw new Problem('E_TOKEN', 'no group selects the labels of this token; name a group in it');
  if (second !== undefined && second.priority === first.priority)
    throw new Problem(
      'E_TOKEN',
      `groups ${first.name} and ${second.name} both select these labels at priority ${first.priority}`,
    );
  return first.name;
}

function refuseToken(message: string): never {
  throw new Problem('E_TOKEN', message);
}

/** The host id of a key: its first 32 digits. */
export function hostIdOf(keyId: string): HostId {
  return `h-${keyId.slice(0, 32)}` as HostId;
}

/**
 * Lets a host in. The caller has verified that the request is signed by `request.signKey`. The same key with the same token
 * gets the same answer again, because the first answer may have been lost.
 */
export function enrol(desk: Desk, request: EnrollRequest): Promise<Host> {
  const bytes = bytesOfHex(request.signKey, 32) ?? new Uint8Array();
  const { keyId } = publicKeyOf(bytes);
  const id = hostIdOf(keyId);
  requireSealKey(bytesOfHex(request.sealKey, 32) ?? new Uint8Array());
  return desk.engine.change(async (draft) => {
    const token = await draft.writer.joinTokenByHash(hashOf(request.token));
    if (token === null) refuseToken('the join token is unknown');
    const known = draft.fleet.hosts.get(id);
    if (token.usedAtMs !== null) {
      if (token.usedBy === id && known !== undefined && known.quarantine === null) return known;
      refuseToken('the join token was used before');
    }
    if (draft.now >= token.expiresAtMs) refuseToken('the join token has expired');
    if (known !== undefined)
      throw new Problem(
        'E_CONFLICT',
        `host ${id} is enrolled already; make a new key, or forget it first`,
      );
    const replaced =
      token.replacesHost === null ? null : (draft.fleet.hosts.get(token.replacesHost) ?? null);
    const labels = replaced?.labels ?? token.labels;
    const group = draft.group(replaced?.group ?? token.group ?? ownerOf(draft, labels)).name;
    if (replaced !== null) {
      await dropHostPin(desk, draft, replaced);
      await draft.deleteHost(replaced.id);
    }
    const statement = signStatement(desk.enrolment, {
      schema: 'switchback.host-statement/1',
      host: id,
      group,
      class: request.class,
      arch: request.arch,
      signKey: request.signKey,
      sealKey: request.sealKey,
      seq: 1,
      issuedAtMs: draft.now,
    });
    const host = newHost(draft, request, { id, keyId, group, labels, statement });
    await draft.putHost(host);
    await draft.writer.markJoinTokenUsed(token.id, id, draft.now);
    await draft.audit(`host/${id}`, 'enrol', `host/${id}`, {
      group,
      class: host.class,
      arch: host.arch,
      keyId,
      signKey: host.signKey,
      sealKey: host.sealKey,
      token: token.id,
      replaces: replaced?.id ?? null,
      enrolmentKey: hexOf(desk.enrolment.key.bytes),
    });
    return host;
  });
}

function newHost(
  draft: Draft,
  request: EnrollRequest,
  identity: Pick<Host, 'id' | 'keyId' | 'group' | 'labels' | 'statement'>,
): Host {
  return {
    ...identity,
    class: request.class,
    arch: request.arch,
    signKey: request.signKey,
    sealKey: request.sealKey,
    enrolledAtMs: draft.now,
    agentVersion: request.agentVersion,
    facts: request.facts,
    generation: 1,
    rollbackGeneration: 0,
    hold: null,
    quarantine: null,
    pin: null,
    retries: {},
    forgiven: {},
    seq: 0,
    bootId: null,
    pastBoots: [],
    rewinds: 0,
    running: null,
    previous: null,
    state: 'enrolled',
    healthy: null,
    why: '',
    denied: [],
    observedEpoch: 0,
    lastSeenAtMs: draft.now,
    attempts: [],
  };
}
