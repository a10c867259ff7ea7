/** Content for install tests: trees and images that look like software, made from a seed. */
import { chmod, link, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Numbers in [0, 2^32) from a seed (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  };
}

/** Bytes that compress to about half, as programs do. */
export function softwareLike(sizeBytes: number, seed: number): Uint8Array {
  const next = seeded(seed);
  const bytes = Buffer.alloc(sizeBytes);
  for (let at = 0; at < sizeBytes; at += 8) {
    bytes[at] = next() & 0xff;
    if (at + 3 < sizeBytes) bytes[at + 3] = next() & 0xff;
    if (at + 5 < sizeBytes) bytes[at + 5] = (next() & 0xff) % 7;
  }
  return bytes;
}

export interface TreeChange {
  /** Bytes written into the large program, at an offset. */
  readonly patch?: { readonly offset: number; readonly sizeBytes: number; readonly seed: number };
  readonly version: string;
}

/** A tree with small and large files, an empty one, links of both kinds, odd modes and twins. About 3 MB. */
export async function makeTree(directory: string, change: TreeChange): Promise<void> {
  const at = (path: string): string => join(directory, path);
  for (const path of ['bin', 'lib', 'lib/deep', 'lib/deep/er', 'etc', 'empty-directory']) {
    await mkdir(at(path), { recursive: true });
  }
  const program = Buffer.from(softwareLike(2_000_000, 7));
  if (change.patch !== undefined) {
    const { offset, sizeBytes, seed } = change.patch;
    program.set(softwareLike(sizeBytes, seed), offset);
  }
  await writeFile(at('bin/program'), program);
  await chmod(at('bin/program'), 0o755);
  await writeFile(at('etc/version'), `${change.version}\n`);
  await writeFile(at('etc/empty'), '');
  for (let i = 0; i < 40; i += 1) {
    await writeFile(at(`lib/deep/small-${i}`), softwareLike(500 + i * 997, 100 + i));
  }
  await writeFile(at('lib/twin-a'), softwareLike(100_000, 5));
  await writeFile(at('lib/twin-b'), softwareLike(100_000, 5));
  await writeFile(
    at('lib/with-hole'),
    Buffer.concat([softwareLike(70_000, 9), Buffer.alloc(900_000)]),
  );
  await chmod(at('lib/deep/small-1'), 0o400);
  await link(at('lib/twin-a'), at('lib/deep/er/hard'));
  await symlink('../bin/program', at('lib/program'));
  await symlink('nowhere-yet', at('lib/dangling'));
  await chmod(at('lib/deep'), 0o555);
}

/** A sparse image: content, a long hole, content, a hole at the end. */
export function makeImage(sizeBytes: number, seed: number): Uint8Array {
  const image = Buffer.alloc(sizeBytes);
  const third = Math.floor(sizeBytes / 3 / 4096) * 4096;
  image.set(softwareLike(third, seed), 0);
  image.set(softwareLike(Math.floor(third / 2), seed + 1), 2 * third);
  return image;
}

/** A temporary directory that goes away, read-only directories included. */
export async function scratch(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'switchback-install-'));
  return {
    path,
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }),
  };
}
