/**
 * `npm run demo`: the main job on real input, watched in the terminal. A control server, five agents and the service
 * that they keep, each a process of its own on this machine; nothing is simulated but the operator.
 *
 * `--fast`: a small payload. `--keep`: the directory stays. `--once`: ends after the last act instead of staying up.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Fleet } from '#/test/support/fleet/fleet.ts';
import { Load } from '#/test/support/fleet/load.ts';
import type { Stage } from './acts.ts';
import { badVersion, firstVersion, killedInMidSwitch, secondVersion, tampered } from './play.ts';
import { Screen } from './screen.ts';

const REQUEST_INTERVAL_MS = 20;

const { values: options } = parseArgs({
  options: {
    fast: { type: 'boolean', default: false },
    keep: { type: 'boolean', default: false },
    once: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
});

if (options.help) {
  process.stdout.write(`usage: npm run demo -- [--fast] [--keep] [--once]

Runs a whole fleet on this machine: installs, a canary rollout, a bad version that goes back by itself,
a tampered bundle, a host killed in mid-switch.

  --fast   a small payload instead of 150 MB
  --keep   do not remove the directory of the fleet at the end
  --once   end after the last act instead of staying up to be tried
`);
  process.exit(0);
}

const screen = new Screen();
const directory = mkdtempSync(join(tmpdir(), 'switchback-demo-'));
const loads = new Map<string, Load>();
let fleet: Fleet | null = null;

async function end(exitCode: number): Promise<never> {
  for (const load of loads.values()) load.stop();
  await fleet?.stop();
  if (options.keep) screen.plain(`kept: ${directory}`);
  else rmSync(directory, { recursive: true, force: true });
  process.exit(exitCode);
}

async function play(): Promise<void> {
  screen.act('A fleet of five hosts in two groups, on this machine');
  fleet = await Fleet.create(directory);
  screen.good(`control answers on ${fleet.url}, data in ${fleet.dataDirectory}`);
  const policy = [
    '--canary',
    '1',
    '--waves',
    '100',
    '--soak',
    '2s',
    '--poll',
    '1s',
    '--poll-active',
    '1s',
  ];
  await fleet.cli(['group', 'create', 'web', ...policy]);
  await fleet.cli(['group', 'create', 'edge', ...policy]);
  for (const [name, group] of [
    ['web-1', 'web'],
    ['web-2', 'web'],
    ['web-3', 'web'],
    ['edge-1', 'edge'],
    ['edge-2', 'edge'],
  ] as const) {
    const host = await fleet.addHost(name, group);
    const load = new Load(host.servicePort, '/healthz', REQUEST_INTERVAL_MS);
    loads.set(name, load);
    load.start();
  }
  screen.good('web-1, web-2, web-3, edge-1, edge-2 enrolled with one-use tokens');
  const stage: Stage = { fleet, screen, small: options.fast, loads };
  await firstVersion(stage);
  await secondVersion(stage);
  await badVersion(stage);
  await tampered(stage);
  await killedInMidSwitch(stage);
}

function sayHowToTry(one: Fleet): void {
  screen.act('The fleet stays up. In another terminal, in this directory:');
  screen.plain(`
  export SWITCHBACK_CONFIG=${one.settingsFile}
  npx switchback status
  npx switchback host ls
  npx switchback host why ${one.hosts[0]?.id ?? ''}
  npx switchback pin web v1 --reason "back to the first"
  npx switchback rollout watch
  npx switchback halt --reason "stop everything"
  npx switchback-agent explain --config ${one.hosts[0]?.configFile ?? ''}

Ctrl-C ends it and removes everything.`);
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void end(0));
try {
  await play();
  if (options.once || fleet === null) await end(0);
  else sayHowToTry(fleet);
} catch (error) {
  screen.bad(`the demo failed: ${error instanceof Error ? error.message : String(error)}`);
  await end(1);
}
