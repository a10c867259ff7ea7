/** Who may import what: the table of docs/architecture.md, read here without any linter. */
import { type Breach, importsOf, type SourceFile } from './source.ts';

interface Area {
  /** A path prefix (`agent/core/`) or one file. The longest that fits decides. */
  readonly at: string;
  /** Prefixes of in-repo paths and names of packages; `node:` allows all of Node. */
  readonly may: readonly string[];
}

const pure = ['protocol/', 'bundle/'];

export const areas: readonly Area[] = [
  { at: 'protocol/', may: ['protocol/', 'valibot'] },
  { at: 'protocol/openapi.ts', may: ['protocol/', 'valibot', '@valibot/to-json-schema'] },
  { at: 'bundle/', may: [...pure, 'valibot', 'tweetnacl', 'node:crypto', 'node:zlib'] },
  {
    at: 'agent/',
    may: [
      ...pure,
      'agent/',
      'node:',
      'valibot',
      'tweetnacl',
      'undici',
      'pino',
      'node-cron',
      'systeminformation',
      'smol-toml',
    ],
  },
  { at: 'agent/core/', may: [...pure, 'agent/core/', 'valibot'] },
  { at: 'agent/ports.ts', may: [...pure, 'agent/core/'] },
  {
    at: 'agent/runner.ts',
    may: [...pure, 'agent/core/', 'agent/ports.ts', 'agent/runner', 'pino'],
  },
  {
    at: 'control/',
    may: [
      ...pure,
      'control/core/',
      'control/store/',
      'control/http/',
      'control/jobs/',
      'control/trust/',
      'control/main.ts',
      'control/',
      'node:',
      'valibot',
      'tweetnacl',
      'hono',
      '@hono/node-server',
      'kysely',
      'node-cron',
      'pino',
      'smol-toml',
    ],
  },
  { at: 'control/core/', may: ['protocol/', 'control/core/'] },
  {
    at: 'control/store/',
    may: ['protocol/', 'bundle/log/', 'control/core/', 'control/store/', 'kysely', 'pg', 'node:'],
  },
  { at: 'control/trust/', may: [...pure, 'control/trust/', 'node:', 'valibot', 'tweetnacl'] },
  {
    at: 'control/policy/',
    may: [...pure, 'control/policy/', 'node:', 'valibot', '@bufbuild/cel'],
  },
  {
    at: 'control/cli/',
    // `init` and `serve` make and start control in this process; nothing else of the server is seen from here.
    may: [
      ...pure,
      'control/cli/',
      'control/policy/examples.ts',
      'control/policy/rules.ts',
      'control/trust/',
      'control/start.ts',
      'control/data-dir.ts',
      'control/bundle-check.ts',
      'node:',
      'pino',
      'valibot',
      'tweetnacl',
      'commander',
      'undici',
      'smol-toml',
    ],
  },
  {
    at: 'control/dashboard/',
    may: ['protocol/', 'control/dashboard/', 'preact', '@preact/signals', 'uplot'],
  },
  { at: 'packaging/', may: ['*'] },
  { at: 'test/', may: ['*'] },
  { at: 'vitest.config.ts', may: ['*'] },
];

/** The area of a file, or undefined when the file is in none: then the tree has grown past the table. */
export function areaOf(path: string): Area | undefined {
  return areas
    .filter((area) => (area.at.endsWith('/') ? path.startsWith(area.at) : path === area.at))
    .toSorted((a, b) => b.at.length - a.at.length)[0];
}

/** The in-repo path of a specifier, or its package name. Relative ones are resolved against the importing file. */
export function targetOf(from: string, specifier: string): string {
  if (specifier.startsWith('#/')) return specifier.slice(2);
  if (specifier.startsWith('.')) {
    const parts = from.split('/').slice(0, -1);
    for (const part of specifier.split('/')) {
      if (part === '..') parts.pop();
      else if (part !== '.') parts.push(part);
    }
    return parts.join('/');
  }
  if (specifier.startsWith('node:')) return specifier;
  const names = specifier.split('/');
  return specifier.startsWith('@') ? names.slice(0, 2).join('/') : (names[0] ?? specifier);
}

const isAllowed = (may: readonly string[], target: string): boolean =>
  may.some(
    (allowed) =>
      allowed === '*' ||
      allowed === target ||
      (allowed.endsWith('/') && target.startsWith(allowed)) ||
      (allowed === 'node:' && target.startsWith('node:')) ||
      // A trailing name without slash or dot names a family of files: agent/runner, agent/runner-lanes.ts.
      (allowed.includes('/') &&
        !allowed.includes('.') &&
        !allowed.startsWith('@') &&
        target.startsWith(allowed)),
  );

/** Packages that cost the agent (or the start of the CLI) memory and time: only behind `import()`. */
const lazyPackages: readonly { readonly in: string; readonly packages: readonly string[] }[] = [
  { in: 'agent/', packages: ['undici', 'systeminformation', 'node-cron'] },
  { in: 'control/cli/', packages: ['undici'] },
];
/** As ES modules these bring 19 MB along (docs/architecture.md). */
const costly = ['node:http', 'node:https', 'node:http2'];

/** Imports that the table does not allow, and files that no row of it covers. */
export function boundaryBreaches(files: readonly SourceFile[]): readonly Breach[] {
  const breaches: Breach[] = [];
  for (const file of files) {
    const area = areaOf(file.path);
    const add = (line: number, what: string): void => {
      breaches.push({ path: file.path, line, what });
    };
    if (area === undefined) {
      add(1, 'is in no area of the boundary table');
      continue;
    }
    for (const { line, specifier, isType, isDynamic } of importsOf(file)) {
      const target = targetOf(file.path, specifier);
      if (!isAllowed(area.may, target)) add(line, `${area.at} must not import ${specifier}`);
      const area0 = file.path.split('/')[0] ?? '';
      const isForeign = !target.startsWith(`${area0}/`) && !target.startsWith('node_modules/');
      if (specifier.startsWith('../') && isForeign) {
        add(line, `write #/${target} instead of ${specifier}`);
      }
      if (file.path.startsWith('test/') && target.startsWith('node_modules/')) continue;
      const isLocal = specifier.startsWith('.') || specifier.startsWith('#/');
      if (isLocal && !/\.(ts|mjs|json)$/.test(specifier))
        add(line, `${specifier} has no file ending`);
      if (isType || isDynamic) continue;
      if (file.path.startsWith('agent/') && costly.includes(specifier)) {
        add(line, `${specifier} as an ES module costs 19 MB: use createRequire or undici`);
      }
      for (const row of lazyPackages) {
        // The install pipeline runs in a child process, which ends with its work.
        if (file.path.startsWith('agent/install/')) continue;
        if (file.path.startsWith(row.in) && row.packages.includes(target)) {
          add(line, `${target} is loaded when needed: await import('${target}')`);
        }
      }
    }
  }
  return breaches;
}
