/** Image payloads into files and block devices. */
import { createHash } from 'node:crypto';
import { execFile } from 'node:child_process';
import { mkdir, open, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runDownload } from '#/agent/install/download.ts';
import { runReadBack } from '#/agent/install/read-back-task.ts';
import type { DownloadTask } from '#/agent/install/task.ts';
import { processWorld } from '#/agent/install/world.ts';
import type { BuildResult } from '#/control/cli/bundle/build.ts';
import { unpackIndex } from '#/bundle/chunk-index.ts';
import { locateMembers } from '#/bundle/container.ts';
import { pathToFileURL } from 'node:url';
import { startFaultServer } from '#/test/support/fault-server/fault-server.ts';
import { craftImage } from '#/test/support/install/crafted-bundle.ts';
import { bundleOf, makeHost, offerOf, testSettings } from '#/test/support/install/host.ts';
import { makeImage, scratch } from '#/test/support/install/payloads.ts';
import {
  attachExisting,
  attachLoop,
  mountTmpfs,
  whyNoMounts,
} from '#/test/support/install/small-file-system.ts';

const IMAGE_BYTES = 12 * 1024 * 1024;
let work: AsyncDisposable & { readonly path: string };
let image: Uint8Array;
let built: BuildResult;
let hosts = 0;
const impossible = whyNoMounts();
const never = new AbortController().signal;
const world = processWorld(null);

beforeAll(async () => {
  work = await scratch();
  image = makeImage(IMAGE_BYTES, 11);
  const input = join(work.path, 'root.img');
  await writeFile(input, image);
  built = await bundleOf({ input, out: join(work.path, 'root.bundle'), version: '1', release: 1 });
});
afterAll(async () => {
  await work[Symbol.asyncDispose]();
});

function taskFor(device: string, sources: readonly string[]): DownloadTask {
  return {
    artifactId: built.artifactId,
    manifestBytes: built.manifestBytes,
    sources,
    targets: [{ kind: 'device', path: device }],
    staging: null,
    resumesDevice: true,
    meta: null,
    seed: null,
    settings: testSettings,
  };
}

async function readBackOf(device: string) {
  const bundle = await readFile(built.path);
  const located = locateMembers(bundle);
  if ('needBytes' in located) throw new Error('a bundle');
  const { offset, sizeBytes } = located.index;
  return await runReadBack(
    {
      artifactId: built.artifactId,
      manifestBytes: built.manifestBytes,
      rawIndex: unpackIndex(bundle.subarray(offset, offset + sizeBytes), built.manifest),
      targets: [{ kind: 'device', path: device }],
      directory: null,
      workers: 2,
    },
    world,
    () => undefined,
    never,
  );
}

describe('an image in a directory slot', () => {
  it('is a file of its payload name, its holes kept', async () => {
    hosts += 1;
    const root = join(work.path, `host-${hosts}`);
    await mkdir(root);
    const host = await makeHost(root);
    await host.install(offerOf(built));
    const [payload] = built.manifest.payloads;
    const path = join(host.layout.release(built.artifactId), `${payload?.name}.img`);
    expect(Buffer.compare(await readFile(path), image)).toBe(0);
    await using file = await open(path);
    const { blocks } = await file.stat();
    expect(blocks * 512).toBeLessThan(IMAGE_BYTES * 0.6);
  });

  it('F14 an image beyond 4 GiB: 64-bit offsets everywhere', async () => {
    hosts += 1;
    const root = join(work.path, `host-${hosts}`);
    await mkdir(root);
    const holeBytes = 4.5 * 1024 * 1024 * 1024;
    const offer = await craftImage(join(work.path, 'large.bundle'), [
      { bytes: Buffer.alloc(4096, 1) },
      { hole: holeBytes },
      { bytes: Buffer.alloc(4096, 2) },
    ]);
    const host = await makeHost(root);
    await host.install(offer);
    await using file = await open(join(host.layout.release(offer.artifactId), 'root.img'));
    const { size } = await file.stat();
    expect(size).toBe(holeBytes + 8192);
    const { buffer } = await file.read(Buffer.alloc(8192), 0, 8192, holeBytes);
    expect(createHash('sha256').update(buffer).digest('hex')).toBe(
      createHash('sha256').update(Buffer.alloc(4096)).update(Buffer.alloc(4096, 2)).digest('hex'),
    );
  });
});

describe('an image in a block device', () => {
  it('P2 P4 old content is overwritten, holes are zeros, read back past the cache', async ({
    skip,
  }) => {
    if (impossible !== null) skip(impossible);
    await using device = await attachLoop(join(work.path, 'disk-1'), IMAGE_BYTES, 0xaa);
    const outcome = await runDownload(
      taskFor(device.path, [pathToFileURL(built.path).href]),
      world,
      () => undefined,
      never,
    );
    expect(outcome.resumedBytes).toBe(0);
    expect(await readBackOf(device.path)).toMatchObject({ differences: [], direct: true });
    expect(Buffer.compare(await readFile(device.path), image)).toBe(0);
  });

  it('F21 F2 a cut in the middle: the next run keeps what is there', async ({ skip }) => {
    if (impossible !== null) skip(impossible);
    await using device = await attachLoop(join(work.path, 'disk-2'), IMAGE_BYTES, 0x55);
    const bundle = await readFile(built.path);
    await using server = await startFaultServer(bundle, ({ range, number }) => {
      if (range === null || range[0] === 0) return null;
      return number === 2
        ? { do: 'cut', after: 1_500_000, by: 'fin' }
        : { do: 'status', status: 404 };
    });
    const cut = runDownload(taskFor(device.path, [server.url]), world, () => undefined, never);
    await expect(cut).rejects.toMatchObject({ code: 'E_HTTP' });
    const outcome = await runDownload(
      taskFor(device.path, [pathToFileURL(built.path).href]),
      world,
      () => undefined,
      never,
    );
    expect(outcome.resumedBytes).toBeGreaterThan(0);
    expect(outcome.fetchedBytes).toBeLessThan(built.bundleBytes * 0.6);
    expect(Buffer.compare(await readFile(device.path), image)).toBe(0);
  });

  it('F24 a block that changed behind the cache is found', async ({ skip }) => {
    if (impossible !== null) skip(impossible);
    const backing = join(work.path, 'disk-3');
    await using device = await attachLoop(backing, IMAGE_BYTES, 0);
    const task = taskFor(device.path, [pathToFileURL(built.path).href]);
    await runDownload(task, world, () => undefined, never);
    // Fills the page cache of the device with the right content and keeps it: the last close would drop it.
    await using keeper = await open(device.path);
    await keeper.readFile();
    {
      await using file = await open(backing, 'r+');
      await file.write(Buffer.from('rot'), 0, 3, 1_000_000);
      await file.sync();
    }
    expect(Buffer.compare(await readFile(device.path), image)).toBe(0);
    const { differences, damagedFiles } = await readBackOf(device.path);
    expect(differences).toHaveLength(1);
    expect(damagedFiles).toEqual([device.path]);
  });

  it('F25 the disk under the device cannot take the writes: an error, never done', async ({
    skip,
  }) => {
    if (impossible !== null) skip(impossible);
    const [payload] = built.manifest.payloads;
    expect(payload?.sizeBytes).toBe(IMAGE_BYTES);
    // A thin disk: the device has its full size, the store behind it half of what is written.
    await using disk = await mountTmpfs(join(work.path, 'thin'), 'size=3m');
    const backing = join(disk.path, 'backing');
    {
      await using file = await open(backing, 'wx');
      await file.truncate(IMAGE_BYTES);
    }
    await using device = await attachExisting(backing);
    const task = taskFor(device.path, [pathToFileURL(built.path).href]);
    const download = runDownload(task, world, () => undefined, never);
    await expect(download).rejects.toMatchObject({
      code: expect.stringMatching(/^E_(IO|SPACE)$/),
    });
  });

  it('F26 a device that is mounted is not opened for writing', async ({ skip }) => {
    if (impossible !== null) skip(impossible);
    await using device = await attachLoop(join(work.path, 'disk-4'), IMAGE_BYTES, 0);
    const run = promisify(execFile);
    await run('mkfs.ext4', ['-q', device.path]);
    const mountPoint = join(work.path, 'mounted');
    await mkdir(mountPoint);
    await run('mount', [device.path, mountPoint]);
    try {
      const task = taskFor(device.path, [pathToFileURL(built.path).href]);
      const download = runDownload(task, world, () => undefined, never);
      await expect(download).rejects.toMatchObject({ details: { errno: 'EBUSY' } });
    } finally {
      await run('umount', [mountPoint]);
    }
  });

  it('F26 a device that is too small: E_SPACE', async ({ skip }) => {
    if (impossible !== null) skip(impossible);
    await using device = await attachLoop(join(work.path, 'disk-5'), IMAGE_BYTES / 2, 0);
    const task = taskFor(device.path, [pathToFileURL(built.path).href]);
    const download = runDownload(task, world, () => undefined, never);
    await expect(download).rejects.toMatchObject({ code: 'E_SPACE' });
  });
});
