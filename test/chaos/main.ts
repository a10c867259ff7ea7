/**
 * `npm run chaos -- --seed=N --kills=K`: a real fleet, a new version in each round, and in the middle of each rollout one
 * process (control, an agent, its install child, or the service) is killed with SIGKILL at a random moment. Each round
 * must end with every host on exactly one good version, every attempt ended once, and control agreeing with the hosts.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { HostId } from '#/protocol/ids.ts';
import { Fleet, type FleetHost } from '#/test/support/fleet/fleet.ts';
import { buildPrograms } from '#/test/support/fleet/programs.ts';
import { checkFleet } from './check.ts';
import { randomFrom } from './random.ts';
import { playRound, settle } from './round.ts';

const MAX_KILLS = 10_000;
const MAX_FLEETS = 16;
const HOSTS = 3;

const { values: options } = parseArgs({
  options: {
    seed: { type: 'string' },
    kills: { type: 'string', default: '20' },
    fleets: { type: 'string', default: '2' },
    keep: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
});

if (options.help) {
  process.stdout.write(`usage: npm run chaos -- [--seed=N] [--kills=K] [--keep]

  --seed   decides versions, moments and victims; a fresh one is taken and printed without it
  --kills  rounds, one kill in each (default 20)
  --fleets fleets that run side by side and share the rounds (default 2)
  --keep   do not remove the directory of the fleet at the end
`);
  process.exit(0);
}

const seed = options.seed ?? String(Math.floor(Math.random() * 2 ** 31));
const kills = Number(options.kills);
const fleetCount = Number(options.fleets);
const isCount = (n: number, max: number): boolean => Number.isSafeInteger(n) && n >= 1 && n <= max;
if (!/^\d{1,15}$/.test(seed) || !isCount(kills, MAX_KILLS) || !isCount(fleetCount, MAX_FLEETS)) {
  process.stderr.write(
    `--seed, --kills (1 to ${MAX_KILLS}) and --fleets (1 to ${MAX_FLEETS}) take whole numbers\n`,
  );
  process.exit(2);
}

const directory = mkdtempSync(join(tmpdir(), 'switchback-chaos-'));
const fleets: Fleet[] = [];
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => void stopAll().then(() => process.exit(130)));
}
let passed = 0;
let next = 1;
process.stdout.write(`chaos: seed ${seed}, ${kills} kills, ${fleetCount} fleets\n`);
const programs = await buildPrograms(join(directory, 'programs'));
try {
  await Promise.all(Array.from({ length: fleetCount }, (_, index) => runFleet(index + 1)));
} finally {
  await stopAll();
  if (options.keep || passed < kills) process.stdout.write(`kept: ${directory}\n`);
  else rmSync(directory, { recursive: true, force: true });
}
// A round that was never played, because every fleet was stuck before it, did not pass.
process.stdout.write(`${passed} passed, ${kills - passed} failed\n`);
process.exit(passed === kills ? 0 : 1);

async function stopAll(): Promise<void> {
  await Promise.all(fleets.map((fleet) => fleet.stop()));
}

async function runFleet(index: number): Promise<void> {
  const fleet = await Fleet.create(join(directory, String(index)), { programs });
  fleets.push(fleet);
  const policy = ['--canary', '1', '--waves', '100', '--soak', '1s', '--poll', '1s'];
  await fleet.cli(['group', 'create', 'web', ...policy, '--poll-active', '1s']);
  for (let n = 1; n <= HOSTS; n += 1) await fleet.addHost(`web-${n}`, 'web');
  await settle(fleet, { round: 0, isBad: false });
  while (next <= kills) {
    const round = next;
    next += 1;
    // Every round has a generator of its own, so that round N of a seed is the same whatever happened before it.
    if (!(await runRound(fleet, round))) return;
  }
}

/** False: the fleet is stuck, and no further round of it would say anything. */
async function runRound(fleet: Fleet, round: number): Promise<boolean> {
  try {
    const told = await playRound(fleet, round, randomFrom(`${seed}/${round}`));
    const problems = await checkFleet(fleet, told);
    tell(round, told.words, problems.length === 0 ? told.end : 'WRONG', problems);
    return true;
  } catch (error) {
    const said = error instanceof Error ? error.message : String(error);
    tell(round, said, 'STUCK', [fleet.directory, ...(await wordsOfAll(fleet))]);
    return false;
  }
}

function tell(round: number, words: string, end: string, problems: readonly string[]): void {
  process.stdout.write(`${String(round).padStart(4)}  ${words}: ${end}\n`);
  for (const problem of problems) process.stdout.write(`      ${problem}\n`);
  if (problems.length === 0) passed += 1;
}

/** What control and the hosts say of where each host is. */
async function wordsOfAll(fleet: Fleet): Promise<readonly string[]> {
  const one = async ({ name, id }: FleetHost): Promise<string> => {
    try {
      const params = { host: id as HostId };
      const view = await fleet.api().call('hostShow', { params });
      const why = await fleet.api().call('hostWhy', { params });
      return `${name}: ${view.state}, ${view.condition}, ${why.answer}; host says ${why.says}; next ${why.next.words}`;
    } catch (error) {
      return `${name}: control does not answer: ${String(error)}`;
    }
  };
  return Promise.all(fleet.hosts.map((host) => one(host)));
}
