/** The agent when there is nothing to do, as shipped, polling a real control; mender-client and a bare Node beside it. */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { allocatorSettings, nodeFlags } from '#/packaging/build/node-flags.ts';
import { Fleet, REPOSITORY, waitFor } from '#/test/support/fleet/fleet.ts';
import { setUpMender } from './mender.ts';

/** After the start, until the first polls are over and the collector had its turn. */
const SETTLE_MS = 8_000;
/** Agents poll once a second here: a minute of it is an hour of polls at one a minute. */
const POLL_MS = 1_000;
const TICKS_PER_SECOND = 100;
const INSTALL_MS = 120_000;
const BUILT = join(REPOSITORY, 'dist/agent.mjs');

export interface IdleRow {
  readonly name: string;
  readonly pssMib: number;
  readonly privateMib: number;
  readonly rssMib: number;
  /** Of private memory from the first to the last tenth of the time; for the row with an install, over that. */
  readonly growthMib: number;
  /** Of one processor, at one poll a minute; null for what does not poll. */
  readonly cpuPercent: number | null;
  /** Both directions, headers included, without TCP and TLS; null where it was not seen. */
  readonly bytesPerPoll: number | null;
}

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
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;

/** User and system time of a process so far. */
function cpuMs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]?.split(' ') ?? [];
  return ((Number(fields[11]) + Number(fields[12])) * 1000) / TICKS_PER_SECOND;
}

/** Bytes that the TCP connections of a process sent and received, as the kernel counts them; null without ss. */
function socketBytes(pid: number): number | null {
  const { status, stdout } = spawnSync('ss', ['-tinpHO'], { encoding: 'utf8' });
  if (status !== 0) return null;
  const own = stdout.split('\n').filter((line) => line.includes(`pid=${pid},`));
  if (own.length === 0) return null;
  return own.reduce((sum, line) => {
    const of = (key: string): number => Number(new RegExp(`${key}:(\\d+)`).exec(line)?.[1] ?? 0);
    return sum + of('bytes_sent') + of('bytes_received');
  }, 0);
}

interface Subject {
  readonly name: string;
  readonly argv: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Polls in the last minute, or since the start, as its server saw them; null: it does not poll. */
  readonly polls: (() => Promise<number>) | null;
}

/** `before`: what happens to the process between two looks at its memory; the growth is then over that. */
async function measure(
  subject: Subject,
  seconds: number,
  before: (() => Promise<void>) | null = null,
): Promise<IdleRow> {
  const { name, argv, polls } = subject;
  const [program = '', ...args] = argv;
  const child = spawn(program, args, {
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', ...subject.env },
  });
  try {
    await sleep(SETTLE_MS);
    const { pid } = child;
    if (pid === undefined || child.exitCode !== null) throw new Error(`${name} does not run`);
    const samples: Sample[] = [];
    let untouched: number | null = null;
    if (before !== null) {
      untouched = sampleOf(pid).privateMib;
      await before();
      await sleep(SETTLE_MS);
    }
    const [cpu0, bytes0] = [cpuMs(pid), socketBytes(pid)];
    for (let at = 0; at < seconds; at += 1) {
      samples.push(sampleOf(pid));
      await sleep(1000);
    }
    // Of the minute that the server counts, the part in which this was watched.
    const watchedShare = Math.min(1, seconds / Math.min(60, seconds + SETTLE_MS / 1000));
    const count = polls === null ? 0 : (await polls()) * watchedShare * Math.max(1, seconds / 60);
    const bytes1 = socketBytes(pid);
    const of = (key: keyof Sample): number => median(samples.map((sample) => sample[key]));
    const tenth = Math.max(1, Math.floor(samples.length / 10));
    const privates = samples.map(({ privateMib }) => privateMib);
    return {
      name,
      rssMib: of('rssMib'),
      pssMib: of('pssMib'),
      privateMib: of('privateMib'),
      growthMib: median(privates.slice(-tenth)) - (untouched ?? median(privates.slice(0, tenth))),
      cpuPercent: polls === null ? null : ((cpuMs(pid) - cpu0) / count / 60_000) * 100,
      bytesPerPoll:
        polls === null || bytes0 === null || bytes1 === null || bytes1 < bytes0
          ? null
          : (bytes1 - bytes0) / count,
    };
  } finally {
    child.kill('SIGTERM');
    await new Promise((resolve) =>
      child.exitCode === null && child.signalCode === null
        ? child.once('exit', resolve)
        : resolve(null),
    );
  }
}

export interface IdleOptions {
  readonly seconds: number;
  /** The sources too, which nobody ships. */
  readonly sources: boolean;
}

/** One subject after the other. `skipped` hears what is not there. */
export async function idleRows(
  options: IdleOptions,
  skipped: (what: string) => void,
): Promise<IdleRow[]> {
  if (!existsSync(BUILT)) throw new Error('no dist/agent.mjs: npm run build');
  const { seconds } = options;
  const base = await mkdtemp(join(tmpdir(), 'switchback-idle-'));
  const node = process.execPath;
  const timer = ['--eval', 'setInterval(() => {}, 1000)'];
  const rows: IdleRow[] = [];
  const add = async (subject: Subject): Promise<void> => {
    const row = await measure(subject, seconds);
    rows.push(row);
    const { pssMib, privateMib } = row;
    process.stderr.write(
      `idle: ${row.name}: PSS ${pssMib.toFixed(1)}, private ${privateMib.toFixed(1)} MiB\n`,
    );
  };
  await add({ name: 'bare node, one timer', argv: [node, ...timer], polls: null });
  const small = [node, ...nodeFlags, ...timer];
  await add({ name: 'bare node, flags of the package', argv: small, polls: null });
  const fleet = await Fleet.create(join(base, 'fleet'));
  try {
    await fleet.cli(['group', 'create', 'web', '--poll', '1s', '--poll-active', '1s']);
    const host = await fleet.addHost('idle', 'web');
    await host.agent.stop();
    const run = ['run', '--config', host.configFile];
    const api = fleet.api();
    const polls = async (): Promise<number> => (await api.call('summary', {})).pollsPerMinute;
    if (options.sources) {
      const argv = [node, join(REPOSITORY, 'agent/main.ts'), ...run];
      await add({ name: 'our agent, sources (.ts)', argv, polls });
    }
    const shipped = [node, ...nodeFlags, BUILT, ...run];
    const as = { argv: shipped, env: allocatorSettings, polls } as const;
    await add({ name: 'our agent, as shipped', ...as });
    await withoutChecks(host.configFile);
    const after = { name: 'our agent, after an install', ...as };
    rows.push(await measure(after, seconds, () => install(fleet, base)));
  } finally {
    await fleet.stop();
  }
  if (spawnSync('mender', ['--version']).status === 0) {
    const mender = await setUpMender(join(base, 'mender'), POLL_MS / 1000);
    try {
      const version = execFileSync('mender', ['--version'], { encoding: 'utf8' }).split(/\s/)[0];
      const name = `mender-client ${version ?? ''}`;
      await add({ name, argv: mender.argv, polls: mender.polls });
    } finally {
      mender.close();
    }
  } else {
    skipped('mender-client (idle)');
  }
  await rm(base, { recursive: true, force: true });
  return rows;
}

/** The checks of the host ask a service that is not there. */
async function withoutChecks(configFile: string): Promise<void> {
  const text = await readFile(configFile, 'utf8');
  await writeFile(configFile, text.replaceAll(/^\[check\.[^\]]+\]\n/gm, '$&enabled = false\n'));
}

/** A version of some megabytes, pinned, until the host runs it. */
async function install(fleet: Fleet, base: string): Promise<void> {
  const definition = join(base, 'app.toml');
  const bundle = join(base, 'app.bundle');
  await writeFile(
    definition,
    'name = "app"\nclass = "demo"\nversion = "1"\nrelease = 1\ncompressionLevel = 3\n',
  );
  await fleet.cli([
    ...['bundle', 'build', join(REPOSITORY, 'dist')],
    ...['--definition', definition, '--out', bundle],
  ]);
  await fleet.cli(['release', 'import', bundle]);
  await fleet.cli(['pin', 'web', '1', '--reason', 'memory after an install']);
  await waitFor('the host runs it', INSTALL_MS, async () => {
    const { items } = await fleet.json<{ items: { runningVersion: string | null }[] }>([
      'host',
      'ls',
    ]);
    return items.every(({ runningVersion }) => runningVersion === '1') ? true : null;
  });
}

export function idleTable(rows: readonly IdleRow[]): string[] {
  if (rows.length === 0) return [];
  const text = (value: number | null, digits: number): string =>
    value === null ? '-' : value.toFixed(digits);
  return [
    '## Idle',
    '',
    'Polling once a second, so that a minute stands for an hour of polls at one a minute; CPU is what one poll took, at one a minute. Medians of samples once a second.',
    '',
    '| what | PSS MiB | private MiB | RSS MiB | growth MiB | CPU % | bytes per poll |',
    '|---|---|---|---|---|---|---|',
    ...rows.map(
      (row) =>
        `| ${[
          row.name,
          text(row.pssMib, 1),
          text(row.privateMib, 1),
          text(row.rssMib, 1),
          text(row.growthMib, 1),
          text(row.cpuPercent, 3),
          text(row.bytesPerPoll, 0),
        ].join(' | ')} |`,
    ),
    '',
  ];
}
