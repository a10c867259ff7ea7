/**
 * Signed bundles of a malicious author, and a hostile user of the host: refused before anything outside the staging
 * directory was written, and the live version is as it was.
 */
import { createHash } from 'node:crypto';
import { lstat, mkdir, readdir, readFile, readlink, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { zstdCompressSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { TreeEntry } from '#/bundle/tree-entry.ts';
import { comparePaths } from '#/bundle/tree-entry.ts';
import { craftBundle, type Crafted, fileEntry } from '#/test/support/install/crafted-bundle.ts';
import { makeHost } from '#/test/support/install/host.ts';
import { scratch, softwareLike } from '#/test/support/install/payloads.ts';

let work: AsyncDisposable & { readonly path: string };
let cases = 0;

beforeAll(async () => {
  work = await scratch();
});
afterAll(async () => {
  await work[Symbol.asyncDispose]();
});

const owner = { uid: 0, gid: 0 } as const;
const directory = (path: string, mode = 0o755): TreeEntry => ({
  kind: 'directory',
  path,
  mode,
  ...owner,
});
const link = (path: string, target: string): TreeEntry => ({
  kind: 'symlink',
  path,
  target,
  mode: 0o777,
  ...owner,
});
const hardlink = (path: string, target: string): TreeEntry => ({
  kind: 'hardlink',
  path,
  target,
  mode: 0o777,
  ...owner,
});

/** A bundle of the given entries, in order of path, with a good file beside them. */
function crafted(
  hostile: readonly (TreeEntry | [TreeEntry, Uint8Array])[],
  more: Partial<Crafted> = {},
): Crafted {
  const all = [fileEntry('good', 'good content'), ...hostile];
  const contents = new Map<string, Uint8Array>();
  const entries = all.map((one) => {
    if (!Array.isArray(one)) return one as TreeEntry;
    const [entry, bytes] = one as [TreeEntry, Uint8Array];
    contents.set(createHash('sha256').update(bytes).digest('hex'), bytes);
    return entry;
  });
  return { entries: entries.toSorted((a, b) => comparePaths(a.path, b.path)), contents, ...more };
}

/** Every entry below a directory with what it is, links not followed. */
async function census(path: string): Promise<string[]> {
  const lines: string[] = [];
  for (const name of (await readdir(path)).sort()) {
    const at = join(path, name);
    const found = await lstat(at);
    const what = found.isDirectory()
      ? 'directory'
      : found.isSymbolicLink()
        ? `-> ${await readlink(at)}`
        : createHash('sha256')
            .update(await readFile(at))
            .digest('hex');
    lines.push(`${at} ${(found.mode & 0o7777).toString(8)} ${what}`);
    if (found.isDirectory()) lines.push(...(await census(at)));
  }
  return lines;
}

/** A host with a live version inside a world of its own; `outside` is what must not change. */
async function attackedHost() {
  cases += 1;
  const world = join(work.path, `world-${cases}`);
  const outside = join(world, 'outside');
  const root = join(world, 'host');
  await mkdir(outside, { recursive: true });
  await mkdir(root);
  await writeFile(join(outside, 'victim'), 'untouched');
  const host = await makeHost(root);
  await host.install(await craftBundle(join(world, 'live.bundle'), crafted([])));
  const untouched = async (): Promise<string[]> => [
    ...(await census(outside)),
    ...(await census(host.layout.release((await readlink(host.layout.current)).slice(9)))),
    await readlink(host.layout.current),
    ...(await readdir(world)),
  ];
  return { world, outside, host, untouched };
}

const refusals: readonly [string, readonly (TreeEntry | [TreeEntry, Uint8Array])[], string][] = [
  ['C11 ../ in a path', [fileEntry('../escaped', 'x')], 'E_PATH'],
  ['C11 an absolute path', [fileEntry('/tmp/switchback-escaped', 'x')], 'E_PATH'],
  ['C11 .. in the middle', [directory('a'), fileEntry('a/../../escaped', 'x')], 'E_PATH'],
  ['C11 an empty component', [directory('a'), fileEntry('a//b', 'x')], 'E_PATH'],
  ['C11 a . component', [fileEntry('./a', 'x')], 'E_PATH'],
  ['C11 a NUL', [fileEntry('a\0b', 'x')], 'E_PATH'],
  ['C11 a backslash', [fileEntry('a\\b', 'x')], 'E_PATH'],
  ['C11 a name of 5,000 bytes', [fileEntry('n'.repeat(5000), 'x')], 'E_PATH'],
  ['C12 a symlink out of the slot', [link('escape', '../../../outside')], 'E_PATH'],
  ['C12 an absolute symlink', [link('escape', '/etc/passwd')], 'E_PATH'],
  [
    'C12 a symlink and a file through it',
    [link('a', 'b'), directory('b'), fileEntry('a/x', 'x')],
    'E_PATH',
  ],
  [
    'C12 two symlinks that lead out together',
    [directory('d'), link('d/up', '..'), link('out', 'd/up/../outside')],
    'E_PATH',
  ],
  ['C12 setuid without permission in the manifest', [fileEntry('su', 'x', 0o4755)], 'E_MODE'],
  ['C12 a setgid directory without permission', [directory('sg', 0o2755)], 'E_MODE'],
  ['C15 one path twice', [fileEntry('twice', 'a'), fileEntry('twice', 'b')], 'E_PATH'],
  ['C15 a file and a directory of one name', [fileEntry('both', 'a'), directory('both')], 'E_PATH'],
  ['C15 a file below a file', [fileEntry('f', 'a'), fileEntry('f/x', 'b')], 'E_PATH'],
  [
    'F15 names that differ only in case',
    [fileEntry('Name', 'a'), fileEntry('name', 'b')],
    'E_PATH',
  ],
  ['F15 a path whose parent is not listed', [fileEntry('no/parent', 'a')], 'E_PATH'],
];

describe('a signed bundle with a hostile listing', () => {
  it.for(refusals)('%s: refused, nothing written', async ([, entries, code]) => {
    const { world, host, untouched } = await attackedHost();
    const offer = await craftBundle(join(world, 'hostile.bundle'), crafted(entries));
    const before = await untouched();
    await expect(host.download(offer)).rejects.toMatchObject({ code });
    expect(await untouched()).toEqual(before);
    expect(await readdir(host.layout.staging(offer.artifactId))).toEqual([]);
  });

  it('C12 setuid with permission in the manifest is kept, and only there', async () => {
    const { world, host } = await attackedHost();
    const bundle = crafted([fileEntry('su', 'x', 0o4755)], { allowSetuid: true });
    const offer = await craftBundle(join(world, 'allowed.bundle'), bundle);
    await host.install(offer);
    const found = await lstat(join(host.layout.release(offer.artifactId), 'su'));
    expect(found.mode & 0o7777).toBe(0o4755);
  });

  it('C12 a hard link of an entry that is no file: refused', async () => {
    const { world, host } = await attackedHost();
    const entries = crafted([directory('a'), hardlink('z', 'good')]);
    // The link column is the last of the listing: it is pointed at the directory.
    const bundle: Crafted = {
      ...entries,
      index: (raw) => {
        const changed = Buffer.from(raw);
        changed.writeUInt32LE(0, changed.length - 4);
        return changed;
      },
    };
    const offer = await craftBundle(join(world, 'hard.bundle'), bundle);
    await expect(host.download(offer)).rejects.toMatchObject({ code: 'E_PATH' });
  });
});

describe('a signed bundle with hostile chunks', () => {
  const big = Buffer.from(softwareLike(50_000, 3));
  const entry = (): [TreeEntry, Uint8Array] => [
    {
      kind: 'file',
      path: 'big',
      mode: 0o644,
      ...owner,
      sizeBytes: big.length,
      sha256: createHash('sha256').update(big).digest('hex'),
    },
    big,
  ];

  const chunks: readonly [string, (stored: Uint8Array, number: number) => Uint8Array][] = [
    [
      'C13 a zip bomb in a chunk',
      (stored, n) =>
        n === 1
          ? zstdCompressSync(Buffer.alloc(64 * 1024 * 1024)).subarray(0, stored.length)
          : stored,
    ],
    [
      'C13 a chunk with more content than declared',
      (stored, n) =>
        n === 1 ? padTo(zstdCompressSync(Buffer.alloc(200_000)), stored.length) : stored,
    ],
    [
      'C13 a chunk with less content than declared',
      (stored, n) => (n === 1 ? padTo(zstdCompressSync(Buffer.alloc(10)), stored.length) : stored),
    ],
    ['C01 a chunk with one bit changed', (stored, n) => (n === 1 ? flipped(stored) : stored)],
    [
      'C02 a chunk that is another',
      (stored, n) => (n === 1 ? new Uint8Array(stored.length) : stored),
    ],
  ];
  it.for(chunks)('%s: E_CHUNK, not one byte of it written', async ([, chunkBytes]) => {
    const { world, host, untouched } = await attackedHost();
    const before = await untouched();
    const offer = await craftBundle(
      join(world, 'hostile.bundle'),
      crafted([entry()], { chunkBytes }),
    );
    const inWorld = (line: string): boolean => !line.endsWith('hostile.bundle');
    await expect(host.download(offer)).rejects.toMatchObject({ code: 'E_CHUNK' });
    expect((await untouched()).filter(inWorld)).toEqual(before);
    const written = await readFile(join(host.layout.staging(offer.artifactId), 'big')).catch(() =>
      Buffer.alloc(0),
    );
    for (let at = 0; at < written.length; at += 1) {
      if (written[at] !== 0 && written[at] !== big[at]) throw new Error(`wrong byte at ${at}`);
    }
  });

  it('C13 a file that is smaller than its listing says: E_SIZE', async () => {
    const { world, host } = await attackedHost();
    const offer = await craftBundle(
      join(world, 'hostile.bundle'),
      crafted([entry()], {
        manifest: (manifest) => ({
          ...manifest,
          payloads: manifest.payloads.map((payload) => ({
            ...payload,
            sizeBytes: payload.sizeBytes + 1,
          })),
        }),
      }),
    );
    await expect(host.download(offer)).rejects.toMatchObject({ code: 'E_SIZE' });
  });

  it('C13 a listing whose content does not have its digest: E_SLOT after it was read back', async () => {
    const { world, host } = await attackedHost();
    const [listed] = entry();
    const wrong = { ...listed, sha256: 'ab'.repeat(32) } as TreeEntry;
    const bundle = crafted([wrong], { contents: new Map([['ab'.repeat(32), big]]) });
    const offer = await craftBundle(join(world, 'hostile.bundle'), {
      ...bundle,
      contents: new Map([...crafted([]).contents, ['ab'.repeat(32), big]]),
    });
    await host.download(offer);
    await expect(host.verify(offer)).rejects.toMatchObject({ code: 'E_SLOT' });
    expect(await readdir(host.layout.releases)).not.toContain(offer.artifactId);
  });
});

describe('a hostile user of the host', () => {
  it('H01 a link planted where a directory of the bundle goes: removed, its target untouched', async () => {
    const { world, outside, host } = await attackedHost();
    const offer = await craftBundle(
      join(world, 'v2.bundle'),
      crafted([directory('bin'), fileEntry('bin/tool', 'new')]),
    );
    await host.slots.begin(offer, offer.artifactId);
    await symlink(outside, join(host.layout.staging(offer.artifactId), 'bin'));
    await host.install(offer);
    expect(await readdir(outside)).toEqual(['victim']);
    expect(await host.read('bin/tool')).toBe('new');
  });

  it('H01 a link planted where a file of the bundle goes: removed, its target untouched', async () => {
    const { world, outside, host } = await attackedHost();
    const offer = await craftBundle(join(world, 'v2.bundle'), crafted([fileEntry('tool', 'new')]));
    await host.slots.begin(offer, offer.artifactId);
    await symlink(join(outside, 'victim'), join(host.layout.staging(offer.artifactId), 'tool'));
    await host.install(offer);
    expect(await readFile(join(outside, 'victim'), 'utf8')).toBe('untouched');
    expect(await host.read('tool')).toBe('new');
  });

  it('T10 the staging directory is closed to others while it is written', async () => {
    const { world, host } = await attackedHost();
    const offer = await craftBundle(join(world, 'v2.bundle'), crafted([fileEntry('tool', 'new')]));
    await host.slots.begin(offer, offer.artifactId);
    const found = await lstat(host.layout.staging(offer.artifactId));
    expect(found.mode & 0o077).toBe(0);
  });
});

function flipped(bytes: Uint8Array): Uint8Array {
  const changed = Uint8Array.from(bytes);
  changed[changed.length >> 1] = (changed[changed.length >> 1] ?? 0) ^ 1;
  return changed;
}

function padTo(bytes: Uint8Array, sizeBytes: number): Uint8Array {
  const padded = new Uint8Array(sizeBytes);
  padded.set(bytes.subarray(0, sizeBytes));
  return padded;
}
