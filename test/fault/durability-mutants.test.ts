/**
 * T14: the durable writes with one mistake at one call site. Each mistake in this list loses something that was promised, and
 * the exploration has to show it; otherwise it could not show a real one either. PROVE_LONG=1, as `npm run prove:mutants`, hunts
 * every statement that syncs or swaps.
 */
import { beforeAll, describe, expect, it } from 'vitest';
import {
  type DurableHunt,
  mustBeCaught,
  openedDirectory,
  prepareHunt,
  recipes,
  statements,
} from '#/test/support/sim-host/durable-mutants.ts';

const isLong = process.env['PROVE_LONG'] === '1';
describe('mutants of the durable writes', () => {
  let prepared: DurableHunt;
  beforeAll(async () => {
    prepared = await prepareHunt();
  });

  it.each(mustBeCaught)('H02 caught: %s', async (name) => {
    const { sites, hunt } = prepared;
    const mutant = sites.get(name);
    expect(mutant, `a call site of that name among ${[...sites.keys()].join('\n')}`).toBeDefined();
    if (mutant !== undefined) expect(await hunt(mutant)).not.toBeNull();
  });

  it.each(Object.entries(recipes))('H02 caught where only the recipe runs: %s', async (_, hunt) => {
    expect(await hunt()).not.toBeNull();
    expect(await openedDirectory(null)).toBeNull();
  });

  if (isLong) {
    it.each(Object.keys(statements))(
      'H02 statement, caught: %s',
      { timeout: 3_600_000 },
      async (name) => {
        expect(await prepared.huntEverywhere(name)).not.toBeNull();
      },
    );
  }
});
