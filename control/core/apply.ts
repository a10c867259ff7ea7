/** What a decision changes. The engine stores exactly this, and then holds exactly this: one function for both. */
import { must } from '#/protocol/errors.ts';
import {
  ATTEMPTS_IN_MEMORY,
  type Attempt,
  type Group,
  type Host,
  isActive,
  type Rollout,
} from './model.ts';
import type { Decision } from './plan.ts';

export interface World {
  readonly group: Group;
  readonly rollout: Rollout | null;
  readonly hosts: ReadonlyMap<string, Host>;
}

/** What changed, for the store and for the memory. */
export interface Change {
  readonly group: Group | null;
  readonly rollout: Rollout | null;
  readonly hosts: readonly Host[];
  readonly attempts: readonly Attempt[];
}

/** The host with an attempt added or replaced. */
export function withAttempt(host: Host, attempt: Attempt): Host {
  const others = host.attempts.filter((other) => other.n !== attempt.n);
  const attempts = [...others, attempt].sort((a, b) => a.n - b.n).slice(-ATTEMPTS_IN_MEMORY);
  return { ...host, attempts };
}

function withStage(
  rollout: Rollout,
  index: number,
  patch: Partial<Rollout['stages'][number]>,
): Rollout {
  const stages = rollout.stages.map((stage) =>
    stage.index === index ? { ...stage, ...patch } : stage,
  );
  return { ...rollout, stages };
}

function rolloutChange(
  group: Group,
  rollout: Rollout,
  decision: Decision,
  now: number,
): Change | null {
  const only = (next: Rollout): Change => ({ group: null, rollout: next, hosts: [], attempts: [] });
  switch (decision.kind) {
    case 'open-stage':
      return only({
        ...withStage(rollout, decision.stage, {
          state: 'open',
          openedAtMs: now,
          threshold: decision.threshold,
          canaries: decision.canaries,
        }),
        words: decision.words,
      });
    case 'soak':
      return only({
        ...withStage(rollout, decision.stage, { state: 'soaking' }),
        words: decision.words,
      });
    case 'pass-stage':
      return only({
        ...withStage(rollout, decision.stage, { state: 'passed', passedAtMs: now }),
        words: decision.words,
      });
    case 'complete':
      return {
        group: { ...group, current: rollout.artifactId },
        rollout: { ...rollout, state: 'done', words: decision.words, endedAtMs: now },
        hosts: [],
        attempts: [],
      };
    case 'halt-rollout':
      return only({ ...rollout, state: 'halted', words: decision.words });
    case 'pause-rollout':
      return only({ ...rollout, state: 'paused', words: decision.words });
    case 'offer':
    case 'withdraw':
      return null;
  }
}

/** The change that one decision makes to one world. Throws where a decision does not fit: that is a bug. */
export function changeOf(world: World, decision: Decision, now: number): Change {
  if (decision.kind === 'offer') {
    const host = world.hosts.get(decision.host);
    must(host !== undefined, 'R1: an offer goes to a host of the group');
    must(
      host.attempts.every((attempt) => attempt.outcome !== 'open'),
      'R2: a host has one lease at most',
    );
    const attempt: Attempt = {
      host: decision.host,
      n: decision.n,
      rolloutId: decision.rolloutId,
      stage: decision.stage,
      artifactId: decision.artifactId,
      retryGeneration: decision.retryGeneration,
      agentAttempt: null,
      phase: 'offered',
      outcome: 'open',
      code: null,
      message: '',
      offeredAtMs: now,
      switchedAtMs: null,
      endedAtMs: null,
    };
    const retries = { ...host.retries, [decision.artifactId]: decision.retryGeneration };
    const next = withAttempt({ ...host, retries }, attempt);
    return { group: null, rollout: null, hosts: [next], attempts: [attempt] };
  }
  if (decision.kind === 'withdraw') {
    const host = world.hosts.get(decision.host);
    const attempt = host?.attempts.find((other) => other.n === decision.n);
    must(host !== undefined && attempt?.outcome === 'open', 'R3: only an open lease is withdrawn');
    const ended: Attempt = {
      ...attempt,
      outcome: 'withdrawn',
      endedAtMs: now,
      message: decision.words,
    };
    return { group: null, rollout: null, hosts: [withAttempt(host, ended)], attempts: [ended] };
  }
  const { rollout } = world;
  must(isActive(rollout) && rollout.id === decision.rolloutId, 'R4: only an active rollout moves');
  const change = rolloutChange(world.group, rollout, decision, now);
  must(change !== null, 'R4: a decision changes something');
  return change;
}

/** The world after a change. */
export function applied(world: World, change: Change): World {
  if (change.hosts.length === 0)
    return {
      ...world,
      group: change.group ?? world.group,
      rollout: change.rollout ?? world.rollout,
    };
  const hosts = new Map(world.hosts);
  for (const host of change.hosts) hosts.set(host.id, host);
  return { group: change.group ?? world.group, rollout: change.rollout ?? world.rollout, hosts };
}
