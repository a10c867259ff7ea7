/** Tokens of operators and scripts: only their hashes are kept. */
import type { ApiToken } from '#/control/store/port.ts';
import { Problem } from '#/protocol/errors.ts';
import type { GroupName } from '#/protocol/ids.ts';
import type { Role } from '#/protocol/operator-plane.ts';
import { type Desk, freshId } from './desk.ts';
import { hashOf } from './enrol.ts';

export interface ApiTokenOrder {
  readonly name: string;
  readonly role: Role;
  readonly ttlSeconds: number | null;
  /** What it may change; null: every group. */
  readonly groups: readonly GroupName[] | null;
}

/** Roles whose whole reach is groups: the others act on the fleet. */
const boundRoles: readonly Role[] = ['operator', 'approver'];

export function createApiToken(
  desk: Desk,
  order: ApiTokenOrder,
  actor: string,
): Promise<{ token: string; stored: ApiToken }> {
  if (order.groups !== null && !boundRoles.includes(order.role))
    throw new Problem('E_USAGE', `role ${order.role} cannot be bound to groups`);
  return desk.engine.change(async (draft) => {
    const token = `sbo_${Buffer.from(desk.random(24)).toString('base64url')}`;
    const stored: ApiToken = {
      id: freshId(desk, 'at'),
      hash: hashOf(token),
      name: order.name,
      role: order.role,
      createdAtMs: draft.now,
      expiresAtMs: order.ttlSeconds === null ? null : draft.now + order.ttlSeconds * 1000,
      revokedAtMs: null,
      groups: order.groups === null ? null : [...order.groups],
    };
    await draft.putApiToken(stored);
    await draft.audit(actor, 'api-token.create', `api-token/${stored.id}`, {
      name: order.name,
      role: order.role,
      groups: stored.groups,
      expiresAtMs: stored.expiresAtMs,
    });
    return { token, stored };
  });
}

export function revokeApiToken(desk: Desk, id: string, actor: string): Promise<void> {
  return desk.engine.change(async (draft) => {
    const stored = [...desk.engine.fleet.apiTokens.values()].find((token) => token.id === id);
    if (stored === undefined) throw new Problem('E_NOT_FOUND', `there is no api token ${id}`);
    if (stored.revokedAtMs !== null) return;
    await draft.putApiToken({ ...stored, revokedAtMs: draft.now });
    await draft.audit(actor, 'api-token.revoke', `api-token/${id}`, { name: stored.name });
  });
}

/** The token behind a secret, or E_UNAUTHENTICATED. */
export function authenticate(desk: Pick<Desk, 'engine'>, secret: string): ApiToken {
  const token = desk.engine.fleet.apiTokens.get(hashOf(secret));
  if (token === undefined) throw new Problem('E_UNAUTHENTICATED', 'the api token is unknown');
  if (token.revokedAtMs !== null)
    throw new Problem('E_UNAUTHENTICATED', 'the api token was revoked');
  if (token.expiresAtMs !== null && desk.engine.nowMs() >= token.expiresAtMs)
    throw new Problem('E_UNAUTHENTICATED', 'the api token has expired');
  return token;
}
