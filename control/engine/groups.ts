/** Groups and halts. */
import * as v from 'valibot';
import type { Group, Halt } from '#/control/core/model.ts';
import { addGroup, hasRole } from '#/control/trust/delegations.ts';
import { groupRole } from '#/bundle/trust/documents.ts';
import { Problem } from '#/protocol/errors.ts';
import { type GroupRequest, pollPolicy, rolloutPolicy } from '#/protocol/group.ts';
import type { GroupName } from '#/protocol/ids.ts';
import { type Desk, notAllowedNow, repositoryOf } from './desk.ts';
import { FLEET_SCOPE, scopeOf } from './fleet.ts';

/** Groups that one control keeps at most: each is a role of the signed metadata. */
const MAX_GROUPS = 1000;

/** Creates or changes a group. `revision`: what the caller read; E_CONFLICT when it is another one now. */
export function putGroup(
  desk: Desk,
  name: GroupName,
  request: Omit<v.InferOutput<v.GenericSchema<GroupRequest>>, 'revision'>,
  revision: number | null,
  actor: string,
): Promise<Group> {
  return desk.engine.change(async (draft) => {
    const before = draft.fleet.groups.get(name);
    if (revision !== null && before?.revision !== revision)
      throw new Problem(
        'E_CONFLICT',
        `group ${name} is at revision ${before?.revision ?? 0}, the change was made for ${revision}`,
        { revision: before?.revision ?? 0 },
      );
    if (before === undefined && draft.fleet.groups.size >= MAX_GROUPS)
      throw new Problem('E_CONFLICT', `there are ${MAX_GROUPS} groups already, which is the limit`);
    const next: Group = {
      name,
      selector: request.selector === undefined ? (before?.selector ?? null) : request.selector,
      priority: request.priority ?? before?.priority ?? 0,
      description: request.description ?? before?.description ?? '',
      rollout: request.rollout ?? before?.rollout ?? v.parse(rolloutPolicy, {}),
      poll: request.poll ?? before?.poll ?? v.parse(pollPolicy, {}),
      revision: (before?.revision ?? 0) + 1,
      generation: before?.generation ?? 0,
      createdAtMs: before?.createdAtMs ?? draft.now,
      pin: before?.pin ?? null,
      pinSeq: before?.pinSeq ?? 0,
      current: before?.current ?? null,
    };
    const repository = repositoryOf(desk, draft);
    if (before === undefined && !hasRole(repository, groupRole(name)))
      await draft.publish(addGroup(repository, name));
    await draft.putGroup(next, false);
    const { selector, priority, rollout, poll } = next;
    const details = { selector, priority, rollout, poll, revision: next.revision };
    await draft.audit(
      actor,
      before === undefined ? 'group.create' : 'group.change',
      `group/${name}`,
      details,
    );
    return next;
  });
}

/** Removes a group without hosts and without pin. Its signed role stays, so that its name keeps its history. */
export function deleteGroup(desk: Desk, name: GroupName, actor: string): Promise<void> {
  return desk.engine.change(async (draft) => {
    const group = draft.group(name);
    const count = draft.fleet.hostsOf.get(name)?.size ?? 0;
    if (count > 0)
      throw notAllowedNow(`group ${name} has ${count} hosts; move or forget them first`);
    if (group.pinSeq > 0)
      throw notAllowedNow(`group ${name} was pinned: its sequence must be kept; leave it empty`);
    await draft.deleteGroup(name);
    await draft.audit(actor, 'group.delete', `group/${name}`, {});
  });
}

/** Stops the fleet, or one group, at once: no offers, no switches. Halting what is halted keeps the first halt. */
export function halt(
  desk: Desk,
  group: GroupName | null,
  reason: string,
  actor: string,
): Promise<Halt> {
  return desk.engine.change(async (draft) => {
    const scope = group === null ? FLEET_SCOPE : scopeOf(draft.group(group).name);
    const before = draft.fleet.halts.get(scope);
    if (before !== undefined) return before;
    const made: Halt = { scope, reason, actor, atMs: draft.now };
    await draft.putHalt(made);
    if (group === null) await draft.raiseFleetGeneration();
    else await draft.putGroup(draft.group(group), true);
    await draft.audit(actor, 'halt', scope, { reason });
    return made;
  });
}

export function liftHalt(
  desk: Desk,
  group: GroupName | null,
  reason: string,
  actor: string,
): Promise<void> {
  return desk.engine.change(async (draft) => {
    const scope = group === null ? FLEET_SCOPE : scopeOf(group);
    if (!draft.fleet.halts.has(scope)) throw new Problem('E_NOT_FOUND', `${scope} is not halted`);
    await draft.deleteHalt(scope);
    if (group === null) await draft.raiseFleetGeneration();
    else await draft.putGroup(draft.group(group), true);
    await draft.audit(actor, 'lift', scope, { reason });
  });
}
