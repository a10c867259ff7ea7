import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Scene } from '#/control/core/model.ts';
import { openAttempt } from '#/control/core/model.ts';
import { type Decision, plan } from '#/control/core/plan.ts';
import { artifactOf, hostIdOf, SmallFleet } from '#/test/support/control/small-fleet.ts';

type Move =
  | {
      readonly do: 'report';
      readonly host: number;
      readonly phase: 'confirmed' | 'rolled-back' | 'refused' | 'switching' | 'abort';
    }
  | { readonly do: 'wait'; readonly seconds: number }
  | { readonly do: 'offline' | 'online' | 'hold' | 'unhold'; readonly host: number }
  | { readonly do: 'halt' | 'lift' | 'resume' | 'pause' }
  | { readonly do: 'pin'; readonly release: number };

const HOSTS = 7;
const host = fc.integer({ min: 0, max: HOSTS - 1 });
const move: fc.Arbitrary<Move> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('report' as const),
      host,
      phase: fc.constantFrom(
        'confirmed',
        'confirmed',
        'confirmed',
        'rolled-back',
        'refused',
        'switching',
        'abort',
      ),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('wait' as const),
      seconds: fc.integer({ min: 1, max: 5000 }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constantFrom('offline', 'online', 'hold', 'unhold'), host }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('halt', 'lift', 'resume', 'pause') }) },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('pin' as const),
      release: fc.integer({ min: 1, max: 3 }),
    }),
  },
);
const policy = fc.record({
  canaryCount: fc.integer({ min: 0, max: 3 }),
  wavePercents: fc.constantFrom<number[]>([100], [50, 100], [10, 30, 100]),
  soakSeconds: fc.constantFrom(0, 60),
  maxInFlight: fc.integer({ min: 1, max: 4 }),
  maxFailurePercent: fc.constantFrom(1, 5, 20, 50),
  attemptBudget: fc.integer({ min: 1, max: 2 }),
  healthyDeadlineSeconds: fc.constant(1000),
});

function make(fleet: SmallFleet, step: Move): void {
  const mark = { reason: 'r', actor: 'a', atMs: fleet.now };
  switch (step.do) {
    case 'report':
      if (openAttempt(fleet.host(step.host)) !== null)
        if (step.phase === 'abort') fleet.report(step.host, 'aborted', 'E_NETWORK');
        else fleet.report(step.host, step.phase);
      return;
    case 'wait':
      fleet.now += step.seconds * 1000;
      return;
    case 'offline':
      fleet.offline.add(hostIdOf(step.host));
      fleet.put({ ...fleet.host(step.host), lastSeenAtMs: 0 });
      return;
    case 'online':
      fleet.offline.delete(hostIdOf(step.host));
      return;
    case 'hold':
      fleet.put({ ...fleet.host(step.host), hold: mark });
      return;
    case 'unhold':
      fleet.put({ ...fleet.host(step.host), hold: null });
      return;
    case 'halt':
      fleet.fleetHalt = { scope: 'fleet', ...mark };
      return;
    case 'lift':
      fleet.fleetHalt = null;
      return;
    case 'resume':
      if (fleet.rollout && ['paused', 'halted'].includes(fleet.rollout.state))
        fleet.rollout = { ...fleet.rollout, state: 'running', acceptedAtMs: fleet.now };
      return;
    case 'pause':
      if (fleet.rollout?.state === 'running') fleet.rollout = { ...fleet.rollout, state: 'paused' };
      return;
    case 'pin':
      fleet.pin(step.release);
  }
}

/** What must hold of every decision, on the scene in which it is made. Words say which rule was broken. */
function broken(fleet: SmallFleet, decision: Decision): string | null {
  const { rollout } = fleet;
  if (decision.kind === 'offer') {
    const target = fleet.hosts.get(decision.host);
    if (target === undefined) return 'offer to nobody';
    if (openAttempt(target) !== null) return 'offered twice for one lease';
    if (fleet.fleetHalt !== null) return 'offered in a halt';
    if (target.hold !== null) return 'offered to a held host';
    if (fleet.offline.has(target.id)) return 'offered to an offline host';
    const failed = target.attempts.some(
      (a) => a.artifactId === decision.artifactId && a.outcome === 'failed',
    );
    const confirmed =
      target.attempts.findLast((a) => a.artifactId === decision.artifactId)?.outcome ===
      'confirmed';
    if (failed && !confirmed) return 'offered again after it failed';
    if (decision.rolloutId !== null && rollout?.state !== 'running')
      return 'offered by a rollout that does not run';
    const inFlight = [...fleet.hosts.values()].filter((h) => openAttempt(h) !== null).length;
    if (inFlight >= fleet.group.rollout.maxInFlight) return 'offered above the in-flight bound';
  }
  if (decision.kind === 'open-stage' && rollout !== null) {
    const before = rollout.stages.filter((stage) => stage.index < decision.stage);
    if (before.some((stage) => stage.state !== 'passed')) return 'a wave opened early';
    if (fleet.fleetHalt !== null) return 'a wave opened in a halt';
  }
  if (decision.kind === 'complete' && rollout !== null) {
    const isAnyBack = [...fleet.hosts.values()].some(
      (h) =>
        h.running === rollout.artifactId ||
        h.attempts.some((a) => a.rolloutId === rollout.id && a.outcome === 'confirmed'),
    );
    if (!isAnyBack) return 'completed without a confirmed host';
  }
  return null;
}

/** Plays a history; gives the first broken rule. */
export function play(
  settings: { hosts: number; policy: Record<string, unknown> },
  moves: readonly Move[],
  planner: (scene: Scene) => readonly Decision[] = plan,
): string | null {
  let found: string | null = null;
  const fleet: SmallFleet = new SmallFleet({
    ...settings,
    plan: (scene) => {
      const decisions = planner(scene);
      const first = decisions[0];
      // One at a time, so that each is judged on the fleet in which it is made.
      if (first !== undefined) found ??= broken(fleet, first);
      return first === undefined || found !== null ? [] : [first];
    },
  });
  fleet.pin(1);
  fleet.settle();
  for (const step of moves) {
    make(fleet, step);
    fleet.settle();
    if (found !== null) return found;
  }
  return null;
}

const seedText = process.env['SEED'];
const runs = { numRuns: 400, ...(seedText === undefined ? {} : { seed: Number(seedText) }) };

describe('whatever happens to a fleet', () => {
  it('F71 no host is offered twice for one lease, no wave opens early, nothing is offered in a halt', () => {
    fc.assert(
      fc.property(policy, fc.array(move, { maxLength: 60 }), (p, moves) => {
        expect(play({ hosts: HOSTS, policy: p }, moves)).toBeNull();
      }),
      runs,
    );
  });

  it('the planner is deterministic and comes to rest', () => {
    fc.assert(
      fc.property(policy, fc.array(move, { maxLength: 30 }), (p, moves) => {
        const fleet = new SmallFleet({ hosts: HOSTS, policy: p });
        fleet.pin(1);
        for (const step of moves) {
          make(fleet, step);
          const scene = fleet.scene();
          expect(plan(scene)).toEqual(plan(scene));
          fleet.settle();
          expect(plan(fleet.scene())).toEqual([]);
        }
      }),
      { ...runs, numRuns: 100 },
    );
  });

  it('a fleet in which every host confirms ends on the version, whatever its policy', () => {
    fc.assert(
      fc.property(policy, (p) => {
        const fleet = new SmallFleet({ hosts: HOSTS, policy: p });
        fleet.pin(1);
        for (let round = 0; round < 100 && fleet.rollout?.state === 'running'; round += 1) {
          fleet.settle();
          for (const i of fleet.offered()) fleet.report(i, 'confirmed');
          fleet.now += 61_000;
        }
        expect(fleet.rollout?.state).toBe('done');
        expect(fleet.group.current).toBe(artifactOf(1));
        for (const each of fleet.hosts.values()) expect(each.running).toBe(artifactOf(1));
      }),
      { ...runs, numRuns: 100 },
    );
  });
});

/** A planner with a fault put in; the properties above must find each. */
const planted: Readonly<Record<string, (scene: Scene) => readonly Decision[]>> = {
  'offers in a halt': (scene) => plan({ ...scene, fleetHalt: null, groupHalt: null }),
  'offers to held hosts': (scene) =>
    plan({ ...scene, hosts: scene.hosts.map((h) => ({ ...h, hold: null })) }),
  'forgets what failed': (scene) =>
    plan({
      ...scene,
      hosts: scene.hosts.map((h) => ({
        ...h,
        denied: [],
        attempts: h.attempts.filter((a) => a.outcome !== 'failed'),
      })),
    }),
  'takes offline hosts for online ones': (scene) =>
    plan({ ...scene, hosts: scene.hosts.map((h) => ({ ...h, lastSeenAtMs: scene.now })) }),
  'ignores the in-flight bound': (scene) => {
    const wide = { maxInFlight: 100 };
    const { rollout, group } = scene;
    return plan({
      ...scene,
      group: { ...group, rollout: { ...group.rollout, ...wide } },
      rollout: rollout && { ...rollout, policy: { ...rollout.policy, ...wide } },
    });
  },
  'offers while paused': (scene) =>
    plan({
      ...scene,
      rollout:
        scene.rollout?.state === 'paused' ? { ...scene.rollout, state: 'running' } : scene.rollout,
    }),
};

describe('the properties can fail: each planted fault is found', () => {
  it.each(Object.keys(planted))('%s', (name) => {
    const result = fc.check(
      fc.property(
        policy,
        fc.array(move, { maxLength: 60 }),
        (p, moves) => play({ hosts: HOSTS, policy: p }, moves, planted[name]) === null,
      ),
      { numRuns: 2000, seed: 7, endOnFailure: true },
    );
    expect(result.failed).toBe(true);
  });
});
