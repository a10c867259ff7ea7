/** Rollouts: started by a pin, and what operators do to one that runs. */
import { type Group, isActive, type Rollout, type Stage } from '#/control/core/model.ts';
import { Problem } from '#/protocol/errors.ts';
import { artifactOf, type RolloutId, type VersionId } from '#/protocol/ids.ts';
import { type Desk, freshId, notAllowedNow } from './desk.ts';
import type { Draft } from './draft.ts';
import { FLEET_SCOPE, scopeOf } from './fleet.ts';

function stagesOf(group: Group): readonly Stage[] {
  const { canaryCount, wavePercents } = group.rollout;
  const blank = {
    state: 'pending',
    threshold: null,
    canaries: [],
    openedAtMs: null,
    passedAtMs: null,
  } as const;
  const names = [
    ...(canaryCount > 0 ? [{ name: 'canary', percent: null }] : []),
    ...wavePercents.map((percent) => ({ name: `${percent} %`, percent })),
  ];
  return names.map((stage, index) => ({ index, ...stage, ...blank }));
}

/** Starts the rollout of a new pin; one that still runs is superseded. */
export async function startRollout(
  desk: Desk,
  draft: Draft,
  group: Group,
  pin: {
    readonly artifactId: VersionId;
    readonly seq: number;
    readonly reason: string;
    readonly actor: string;
  },
): Promise<Rollout> {
  const before = draft.fleet.rolloutOf.get(group.name) ?? null;
  if (isActive(before)) {
    const words = `superseded by a newer pin: ${pin.reason}`;
    await draft.putRollout({ ...before, state: 'superseded', words, endedAtMs: draft.now });
    await note(draft, before, 'supersede', words);
  }
  const rollout: Rollout = {
    id: freshId(desk, 'r') as RolloutId,
    group: group.name,
    artifactId: pin.artifactId,
    previous: group.current,
    pinSeq: pin.seq,
    state: 'running',
    reason: pin.reason,
    words: 'started',
    actor: pin.actor,
    policy: group.rollout,
    stages: stagesOf(group),
    acceptedAtMs: 0,
    isReverting: false,
    startedAtMs: draft.now,
    endedAtMs: null,
  };
  await draft.putRollout(rollout);
  await note(draft, rollout, 'start', `started by ${pin.actor}: ${pin.reason}`);
  return rollout;
}

/** Ends the rollout of a group whose pin was removed. */
export async function endRollout(draft: Draft, group: Group, words: string): Promise<void> {
  const rollout = draft.fleet.rolloutOf.get(group.name) ?? null;
  if (!isActive(rollout)) return;
  await draft.putRollout({ ...rollout, state: 'aborted', words, endedAtMs: draft.now });
  await note(draft, rollout, 'abort', words);
}

async function note(draft: Draft, rollout: Rollout, kind: string, words: string): Promise<void> {
  await draft.writer.addDecision(rollout.id, {
    atMs: draft.now,
    kind,
    host: null,
    stage: null,
    words,
  });
}

function activeRollout(draft: Draft, id: RolloutId): Rollout {
  const rollout: Rollout | undefined = [...draft.fleet.rolloutOf.values()].find(
    (each) => each.id === id,
  );
  if (rollout === undefined)
    throw new Problem('E_NOT_FOUND', `there is no rollout ${id} that runs`);
  const { state } = rollout;
  if (!isActive(rollout)) throw notAllowedNow(`rollout ${id} is ${state}`);
  return rollout;
}

function refuseHalted(draft: Draft, rollout: Rollout): void {
  const halt = draft.fleet.halts.get(FLEET_SCOPE) ?? draft.fleet.halts.get(scopeOf(rollout.group));
  if (halt !== undefined)
    throw new Problem('E_HALTED', `${halt.scope} is halted by ${halt.actor}: ${halt.reason}`);
}

async function put(
  draft: Draft,
  next: Rollout,
  actor: string,
  kind: string,
  reason: string,
): Promise<Rollout> {
  await draft.putRollout(next);
  await draft.putGroup(draft.group(next.group), true);
  await note(draft, next, kind, `${kind} by ${actor}: ${reason}`);
  await draft.audit(actor, `rollout.${kind}`, `rollout/${next.id}`, { reason, group: next.group });
  return next;
}

/** No new offers; attempts that run go on. */
export function pauseRollout(
  desk: Desk,
  id: RolloutId,
  reason: string,
  actor: string,
): Promise<Rollout> {
  return desk.engine.change(async (draft) => {
    const rollout = activeRollout(draft, id);
    if (rollout.state !== 'running') throw notAllowedNow(`rollout ${id} is ${rollout.state}`);
    return put(
      draft,
      { ...rollout, state: 'paused', words: `paused by ${actor}: ${reason}` },
      actor,
      'pause',
      reason,
    );
  });
}

/** Goes on. Failures until now are accepted: they are not counted again. */
export function resumeRollout(
  desk: Desk,
  id: RolloutId,
  reason: string,
  actor: string,
): Promise<Rollout> {
  return desk.engine.change(async (draft) => {
    const rollout = activeRollout(draft, id);
    if (rollout.state === 'running') throw notAllowedNow(`rollout ${id} runs already`);
    refuseHalted(draft, rollout);
    const release = draft.release(artifactOf(rollout.artifactId));
    if (release.revoked !== null)
      throw new Problem('E_REVOKED', `${release.version} was revoked: ${release.revoked.reason}`);
    const next: Rollout = {
      ...rollout,
      state: 'running',
      words: `resumed by ${actor}: ${reason}`,
      acceptedAtMs: draft.now,
    };
    return put(draft, next, actor, 'resume', reason);
  });
}

/** Ends it. With `revert`, hosts that reached the version are brought back to the one before. */
export function abortRollout(
  desk: Desk,
  id: RolloutId,
  order: { readonly reason: string; readonly revert: boolean },
  actor: string,
): Promise<Rollout> {
  return desk.engine.change(async (draft) => {
    const rollout = activeRollout(draft, id);
    if (order.revert && rollout.previous === null)
      throw notAllowedNow(`rollout ${id} has no previous version to go back to`);
    const next: Rollout = {
      ...rollout,
      state: 'aborted',
      words: `aborted by ${actor}: ${order.reason}`,
      isReverting: order.revert,
      endedAtMs: draft.now,
    };
    return put(draft, next, actor, 'abort', order.reason);
  });
}

/** Passes the open stage now; the failure bound still holds in the next one. */
export function promoteRollout(
  desk: Desk,
  id: RolloutId,
  reason: string,
  actor: string,
): Promise<Rollout> {
  return desk.engine.change(async (draft) => {
    const rollout = activeRollout(draft, id);
    if (rollout.state !== 'running')
      throw notAllowedNow(`rollout ${id} is ${rollout.state}; resume it first`);
    refuseHalted(draft, rollout);
    const open = rollout.stages.findLast((stage) => stage.openedAtMs !== null);
    if (open === undefined || open.state === 'passed')
      throw notAllowedNow(`rollout ${id} has no open stage`);
    if (open.index === rollout.stages.length - 1)
      throw notAllowedNow(`stage ${open.name} is the last one; it ends by itself or by abort`);
    const stages = rollout.stages.map((stage) =>
      stage.index === open.index
        ? { ...stage, state: 'passed' as const, passedAtMs: draft.now }
        : stage,
    );
    const next = { ...rollout, stages, words: `stage ${open.name} passed by ${actor}: ${reason}` };
    return put(draft, next, actor, 'promote', reason);
  });
}
