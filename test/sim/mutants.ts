/** `npm run sim:mutants`: every planted bug has to be caught by some history. Prints which check caught it, and where. */
import { execFile } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { simMutants } from './mutant-table.ts';

const { values } = parseArgs({
  options: {
    /** Histories per mutant at most. */
    runs: { type: 'string', default: '24' },
    /** Only mutants whose name has this in it. */
    only: { type: 'string', default: '' },
    jobs: { type: 'string', default: String(availableParallelism()) },
  },
});
const here = new URL('.', import.meta.url).pathname;
const say = (line: string): void => void process.stdout.write(`${line}\n`);
const OUTPUT_MAX_BYTES = 2 ** 26;

interface Run {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function histories(name: string): Promise<Run> {
  const given = ['--seed=1', `--runs=${values.runs}`, '--hosts=6', '--hours=1'];
  const flags = ['--fail-fast', '--no-shrink', '--no-record'];
  const argv = ['--import', `${here}plant.ts`, `${here}main.ts`, ...given, ...flags];
  const env = { ...process.env, SIM_MUTANT: name };
  return new Promise((resolve) => {
    execFile(process.execPath, argv, { env, maxBuffer: OUTPUT_MAX_BYTES }, (error, out, err) => {
      const code = error === null ? 0 : typeof error.code === 'number' ? error.code : -1;
      resolve({ code, stdout: out, stderr: err });
    });
  });
}

/** One line of the table; true when the bug was caught. */
function judged(name: string, run: Run): boolean {
  const found = /^FAILED (seed \d+): (.*)$/m.exec(run.stdout);
  const isCaught = run.code === 1 && found !== null;
  const broken = (run.stderr || run.stdout).trim().split('\n').slice(0, 6).join(' | ');
  const how = isCaught
    ? `${found[1]}: ${(found[2] ?? '').slice(0, 120)}`
    : run.code === 0
      ? `survived ${values.runs} histories`
      : `broken: ${broken.slice(0, 400)}`;
  say(`${isCaught ? 'caught' : 'MISSED'}  ${name.padEnd(52)} ${how}`);
  return isCaught;
}

const counts = { passed: 0, failed: 0 };
const waiting = simMutants.filter(({ name }) => name.includes(values.only));
const work = async (): Promise<void> => {
  for (let mutant = waiting.shift(); mutant !== undefined; mutant = waiting.shift())
    counts[judged(mutant.name, await histories(mutant.name)) ? 'passed' : 'failed'] += 1;
};
await Promise.all(Array.from({ length: Math.max(1, Number(values.jobs)) }, work));
say(`${counts.passed} passed, ${counts.failed} failed`);
process.exitCode = counts.failed === 0 ? 0 : 1;
