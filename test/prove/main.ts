/**
 * `npm run prove`: runs the families and prints what became of each. `--share ci`: a share for each commit, `--long`: for hours.
 * `--only FAMILY` (may be repeated), `--match TEXT` for cases of that name, `--seed N`, `--agent FILE` for an agent that is built
 * already. The last line is `N passed, N failed`.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { families } from './families.ts';
import { type Family, type Finding, type Outcome, scales } from './family.ts';
import type { FamilyMessage, FamilyOrder } from './family-run.ts';
import { agentBuilder } from './shipped-agent.ts';
import { printTable } from './table.ts';

type Common = Omit<FamilyOrder, 'family'>;

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
const wanted = values.long === true ? 'long' : (values.share ?? 'full');
const chosen = families.filter(
  (one) => values.only?.includes(one.name) ?? (wanted === 'long' || one.isOnlyLong !== true),
);
const scale = scales.find((one) => one === wanted);
if (chosen.length === 0 || !Number.isInteger(seed) || scale === undefined) {
  process.stderr.write(`families: ${families.map((one) => one.name).join(', ')}\n`);
  process.stderr.write(`shares: ${scales.join(', ')}\n`);
  process.exit(2);
}
const say = (family: Family, line: string): void =>
  void process.stdout.write(`  ${family.name}: ${line}\n`);
const builder = agentBuilder(values.agent ?? null);
const rows = new Map<Family, readonly string[]>();
const running = new Set<ChildProcess>();
let isInterrupted = false;
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    isInterrupted = true;
    for (const child of running) child.kill(signal);
  });
}
const began = performance.now();
let failed = 0;
process.stdout.write(`seed ${seed}, ${scale}\n`);
try {
  const agent = chosen.some((one) => one.usesAgent === true) ? await builder.program() : null;
  // Two families at a time, so that neither processor waits for the last case of one.
  const tracks = [false, true].map((isLight) =>
    chosen.filter((one) => (one.isLight ?? false) === isLight),
  );
  await Promise.all(
    tracks.map(async (track) => {
      for (const family of track) {
        if (!isInterrupted) await runFamily(family, { seed, scale, match: values.match, agent });
      }
    }),
  );
} finally {
  builder.remove();
}
printTable(
  ['family', 'cases', 'states', 'lost', 'wrong', 'stuck', 'time'],
  chosen.flatMap((family) => [rows.get(family) ?? []]),
);
process.stdout.write(`${((performance.now() - began) / 60_000).toFixed(1)} minutes\n`);
process.stdout.write(`${chosen.length - failed} passed, ${failed} failed\n`);
process.exitCode = failed === 0 && !isInterrupted ? 0 : 1;

async function runFamily(family: Family, common: Common): Promise<void> {
  say(family, family.what);
  const startedMs = performance.now();
  const outcome = await attempt(family, common);
  const count = (fault: Finding['fault']): number =>
    outcome.findings.filter((one) => one.fault === fault).length;
  for (const { fault, text } of outcome.findings.slice(0, MAX_PRINTED))
    say(family, `${fault}: ${text}`);
  // A family that tried nothing has shown nothing.
  const isFine = outcome.findings.length === 0 && outcome.states > 0;
  if (!isFine) failed += 1;
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
  say(family, `${isFine ? 'passed' : 'FAILED'} after ${seconds} s`);
  rows.set(family, [
    family.name,
    ...[outcome.cases, outcome.states, count('lost'), count('wrong'), count('stuck')].map(
      (number) => number.toLocaleString('en'),
    ),
    `${seconds} s`,
  ]);
}

/** In a process of its own, so that none disturbs another. One that breaks is one that fails: the others still run. */
async function attempt(family: Family, common: Common): Promise<Outcome> {
  const order: FamilyOrder = { family: family.name, ...common };
  const child = fork(join(import.meta.dirname, 'family-run.ts'), [JSON.stringify(order)]);
  running.add(child);
  let outcome: Outcome | null = null;
  child.on('message', (message: FamilyMessage) => {
    if ('say' in message) say(family, message.say);
    else outcome = message.outcome;
  });
  const [code, signal] = (await once(child, 'exit')) as [number | null, string | null];
  running.delete(child);
  const text = `the family ended with ${code ?? signal} and said nothing`;
  return outcome ?? { cases: 0, states: 0, findings: [{ fault: 'stuck', text }] };
}
