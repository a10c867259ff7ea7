/** Faults put into the planner of control; each must be found, and the promise that it breaks is the one that is named. */
import { type Host, openAttempt, type Scene } from '#/control/core/model.ts';
import { type Decision, plan } from '#/control/core/plan.ts';
import type { Faults, Settings } from '#/test/support/control/explore-fleet.ts';

const policy = { canaryCount: 1, wavePercents: [100], soakSeconds: 0 };
/** Two hosts and one of each trouble. */
export const small: Settings = { hosts: 2, lostAcks: 1, halts: 1, failures: 1, policy };

const withoutLeases = (hosts: readonly Host[]): Host[] =>
  hosts.map((host) => (openAttempt(host) === null ? host : { ...host, attempts: [] }));

/** Fault, and the number of its promise. */
export const planted: Readonly<Record<string, readonly [Faults, string]>> = {
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
