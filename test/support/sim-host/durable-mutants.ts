/**
 * T14: every statement of the durable writes that syncs or swaps, left out or done in the wrong order, and the hunt for a crash that
 * shows it. A statement is meant, not each of its callers: docs/decisions/0073-statements-not-callers.md.
 */
import { openDirectory } from '#/agent/adapters/durable.ts';
import { crashStates, persistenceModels } from '#/test/support/sim-fs/crash-states.ts';
import { emptyImage, listImage } from '#/test/support/sim-fs/image.ts';
import { simFs } from '#/test/support/sim-fs/sim-fs.ts';
import { explore, type Violation } from './explore.ts';
import { huntMutant } from './explore-mutant.ts';
import { mutate, recordSites, type Mutant, type MutantKind } from './mutants.ts';
import { scenarioCases, type ScenarioCase } from './scenarios.ts';
import { runHost } from './sim-host.ts';

const seed = 3;
/** By the end of their title: small scenarios first. */
const used = ['first install on an empty host', 'install and commit', 'is not tried again'];

const statement = (kind: MutantKind, site: string): Mutant => ({ kind, site: `${site} *` });

/** All of agent/adapters/durable.ts, and those beside it. */
export const statements: Readonly<Record<string, Mutant>> = {
  'a replaced file is not synced': statement('no sync', 'replaceFile'),
  'a replaced file is synced after its rename': statement('sync after rename', 'replaceFile'),
  'a file is replaced in two steps': statement('rename in two steps', 'replaceFile'),
  'the directory of a replaced file is not synced': statement(
    'no sync',
    'syncDirectory < replaceFile',
  ),
  'a record of the journal is not synced': statement('no sync', 'appendRecord'),
  'a link is switched in two steps': statement('link in two steps', 'switchLink'),
  'the directory of a switched link is not synced': statement(
    'no sync',
    'syncDirectory < switchLink',
  ),
  'the parent of a new directory is not synced': statement(
    'no sync',
    'syncDirectory < makeDirectory',
  ),
  'the directory of a removed file is not synced': statement(
    'no sync',
    'syncDirectory < removeFile',
  ),
  'the directory of removed versions is not synced': statement(
    'no sync',
    'syncDirectory < #remove',
  ),
};

/** Kind and call site, innermost function first: writes whose loss was promised against, one by one. */
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

/**
 * A promise of a recipe that no scenario can show broken, for the next write of each caller happens to keep it too
 * (docs/decisions/0073-statements-not-callers.md): how the mutant shows where only the recipe runs, or null.
 */
export const recipes: Readonly<Record<string, () => Promise<string | null>>> = {
  'a directory is opened without a sync': () =>
    openedDirectory(statement('no sync', 'syncDirectory < openDirectory')),
};

/** A file that a killed agent had not made durable yet is read after the directory was opened: no power cut takes it back then. */
export async function openedDirectory(mutant: Mutant | null): Promise<string | null> {
  const sim = simFs(emptyImage());
  const files = mutant === null ? sim.files : mutate(sim.files, mutant, () => undefined);
  await files.mkdir('/state', 0o700);
  await (await files.open('/', 'directory')).sync();
  const file = await files.open('/state/.seen.tmp', 'create');
  await file.sync();
  await files.rename('/state/.seen.tmp', '/state/seen');
  await openDirectory(files, '/state');
  for (const model of persistenceModels) {
    const cuts = new Set([sim.log.length]);
    for (const { image } of crashStates({ base: emptyImage(), log: sim.log }, model, {
      seed,
      cuts,
    })) {
      if (!listImage(image).has('/state/seen')) return `${model}: what was seen is gone`;
    }
  }
  return null;
}

export interface DurableHunt {
  /** Every call site that the scenarios come by. */
  readonly sites: ReadonlyMap<string, Mutant>;
  /** Where and how the mutant of one call site showed, or null. */
  hunt(mutant: Mutant): Promise<string | null>;
  /** The same for a statement by its name: every crash and a share of second ones, in scenario after scenario. */
  huntEverywhere(name: string): Promise<string | null>;
}

/** After one in so many first crashes, every second one is tried. */
const SECOND_ONE_IN = 6;

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
    async huntEverywhere(name) {
      const mutant = statements[name];
      if (mutant === undefined) throw new Error(`no statement ${name}`);
      const rest = all.filter((one) => !cases.includes(one));
      for (const depth of [1, 2]) {
        for (const one of [...cases, ...rest]) {
          const caught = await exploreMutant(one, mutant, depth);
          if (caught !== null) return caught;
        }
      }
      return null;
    },
  };
}

async function exploreMutant(
  one: ScenarioCase,
  mutant: Mutant,
  depth: number,
): Promise<string | null> {
  const scenario = { ...one.scenario, wrap: withMutant(mutant) };
  const oneIn = depth === 1 ? 1 : SECOND_ONE_IN;
  // Most mistakes show after a power cut, those of a start after a kill before it.
  const models = depth === 1 ? (['weak'] as const) : (['kill', 'weak'] as const);
  const bounds = { depth, oneIn, seed, models, maxViolations: 1 };
  const { violations } = await explore({ ...one, scenario, ...bounds });
  const [found] = violations;
  return found === undefined ? null : describe(one, found);
}

function withMutant(mutant: Mutant): NonNullable<ScenarioCase['scenario']['wrap']> {
  return (files) => mutate(files, mutant, () => undefined);
}

function describe({ title }: ScenarioCase, { path, what }: Violation): string {
  return `${path} of "${title}": ${what.join('; ')}`;
}
