/**
 * `npm run prove:mutants`: one protection taken away at a time, and the family that notices. A mutant that survives is a missing
 * test or a needless protection. The last line is `N passed, N failed`.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { explore } from '#/test/model/agent/explore.ts';
import { mutants } from '#/test/model/agent/mutants.ts';
import { planted, small } from '#/test/model/control/planted.ts';
import { exploreFleet } from '#/test/support/control/explore-fleet.ts';
import {
  mustBeCaught,
  prepareHunt,
  recipes,
  statements,
} from '#/test/support/sim-host/durable-mutants.ts';
import { printTable } from './table.ts';
import { textMutants } from './text-mutants.ts';

const LIMIT_MS = 300_000;
/** Of the way in which a mutant showed, so much is printed. */
const HOW_CHARS = 90;
const rows: (readonly string[])[] = [];
let failed = 0;

function note(family: string, name: string, how: string | null): void {
  if (how === null) failed += 1;
  rows.push([name, family, how === null ? 'SURVIVED' : how.slice(0, HOW_CHARS)]);
}

for (const { name, kind, nature, disturbances, machine } of mutants) {
  const { counterexample } = explore({ kind, nature, disturbances }, machine);
  note('machine', `a machine that ${name}`, counterexample?.invariant ?? null);
}
for (const [name, [faults]] of Object.entries(planted)) {
  const { broken } = exploreFleet(small, faults);
  note('fleet model', name, broken?.what ?? null);
}
for (const { name } of textMutants) {
  const run = spawnSync(
    process.execPath,
    [
      '--import',
      join(import.meta.dirname, 'plant.ts'),
      join(import.meta.dirname, 'main.ts'),
      '--only',
      'bit rot',
    ],
    { env: { ...process.env, PROVE_MUTANT: name }, encoding: 'utf8', timeout: LIMIT_MS },
  );
  const how = /^ {2}bit rot: (?:wrong|lost|stuck): (.*)$/m.exec(run.stdout)?.[1];
  note('bit rot', name, run.status === 1 && how !== undefined ? how : null);
}
const { sites, hunt, huntEverywhere } = await prepareHunt();
for (const name of Object.keys(statements)) {
  note('faults at the port', name, await huntEverywhere(name));
}
for (const [name, run] of Object.entries(recipes)) note('recipes', name, await run());
for (const name of mustBeCaught) {
  const mutant = sites.get(name);
  note('power cuts at the port', name, mutant === undefined ? null : await hunt(mutant));
}
printTable(['protection taken away', 'caught by', 'how'], rows);
process.stdout.write(`${rows.length - failed} passed, ${failed} failed\n`);
process.exitCode = failed === 0 ? 0 : 1;
