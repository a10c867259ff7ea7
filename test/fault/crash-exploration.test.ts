/**
 * T1 and T2: the real runner and machine on a simulated disk, crashed at every moment of twelve scenarios, and crashed again
 * while they recover (docs/specs/durable-state.md; H02): a share of the first crashes; PROVE_LONG=1, as the families of
 * `npm run prove`, takes every state, and every second crash.
 */
import { beforeAll, describe, expect, it } from 'vitest';
import { explore, type Explored } from '#/test/support/sim-host/explore.ts';
import { exploreGuardFlips } from '#/test/support/sim-host/guard-flip.ts';
import { scenarioCases, type ScenarioCase } from '#/test/support/sim-host/scenarios.ts';

const isLong = process.env['PROVE_LONG'] === '1';
const seed = Number(process.env['PROVE_SEED'] ?? 1);

const titles = [
  'F21 F22 F23 F28 install and commit',
  'F55 I7 an unhealthy version goes back and is not tried again',
  'first install on an empty host',
  'a first install that is unhealthy leaves nothing live',
  'F58 recalled while it is downloaded or staged',
  'F58 halted before the switch, and lifted again',
  'an operator orders the host back after the commit',
  'F55 a retry generation lets a rolled back version be tried once more',
  'two updates in a row, old versions pruned',
  'F56 after a bad version a good newer one is taken',
  'F18 F29 the disk is full for a while in the middle',
  'the operator of the host pauses and resumes',
];

describe('H02 crashes in every scenario', () => {
  let cases: readonly ScenarioCase[];
  beforeAll(async () => {
    cases = await scenarioCases();
  });

  it('every scenario is explored', () => {
    expect(cases.map((one) => one.title)).toEqual(titles);
  });

  it.each(titles)('single and double faults: %s', async (title) => {
    const scenario = cases.find((one) => one.title === title);
    if (scenario === undefined) throw new Error(`no scenario ${title}`);
    const explored: Explored = await explore({
      ...scenario,
      seed,
      depth: isLong ? 2 : 1,
      oneIn: isLong ? 1 : 12,
    });
    expect(explored.violations).toEqual([]);
    expect(explored.levels[0]?.recovered).toBeGreaterThan(10);
  });

  it('the guard is killed between a rename and its sync, then the power is cut', async () => {
    expect(await exploreGuardFlips()).toEqual([]);
  });
});
