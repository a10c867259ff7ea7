/**
 * `npm run chaos -- --seed=N --kills=K`: a real fleet, a new version in each round, and in the middle of each rollout one
 * process (control, an agent, its install child, or the service) is killed with SIGKILL at a random moment. Each round
 * must end with every host on exactly one good version, every attempt ended once, and control agreeing with the hosts.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Fleet } from '#/test/support/fleet/fleet.ts';
import { checkFleet } from './check.ts';
import { randomFrom } from './random.ts';
import { playRound, settle } from './round.ts';

const MAX_KILLS = 10_000;
const HOSTS = 3;

const { values: options } = parseArgs({
  options: {
    seed: { type: 'string' },
    kills: { type: 'string', default: '20' },
    keep: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
});

if (options.help) {
  process.stdout.write(`usage: npm run chaos -- [--seed=N] [--kills=K] [--keep]

  --seed   decides versions, moments and victims; a fresh one is taken and printed without it
  --kills  rounds, one kill in each (default 20)
  --keep   do not remove the directory of the fleet at the end
`);
  process.exit(0);
}

const seed = options.seed ?? String(Math.floor(Math.random() * 2 ** 31));
const kills = Number(options.kills);
if (!/^\d{1,15}$/.test(seed) || !Number.isSafeInteger(kills) || kills < 1 || kills > MAX_KILLS) {
  process.stderr.write(`--seed and --kills take whole numbers, --kills from 1 to ${MAX_KILLS}\n`);
  process.exit(2);
}

const directory = mkdtempSync(join(tmpdir(), 'switchback-chaos-'));
const fleet = await Fleet.create(directory);
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => void fleet.stop().then(() => process.exit(130)));
}
const failures: string[] = [];
try {
  await run();
} finally {
  await fleet.stop();
  if (options.keep || failures.length > 0) process.stdout.write(`kept: ${directory}\n`);
  else rmSync(directory, { recursive: true, force: true });
}
process.stdout.write(`${kills - failures.length} passed, ${failures.length} failed\n`);
process.exit(failures.length === 0 ? 0 : 1);

async function run(): Promise<void> {
  process.stdout.write(`chaos: seed ${seed}, ${kills} kills\n`);
  const policy = ['--canary', '1', '--waves', '100', '--soak', '1s', '--poll', '1s'];
  await fleet.cli(['group', 'create', 'web', ...policy, '--poll-active', '1s']);
  for (let n = 1; n <= HOSTS; n += 1) await fleet.addHost(`web-${n}`, 'web');
  await settle(fleet, { round: 0, isBad: false });
  for (let round = 1; round <= kills; round += 1) {
    // Every round has a generator of its own, so that round N of a seed is the same whatever happened before it.
    const told = await playRound(fleet, round, randomFrom(`${seed}/${round}`));
    const problems = await checkFleet(fleet, told);
    process.stdout.write(
      `${String(round).padStart(4)}  ${told.words}: ${problems.length === 0 ? told.end : 'WRONG'}\n`,
    );
    for (const problem of problems) process.stdout.write(`      ${problem}\n`);
    if (problems.length > 0) failures.push(`round ${round}`);
  }
}
