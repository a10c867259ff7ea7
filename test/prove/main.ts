/**
 * `npm run prove`: runs the families and prints what became of each. `--share ci`: a share for each commit, `--long`: for hours.
 * `--only FAMILY` (may be repeated), `--match TEXT` for cases of that name, `--seed N`, `--agent FILE` for an agent that is built
 * already. The last line is `N passed, N failed`.
 */
import { parseArgs } from 'node:util';
import { families } from './families.ts';
import { type Finding, type Outcome, type Scale, scales } from './family.ts';
import { agentBuilder } from './shipped-agent.ts';
import { printTable } from './table.ts';

/** Findings that are printed per family; the rest is counted. */
const MAX_PRINTED = 10;

const { values } = parseArgs({
  options: {
    only: { type: 'string', multiple: true },
    seed: { type: 'string' },
    long: { type: 'boolean' },
    share: { type: 'string' },
    match: { type: 'string', default: '' },
    agent: { type: 'string' },
  },
});
const seed =
  values.seed === undefined ? Math.floor(Math.random() * 1_000_000) : Number(values.seed);
const scale = values.long === true ? 'long' : (values.share ?? 'full');
const chosen = families.filter(
  (one) => values.only?.includes(one.name) ?? (scale === 'long' || one.isOnlyLong !== true),
);
const isKnown = (text: string): text is Scale => scales.some((one) => one === text);
if (chosen.length === 0 || !Number.isInteger(seed) || !isKnown(scale)) {
  process.stderr.write(`families: ${families.map((one) => one.name).join(', ')}\n`);
  process.stderr.write(`shares: ${scales.join(', ')}\n`);
  process.exit(2);
}
const say = (line: string): void => void process.stdout.write(`  ${line}\n`);
const builder = agentBuilder(values.agent ?? null);
const rows: (readonly string[])[] = [];
const began = performance.now();
let failed = 0;
process.stdout.write(`seed ${seed}, ${scale}\n`);
try {
  for (const family of chosen) {
    process.stdout.write(`${family.name}: ${family.what}\n`);
    const startedMs = performance.now();
    const outcome = await attempt(() =>
      family.run({ seed, scale, match: values.match, agentProgram: builder.program, say }),
    );
    const count = (fault: Finding['fault']): number =>
      outcome.findings.filter((one) => one.fault === fault).length;
    for (const { fault, text } of outcome.findings.slice(0, MAX_PRINTED)) say(`${fault}: ${text}`);
    // A family that tried nothing has shown nothing.
    const isFine = outcome.findings.length === 0 && outcome.states > 0;
    if (!isFine) failed += 1;
    rows.push([
      family.name,
      ...[outcome.cases, outcome.states, count('lost'), count('wrong'), count('stuck')].map(
        (number) => number.toLocaleString('en'),
      ),
      `${((performance.now() - startedMs) / 1000).toFixed(1)} s`,
    ]);
  }
} finally {
  builder.remove();
}
printTable(['family', 'cases', 'states', 'lost', 'wrong', 'stuck', 'time'], rows);
process.stdout.write(`${((performance.now() - began) / 60_000).toFixed(1)} minutes\n`);
process.stdout.write(`${chosen.length - failed} passed, ${failed} failed\n`);
process.exitCode = failed === 0 ? 0 : 1;

/** A family that breaks is one that fails: the others still run. */
async function attempt(run: () => Promise<Outcome>): Promise<Outcome> {
  try {
    return await run();
  } catch (error) {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    return { cases: 0, states: 0, findings: [{ fault: 'stuck', text }] };
  }
}
