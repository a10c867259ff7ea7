/** Installs over a patch from the live version: trees, images, and everything that can be wrong with a patch or the seed. */
import { execFile } from 'node:child_process';
import { cp, mkdir, open, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  encodePatchHeader,
  parsePatchHeader,
  PATCH_HEADER_BYTES,
  patchParts,
  patchPathOf,
} from '#/bundle/patch.ts';
import type { BuildResult } from '#/control/cli/bundle/build.ts';
import { diffBundles } from '#/control/cli/bundle/diff.ts';
import { buildPatch, type PatchResult } from '#/control/cli/bundle/patch-build.ts';
import { verifyPatch } from '#/control/cli/bundle/patch-verify.ts';
import { startFaultServer } from '#/test/support/fault-server/fault-server.ts';
import { bundleOf, makeHost, offerOf } from '#/test/support/install/host.ts';
import { makeImage, makeTree, scratch, softwareLike } from '#/test/support/install/payloads.ts';

let work: AsyncDisposable & { readonly path: string };
const trees: BuildResult[] = [];
const images: BuildResult[] = [];
let treePatch: PatchResult;
let imagePatch: PatchResult;
let hosts = 0;

/** The same program, with short edits all over: what chunks are bad at. */
async function editEverywhere(path: string): Promise<void> {
  const program = await readFile(path);
  for (let at = 5_000; at < program.byteLength; at += 12_000) program.set(softwareLike(24, at), at);
  await writeFile(path, program);
}

beforeAll(async () => {
  work = await scratch();
  for (const version of ['v1', 'v2']) await mkdir(join(work.path, version));
  await makeTree(join(work.path, 'v1'), { version: '1' });
  await makeTree(join(work.path, 'v2'), { version: '2' });
  await editEverywhere(join(work.path, 'v2/bin/program'));
  await writeFile(join(work.path, 'v1.img'), makeImage(3 * 1024 * 1024, 3));
  await cp(join(work.path, 'v1.img'), join(work.path, 'v2.img'));
  await editEverywhere(join(work.path, 'v2.img'));
  for (const [number, version] of ['v1', 'v2'].entries()) {
    const common = { version, release: number + 1 };
    const input = join(work.path, version);
    trees.push(await bundleOf({ ...common, input, out: `${input}.bundle` }));
    images.push(await bundleOf({ ...common, input: `${input}.img`, out: `${input}-img.bundle` }));
  }
  treePatch = await patchOf(trees);
  imagePatch = await patchOf(images);
});
afterAll(async () => {
  await work[Symbol.asyncDispose]();
});

function patchOf([from, to]: readonly BuildResult[]): Promise<PatchResult> {
  const out = patchPathOf(to!.path, from!.artifactId);
  return buildPatch({ from: from!.path, to: to!.path, out, workers: 1 });
}

async function hostWith(version: BuildResult, options: Parameters<typeof makeHost>[1] = {}) {
  hosts += 1;
  const root = join(work.path, `host-${hosts}`);
  await mkdir(root);
  const host = await makeHost(root, options);
  await host.install(offerOf(version));
  return host;
}

/** The second bundle and a changed patch in a directory of their own; gives the source. */
async function besideA(patch: Uint8Array | null): Promise<string> {
  hosts += 1;
  const directory = join(work.path, `source-${hosts}`);
  await mkdir(directory);
  const bundle = join(directory, 'app.bundle');
  await cp(trees[1]!.path, bundle);
  if (patch !== null) await writeFile(patchPathOf(bundle, trees[0]!.artifactId), patch);
  return pathToFileURL(bundle).href;
}

async function expectTree(path: string): Promise<void> {
  const { stdout } = await promisify(execFile)('diff', [
    '-r',
    '--no-dereference',
    join(work.path, 'v2'),
    `${path}/`,
  ]);
  expect(stdout).toBe('');
}

describe('a patch beside the bundle', () => {
  it('a tree comes over it: a fraction of the bytes, nothing of the bundle is fetched', async () => {
    const host = await hostWith(trees[0]!);
    const result = await host.install(offerOf(trees[1]!));
    expect(result).toMatchObject({ way: 'patch', whyNoPatch: null, unpatchedChunks: 0 });
    expect(result.fetchedBytes).toBe(treePatch.patchBytes);
    expect(treePatch.patchBytes).toBeLessThan(treePatch.chunkBytes / 10);
    expect(result.savedBytes).toBe(trees[1]!.manifest.dataBytes - treePatch.patchBytes);
    await expectTree(join(host.root, 'current'));
  });

  it('an image comes over it, in the shipped form of the install: a child', async () => {
    const host = await hostWith(images[0]!, { run: 'child' });
    const result = await host.install(offerOf(images[1]!));
    expect(result).toMatchObject({ way: 'patch', whyNoPatch: null, unpatchedChunks: 0 });
    expect(result.fetchedBytes).toBe(imagePatch.patchBytes);
    const [name] = images[1]!.manifest.payloads.map((payload) => payload.name);
    const found = await readFile(join(host.root, `current/${name}.img`));
    expect(found.equals(await readFile(join(work.path, 'v2.img')))).toBe(true);
  });

  it('the same two bundles give the same patch, whatever the threads', async () => {
    const out = join(work.path, 'again.patch');
    await buildPatch({ from: trees[0]!.path, to: trees[1]!.path, out, workers: 3 });
    expect((await readFile(out)).equals(await readFile(treePatch.path))).toBe(true);
  });

  it('diff names both ways', async () => {
    const diff = await diffBundles(trees[0]!.path, trees[1]!.path);
    expect(diff.patch).toEqual({ path: treePatch.path, downloadBytes: treePatch.patchBytes });
    expect(diff.chunkBytes).toBeGreaterThan(10 * treePatch.patchBytes);
    expect((await diffBundles(trees[1]!.path, trees[0]!.path)).patch).toBeNull();
  });
});

describe('the chunks instead', () => {
  const expectChunks = async (patch: Uint8Array | null, why: string): Promise<void> => {
    const host = await hostWith(trees[0]!);
    const result = await host.install(offerOf(trees[1]!, [await besideA(patch)]));
    expect(result).toMatchObject({ way: 'chunks', whyNoPatch: why });
    await expectTree(join(host.root, 'current'));
  };

  it('no source has a patch', () => expectChunks(null, 'none'));

  it('a patch for another pair of versions', async () => {
    const bytes = await readFile(treePatch.path);
    const header = parsePatchHeader(bytes, Number.MAX_SAFE_INTEGER);
    bytes.set(encodePatchHeader({ ...header, to: 'ab'.repeat(32) }));
    await expectChunks(bytes, 'E_ARTIFACT');
  });

  it('a login page where the patch should be', () =>
    expectChunks(Buffer.from('<html>'.repeat(100)), 'E_SCHEMA'));

  it('a patch that declares more than the bundle has', async () => {
    const bytes = await readFile(treePatch.path);
    const header = parsePatchHeader(bytes, Number.MAX_SAFE_INTEGER);
    bytes.set(encodePatchHeader({ ...header, dataBytes: 2 ** 40 }));
    await expectChunks(bytes, 'E_SIZE');
  });

  it('an index that is not the signed one', async () => {
    const bytes = await readFile(treePatch.path);
    const at = PATCH_HEADER_BYTES + 40;
    bytes[at] = bytes[at]! ^ 1;
    await expectChunks(bytes, 'E_HASH');
  });

  it('a patch that was cut short after its table', async () => {
    const bytes = await readFile(treePatch.path);
    const { data } = patchParts(parsePatchHeader(bytes, Number.MAX_SAFE_INTEGER));
    await expectChunks(bytes.subarray(0, data), 'E_LENGTH');
  });

  it('patches are switched off', async () => {
    const host = await hostWith(trees[0]!, { settings: { patches: false } });
    const result = await host.install(offerOf(trees[1]!));
    expect(result).toMatchObject({ way: 'chunks', whyNoPatch: 'off' });
    await expectTree(join(host.root, 'current'));
  });
});

describe('a patch that fails in part', () => {
  it('C01 each segment damaged: not a byte of it is written, its chunks are fetched', async () => {
    const bytes = await readFile(treePatch.path);
    const { data } = patchParts(parsePatchHeader(bytes, Number.MAX_SAFE_INTEGER));
    // In the literals of the first frame, behind its header.
    for (let at = data + 20; at < data + 60; at += 1) bytes[at] = bytes[at]! ^ 0x55;
    const host = await hostWith(trees[0]!);
    const result = await host.install(offerOf(trees[1]!, [await besideA(bytes)]));
    expect(result.way).toBe('patch');
    expect(result.unpatchedChunks).toBeGreaterThan(0);
    await expectTree(join(host.root, 'current'));
    await expect(
      verifyPatchBytes(bytes),
      'what control would refuse to serve',
    ).rejects.toMatchObject({ code: 'E_HASH' });
  });

  it('F83 the live version is not what its index says: what does not come out is fetched and counted', async () => {
    const host = await hostWith(trees[0]!);
    await using program = await open(join(host.root, 'current/bin/program'), 'r+');
    for (let at = 0; at < 2_000_000; at += 300_000) {
      await program.write(Buffer.from('rotten'), 0, 6, at + 7_000);
    }
    const result = await host.install(offerOf(trees[1]!));
    expect(result.way).toBe('patch');
    expect(result.unpatchedChunks + result.rottenSeedChunks).toBeGreaterThan(0);
    await expectTree(join(host.root, 'current'));
  });

  it('F83 the live version lost a file that the patch refers to', async () => {
    const host = await hostWith(trees[0]!);
    await rm(join(host.root, 'current/bin/program'));
    const result = await host.install(offerOf(trees[1]!));
    expect(result.unpatchedChunks).toBeGreaterThan(0);
    await expectTree(join(host.root, 'current'));
  });

  it('F1 the connection breaks in the patch again and again: the rest comes as chunks', async () => {
    const patch = await readFile(treePatch.path);
    const { data } = patchParts(parsePatchHeader(patch, Number.MAX_SAFE_INTEGER));
    await using server = await startFaultServer(
      await readFile(trees[1]!.path),
      ({ path, range }) =>
        path.endsWith('.patch') && (range?.[0] ?? 0) >= data
          ? { do: 'cut', after: 100, by: 'rst' }
          : null,
      patch,
    );
    const host = await hostWith(trees[0]!);
    const result = await host.install(offerOf(trees[1]!, [server.url]));
    expect(result.whyNoPatch).toMatch(/^E_/);
    await expectTree(join(host.root, 'current'));
  });
});

async function verifyPatchBytes(bytes: Uint8Array): Promise<unknown> {
  const path = join(work.path, 'damaged.patch');
  await writeFile(path, bytes);
  expect((await stat(path)).size).toBe(bytes.byteLength);
  return await verifyPatch(path, trees[0]!.path, trees[1]!.path);
}
