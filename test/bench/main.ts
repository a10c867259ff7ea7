/**
 * `npm run bench`: installs of the shipped build beside the peers that Debian packages, on two weekly versions of a Debian
 * root (make-data.sh), one after the other in turn so that the ratios hold whatever else the machine does. Prints Markdown;
 * `--write` puts it into docs/performance.md too. Every result is compared with what it should be.
 *
 *     npm run build && npm run bench -- [--runs 5] [--only REGEX] [--data DIRECTORY] [--write]
 */
import { execFile, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { copyFile, mkdir, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { parseArgs, promisify } from 'node:util';
import { build } from 'esbuild';
import { makeBundles } from './artifacts.ts';
import { allCases, type Case, sha256Of, treeDigestOf } from './cases.ts';
import { measure } from './measure.ts';
import { type Sample, report, switchTimes } from './report.ts';
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
const data = resolve(options.data);
const work = join(data, 'work');

/** The driver beside copies of the shipped files: it starts exactly those. */
async function buildDriver(): Promise<string> {
  const built = join(work, 'built');
  await mkdir(built, { recursive: true });
  for (const name of ['install-child.mjs', 'install-worker.mjs']) {
    const shipped = join(repository, 'dist', name);
    if (!existsSync(shipped)) throw new Error(`no ${shipped}: npm run build`);
    await copyFile(shipped, join(built, name));
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

const expected = new Map<string, Promise<string>>();
/** The digest of v2 as an image or as a tree. */
function expectedOf(isTree: boolean): Promise<string> {
  const path = join(data, isTree ? 'v2' : 'v2.img');
  const known = expected.get(path) ?? (isTree ? treeDigestOf(path) : sha256Of(path));
  expected.set(path, known);
  return known;
}

async function check(one: Case): Promise<void> {
  const isTree = one.group === 'tree' || one.group === 'tree-delta';
  const path = await one.result();
  const digest = isTree ? await treeDigestOf(path) : await sha256Of(path);
  if (digest !== (await expectedOf(isTree))) throw new Error(`${one.name}: the result is not v2`);
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

await run('bash', [join(import.meta.dirname, 'make-data.sh'), data], {
  maxBuffer: 64 * 1024 * 1024,
});
await makeBundles(data);
await rm(work, { recursive: true, force: true });
const driver = await buildDriver();
const server = await startWebServer(data, join(work, 'nginx'));
const samples = new Map<string, Sample[]>();
const skipped: string[] = [];
try {
  const wanted = new RegExp(options.only);
  const cases = allCases({ data, work, url: server.url, driver }).filter((one) => {
    if (!wanted.test(`${one.group} ${one.name}`)) return false;
    const missing = one.needs.filter((program) => !isThere(program));
    if (missing.length > 0) skipped.push(`${one.name} (no ${missing.join(', ')})`);
    return missing.length === 0;
  });
  for (const one of cases) await one.make?.();
  for (let i = 0; i < Number(options.runs); i += 1) {
    for (const one of cases) await runCase(one, server, samples);
  }
  const references = cases
    .filter(({ isReference }) => isReference)
    .map(({ group, name }) => `${group}\n${name}`);
  const text = await report({
    data,
    runs: Number(options.runs),
    samples,
    references,
    skipped,
    switches: await switchTimes(driver, data, join(work, 'switch'), server.url),
  });
  process.stdout.write(text);
  if (options.write) await writeFile(join(repository, 'docs/performance.md'), text);
} finally {
  await server.close();
  await rm(work, { recursive: true, force: true });
}
