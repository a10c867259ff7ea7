/**
 * `npm run build`: dist/agent.mjs, dist/control.mjs, dist/cli.mjs, and the files that they start beside them. Fails when the
 * agent holds what it must not hold. The same sources give the same bytes. `--out DIRECTORY`: there instead of in dist; what stood
 * in it is gone.
 */
import { cp, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { build, type Metafile, type Plugin } from 'esbuild';
import { findBreaches } from './build/agent-limits.ts';
import { leanUndici } from './build/lean-undici.ts';
import { epochMs, packageVersion, repositoryRoot } from './build/origin.ts';

const { values } = parseArgs({
  options: { out: { type: 'string', default: join(repositoryRoot, 'dist') } },
});
const dist = resolve(values.out);

/** Programs and what each starts as a file of its own; names are those that the sources ask for beside themselves. */
const programs = [
  {
    name: 'agent',
    entries: {
      agent: 'agent/main.ts',
      'install-child': 'agent/install/child.ts',
      'install-worker': 'agent/install/worker.ts',
    },
  },
  {
    name: 'control',
    entries: { control: 'control/main.ts', 'gate-worker': 'control/policy/gate-worker.ts' },
  },
  {
    name: 'cli',
    entries: {
      cli: 'control/cli/main.ts',
      'compress-worker': 'control/cli/bundle/compress-worker.ts',
    },
  },
] as const;

/** CommonJS packages ask for Node's modules when they need them; that keeps the agent small (architecture, errors of ESM). */
const REQUIRE =
  "import{createRequire as $require}from'node:module';const require=$require(import.meta.url);";

async function bundle(
  entry: string,
  source: string,
  buildData: unknown,
  plugins: Plugin[],
): Promise<Metafile> {
  const { metafile, warnings } = await build({
    absWorkingDir: repositoryRoot,
    entryPoints: { [entry]: source },
    outdir: dist,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    format: 'esm',
    platform: 'node',
    target: 'node26',
    minify: true,
    // Node prints the line of an error: it should be one that can be read.
    lineLimit: 200,
    keepNames: false,
    sourcemap: 'linked',
    sourcesContent: true,
    legalComments: 'none',
    // One character beyond Latin-1 would make V8 keep the whole source in two bytes per character.
    charset: 'ascii',
    metafile: true,
    logLevel: 'warning',
    define: { SWITCHBACK_BUILD: JSON.stringify(buildData) },
    banner: { js: REQUIRE },
    plugins,
  });
  // A name that the lean undici does not have is only a warning to esbuild.
  if (warnings.length > 0) throw new Error(`${entry}: built with warnings`);
  return metafile;
}

/**
 * esbuild leaves what stands in a regular expression as it is. One character beyond ASCII, and Node hands V8 the whole source in
 * two bytes per character: 1.4 MB for each second that an agent is idle. An escape means the same there and in texts.
 */
async function keepAscii(path: string): Promise<void> {
  const text = await readFile(path, 'utf8');
  const ascii = text.replaceAll(/[^\0-\x7f]/g, (character) =>
    Array.from(
      { length: character.length },
      (_, i) => `\\u${character.charCodeAt(i).toString(16).padStart(4, '0')}`,
    ).join(''),
  );
  if (ascii !== text) await writeFile(path, ascii);
}

await rm(dist, { recursive: true, force: true });
await mkdir(dist, { recursive: true });
const version = await packageVersion();
const buildData = { version, builtAtMs: await epochMs() };
const inputs: Record<string, readonly string[]> = {};
let breaches: readonly string[] = [];
for (const { name, entries } of programs) {
  const packages = new Set<string>();
  for (const [entry, source] of Object.entries(entries)) {
    const metafile = await bundle(entry, source, buildData, name === 'agent' ? [leanUndici] : []);
    for (const [, packageName] of Object.keys(metafile.inputs)
      .join('\n')
      .matchAll(/node_modules\/((?:@[^/]+\/)?[^/]+)\//g))
      packages.add(packageName ?? '');
    if (name === 'agent') {
      await keepAscii(join(dist, `${entry}.mjs`));
      breaches = [...breaches, ...findBreaches(entry, metafile)];
    }
    const [output] = Object.entries(metafile.outputs).filter(([path]) => path.endsWith('.mjs'));
    const kib = Math.ceil((output?.[1].bytes ?? 0) / 1024);
    process.stdout.write(`${output?.[0] ?? entry}: ${kib} KiB\n`);
  }
  inputs[name] = [...packages].sort();
}
await cp(join(repositoryRoot, 'control/store/migrations'), join(dist, 'migrations'), {
  recursive: true,
});
// Which packages went in: the bill of materials is made from it.
await writeFile(join(dist, 'inputs.json'), `${JSON.stringify(inputs, null, 1)}\n`);
for (const breach of breaches) process.stderr.write(`${breach}\n`);
if (breaches.length > 0) process.exitCode = 1;
