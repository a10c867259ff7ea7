/**
 * T1 and T2: the real runner on a simulated disk, crashed at every moment of twelve scenarios in three models of persistence,
 * and crashed again while it recovers.
 */
import { explore } from '#/test/support/sim-host/explore.ts';
import { scenarioCases } from '#/test/support/sim-host/scenarios.ts';
import { type Family, type FamilyOptions, faultOf, type Finding, type Outcome } from './family.ts';

/** States after a first crash per scenario and model, and after a second one per recovery. */
const SHORT_SINGLE = { maxFirst: 100, samplesPerRecovery: 0 };
const SHORT = { maxFirst: 16, samplesPerRecovery: 1 };
/** Every state of the first crash; of the second so many cuts per recovery and model. */
const LONG = { maxFirst: Number.MAX_SAFE_INTEGER, samplesPerRecovery: 6 };

export const singleFaults: Family = {
  name: 'single faults',
  what: 'one crash in each of the twelve scenarios, in each model (--long: all states)',
  run: (options) =>
    exploreAll(options, 1, options.isLong ? { ...LONG, samplesPerRecovery: 0 } : SHORT_SINGLE),
};

export const doubleFaults: Family = {
  name: 'double faults',
  what: 'a second crash while the agent recovers from the first (--long: after every first one)',
  run: (options) => exploreAll(options, 2, options.isLong ? LONG : SHORT),
};

async function exploreAll(
  { seed, say }: FamilyOptions,
  depth: number,
  bounds: { readonly maxFirst: number; readonly samplesPerRecovery: number },
): Promise<Outcome> {
  const cases = await scenarioCases();
  const findings: Finding[] = [];
  let states = 0;
  for (const one of cases) {
    const explored = await explore({ ...one, ...bounds, seed, depth });
    states += depth === 1 ? explored.states : explored.doubleStates;
    for (const { path, what } of explored.violations) {
      const text = `${one.title}, seed ${seed}, ${path}: ${what.join('; ')}`;
      findings.push({ fault: faultOf(what[0] ?? ''), text });
    }
    if (explored.violations.length > 0)
      say(`${one.title}: ${explored.violations.length} violations`);
  }
  return { cases: cases.length, states, findings };
}
