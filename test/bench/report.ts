/** The Markdown of a run: medians, ratios to the reference of each group, losing rows too. */
import { execFile } from 'node:child_process';
import { mkdir, readFile, stat } from 'node:fs/promises';
import { availableParallelism, cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { LEVEL } from './artifacts.ts';
import type { BadSeedRow } from './bad-seed.ts';
import { type ChartPanel, chartOf } from './chart.ts';
import { type IdleRow, idleTable } from './idle-rows.ts';
import type { LatencyRow } from './latency.ts';

const run = promisify(execFile);

export interface Sample {
  readonly wallMs: number;
  readonly cpuMs: number;
  readonly peakMb: number;
  readonly bytes: number;
  readonly requests: number;
}

export interface ReportInput {
  readonly data: string;
  readonly runs: number;
  /** By group and name of the step, a line break between. */
  readonly samples: ReadonlyMap<string, readonly Sample[]>;
  readonly references: readonly string[];
  readonly skipped: readonly string[];
  readonly switches: { readonly switchMs: number; readonly rollbackMs: number } | null;
  readonly badSeed: readonly BadSeedRow[];
  readonly latency: readonly LatencyRow[];
  readonly idle: readonly IdleRow[];
}

const TITLES: Readonly<Record<string, string>> = {
  full: 'Full install of the ext4 image',
  delta: 'Delta of the ext4 image, v1 is on the host',
  light:
    'Light delta of the ext4 image (openssl and one application, the same initrd), v1 is on the host',
  tree: 'Directory from nothing',
  'tree-delta': 'Directory, v1 is on the host',
};

export const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;

/** Two small tree versions: what `current` costs to move and to move back, syncs included. */
export async function switchTimes(
  driver: string,
  data: string,
  root: string,
  url: string,
): Promise<NonNullable<ReportInput['switches']>> {
  await mkdir(root, { recursive: true });
  let last = '{}';
  for (const version of ['v1', 'v2']) {
    const bundle = `${version}-tree-fastcdc-16k.bundle`;
    for (const step of ['download', 'verify', 'switch']) {
      const { stdout } = await run(process.execPath, [
        driver,
        step,
        root,
        join(data, bundle),
        `${url}/${bundle}`,
      ]);
      last = stdout;
    }
  }
  return JSON.parse(last) as NonNullable<ReportInput['switches']>;
}

function table(input: ReportInput, group: string): string[] {
  const rows = [...input.samples].filter(([key]) => key.startsWith(`${group}\n`));
  if (rows.length === 0) return [];
  const wallOf = (samples: readonly Sample[]): number =>
    median(samples.map(({ wallMs }) => wallMs));
  const reference = input.references.find((key) => key.startsWith(`${group}\n`));
  const base = wallOf(input.samples.get(reference ?? '') ?? []);
  return [
    `## ${TITLES[group] ?? group}`,
    '',
    '| what | wall s | ratio | fastest s | CPU s | peak MB | MB moved | requests |',
    '|---|---|---|---|---|---|---|---|',
    ...rows.map(([key, samples]) => {
      const of = (column: keyof Sample): number => median(samples.map((sample) => sample[column]));
      const seconds = (ms: number): string => (ms / 1000).toFixed(2);
      return `| ${[
        key.slice(group.length + 1),
        seconds(of('wallMs')),
        (of('wallMs') / base).toFixed(2),
        seconds(Math.min(...samples.map(({ wallMs }) => wallMs))),
        seconds(of('cpuMs')),
        of('peakMb').toFixed(0),
        (of('bytes') / 1e6).toFixed(1),
        of('requests').toFixed(0),
      ].join(' | ')} |`;
    }),
    '',
  ];
}

/** The whole page. */
export async function report(input: ReportInput): Promise<string> {
  const { data, runs, skipped, switches } = input;
  const [{ size }, { stdout }, load, kernel] = await Promise.all([
    stat(join(data, 'v2.img')),
    run('du', ['-sm', join(data, 'v2.img')]),
    readFile('/proc/loadavg', 'utf8'),
    readFile('/proc/sys/kernel/osrelease', 'utf8'),
  ]);
  const [cpu] = cpus();
  return [
    '# Performance',
    '',
    'Made by `npm run build && npm run bench -- --write`. What it needs is installed by `packaging/install-test-tools.sh bench`.',
    'Both versions are Debian roots that `test/bench/make-data.sh` builds; v2 is v1 a week later',
    '(kernel, openssl, nginx, node, python). One nginx on the same machine serves everybody, and takes part in the two cores. Cases run one after the other',
    'in turn; every result is compared with v2. Ours is the shipped `dist/install-child.mjs`, started as the agent starts it.',
    '',
    `* ${new Date().toISOString().slice(0, 10)}, ${availableParallelism()} cores (${cpu?.model.trim() ?? 'unknown'}), ${Math.round(totalmem() / 2 ** 30)} GiB`,
    `* Linux ${kernel.trim()}, Node ${process.versions.node}`,
    `* load average at the end ${load.split(' ').slice(0, 3).join(' ')}`,
    `* image ${(size / 1e6).toFixed(0)} MB of which ${Number.parseInt(stdout, 10)} MiB are not holes; all at zstd level ${LEVEL}; medians of ${runs} runs`,
    '* where this misses what was aimed at, and why: [decision 95](decisions/0095-where-the-bench-loses.md)',
    '* ratio: to the row with 1.00 in the same table. CPU: user and system time of all processes of the row. Peak: PSS of all of them, sampled. MB moved: what nginx sent, headers included',
    ...(skipped.length === 0 ? [] : [`* skipped: ${skipped.join('; ')}`]),
    '',
    ...Object.keys(TITLES).flatMap((group) => table(input, group)),
    ...badSeedTable(input.badSeed),
    ...latencyTable(input.latency),
    ...idleTable(input.idle),
    ...(switches === null ? [] : switchText(switches)),
  ].join('\n');
}

function switchText(switches: NonNullable<ReportInput['switches']>): string[] {
  return [
    '## Switch',
    '',
    `Moving \`current\` to the new version, durably: ${switches.switchMs.toFixed(1)} ms; back again: ${switches.rollbackMs.toFixed(1)} ms (medians of 51).`,
    '',
  ];
}

function badSeedTable(rows: readonly BadSeedRow[]): string[] {
  if (rows.length === 0) return [];
  return [
    '## A live version that is not what it should be',
    '',
    '200 bytes of v1 are flipped in blocks that v2 needs unchanged; then v2 is installed. Repaired: the result is v2.',
    '',
    '| what | outcome | says |',
    '|---|---|---|',
    ...rows.map(({ name, outcome, says }) => `| ${name} | ${outcome} | ${says} |`),
    '',
  ];
}

function latencyTable(rows: readonly LatencyRow[]): string[] {
  const [quiet] = rows;
  if (quiet === undefined) return [];
  const ms = (us: number): string => (us / 1000).toFixed(2);
  return [
    '## A loaded service beside an install',
    '',
    '200 requests per second, each a digest of 64 KiB and a line appended to a file, latency from when the request was due; a full install of the image beside it,',
    'each in a session of its own, as services are. nginx, which would be on another machine, gets only processor time that nobody else wants.',
    '',
    '| what | p50 ms | p99 ms | p99 ratio | p99.9 ms | requests |',
    '|---|---|---|---|---|---|',
    ...rows.map(
      ({ name, requests, p50Us, p99Us, p999Us }) =>
        `| ${name} | ${ms(p50Us)} | ${ms(p99Us)} | ${(p99Us / quiet.p99Us).toFixed(2)} | ${ms(p999Us)} | ${requests} |`,
    ),
    '',
  ];
}

/** The tables as one picture: docs/performance.svg. */
export function chart(input: Pick<ReportInput, 'samples' | 'runs'>): string {
  const [cpu] = cpus();
  const panels = Object.entries(TITLES).flatMap(([group, title]): ChartPanel[] => {
    const rows = [...input.samples]
      .filter(([key]) => key.startsWith(`${group}\n`))
      .map(([key, samples]) => {
        const name = key.slice(group.length + 1);
        return {
          name: name.replace(': each chunk verified, synced', ''),
          wallS: median(samples.map(({ wallMs }) => wallMs)) / 1000,
          movedMb: median(samples.map(({ bytes }) => bytes)) / 1e6,
          isOurs: name.startsWith('switchback'),
        };
      });
    return rows.length === 0 ? [] : [{ title, rows }];
  });
  const when = new Date().toISOString().slice(0, 10);
  const machine = `${availableParallelism()} cores (${cpu?.model.trim() ?? 'unknown'})`;
  return chartOf(panels, `Medians of ${input.runs} runs, ${when}, ${machine}`);
}
