/**
 * T1, T2 and T3: the real runner on a simulated disk, crashed at every moment of twelve scenarios in three models of persistence,
 * and crashed again while it recovers, everywhere. States that are the same to the agent are recovered once (state-key.ts).
 */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Explored } from '#/test/support/sim-host/explore.ts';
import { scenarioCases } from '#/test/support/sim-host/scenarios.ts';
import {
  type Family,
  type FamilyOptions,
  faultOf,
  forEachParallel,
  type Outcome,
} from './family.ts';

/** Of the states after a first crash, one in so many is crashed again in a share: every one comes in as many seeds. */
const CI_ONE_IN = 24;
/** After two crashes there are too many even for a long run. */
const TRIPLE_ONE_IN = 40;
const PARALLEL = 2;
/** The longest scenarios first, so that none is left over at the end. */
const LONGEST_FIRST = [9, 8, 7, 6, 10, 5, 1, 3, 2, 11, 4, 0];
const LIMIT_MS = 60 * 60_000;
const OUTPUT_MAX_BYTES = 64 * 1024 * 1024;

export const singleFaults: Family = {
  name: 'single faults',
  what: 'a crash at every moment of twelve scenarios, all that a disk may hold after it, in three models',
  run: (options) => exploreAll(options, 1, 1),
};

export const doubleFaults: Family = {
  name: 'double faults',
  what: 'a second crash at every moment of the recovery from the first',
  run: (options) => exploreAll(options, 2, options.scale === 'ci' ? CI_ONE_IN : 1),
};

export const tripleFaults: Family = {
  name: 'triple faults',
  isOnlyLong: true,
  what: 'a third crash at every moment of the recovery from the second, after a draw of first ones',
  run: (options) => exploreAll(options, 3, TRIPLE_ONE_IN),
};

async function exploreAll(
  { seed, say }: FamilyOptions,
  depth: number,
  oneIn: number,
): Promise<Outcome> {
  const count = (await scenarioCases()).length;
  if (count !== LONGEST_FIRST.length) throw new Error(`${count} scenarios`);
  const found: (Explored & { readonly title: string })[] = [];
  await forEachParallel(LONGEST_FIRST, PARALLEL, async (number) => {
    found.push(await inProcess([number, depth, oneIn, seed]));
  });
  const formed = found.reduce((sum, { levels }) => sum + (levels[depth - 1]?.formed ?? 0), 0);
  const recovered = found.reduce((sum, { levels }) => sum + (levels[depth - 1]?.recovered ?? 0), 0);
  say(
    `${formed.toLocaleString('en')} states formed, ${recovered.toLocaleString('en')} of them differ to the agent`,
  );
  return {
    cases: count,
    states: formed,
    findings: found.flatMap(({ title, violations }) =>
      violations.map(({ path, what }) => ({
        fault: faultOf(what[0] ?? ''),
        text: `${title}, seed ${seed}, ${path}: ${what.join('; ')}`,
      })),
    ),
  };
}

async function inProcess(
  numbers: readonly number[],
): Promise<Explored & { readonly title: string }> {
  const program = join(import.meta.dirname, 'port-faults-run.ts');
  const { stdout } = await promisify(execFile)(
    process.execPath,
    [...process.execArgv, program, ...numbers.map(String)],
    { timeout: LIMIT_MS, maxBuffer: OUTPUT_MAX_BYTES },
  );
  return JSON.parse(stdout) as Explored & { readonly title: string };
}
