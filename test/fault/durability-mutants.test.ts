/**
 * T14: the durable writes with one mistake at one call site. Each mistake in this list loses something that was promised, and
 * the exploration has to show it; otherwise it could not show a real one either. PROVE_LONG=1 prints all call sites with what
 * became of them: those that survive protect nothing that is not protected by a write of the same effect being repeated.
 */
import { beforeAll, describe, expect, it } from 'vitest';
import { huntMutant } from '#/test/support/sim-host/explore-mutant.ts';
import { recordSites, type Mutant } from '#/test/support/sim-host/mutants.ts';
import { scenarioCases, type ScenarioCase } from '#/test/support/sim-host/scenarios.ts';
import { runHost } from '#/test/support/sim-host/sim-host.ts';

const isLong = process.env['PROVE_LONG'] === '1';
const seed = 3;
/** By the end of their title: small scenarios first. */
const used = ['first install on an empty host', 'install and commit', 'is not tried again'];

const mustBeCaught: readonly string[] = [
  // A journal record that is not synced: its effects ran, and it is gone.
  'no sync: appendRecord < write < append',
  // The manifest of a version that is live, its content or its entry.
  'no sync: replaceFile < keep',
  'no sync: syncDirectory < replaceFile < keep',
  // A report that counts as kept.
  'no sync: replaceFile < write < add',
  'no sync: syncDirectory < replaceFile < write < add',
  // The ticket.
  'no sync: replaceFile',
  // The link: not durable before the journal says that it is, and never missing.
  'no sync: syncDirectory < switchLink < point < switchTo',
  'link in two steps: switchLink < point < switchTo',
  // The floor.
  'no sync: replaceFile < write < raise',
];

describe('mutants of the durable writes', () => {
  let cases: readonly ScenarioCase[];
  const sites = new Map<string, Mutant>();
  beforeAll(async () => {
    const all = await scenarioCases();
    cases = used.map((title) => {
      const found = all.find((one) => one.title.endsWith(title));
      if (found === undefined) throw new Error(`no scenario ${title}`);
      return found;
    });
    for (const { disk, world, scenario } of cases) {
      await runHost(disk, world, { ...scenario, wrap: (files) => recordSites(files, sites) }, seed);
    }
  });

  const hunt = async (mutant: Mutant): Promise<string | null> => {
    for (const one of cases) {
      const { caught } = await huntMutant(one, mutant, seed);
      if (caught !== null) return caught;
    }
    return null;
  };

  it.each(mustBeCaught)('H02 caught: %s', async (name) => {
    const mutant = sites.get(name);
    expect(mutant, `a call site of that name among ${[...sites.keys()].join('\n')}`).toBeDefined();
    if (mutant !== undefined) expect(await hunt(mutant)).not.toBeNull();
  });

  if (isLong) {
    it('H02 every call site is tried', { timeout: 3_600_000 }, async () => {
      for (const [name, mutant] of sites) {
        const caught = await hunt(mutant);
        process.stdout.write(`${caught === null ? 'survived' : 'caught  '}  ${name}\n`);
      }
      expect(sites.size).toBeGreaterThan(40);
    });
  }
});
