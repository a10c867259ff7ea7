/** An agent that is not root installs for itself. */
import { execFile } from 'node:child_process';
import { chmod, chown, copyFile, lstat, mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bundleOf } from '#/test/support/install/host.ts';
import { makeTree, scratch } from '#/test/support/install/payloads.ts';

const NOBODY = 65_534;
let work: AsyncDisposable & { readonly path: string };

beforeAll(async () => {
  work = await scratch();
  await chmod(work.path, 0o755);
});
afterAll(async () => {
  await work[Symbol.asyncDispose]();
});

describe('an agent that is not root', () => {
  it('installs, updates from the live version and removes old versions with read-only directories', async () => {
    const isRoot = process.getuid?.() === 0;
    const bundles: string[] = [];
    for (const release of [1, 2]) {
      const input = join(work.path, `v${release}`);
      await mkdir(input);
      await makeTree(input, { version: `${release}` });
      const built = await bundleOf({
        input,
        out: `${input}.bundle`,
        version: `${release}`,
        release,
      });
      await copyFile(built.path, `${input}.copy`);
      await chmod(`${input}.copy`, 0o644);
      bundles.push(`${input}.copy`);
    }
    const root = join(work.path, 'host');
    await mkdir(root);
    if (isRoot) await chown(root, NOBODY, NOBODY);
    const script = join(import.meta.dirname, '../../support/install/install-and-remove.ts');
    const { stdout } = await promisify(execFile)(process.execPath, [script, root, ...bundles], {
      ...(isRoot ? { uid: NOBODY, gid: NOBODY } : {}),
    });
    const seen = JSON.parse(stdout) as { uid: number; slots: number };
    expect(seen.slots).toBe(1);
    if (isRoot) expect(seen.uid).toBe(NOBODY);
    const left = (await readdir(join(root, 'releases'))).filter((name) => !name.startsWith('.'));
    expect(left).toHaveLength(1);
    const deep = await lstat(join(root, 'current/lib/deep'));
    expect(deep.mode & 0o7777).toBe(0o555);
  });
});
