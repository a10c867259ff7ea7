/** A disk that is really full, at many points of an install (F18, F20, C22). */
import { execFile } from 'node:child_process';
import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { spaceOf } from '#/agent/adapters/file-system.ts';
import type { Offer } from '#/agent/ports.ts';
import { bundleOf, makeHost, offerOf } from '#/test/support/install/host.ts';
import { makeTree, scratch } from '#/test/support/install/payloads.ts';
import { mountTmpfs, whyNoMounts } from '#/test/support/install/small-file-system.ts';

let work: AsyncDisposable & { readonly path: string };
let first: Offer;
let second: Offer;
let mounts = 0;
const impossible = whyNoMounts();

beforeAll(async () => {
  work = await scratch();
  for (const version of ['v1', 'v2']) {
    await mkdir(join(work.path, version));
    const patch = { offset: 0, sizeBytes: 1_500_000, seed: 3 };
    await makeTree(join(work.path, version), version === 'v1' ? { version } : { version, patch });
  }
  first = await build('v1', 1);
  second = await build('v2', 2);
});
afterAll(async () => {
  await work[Symbol.asyncDispose]();
});

async function build(version: string, release: number): Promise<Offer> {
  const input = join(work.path, version);
  return offerOf(await bundleOf({ input, out: `${input}.bundle`, version, release }));
}

async function expectLive(version: string, root: string): Promise<void> {
  const arguments_ = ['-r', '--no-dereference', join(work.path, version), `${root}/current/`];
  const { stdout } = await promisify(execFile)('diff', arguments_);
  expect(stdout).toBe('');
}

/** A host on a file system of its own with v1 live, limited as `limit` says for what is used. */
async function fullHost(limit: (usedBytes: number, usedInodes: number) => string) {
  mounts += 1;
  const disk = await mountTmpfs(join(work.path, `disk-${mounts}`), 'size=64m,nr_inodes=10000');
  const host = await makeHost(disk.path);
  await host.install(first);
  const { freeBytes, freeInodes } = await spaceOf(disk.path);
  await disk.resize(limit(64 * 1024 * 1024 - freeBytes, 10_000 - (freeInodes ?? 0)));
  return { disk, host };
}

describe('a full disk', () => {
  // From not even the record to all but the last blocks of the new version.
  it.for([0, 8192, 65_536, 300_000, 1_000_000, 2_000_000, 3_000_000, 3_200_000])(
    'C22 F18 room for %i bytes: E_SPACE, live version intact, room given back, installed once there is room',
    async (roomBytes, { skip }) => {
      if (impossible !== null) skip(impossible);
      const { disk, host } = await fullHost(
        (used) => `size=${Math.ceil((used + roomBytes) / 4096) * 4096},nr_inodes=10000`,
      );
      await using _disk = disk;
      const before = await spaceOf(disk.path);
      await expect(host.download(second)).rejects.toMatchObject({ code: 'E_SPACE' });
      await expectLive('v1', disk.path);
      const after = await spaceOf(disk.path);
      // The record and empty directories may stay.
      expect(before.freeBytes - after.freeBytes).toBeLessThanOrEqual(16_384);
      await disk.resize('size=64m,nr_inodes=10000');
      await host.install(second);
      await expectLive('v2', disk.path);
    },
  );

  it.for([0, 3, 10, 30, 50])(
    'F20 room for %i inodes: E_SPACE, live version intact',
    async (inodes, { skip }) => {
      if (impossible !== null) skip(impossible);
      const { disk, host } = await fullHost((_, used) => `size=64m,nr_inodes=${used + inodes}`);
      await using _disk = disk;
      await expect(host.download(second)).rejects.toMatchObject({ code: 'E_SPACE' });
      await expectLive('v1', disk.path);
      expect(await readdir(host.layout.releases)).not.toContain(second.artifactId);
    },
  );

  it('F19 no room for the boot record, here the link: nothing is switched, the earlier one stands', async ({
    skip,
  }) => {
    if (impossible !== null) skip(impossible);
    const { disk, host } = await fullHost(() => 'size=64m,nr_inodes=10000');
    await using _disk = disk;
    await host.download(second);
    await host.verify(second);
    const { freeInodes } = await spaceOf(disk.path);
    await disk.resize(`size=64m,nr_inodes=${10_000 - (freeInodes ?? 0)}`);
    await expect(host.boot.switchTo(second.artifactId)).rejects.toMatchObject({ code: 'E_SPACE' });
    await expectLive('v1', disk.path);
    expect(await host.boot.observe()).toEqual({ defaultSlot: first.artifactId, trial: null });
    // What makes room never takes the version that is live, nor the one that is about to be.
    await host.slots.prune([second.artifactId]);
    await expectLive('v1', disk.path);
    await disk.resize('size=64m,nr_inodes=10000');
    await host.boot.switchTo(second.artifactId);
    await host.boot.commit(second.artifactId);
    await expectLive('v2', disk.path);
  });

  it('F18 preflight on the full disk: E_SPACE before the first byte', async ({ skip }) => {
    if (impossible !== null) skip(impossible);
    const { disk, host } = await fullHost((used) => `size=${used + 1_000_000},nr_inodes=10000`);
    await using _disk = disk;
    const preflight = host.slots.preflight(second, second.artifactId);
    await expect(preflight).rejects.toMatchObject({ code: 'E_SPACE' });
  });
});
