/** `npm run sim:mutants`: every planted bug has to be caught by some history. Prints which check caught it, and where. */
import { spawnSync } from 'node:child_process';
import { parseArgs } from 'node:util';
import { simMutants } from './mutant-table.ts';

const { values } = parseArgs({
  options: {
    /** Histories per mutant at most. */
    runs: { type: 'string', default: '16' },
    only: { type: 'string' },
  },
});
const here = new URL('.', import.meta.url).pathname;
const LIMIT_MS = 600_000;

const counts = { passed: 0, failed: 0 };
for (const { name } of simMutants) {
  if (values.only !== undefined && !name.includes(values.only)) continue;
  const run = spawnSync(
    process.execPath,
    [
      '--import',
      `${here}plant.ts`,
      `${here}main.ts`,
      '--seed=1',
      `--runs=${values.runs}`,
      '--hosts=6',
      '--hours=3',
      '--fail-fast',
      '--no-shrink',
      '--no-record',
    ],
    {
      env: { ...process.env, SIM_MUTANT: name },
      encoding: 'utf8',
      timeout: LIMIT_MS,
      maxBuffer: 2 ** 26,
    },
  );
  const found = /^FAILED (seed \d+): (.*)$/m.exec(run.stdout);
  const isCaught = run.status === 1 && found !== null;
  counts[isCaught ? 'passed' : 'failed'] += 1;
  const how = isCaught
    ? `${found[1]}: ${(found[2] ?? '').slice(0, 110)}`
    : run.status === 0
      ? 'SURVIVED'
      : `BROKEN: ${(run.stderr || run.stdout).trim().split('\n').slice(0, 6).join(' | ').slice(0, 400)}`;
  console.log(`${isCaught ? 'caught  ' : 'MISSED  '} ${name.padEnd(52)} ${how}`);
}
console.log(`${counts.passed} passed, ${counts.failed} failed`);
process.exitCode = counts.failed === 0 ? 0 : 1;
