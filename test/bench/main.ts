/**
 * `npm run bench`: installs of the shipped build beside the peers that Debian packages, on two weekly versions of a Debian
 * root (make-data.sh), one after the other in turn so that the ratios hold whatever else the machine does. Prints Markdown;
 * `--write` puts it into docs/performance.md too. Every result is compared with what it should be.
 *
 *     npm run build && npm run bench -- [--runs 5] [--only REGEX] [--data DIRECTORY] [--write]
 *
 * --only takes cases by `GROUP NAME`, also in the group `bad-seed`; `latency`, `idle` and `switch` are whole.
 */
import { execFile, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { copyFile, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { parseArgs, promisify } from 'node:util';
import { build } from 'esbuild';
import { badSeedRows, endDamage, placesToFlip } from './bad-seed.ts';
import { makeBundles, makePatches } from './artifacts.ts';
import {
  allCases,
  type Case,
  expectedOf,
  fullInstall,
  type Place,
  sha256Of,
  treeDigestOf,
} from './cases.ts';
import { measure } from './measure.ts';
import { idleRows } from './idle-rows.ts';
import { type LatencyRow, latencyRows } from './latency.ts';
import { chart, type Sample, report, switchTimes } from './report.ts';
import { startWebServer, type WebServer } from './web-server.ts';

const run = promisify(execFile);
const repository = resolve(import.meta.dirname, '../..');
const { values: options } = parseArgs({
  options: {
    runs: { type: 'string', default: '5' },
    only: { type: 'string', default: '' },
    data: { type: 'string', default: join(repository, '.work/bench') },
    write: { type: 'boolean', default: false },
  },
});
/** How long each idle program is watched. */
const IDLE_S = 60;
/** Times the runs: an install is short, and a p99 wants many requests. */
const LATENCY_ROUNDS = 3;
const data = resolve(options.data);
const work = join(data, 'work');

/** What the undocumented inside of a zstd stream is known by (agent/install/zstd-inside.ts). */
const INSIDE = /_writeState/g;

/**
 * The driver beside copies of the shipped files: it starts exactly those. `isDocumentedOnly`: its workers find the inside of
 * Node's zstd streams changed, as in a later Node, and take the documented calls.
 */
async function buildDriver(isDocumentedOnly: boolean): Promise<string> {
  const built = join(work, isDocumentedOnly ? 'built-documented' : 'built');
  await mkdir(built, { recursive: true });
  for (const name of ['install-child.mjs', 'install-worker.mjs']) {
    const shipped = join(repository, 'dist', name);
    if (!existsSync(shipped)) throw new Error(`no ${shipped}: npm run build`);
    await copyFile(shipped, join(built, name));
  }
  if (isDocumentedOnly) {
    const worker = join(built, 'install-worker.mjs');
    const text = await readFile(worker, 'utf8');
    if (!INSIDE.test(text)) throw new Error('the worker does not look inside of zstd streams');
    await writeFile(worker, text.replaceAll(INSIDE, '_changed'));
  }
  await build({
    entryPoints: { 'run-install': join(import.meta.dirname, 'run-install.ts') },
    outdir: built,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    minify: true,
    format: 'esm',
    platform: 'node',
    target: 'node26',
    logLevel: 'warning',
    banner: {
      js: "import{createRequire as $require}from'node:module';const require=$require(import.meta.url);",
    },
  });
  return join(built, 'run-install.mjs');
}

const isThere = (program: string): boolean =>
  spawnSync('bash', ['-c', 'command -v "$1"', 'which', program]).status === 0;

const isTreeOf = ({ group }: Case): boolean => group === 'tree' || group === 'tree-delta';
const digests = new Map<string, Promise<string>>();
/** The digest of a tree or an image of the data. */
function digestOf(name: string, isTree: boolean): Promise<string> {
  const path = join(data, name);
  const known = digests.get(path) ?? (isTree ? treeDigestOf(path) : sha256Of(path));
  digests.set(path, known);
  return known;
}

async function check(one: Case): Promise<void> {
  const path = await one.result();
  const digest = isTreeOf(one) ? await treeDigestOf(path) : await sha256Of(path);
  const expected = expectedOf(one);
  if (digest !== (await digestOf(expected, isTreeOf(one))))
    throw new Error(`${one.name}: the result is not ${expected}`);
}

async function runCase(
  one: Case,
  server: WebServer,
  samples: Map<string, Sample[]>,
): Promise<void> {
  await one.prepare();
  // What was written before must not be flushed while this is timed.
  await run('sync');
  for (const step of one.steps) {
    await server.sent();
    const measured = await measure(step.script);
    const { bytes, requests } = await server.sent();
    const told = measured.stdout.startsWith('{')
      ? (JSON.parse(measured.stdout) as { stepMs: number })
      : null;
    const key = `${one.group}\n${step.name}`;
    const sample = {
      wallMs: told?.stepMs ?? measured.wallMs,
      cpuMs: measured.cpuMs,
      peakMb: measured.peakMb,
      bytes,
      requests,
    };
    samples.set(key, [...(samples.get(key) ?? []), sample]);
    process.stderr.write(`${one.group}: ${step.name}: ${(sample.wallMs / 1000).toFixed(2)} s\n`);
  }
  await check(one);
}

// A run that was cut off while a seed was damaged leaves a mark; the image is made anew.
await endDamage(data);
await run('bash', [join(import.meta.dirname, 'make-data.sh'), data], {
  maxBuffer: 64 * 1024 * 1024,
});
await makeBundles(data);
await makePatches(data);
await rm(work, { recursive: true, force: true });
const driver = await buildDriver(false);
const documentedDriver = await buildDriver(true);
const server = await startWebServer(data, join(work, 'nginx'));
const place: Place = { data, work, url: server.url, driver, documentedDriver };
const samples = new Map<string, Sample[]>();
const skipped: string[] = [];
const failed = new Set<Case>();
const runs = Number(options.runs);
const wanted = new RegExp(options.only);
/** Is a part around the cases wanted? */
const has = (part: string): boolean => wanted.test(part);
const missingOf = (one: Case): readonly string[] =>
  one.needs.filter((program) => !isThere(program));
const isComplete = (one: Case): boolean => missingOf(one).length === 0;

/** Installs beside a loaded service: the unverified pipeline, and ours at each priority. */
function besideService(place: Place): { readonly name: string; readonly one: Case }[] {
  const pipeline = allCases(place).filter((one) => one.group === 'full' && one.isReference);
  return [
    ...pipeline.map((one) => ({ name: `beside ${one.name}`, one })),
    ...(['low', 'idle', 'normal'] as const).map((priority) => ({
      name: `beside switchback, priority ${priority}${priority === 'low' ? ' (default)' : ''}`,
      one: fullInstall(place, priority),
    })),
  ];
}

async function latencies(): Promise<LatencyRow[]> {
  const elsewhere = await startWebServer(data, join(work, 'elsewhere'), true);
  try {
    const installs = besideService({ ...place, url: elsewhere.url });
    return await latencyRows(installs, LATENCY_ROUNDS * runs, work);
  } finally {
    await elsewhere.close();
  }
}

try {
  const all = allCases(place);
  const cases = all.filter((one) => {
    if (!wanted.test(`${one.group} ${one.name}`)) return false;
    const missing = missingOf(one);
    if (missing.length > 0) skipped.push(`${one.name} (no ${missing.join(', ')})`);
    return missing.length === 0;
  });
  /** A peer that fails is named, and not tried again; ours must not. */
  const attempt = async (one: Case, work: () => Promise<void> | undefined): Promise<void> => {
    if (failed.has(one)) return;
    try {
      await work();
    } catch (error) {
      if (one.name.startsWith('switchback')) throw error;
      failed.add(one);
      const [first = ''] = (error instanceof Error ? error.message : String(error)).split('\n');
      skipped.push(`${one.name} (${first.slice(0, 120)})`);
    }
  };
  for (const one of cases) await attempt(one, () => one.make?.());
  for (let i = 0; i < runs; i += 1)
    for (const one of cases) await attempt(one, () => runCase(one, server, samples));
  const references = cases
    .filter(({ isReference }) => isReference)
    .map(({ group, name }) => `${group}\n${name}`);
  const seeded = all.filter(
    (one) => one.seed !== undefined && wanted.test(`bad-seed ${one.name}`) && isComplete(one),
  );
  const places =
    seeded.length > 0 ? await placesToFlip(join(data, 'v1.img'), join(data, 'v2.img')) : [];
  for (const one of seeded) await one.make?.();
  const input = {
    data,
    runs,
    samples,
    references,
    badSeed:
      seeded.length > 0 ? await badSeedRows(seeded, places, await digestOf('v2.img', false)) : [],
    latency: has('latency') ? await latencies() : [],
    idle: has('idle')
      ? await idleRows({ seconds: IDLE_S, sources: false }, (what) => skipped.push(what))
      : [],
    switches: has('switch')
      ? await switchTimes(driver, data, join(work, 'switch'), server.url)
      : null,
    skipped,
  };
  const text = await report(input);
  process.stdout.write(text);
  await writeFile(join(data, 'performance.svg'), chart(input));
  if (options.write) {
    await writeFile(join(repository, 'docs/performance.md'), text);
    await writeFile(join(repository, 'docs/performance.svg'), chart(input));
  }
} finally {
  await server.close();
  await rm(work, { recursive: true, force: true });
}
