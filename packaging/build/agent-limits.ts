/** What the built agent must not hold: parts of control, packages that nobody agreed to, bytes that nobody needs. */
import type { Metafile } from 'esbuild';

/** The packages of the table in docs/architecture.md, and what they need themselves. */
const PACKAGES = new Set([
  'undici',
  'pino',
  'node-cron',
  'systeminformation',
  'valibot',
  'smol-toml',
  'tweetnacl',
  '@pinojs/redact',
  'atomic-sleep',
  'on-exit-leak-free',
  'pino-abstract-transport',
  'pino-std-serializers',
  'process-warning',
  'quick-format-unescaped',
  'real-require',
  'safe-stable-stringify',
  'sonic-boom',
  'split2',
  'thread-stream',
]);
/** The install child and its threads live only while something is installed. */
const MAX_BYTES: Readonly<Record<string, number>> = {
  agent: 1_700 * 1024,
  'install-child': 900 * 1024,
  'install-worker': 200 * 1024,
};
/** As ESM they load the whole client of Node at the start, 19 MB: see docs/architecture.md. */
const LATE_MODULES = new Set(['node:http', 'node:https', 'node:http2', 'http', 'https', 'http2']);

/** One line per breach. */
export function findBreaches(entry: string, metafile: Metafile): readonly string[] {
  const breaches: string[] = [];
  for (const path of Object.keys(metafile.inputs)) {
    if (path.startsWith('control/')) breaches.push(`${entry}: holds ${path}`);
    const name = /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1];
    if (name !== undefined && !PACKAGES.has(name)) breaches.push(`${entry}: holds ${path}`);
  }
  for (const [path, output] of Object.entries(metafile.outputs)) {
    if (!path.endsWith('.mjs')) continue;
    for (const { path: module, kind } of output.imports)
      if (kind === 'import-statement' && LATE_MODULES.has(module))
        breaches.push(`${entry}: imports ${module} at its start`);
    const max = MAX_BYTES[entry] ?? 0;
    if (output.bytes > max) breaches.push(`${entry}: ${output.bytes} bytes, at most ${max}`);
  }
  return breaches;
}
