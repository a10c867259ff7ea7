/** Mistakes in the durable writes that lose something that was promised, and the hunt for them. */
import { huntMutant } from './explore-mutant.ts';
import { recordSites, type Mutant } from './mutants.ts';
import { scenarioCases } from './scenarios.ts';
import { runHost } from './sim-host.ts';

const seed = 3;
/** By the end of their title: small scenarios first. */
const used = ['first install on an empty host', 'install and commit', 'is not tried again'];

/** Kind and call site, innermost function first. */
export const mustBeCaught: readonly string[] = [
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
  // The floor, which the simulated trust keeps in a state file.
  'no sync: replaceFile < write',
];

export interface DurableHunt {
  /** Every call site that the scenarios come by. */
  readonly sites: ReadonlyMap<string, Mutant>;
  /** Where and how the mutant showed, or null. */
  hunt(mutant: Mutant): Promise<string | null>;
}

/** Runs the scenarios once and notes their call sites. */
export async function prepareHunt(): Promise<DurableHunt> {
  const all = await scenarioCases();
  const sites = new Map<string, Mutant>();
  const cases = used.map((title) => {
    const found = all.find((one) => one.title.endsWith(title));
    if (found === undefined) throw new Error(`no scenario ${title}`);
    return found;
  });
  for (const { disk, world, scenario } of cases) {
    await runHost(disk, world, { ...scenario, wrap: (files) => recordSites(files, sites) }, seed);
  }
  return {
    sites,
    async hunt(mutant) {
      for (const one of cases) {
        const { caught } = await huntMutant(one, mutant, seed);
        if (caught !== null) return caught;
      }
      return null;
    },
  };
}
