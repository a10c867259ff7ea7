/**
 * `npm run sim -- --seed=7 --hosts=12 --hours=6 --runs=3`: histories of a simulated fleet. Without `--seed`: the histories that
 * failed once, fixed seeds, and a fresh one. A failing seed is printed with the shortest history that still fails, and is
 * added to regressions.json. The last line is `N passed, N failed`.
 */
import { parseArgs } from 'node:util';
import { randomInt } from 'node:crypto';
import { addRegression, readRegressions } from './regressions.ts';
import { describeFault } from './schedule.ts';
import { shrink } from './shrink.ts';
import { simulate, type Outcome, type SimulationOptions, type Tally } from './simulation.ts';

const say = (line: string): void => void process.stdout.write(`${line}\n`);
const FIXED_SEEDS = 8;
const SHRINK_MS = 60_000;
const LINES_SHOWN = 40;

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    hosts: { type: 'string', default: '6' },
    hours: { type: 'string', default: '2' },
    runs: { type: 'string', default: '1' },
    /** Replays only this one, with all its lines. */
    verbose: { type: 'boolean', default: false },
    'no-shrink': { type: 'boolean', default: false },
    'no-record': { type: 'boolean', default: false },
    /** Ends at the first failure: for mutants. */
    'fail-fast': { type: 'boolean', default: false },
  },
});

function whole(name: string, text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1) throw new Error(`--${name} is a whole number`);
  return value;
}

const size = { hosts: whole('hosts', values.hosts), hours: whole('hours', values.hours) };
const runs = whole('runs', values.runs);
const fresh = randomInt(1, 2 ** 31);
const wanted: readonly SimulationOptions[] =
  values.seed === undefined
    ? [
        ...readRegressions(),
        ...Array.from({ length: FIXED_SEEDS }, (_, n) => ({ ...size, seed: n + 1 })),
        ...Array.from({ length: runs }, (_, n) => ({ ...size, seed: fresh + n })),
      ]
    : Array.from({ length: runs }, (_, n) => ({
        ...size,
        seed: whole('seed', values.seed ?? '') + n,
      }));

async function report(failed: Outcome): Promise<void> {
  const { seed, hosts, hours } = failed.options;
  say(`FAILED seed ${seed}: ${failed.violation}`);
  const {
    outcome,
    faults,
    runs: tries,
    isMinimal,
  } = values['no-shrink']
    ? { outcome: failed, faults: failed.plan.faults, runs: 0, isMinimal: false }
    : await shrink(failed, SHRINK_MS);
  for (const line of outcome.lines.slice(-LINES_SHOWN)) say(`  ${line.slice(0, 200)}`);
  say(
    `  ${faults.length} of ${failed.plan.faults.length} faults are left after ${tries} runs${isMinimal ? '' : ' (not minimal)'}:`,
  );
  if (faults.length <= LINES_SHOWN) for (const fault of faults) say(`    ${describeFault(fault)}`);
  say(`  ${outcome.violation}`);
  say(`  npm run sim -- --seed=${seed} --hosts=${hosts} --hours=${hours}`);
  if (!values['no-record']) addRegression(failed.options, faults, outcome.violation ?? '');
}

const total = { passed: 0, failed: 0 };
const sums: Record<keyof Tally, number> = {
  events: 0,
  steps: 0,
  messages: 0,
  powerCuts: 0,
  kills: 0,
  controlKills: 0,
  restores: 0,
  offers: 0,
  attempts: 0,
  hostHours: 0,
  cpuMs: 0,
};
for (const options of wanted) {
  const outcome = await simulate(options);
  for (const key of Object.keys(sums) as (keyof Tally)[]) sums[key] += outcome.tally[key];
  if (values.verbose) for (const line of outcome.lines) say(line.slice(0, 240));
  const { seed, hosts, hours } = options;
  const { events, powerCuts, attempts, cpuMs } = outcome.tally;
  say(
    `seed ${seed}: ${hosts} hosts, ${hours} h, ${events} events, ${powerCuts} power cuts, ${attempts} attempts, hash ${outcome.hash}, ${Math.round(cpuMs)} ms of CPU`,
  );
  if (outcome.violation === null) {
    total.passed += 1;
    continue;
  }
  total.failed += 1;
  await report(outcome);
  if (values['fail-fast']) break;
}
const seconds = sums.cpuMs / 1000;
say(
  `${sums.steps} steps, ${sums.events} events, ${sums.messages} messages, ${sums.attempts} attempts`,
);
say(
  `${sums.powerCuts} power cuts, ${sums.kills} kills of agents, ${sums.controlKills} of control, ${sums.restores} restores`,
);
say(
  `per second of CPU: ${Math.round(sums.steps / seconds)} steps, ${Math.round(sums.events / seconds)} events, ${(sums.hostHours / seconds).toFixed(1)} host-hours`,
);
say(`${total.passed} passed, ${total.failed} failed`);
process.exitCode = total.failed === 0 ? 0 : 1;
