/** What an operator's token may do: its role, its groups, and the trace that a refusal leaves (F79, E16). */
import type { ApiToken } from '#/control/store/port.ts';
import { rolePermissions, type Permission, type Route, type RouteName } from '#/protocol/api.ts';
import { isProblem, Problem } from '#/protocol/errors.ts';
import type { GroupName, HostId, RolloutId } from '#/protocol/ids.ts';
import type { Proposal } from '#/protocol/proposal.ts';
import type { Services } from './handler.ts';

/** @throws E_FORBIDDEN unless the role of the token has the permission of the route */
export function requirePermission(operator: ApiToken, permission: Permission): void {
  const granted: readonly Permission[] = rolePermissions[operator.role];
  if (granted.includes(permission)) return;
  throw new Problem(
    'E_FORBIDDEN',
    `role ${operator.role} of ${operator.name} does not have ${permission}`,
  );
}

/** What a change is about, as far as its groups go. */
interface About {
  readonly params: unknown;
  readonly body: unknown;
}

/**
 * A token that is bound to groups changes nothing beyond them. Reading is not bound.
 * @throws E_FORBIDDEN
 */
export async function requireScope(
  services: Services,
  operator: ApiToken,
  name: RouteName,
  { permission }: Pick<Route, 'permission'>,
  about: About,
): Promise<void> {
  const { groups } = operator;
  if (groups === null || permission === 'view') return;
  const touched = await groupsOf(services, name, about);
  const foreign = touched?.find((group) => !groups.includes(group));
  if (touched !== null && foreign === undefined) return;
  throw new Problem(
    'E_FORBIDDEN',
    `${operator.name} may change ${groups.join(', ')}, not ${foreign ?? 'the whole fleet'}`,
  );
}

/** The groups that a request touches; null: more than groups. */
async function groupsOf(
  services: Services,
  name: RouteName,
  about: About,
): Promise<readonly GroupName[] | null> {
  const { engine } = services.desk;
  const params = about.params as { group?: GroupName; host?: HostId; rollout?: RolloutId };
  const body = about.body as { group?: GroupName; files?: Proposal['files'] } | undefined;
  if (name === 'trustPublish') return groupsOfProposal(body?.files ?? []);
  const touched: GroupName[] = [];
  if (params.group !== undefined) touched.push(params.group);
  if (params.host !== undefined) {
    const host = engine.fleet.hosts.get(params.host);
    if (host !== undefined) touched.push(host.group);
  }
  if (params.rollout !== undefined) {
    const rollout = await engine.store.rollout(params.rollout);
    if (rollout !== null) touched.push(rollout.group);
  }
  // Where a move goes to, what a halt is for, where a join token leads to.
  if (body?.group !== undefined) touched.push(body.group);
  return touched.length === 0 ? null : touched;
}

/** The groups of a proposal that changes roles of groups and nothing else. */
function groupsOfProposal(files: Proposal['files']): readonly GroupName[] | null {
  const roles = files.flatMap(({ name }) => /^metadata\/\d+\.(.+)\.json$/.exec(name)?.[1] ?? []);
  if (roles.length === 0 || !roles.every((role) => role.startsWith('grp-'))) return null;
  return roles.map((role) => role.slice('grp-'.length) as GroupName);
}

/** Writes down that somebody tried what they may not. At most a few times a minute, so that the log is not filled. */
export async function recordRefusal(
  services: Services,
  operator: ApiToken,
  name: RouteName,
  error: unknown,
): Promise<void> {
  const { desk, refusalLimit } = services;
  if (!isProblem(error, 'E_FORBIDDEN')) return;
  const nowMs = desk.engine.nowMs();
  if (refusalLimit.isSpent(operator.id, nowMs)) return;
  refusalLimit.use(operator.id, nowMs);
  await desk.engine.change(async (draft) => {
    await draft.audit(operator.name, 'access.refused', `api-token/${operator.id}`, {
      route: name,
      role: operator.role,
      message: error.message,
    });
  });
}
