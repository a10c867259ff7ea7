/** The runner when the disk fails, when it is told to end, and when what it finds is damaged. */
import { beforeAll, describe, expect, it } from 'vitest';
import { replaceFile } from '#/agent/adapters/durable.ts';
import { Problem } from '#/protocol/errors.ts';
import { listImage, type Image } from '#/test/support/sim-fs/image.ts';
import { simFs } from '#/test/support/sim-fs/sim-fs.ts';
import { attemptEnds, diskProblems } from '#/test/support/sim-host/checks.ts';
import { scenarioCases, type ScenarioCase } from '#/test/support/sim-host/scenarios.ts';
import { runHost, type Run, type Scenario, type World } from '#/test/support/sim-host/sim-host.ts';

const isLong = process.env['PROVE_LONG'] === '1';
/** Every n-th operation by default. */
const stride = isLong ? 1 : 7;

let install: ScenarioCase;
let unhealthy: ScenarioCase;
let orderedBack: ScenarioCase;
beforeAll(async () => {
  const cases = await scenarioCases();
  const find = (part: string): ScenarioCase => {
    const found = cases.find((one) => one.title.includes(part));
    if (found === undefined) throw new Error(`no scenario ${part}`);
    return found;
  };
  install = find('install and commit');
  unhealthy = find('unhealthy version goes back');
  orderedBack = find('orders the host back');
});

const rebooted = (world: World): World => ({
  ...world,
  boot: world.boot + 1,
  monotonicMs: 9_000,
  active: null,
});

/** Runs with a fault, then again without: what the second run leaves. Also checks the disk in between. */
async function thenWithout(
  one: ScenarioCase,
  fault: Partial<Scenario>,
  between: (run: Run) => void = () => undefined,
): Promise<{ readonly first: Run; readonly second: Run }> {
  const first = await runHost(one.disk, one.world, { ...one.scenario, ...fault }, 5);
  expect(one.checkDisk(first.sim.image())).toEqual([]);
  between(first);
  const disk = { base: one.disk.base, log: first.sim.log };
  const second = await runHost(disk, first.world, one.scenario, 6);
  return { first, second };
}

describe('the disk fails', () => {
  it('F29 read-only from any operation on: no switch without a persisted intent, and it goes on when repaired', async () => {
    const whole = await runHost(install.disk, install.world, install.scenario, 5);
    for (let failing = 3; failing < whole.sim.operations(); failing += stride) {
      const inject: Scenario['inject'] = ({ index }) => (index >= failing ? 'EROFS' : null);
      const { second } = await thenWithout(install, { inject, giveUpMs: 5 * 60_000 }, (run) => {
        expect(run.ended).not.toBe('bug');
        const disk = listImage(run.sim.image());
        const wasSwitched =
          disk.get('/app/current') !== listImage(install.disk.base).get('/app/current');
        const isEnded = run.state.at === 'idle' || run.state.at === 'committed';
        if (wasSwitched && !isEnded) expect(disk.has('/state/ticket')).toBe(true);
      });
      expect([failing, second.ended, ...install.checkEnd(second, second.world)]).toEqual([
        failing,
        'rest',
      ]);
    }
  });

  it('F18 F69 full for a while at any operation: the old version stays live, and it goes on by itself', async () => {
    const whole = await runHost(install.disk, install.world, install.scenario, 5);
    for (let failing = 0; failing < whole.sim.operations(); failing += stride) {
      const inject: Scenario['inject'] = ({ index, name }) =>
        index >= failing && index < failing + 12 && (name === 'write' || name === 'create')
          ? 'ENOSPC'
          : null;
      const run = await runHost(install.disk, install.world, { ...install.scenario, inject }, 5);
      expect([failing, run.ended, ...install.checkDisk(run.sim.image())]).toEqual([
        failing,
        'rest',
      ]);
      for (const ends of attemptEnds(run.world.received).values()) expect(ends).toHaveLength(1);
    }
  });

  it.each(['sync', 'write', 'rename'] as const)(
    'F25 EIO once in any %s: nothing is lost, one good version at the end',
    async (broken) => {
      for (let failing = 0; failing < 60; failing += isLong ? 1 : 5) {
        let seen = 0;
        const inject: Scenario['inject'] = ({ name }) => {
          if (name !== broken) return null;
          seen += 1;
          return seen === failing ? 'EIO' : null;
        };
        for (const one of [install, unhealthy]) {
          const run = await runHost(one.disk, one.world, { ...one.scenario, inject }, 5);
          expect([failing, run.ended, ...one.checkDisk(run.sim.image())]).toEqual([
            failing,
            'rest',
          ]);
          for (const ends of attemptEnds(run.world.received).values()) expect(ends).toHaveLength(1);
        }
      }
    },
  );
});

describe('a store that an operation broke', () => {
  it.each(['create', 'write', 'sync', 'rename'] as const)(
    'F25 F30 one failed %s of a kept manifest, where nothing is journalled: opened again, and it goes on',
    async (broken) => {
      let wasHit = false;
      const inject: Scenario['inject'] = ({ name, path }) => {
        if (wasHit || name !== broken || !path.startsWith('/state/manifests/')) return null;
        wasHit = true;
        return 'EIO';
      };
      const { disk, world, scenario, checkEnd } = install;
      const run = await runHost(disk, world, { ...scenario, inject }, 5);
      expect([wasHit, run.ended, ...checkEnd(run, world)]).toEqual([true, 'rest']);
    },
  );
});

describe('handles', () => {
  it.each(['EIO', 'ENOSPC'] as const)(
    'none is left open after %s at any operation: the collector would end the process for it',
    async (errno) => {
      for (let failing = 0; failing < 130; failing += isLong ? 1 : 4) {
        let open = 0;
        const wrap: Scenario['wrap'] = (files) => ({
          ...files,
          async open(path, flags) {
            const handle = await files.open(path, flags);
            open += 1;
            let isClosed = false;
            return {
              ...handle,
              async close() {
                if (!isClosed) open -= 1;
                isClosed = true;
                await handle.close();
              },
            };
          },
        });
        const inject: Scenario['inject'] = ({ index }) => (index === failing ? errno : null);
        const { disk, world, scenario } = install;
        await runHost(disk, world, { ...scenario, inject, wrap }, 5);
        expect([failing, open]).toEqual([failing, 0]);
      }
    },
  );
});

describe('an order of control to go back', () => {
  it.each(['E_IO', 'E_SPACE', 'E_BUSY'] as const)(
    'F25 stands when the disk fails once while it is taken up (%s)',
    async (code) => {
      let failures = 0;
      const wrapExecutors: Scenario['wrapExecutors'] = (executors) => ({
        ...executors,
        'resolve-held': async (effect, signal) => {
          failures += 1;
          if (failures === 1) throw new Problem(code, 'once');
          return await executors['resolve-held'](effect, signal);
        },
      });
      const { disk, world, scenario, checkEnd } = orderedBack;
      const run = await runHost(disk, world, { ...scenario, wrapExecutors }, 5);
      expect([failures, run.ended, ...checkEnd(run, world)]).toEqual([2, 'rest']);
    },
  );
});

describe('time that did not pass', () => {
  it('F64 the machine is paused for hours in a trial, its monotonic clock stands still: no rollback', async () => {
    let pauses = 0;
    const wrapExecutors: Scenario['wrapExecutors'] = (executors, { clock, state }) => ({
      ...executors,
      async probe(effect, signal) {
        if (state().at === 'trial') {
          clock.jumpWall(5 * 3_600_000);
          pauses += 1;
        }
        return await executors.probe(effect, signal);
      },
    });
    const { disk, world, scenario, checkEnd } = install;
    const run = await runHost(disk, world, { ...scenario, wrapExecutors }, 5);
    expect(pauses).toBeGreaterThan(1);
    expect([run.ended, ...checkEnd(run, world)]).toEqual(['rest']);
  });
});

describe('told to end', () => {
  it('F70 SIGTERM at any moment: it ends at a safe point, and the next start goes on to the same end', async () => {
    for (const one of [install, unhealthy]) {
      for (let steps = 0; steps < 60; steps += isLong ? 1 : 4) {
        const { first, second } = await thenWithout(one, { stopAfterSteps: steps });
        expect(['stopped', 'rest']).toContain(first.ended);
        expect([steps, second.ended, ...one.checkEnd(second, second.world)]).toEqual([
          steps,
          'rest',
        ]);
      }
    }
  });
});

describe('what it finds is damaged', () => {
  /** The disk in the middle of an update, with the power cut there, and one file changed. */
  async function damaged(
    one: ScenarioCase,
    path: string,
    change: (bytes: string) => string | null,
  ): Promise<readonly { readonly image: Image; readonly world: World }[]> {
    const found: { readonly image: Image; readonly world: World }[] = [];
    for (let steps = 6; steps < 30; steps += 4) {
      const run = await runHost(one.disk, one.world, { ...one.scenario, stopAfterSteps: steps }, 5);
      const image = run.sim.image();
      const before = listImage(image).get(path);
      if (before === undefined || before === '/') continue;
      const { files, image: changed } = simFs(image);
      const bytes = change(before);
      if (bytes === null) await files.unlink(path);
      else await replaceFile(files, path, Buffer.from(bytes, 'latin1'));
      found.push({ image: changed(), world: run.world });
    }
    return found;
  }

  const changes: readonly (readonly [string, (bytes: string) => string | null])[] = [
    ['truncated', (bytes) => bytes.slice(0, bytes.length >> 1)],
    ['zeroed', (bytes) => '\0'.repeat(bytes.length)],
    ['empty', () => ''],
    ['gone', () => null],
    ['of another program', () => '{"hello":"world"}\n'],
    [
      'flipped in the middle',
      (bytes) =>
        `${bytes.slice(0, bytes.length >> 1)}\u0001${bytes.slice((bytes.length >> 1) + 1)}`,
    ],
  ];

  it.each(changes)(
    'F30 H03 the journal is %s: what is live stays live, and the host ends on one good version',
    async (_name, change) => {
      for (const one of [install, unhealthy]) {
        const states = await damaged(one, '/state/journal', change);
        expect(states.length).toBeGreaterThan(2);
        for (const { image, world } of states) {
          for (const start of [world, rebooted(world)]) {
            const run = await runHost({ base: image, log: [] }, start, one.scenario, 6);
            expect(run.ended).toBe('rest');
            expect(diskProblems(run.sim.image(), one.scenario.versions, false)).toEqual([]);
            if (run.state.at === 'idle') expect(run.world.active).toBe(run.state.known.artifactId);
            expect(['idle', 'needs-attention']).toContain(run.state.at);
          }
        }
      }
    },
  );

  it('H03 F30 any slot record is damaged, at any moment: the host ends where it would have ended', async () => {
    for (const one of [install, unhealthy]) {
      for (const { artifactId } of one.scenario.versions) {
        const path = `/state/slots/${artifactId}.json`;
        for (const [name, change] of changes) {
          for (const { image, world } of await damaged(one, path, change)) {
            const run = await runHost({ base: image, log: [] }, rebooted(world), one.scenario, 6);
            expect([name, run.ended, ...one.checkEnd(run, world)]).toEqual([name, 'rest']);
          }
        }
      }
    }
  });

  it.each([
    '/state/ticket',
    '/state/denylist.json',
    '/state/outbox/sequence',
    '/state/slots-root.json',
  ])('H03 %s is damaged: the host ends on one good version', async (path) => {
    for (const [, change] of changes) {
      for (const one of [install, unhealthy]) {
        for (const { image, world } of await damaged(one, path, change)) {
          const run = await runHost({ base: image, log: [] }, rebooted(world), one.scenario, 6);
          expect(run.ended).toBe('rest');
          expect(diskProblems(run.sim.image(), one.scenario.versions, false)).toEqual([]);
          expect(run.world.active).toBe(run.state.known.artifactId);
        }
      }
    }
  });
});
