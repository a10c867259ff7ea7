/**
 * Full install of an ext4 image over local HTTP, against `curl | zstd -d | dd conv=fsync`, in one run so that the ratios hold
 * whatever the machine does. Usage: node test/bench/install.ts DIRECTORY [RUNS] — the directory keeps the data.
 */
import { execFile, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { build } from 'esbuild';
import { signerOf } from '#/bundle/keys.ts';
import { buildBundle } from '#/control/cli/bundle/build.ts';
import { checkDefinition } from '#/control/cli/bundle/definition.ts';

const run = promisify(execFile);
const directory = process.argv[2] ?? '';
const runs = Number(process.argv[3] ?? 5);
const LEVEL = 9;

if (directory === '') throw new Error('usage: node test/bench/install.ts DIRECTORY [RUNS]');
await mkdir(directory, { recursive: true });
const image = join(directory, 'root.img');
const packed = join(directory, 'root.img.zst');
const bundle = join(directory, 'root.bundle');

async function prepare(): Promise<void> {
  if (!existsSync(image)) await run(join(import.meta.dirname, 'make-image.sh'), [image]);
  if (!existsSync(packed)) await run('zstd', ['-q', `-${LEVEL}`, '-T0', image, '-o', packed]);
  if (existsSync(bundle)) return;
  await buildBundle({
    definition: checkDefinition({
      name: 'root',
      class: 'bench',
      version: '1',
      release: 1,
      compressionLevel: LEVEL,
    }),
    input: image,
    out: bundle,
    sourceDateEpoch: 1_700_000_000,
    signers: [signerOf(new Uint8Array(32).fill(1))],
  });
}

/** As shipped: bundled, no types to strip. What is measured must not pay for the development form. */
const built = join(directory, 'built');
async function buildAgent(): Promise<void> {
  const root = join(import.meta.dirname, '../..');
  await build({
    entryPoints: {
      'run-install': join(import.meta.dirname, 'run-install.ts'),
      'install-child': join(root, 'agent/install/child.ts'),
      'install-worker': join(root, 'agent/install/worker.ts'),
    },
    outdir: built,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    splitting: true,
    minify: true,
    format: 'esm',
    platform: 'node',
    target: 'node26',
    banner: {
      js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);",
    },
  });
}

interface Measured {
  readonly wallMs: number;
  readonly cpuMs: number;
}

/** A shell pipeline; CPU of all its processes from the shell's `times`. */
async function shell(script: string): Promise<Measured> {
  const startedMs = performance.now();
  const { stdout } = await run('bash', ['-ec', `set -o pipefail; ${script}; times`]);
  const wallMs = performance.now() - startedMs;
  const last = stdout.trim().split('\n').at(-1) ?? '';
  const cpuMs = [...last.matchAll(/(\d+)m([\d.]+)s/g)].reduce(
    (sum, [, minutes, seconds]) => sum + (Number(minutes) * 60 + Number(seconds)) * 1000,
    0,
  );
  return { wallMs, cpuMs };
}

interface Installed {
  readonly downloadMs: number;
  readonly verifyMs: number;
  readonly downloadCpuMs: number;
  readonly verifyCpuMs: number;
  readonly downloadPeakMb: number;
  readonly verifyPeakMb: number;
}

async function ours(url: string): Promise<Installed> {
  const root = join(directory, 'host');
  await rm(root, { recursive: true, force: true });
  await mkdir(root);
  const { stdout } = await run(process.execPath, [
    join(built, 'run-install.mjs'),
    root,
    bundle,
    url,
    'verify',
  ]);
  await rm(root, { recursive: true });
  return JSON.parse(stdout) as Installed;
}

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;

await prepare();
await buildAgent();
const server = spawn(process.execPath, [join(import.meta.dirname, 'range-server.ts'), directory], {
  stdio: ['ignore', 'pipe', 'inherit'],
});
const port = Number(await new Promise((resolve) => server.stdout.once('data', resolve)));
const base = `http://127.0.0.1:${port}`;
const target = join(directory, 'shell.img');
const pipe: Measured[] = [];
const hashed: Measured[] = [];
const installed: Installed[] = [];
try {
  for (let i = 0; i < runs; i += 1) {
    await rm(target, { force: true });
    const get = `curl -sf ${base}/root.img.zst`;
    pipe.push(await shell(`${get} | zstd -qdc | dd of=${target} bs=1M conv=fsync status=none`));
    await rm(target, { force: true });
    hashed.push(
      await shell(
        `${get} | zstd -qdc | tee >(sha256sum >/dev/null) | dd of=${target} bs=1M conv=fsync status=none`,
      ),
    );
    await rm(target, { force: true });
    installed.push(await ours(`${base}/root.bundle`));
  }
} finally {
  server.kill();
  await rm(target, { force: true });
}

const reference = median(pipe.map(({ wallMs }) => wallMs));
const row = (name: string, wallMs: number, cpuMs: number | null, peakMb: number | null): string =>
  `| ${name} | ${(wallMs / 1000).toFixed(2)} | ${(wallMs / reference).toFixed(2)} | ${
    cpuMs === null ? '' : (cpuMs / 1000).toFixed(2)
  } | ${peakMb === null ? '' : peakMb.toFixed(0)} |`;
const of = (key: keyof Installed): number => median(installed.map((one) => one[key]));
const sizes = await Promise.all([image, packed, bundle].map((path) => stat(path)));
const [imageMb, packedMb, bundleMb] = sizes.map(({ size }) => (size / 1e6).toFixed(0));
process.stdout.write(
  [
    `Image ${imageMb} MB, zstd -${LEVEL} ${packedMb} MB, bundle ${bundleMb} MB; medians of ${runs} runs, one after the other in turn.`,
    '',
    '| full install | wall s | ratio | CPU s | peak MB (PSS of agent and child) |',
    '|---|---|---|---|---|',
    row(
      'curl, zstd -d, dd conv=fsync (nothing verified)',
      reference,
      median(pipe.map(({ cpuMs }) => cpuMs)),
      null,
    ),
    row(
      'the same with sha256sum',
      median(hashed.map(({ wallMs }) => wallMs)),
      median(hashed.map(({ cpuMs }) => cpuMs)),
      null,
    ),
    row(
      'install: every chunk verified, synced',
      of('downloadMs'),
      of('downloadCpuMs'),
      of('downloadPeakMb'),
    ),
    row('read-back past the page cache', of('verifyMs'), of('verifyCpuMs'), of('verifyPeakMb')),
    '',
  ].join('\n'),
);
