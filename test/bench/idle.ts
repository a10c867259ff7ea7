/**
 * Memory of an idle agent, enrolled and polling a real control: the built one and the sources, beside a
 * bare Node. `npm run build && node test/bench/idle.ts [seconds]`. Prints a table; medians of samples once a second.
 */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { nodeFlags } from '#/packaging/build/node-flags.ts';
import { Fleet, REPOSITORY } from '#/test/support/fleet/fleet.ts';

const seconds = Number(process.argv[2] ?? 30);
/** After the start, until the first polls are over and the collector had its turn. */
const SETTLE_MS = 8_000;
const BUILT = join(REPOSITORY, 'dist/agent.mjs');

interface Sample {
  readonly rssMib: number;
  readonly pssMib: number;
  readonly privateMib: number;
}

function sampleOf(pid: number): Sample {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1');
  const mib = (key: string): number =>
    Number(new RegExp(`^${key}:\\s+(\\d+) kB`, 'm').exec(text)?.[1] ?? 0) / 1024;
  return {
    rssMib: mib('Rss'),
    pssMib: mib('Pss'),
    privateMib: mib('Private_Dirty') + mib('Private_Clean'),
  };
}

const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;

async function measure(name: string, argv: readonly string[]): Promise<void> {
  const [program = '', ...args] = argv;
  const child = spawn(program, args, {
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { PATH: '/usr/bin:/bin' },
  });
  try {
    await sleep(SETTLE_MS);
    const { pid } = child;
    if (pid === undefined || child.exitCode !== null) throw new Error(`${name} does not run`);
    const samples: Sample[] = [];
    for (let at = 0; at < seconds; at += 1) {
      samples.push(sampleOf(pid));
      await sleep(1000);
    }
    const column = (key: keyof Sample): string =>
      median(samples.map((sample) => sample[key]))
        .toFixed(1)
        .padStart(8);
    process.stdout.write(
      `${name.padEnd(34)}${column('rssMib')}${column('pssMib')}${column('privateMib')}\n`,
    );
  } finally {
    child.kill('SIGTERM');
    await new Promise((resolve) =>
      child.exitCode === null && child.signalCode === null
        ? child.once('exit', resolve)
        : resolve(null),
    );
  }
}

if (!existsSync(BUILT)) throw new Error('no dist/agent.mjs: npm run build');
const base = await mkdtemp(join(tmpdir(), 'switchback-idle-'));
const fleet = await Fleet.create(join(base, 'fleet'));
try {
  await fleet.cli(['group', 'create', 'web']);
  const host = await fleet.addHost('idle', 'web');
  await host.agent.stop();
  const node = process.execPath;
  const run = ['run', '--config', host.configFile];
  process.stdout.write(
    `polling once a second, ${seconds} s, Node ${process.versions.node}\n` +
      `${''.padEnd(34)}${'RSS MiB'.padStart(8)}${'PSS'.padStart(8)}${'private'.padStart(8)}\n`,
  );
  await measure('bare node, one timer', [node, '--eval', 'setInterval(() => {}, 1000)']);
  await measure('bare node, flags of the package', [
    node,
    ...nodeFlags,
    '--eval',
    'setInterval(() => {}, 1000)',
  ]);
  await measure('agent, sources (.ts)', [node, join(REPOSITORY, 'agent/main.ts'), ...run]);
  await measure('agent, built', [node, BUILT, ...run]);
  await measure('agent, built, flags of the package', [node, ...nodeFlags, BUILT, ...run]);
} finally {
  await fleet.stop();
  await rm(base, { recursive: true, force: true });
}
