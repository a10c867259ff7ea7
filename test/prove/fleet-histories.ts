/** T9: histories of a simulated fleet (test/sim), each drawn by a seed of its own, until enough updates have ended in them. */
import { execFile } from 'node:child_process';
import { resolve } from 'node:path';
import { type Family, type Finding, forEachParallel } from './family.ts';

/** Updates that ended, in all histories together. */
const wanted = { ci: 400, full: 10_000, long: 50_000 } as const;
/** Histories per process: the start of one takes as long as some of them. */
const batchSizes = { ci: 4, full: 12, long: 12 } as const;
/** More than enough of them for every scale; ends a family whose histories have no updates. */
const MAX_BATCHES = 4000;
const PARALLEL = 2;
const OUTPUT_MAX_BYTES = 64 * 1024 * 1024;
const simulator = resolve(import.meta.dirname, '../sim/main.ts');

export const fleetHistories: Family = {
  name: 'fleet histories',
  what: 'agents and control of a simulated fleet through faults of hosts, disks, network, control and operators',
  async run({ seed, scale, say }) {
    const findings: Finding[] = [];
    let histories = 0;
    let attempts = 0;
    const batchSize = batchSizes[scale];
    const batches = Array.from({ length: MAX_BATCHES }, (_, at) => at);
    await forEachParallel(batches, PARALLEL, async (batch) => {
      if (attempts >= wanted[scale]) return;
      const first = 1 + (seed % 1_000_000) * 1000 + batch * batchSize;
      const output = await simulate(first, batchSize);
      for (const [, failed = '', what = ''] of output.matchAll(/^FAILED seed (\d+): (.*)$/gm)) {
        const fault = what.startsWith('L') ? 'stuck' : /^I5|lost/.test(what) ? 'lost' : 'wrong';
        findings.push({ fault, text: `npm run sim -- --seed=${failed}: ${what}` });
      }
      const ended = [...output.matchAll(/^seed \d+: .* (\d+) attempts, hash/gm)];
      histories += ended.length;
      attempts += ended.reduce((sum, [, count]) => sum + Number(count), 0);
      if (ended.length < batchSize) {
        findings.push({
          fault: 'stuck',
          text: `histories from ${first} on: ${output.slice(-2000)}`,
        });
      }
    });
    say(`${histories} histories, ${attempts.toLocaleString('en')} updates ended in them`);
    return { cases: histories, states: attempts, findings };
  },
};

function simulate(first: number, count: number): Promise<string> {
  const flags = ['--no-shrink', '--no-record'];
  const argv = [...process.execArgv, simulator, `--seed=${first}`, `--runs=${count}`, ...flags];
  return new Promise((done) => {
    execFile(process.execPath, argv, { maxBuffer: OUTPUT_MAX_BYTES }, (_error, out, err) => {
      done(`${out}${err}`);
    });
  });
}
