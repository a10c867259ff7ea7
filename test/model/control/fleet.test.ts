import { describe, expect, it } from 'vitest';
import { type Host, openAttempt, type Scene } from '#/control/core/model.ts';
import { type Decision, plan } from '#/control/core/plan.ts';
import { exploreFleet, type Faults, type Settings } from '#/test/support/control/explore-fleet.ts';

const policy = { canaryCount: 1, wavePercents: [100], soakSeconds: 0 };
const small: Settings = { hosts: 2, lostAcks: 1, halts: 1, failures: 1, policy };

describe('every history of a small fleet', () => {
  it('F71 F77 two hosts, a lost ack, a halt, a failure: nothing is counted twice, offered twice, opened early or lost', () => {
    const found = exploreFleet(small);
    expect(found.broken).toBeNull();
    expect(found.states).toBeGreaterThan(1000);
    expect(found.ends).toBeGreaterThan(0);
  });

  it('F71 three hosts without trouble all come to rest', () => {
    const found = exploreFleet({ hosts: 3, lostAcks: 0, halts: 0, failures: 1, policy });
    expect(found.broken).toBeNull();
  });
});

const withoutLeases = (hosts: readonly Host[]): Host[] =>
  hosts.map((host) => (openAttempt(host) === null ? host : { ...host, attempts: [] }));

/** Faults put in; each must be found, and the promise that it breaks is the one that is named. */
const planted: Readonly<Record<string, readonly [Faults, string]>> = {
  'a planner that forgets halts': [
    { plan: (scene: Scene): readonly Decision[] => plan({ ...scene, fleetHalt: null }) },
    'M1',
  ],
  'a planner that forgets leases': [
    { plan: (scene) => plan({ ...scene, hosts: withoutLeases(scene.hosts) }) },
    'M2',
  ],
  'reports taken in the order in which they arrive': [{ forgetsOrder: true }, 'M4'],
  'a planner that opens all stages at once': [
    {
      plan: (scene) => {
        const next = scene.rollout?.stages.find((stage) => stage.openedAtMs === null);
        if (scene.fleetHalt !== null || scene.rollout?.state !== 'running' || next === undefined)
          return plan(scene);
        const { id } = scene.rollout;
        const canaries = scene.hosts.slice(0, 1).map((host) => host.id);
        return [
          {
            kind: 'open-stage',
            rolloutId: id,
            stage: next.index,
            threshold: 1,
            canaries,
            words: '',
          },
        ];
      },
    },
    'M6',
  ],
  'a planner that never completes': [
    {
      plan: (scene) =>
        plan(scene).filter(
          (decision) => decision.kind !== 'complete' && decision.kind !== 'pass-stage',
        ),
    },
    'M7',
  ],
};

describe('the exploration can fail: each planted fault is found, by its promise', () => {
  it.each(Object.keys(planted))('%s', (name) => {
    const [faults, promise] = planted[name] ?? [{}, ''];
    const { broken } = exploreFleet(small, faults);
    expect(broken?.what.slice(0, 2)).toBe(promise);
    expect(broken?.trace.length).toBeGreaterThan(1);
  });
});
