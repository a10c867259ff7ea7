/** The scenarios that crashes are explored in: what control and operator do, and where the host may end. */
import type { AttemptPhase } from '#/protocol/documents.ts';
import type { VersionId } from '#/protocol/ids.ts';
import { emptyImage, ROOT, type Image } from '#/test/support/sim-fs/image.ts';
import { listImage } from '#/test/support/sim-fs/image.ts';
import { attemptEnds, diskProblems, endProblems } from './checks.ts';
import type { Exploration } from './explore.ts';
import { freshWorld, runHost, SLOT_ROOT, type Run, type Scenario, type World } from './sim-host.ts';
import { version, type Version } from './versions.ts';

export type ScenarioCase = Pick<
  Exploration,
  'scenario' | 'disk' | 'world' | 'checkDisk' | 'checkEnd'
> & { readonly title: string };

interface Plan {
  readonly title: string;
  readonly versions: readonly Version[];
  /** What runs before, or null for an empty host. */
  readonly from: Version | null;
  readonly assign: Scenario['assign'];
  readonly atRest?: Scenario['atRest'];
  readonly inject?: Scenario['inject'];
  readonly pollMs?: number;
  /** Where it may end. */
  readonly ends: readonly (Version | null)[];
  /** More than the general rules. */
  readonly also?: (run: Run, before: World) => readonly string[];
}

const v1 = version(1);
const v2 = version(2);
const v3 = version(3);
const bad = version(4, false);
const heard = (world: World, phase: AttemptPhase, artifactId?: VersionId): boolean =>
  world.received.some(
    (event) =>
      event.phase === phase && (artifactId === undefined || event.artifactId === artifactId),
  );

/** Attempts that ended this way, by what control heard. */
function ended(run: Run, phase: AttemptPhase): number {
  return [...attemptEnds(run.world.received).values()].filter((ends) => ends.includes(phase))
    .length;
}
const expectEnds = (run: Run, phase: AttemptPhase, count: number): readonly string[] =>
  ended(run, phase) === count
    ? []
    : [`I5 ${ended(run, phase)} attempts ended ${phase}, expected ${count}`];
const denied = (run: Run): readonly string[] =>
  (listImage(run.sim.image()).get('/state/denylist.json') ?? '').includes(bad.artifactId)
    ? []
    : ['I7 the bad version is not on the deny-list'];

const plans: readonly Plan[] = [
  {
    title: 'F21 F22 F23 F28 install and commit',
    versions: [v1, v2],
    from: v1,
    assign: () => ({ artifactId: v2.artifactId }),
    ends: [v2],
    also: (run) => [
      ...expectEnds(run, 'confirmed', 1),
      ...((listImage(run.sim.image()).get('/state/floor.json') ?? '').includes('{"web":2}')
        ? []
        : ['I8 the floor was not raised']),
    ],
  },
  {
    title: 'F55 I7 an unhealthy version goes back and is not tried again',
    versions: [v1, bad],
    from: v1,
    assign: () => ({ artifactId: bad.artifactId }),
    ends: [v1],
    also: (run) => [...expectEnds(run, 'rolled-back', 1), ...denied(run)],
  },
  {
    title: 'first install on an empty host',
    versions: [v1],
    from: null,
    assign: () => ({ artifactId: v1.artifactId }),
    ends: [v1],
    also: (run) => expectEnds(run, 'confirmed', 1),
  },
  {
    title: 'a first install that is unhealthy leaves nothing live',
    versions: [bad],
    from: null,
    assign: () => ({ artifactId: bad.artifactId }),
    ends: [null],
    also: (run) => [...expectEnds(run, 'rolled-back', 1), ...denied(run)],
  },
  {
    title: 'F58 recalled while it is downloaded or staged',
    versions: [v1, v2],
    from: v1,
    assign: (world) => ({ artifactId: heard(world, 'downloading') ? null : v2.artifactId }),
    pollMs: 700,
    ends: [v1, v2],
  },
  {
    title: 'F58 halted before the switch, and lifted again',
    versions: [v1, v2],
    from: v1,
    assign: (world) => ({
      artifactId: v2.artifactId,
      halted: heard(world, 'downloading') && world.wallMs % 20_000 < 10_000,
    }),
    pollMs: 700,
    ends: [v1, v2],
  },
  {
    title: 'an operator orders the host back after the commit',
    versions: [v1, v2],
    from: v1,
    assign: (world) =>
      heard(world, 'confirmed', v2.artifactId)
        ? { artifactId: v1.artifactId, rollbackGeneration: 1 }
        : { artifactId: v2.artifactId },
    ends: [v1],
    also: (run) => expectEnds(run, 'confirmed', 2),
  },
  {
    title: 'F55 a retry generation lets a rolled back version be tried once more',
    versions: [v1, bad],
    from: v1,
    assign: (world) => ({
      artifactId: bad.artifactId,
      retryGeneration: heard(world, 'rolled-back') ? 1 : 0,
    }),
    ends: [v1],
    also: (run) => [...expectEnds(run, 'rolled-back', 2), ...denied(run)],
  },
  {
    title: 'two updates in a row, old versions pruned',
    versions: [v1, v2, v3],
    from: v1,
    assign: (world) => ({
      artifactId: heard(world, 'confirmed', v2.artifactId) ? v3.artifactId : v2.artifactId,
    }),
    ends: [v3],
    also: (run) => [
      ...expectEnds(run, 'confirmed', 2),
      ...(listImage(run.sim.image()).has(`/app/releases/${v1.artifactId}`)
        ? ['the oldest version was not pruned']
        : []),
    ],
  },
  {
    title: 'F56 after a bad version a good newer one is taken',
    versions: [v1, bad, { ...version(5), healthy: true }],
    from: v1,
    assign: (world) => ({
      artifactId: heard(world, 'rolled-back') ? version(5).artifactId : bad.artifactId,
    }),
    ends: [version(5)],
    also: (run) => [...expectEnds(run, 'rolled-back', 1), ...expectEnds(run, 'confirmed', 1)],
  },
  {
    title: 'F18 F29 the disk is full for a while in the middle',
    versions: [v1, v2],
    from: v1,
    assign: () => ({ artifactId: v2.artifactId }),
    inject: ({ index, name }) =>
      index >= 60 && index < 75 && (name === 'write' || name === 'create') ? 'ENOSPC' : null,
    ends: [v1, v2],
  },
  {
    title: 'the operator of the host pauses and resumes',
    versions: [v1, v2],
    from: v1,
    assign: () => ({ artifactId: v2.artifactId }),
    atRest: (runner) => {
      runner.command({ kind: 'pause' });
      runner.command({ kind: 'resume' });
    },
    ends: [v2],
  },
];

/** An empty host: the directory for the slots, which the package makes. */
export function emptyHost(): Image {
  const { nodes, entries } = emptyImage();
  const app = ROOT + 1;
  return {
    nodes: new Map([...nodes, [app, { kind: 'directory' as const }]]),
    entries: new Map([
      ...entries,
      [ROOT, new Map([[SLOT_ROOT.slice(1), app]])],
      [app, new Map<string, number>()],
    ]),
  };
}

/** A host on which a version was installed, and its world, as if control had just been set up anew. */
export async function hostOn(
  of: Version,
): Promise<{ readonly image: Image; readonly world: World }> {
  const scenario: Scenario = { versions: [of], assign: () => ({ artifactId: of.artifactId }) };
  const run = await runHost({ base: emptyHost(), log: [] }, freshWorld(), scenario, 1);
  if (run.ended !== 'rest') throw new Error(`the first install did not end: ${String(run.error)}`);
  return { image: run.sim.image(), world: { ...run.world, received: [] } };
}

/** All scenarios, ready to explore. */
export async function scenarioCases(): Promise<readonly ScenarioCase[]> {
  const onV1 = await hostOn(v1);
  return plans.map((plan) => {
    const { title, versions, from, assign, atRest, inject, pollMs, ends, also } = plan;
    const mayBeNone = from === null;
    const allowed = ends.map((end) => end?.artifactId ?? null);
    return {
      title,
      scenario: {
        versions,
        assign,
        ...(atRest === undefined ? {} : { atRest }),
        ...(inject === undefined ? {} : { inject }),
        ...(pollMs === undefined ? {} : { pollMs }),
      },
      disk: { base: from === null ? emptyHost() : onV1.image, log: [] },
      world: from === null ? freshWorld() : onV1.world,
      checkDisk: (image) => diskProblems(image, versions, mayBeNone),
      checkEnd: (run, before) => [
        ...endProblems(run, versions, allowed),
        ...(also?.(run, before) ?? []),
      ],
    };
  });
}
