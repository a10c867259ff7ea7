import { execFileSync } from 'node:child_process';
import {
  chmod,
  link,
  mkdir,
  open,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { slicesOf } from '#/bundle/tree-layout.ts';
import { checkDefinition, parseDefinition } from '#/control/cli/bundle/definition.ts';
import { diffBundles } from '#/control/cli/bundle/diff.ts';
import { inspectBundle } from '#/control/cli/bundle/inspect.ts';
import { openBundle } from '#/control/cli/bundle/read.ts';
import { verifyBundle } from '#/control/cli/bundle/verify.ts';
import { build, scratch, trust, writeTree } from '#/test/support/bundle/build-sample.ts';
import { codeOf, codeOfAsync } from '#/test/support/bundle/code-of.ts';
import { noise } from '#/test/support/bundle/noise.ts';
import { sha256 } from '#/test/support/bundle/sample-index.ts';

const content = {
  'bin/app': noise(300_000, 1),
  'lib/a.js': 'export const a = 1;\n'.repeat(50),
  'lib/b.js': 'export const b = 2;\n'.repeat(50),
  'lib/copy-of-a.js': 'export const a = 1;\n'.repeat(50),
  'lib/copy-of-app': noise(300_000, 1),
  'share/zeros': new Uint8Array(500_000),
  'share/mixed': Buffer.concat([noise(70_000, 2), new Uint8Array(200_000), noise(50, 3)]),
  'empty-file': '',
  'empty/': '',
};

/** Content of every file of the first tree in a bundle, put together from its chunks. */
async function extract(path: string): Promise<Map<string, Buffer>> {
  await using bundle = await openBundle(path, trust);
  const index = await bundle.index();
  const payload = index.payloads[0];
  const files = new Map<string, Buffer>();
  if (!payload?.tree) throw new Error('not a tree');
  const { entries, layout } = payload.tree;
  for (const entry of entries)
    if (entry.kind === 'file') files.set(entry.path, Buffer.alloc(entry.sizeBytes));
  for (let piece = 0; piece < payload.pieceCount; piece += 1) {
    const chunk = payload.chunks[piece] ?? -1;
    if (chunk < 0) continue;
    const bytes = await bundle.readChunk(chunk);
    for (const slice of slicesOf(layout, payload.positions[piece] ?? 0, bytes.byteLength)) {
      const target = files.get(entries[slice.file]?.path ?? '');
      target?.set(
        bytes.subarray(slice.rangeOffset, slice.rangeOffset + slice.sizeBytes),
        slice.fileOffset,
      );
    }
  }
  return files;
}

describe('build', () => {
  it('a tree comes out of its chunks as it went in', async () => {
    await using at = await scratch();
    const root = join(at.path, 'in');
    await writeTree(root, content);
    await chmod(join(root, 'bin/app'), 0o755);
    await symlink('../lib/a.js', join(root, 'bin/link'));
    await link(join(root, 'lib/b.js'), join(root, 'lib/hard-b.js'));
    const out = join(at.path, 'x.swb');
    const result = await build(root, out);
    const files = await extract(out);
    for (const [path, bytes] of Object.entries(content)) {
      if (!path.endsWith('/')) expect(files.get(path)?.equals(Buffer.from(bytes)), path).toBe(true);
    }
    const { payloads } = await inspectBundle(out);
    const entries = new Map(payloads[0]?.entries?.map((entry) => [entry.path, entry]));
    expect(entries.get('bin/app')).toMatchObject({ kind: 'file', mode: 0o755, uid: 0, gid: 0 });
    expect(entries.get('bin/link')).toMatchObject({ kind: 'symlink', target: '../lib/a.js' });
    expect(entries.get('lib/hard-b.js')).toMatchObject({ kind: 'hardlink', target: 'lib/b.js' });
    expect(entries.get('empty')).toMatchObject({ kind: 'directory' });
    expect(await verifyBundle(out, trust)).toMatchObject({
      artifactId: result.artifactId,
      signaturesChecked: true,
    });
    // The copies took no room, and neither did the zeros.
    expect(result.manifest.dataBytes).toBeLessThan(300_000 + 70_000 + 20_000);
  });

  it('an image comes out of its chunks as it went in, its holes stored nowhere', async () => {
    await using at = await scratch();
    const image = join(at.path, 'disk.img');
    const MiB = 2 ** 20;
    await writeFile(image, noise(500_000, 4));
    await truncate(image, 300 * MiB);
    {
      await using file = await open(image, 'r+');
      await file.write(noise(10_000, 5), 0, 10_000, 200 * MiB + 4096);
    }
    const out = join(at.path, 'x.swb');
    const result = await build(image, out);
    expect(result.manifest.payloads[0]).toMatchObject({
      kind: 'image',
      chunker: 'acdc-32k',
      sizeBytes: 300 * MiB,
    });
    expect(result.bundleBytes).toBeLessThan(600_000);
    expect(await verifyBundle(out, trust)).toMatchObject({ contentBytes: 300 * MiB });
    const { payloads } = await inspectBundle(out);
    expect(payloads[0]?.holeBytes).toBeGreaterThan(300 * MiB - 600_000);
  });

  it('several payloads share their chunks', async () => {
    await using at = await scratch();
    await writeTree(join(at.path, 'tree'), { app: noise(200_000, 6) });
    await writeFile(join(at.path, 'disk.img'), noise(200_000, 6));
    const payloads = [
      { name: 'root', kind: 'tree', path: 'tree' },
      { name: 'disk', kind: 'image', path: 'disk.img', chunker: 'fastcdc-16k' },
    ];
    const out = join(at.path, 'x.swb');
    const result = await build('', out, { baseDir: at.path, definitionChanges: { payloads } });
    expect(result.manifest.dataBytes).toBe(200_000);
    await verifyBundle(out, trust);
  });

  it('3,000 tiny files need few chunks', async () => {
    await using at = await scratch();
    const files = Object.fromEntries(
      Array.from({ length: 3000 }, (_, i) => [
        `d${i % 50}/f${i}.json`,
        `{"number": ${i}, "name": "file ${i}"}\n`,
      ]),
    );
    await writeTree(join(at.path, 'in'), files);
    const out = join(at.path, 'x.swb');
    const result = await build(join(at.path, 'in'), out);
    expect(result.chunkCount).toBeLessThan(20);
    expect((await extract(out)).size).toBe(3000);
  });

  it('provenance names the artifact and its inputs, signed', async () => {
    await using at = await scratch();
    await writeTree(join(at.path, 'in'), { a: 'a' });
    const out = join(at.path, 'x.swb');
    const source = { uri: 'git+https://example.org/app', digest: { gitCommit: 'ab'.repeat(20) } };
    const { artifactId, manifest } = await build(join(at.path, 'in'), out, { source });
    await using bundle = await openBundle(out, trust);
    expect(bundle.attestations).toHaveLength(1);
    const { payload } = JSON.parse(bundle.attestations[0] ?? '');
    const statement = JSON.parse(Buffer.from(payload, 'base64').toString());
    expect(statement.subject).toEqual([{ name: 'sample-1.0', digest: { sha256: artifactId } }]);
    const inputs = statement.predicate.buildDefinition.resolvedDependencies;
    const tree = manifest.payloads[0];
    expect(inputs).toEqual([
      source,
      { name: 'root', digest: { sha256: tree?.kind === 'tree' ? tree.treeSha256 : '' } },
    ]);
  });
});

describe('reproducible to the byte', () => {
  it('whatever the number of threads, the times, the order on disk and the place', async () => {
    await using at = await scratch();
    const bundles: Buffer[] = [];
    for (const [i, workers] of [1, 2, 5].entries()) {
      const root = join(at.path, `in${i}`);
      const entries = Object.entries(content);
      await writeTree(root, Object.fromEntries(i === 1 ? entries.toReversed() : entries));
      await utimes(join(root, 'bin/app'), 1000 + i, 2000 + i);
      const out = join(at.path, `${i}.swb`);
      await build(root, out, { workers });
      bundles.push(await readFile(out));
    }
    expect(bundles[1]?.equals(bundles[0] as Buffer)).toBe(true);
    expect(bundles[2]?.equals(bundles[0] as Buffer)).toBe(true);
  });

  it('whoever owns the files, unless the definition keeps owners', async () => {
    if (process.getuid?.() !== 0) return;
    await using at = await scratch();
    const root = join(at.path, 'in');
    await writeTree(root, { a: 'a' });
    const first = await build(root, join(at.path, '1.swb'));
    execFileSync('chown', ['1234:5678', join(root, 'a')]);
    const second = await build(root, join(at.path, '2.swb'));
    expect(second.artifactId).toBe(first.artifactId);
    const payloads = [{ name: 'root', kind: 'tree', path: root, keepOwners: true }];
    await build('', join(at.path, '3.swb'), { definitionChanges: { payloads } });
    const { payloads: kept } = await inspectBundle(join(at.path, '3.swb'));
    expect(kept[0]?.entries?.[0]).toMatchObject({ uid: 1234, gid: 5678 });
  });

  it('and any change of content, mode or name is another artifact', async () => {
    await using at = await scratch();
    const root = join(at.path, 'in');
    await writeTree(root, { a: 'a', b: 'b' });
    const ids = new Set<string>();
    const again = async (): Promise<void> => {
      ids.add((await build(root, join(at.path, 'x.swb'))).artifactId);
    };
    await again();
    await chmod(join(root, 'a'), 0o600);
    await again();
    await writeFile(join(root, 'a'), 'A');
    await again();
    await mkdir(join(root, 'c'));
    await again();
    await rm(join(root, 'b'));
    await symlink('a', join(root, 'b'));
    await again();
    expect(ids.size).toBe(5);
  });
});

describe('input that cannot be built', () => {
  const refused = async (
    files: Record<string, string>,
    prepare: (root: string) => Promise<unknown>,
  ): Promise<string> => {
    await using at = await scratch();
    const root = join(at.path, 'in');
    await writeTree(root, files);
    await prepare(root);
    const out = join(at.path, 'x.swb');
    await writeFile(out, 'what was there before');
    const code = await codeOfAsync(() => build(root, out));
    // Nothing is replaced and nothing is left behind.
    expect(await readFile(out, 'utf8')).toBe('what was there before');
    expect((await readdir(at.path)).toSorted()).toEqual(['in', 'x.swb']);
    return code;
  };

  it('C12 refuses pipes, links that lead out, and setuid', async () => {
    expect(
      await refused({ a: '' }, (root) =>
        Promise.resolve(execFileSync('mkfifo', [join(root, 'pipe')])),
      ),
    ).toBe('E_MODE');
    expect(await refused({ a: '' }, (root) => symlink('../../etc/passwd', join(root, 'l')))).toBe(
      'E_PATH',
    );
    expect(await refused({ a: '' }, (root) => symlink('/etc/passwd', join(root, 'l')))).toBe(
      'E_PATH',
    );
    expect(await refused({ a: '' }, (root) => chmod(join(root, 'a'), 0o4755))).toBe('E_MODE');
  });

  it('C11 C15 refuses names that a listing cannot hold', async () => {
    expect(await refused({ 'a\\b': '' }, async () => {})).toBe('E_PATH');
    expect(await refused({ 'a.': '' }, async () => {})).toBe('E_PATH');
    expect(await refused({ README: '', readme: '' }, async () => {})).toBe('E_PATH');
    const latin1 = Buffer.from([0x61, 0xe9]);
    expect(
      await refused({ a: '' }, (root) =>
        writeFile(Buffer.concat([Buffer.from(`${root}/`), latin1]), ''),
      ),
    ).toBe('E_PATH');
  });

  it('refuses an empty tree, a missing input, and a definition that is wrong', async () => {
    expect(await refused({}, async () => {})).toBe('E_CONFIG');
    expect(await codeOfAsync(() => build('/nowhere/at/all', '/tmp/never-written.swb'))).toBe(
      'E_NOT_FOUND',
    );
    expect(codeOf(() => checkDefinition({ name: 'x', class: 'x', version: '1' }))).toBe('E_CONFIG');
    expect(
      codeOf(() => checkDefinition({ name: 'x', class: 'x', version: '1', release: 1, helth: [] })),
    ).toBe('E_CONFIG');
    expect(codeOf(() => parseDefinition('name = ', 'release.toml'))).toBe('E_CONFIG');
  });

  it('an abort leaves nothing behind', async () => {
    await using at = await scratch();
    await writeTree(join(at.path, 'in'), { a: noise(3_000_000, 7) });
    const aborted = new AbortController();
    const building = build(join(at.path, 'in'), join(at.path, 'x.swb'), {
      signal: aborted.signal,
      onProgress: () => aborted.abort(),
    });
    await expect(building).rejects.toThrow('aborted');
    expect(await readdir(at.path)).toEqual(['in']);
  });
});

describe('definition', () => {
  it('fills in defaults of checks and trial', () => {
    const text = `
      name = "web"
      class = "web"
      version = "2.1"
      release = 21
      minAgent = "0.2.0"
      [activation]
      kind = "process"
      argv = ["{slot}/bin/app"]
      stopTimeoutMs = 5000
      [[health]]
      kind = "http"
      name = "front-page"
      url = "http://127.0.0.1:8080/"
      status = 200
      required = false
      [trial]
      soakMs = 1000
    `;
    const definition = parseDefinition(text, 'release.toml');
    expect(definition).toMatchObject({ arch: 'any', minAgent: 2000, minFrom: 0 });
    expect(definition.health[0]).toMatchObject({
      required: false,
      baseline: 'must-pass',
      timeoutMs: 5000,
    });
    expect(definition.trial).toEqual({
      soakMs: 1000,
      deadlineMs: 300_000,
      maxBoots: 3,
      control: 'offline-ok',
    });
  });
});

describe('diff', () => {
  it('says what a host with one bundle downloads for another, and which files differ', async () => {
    await using at = await scratch();
    const root = join(at.path, 'in');
    await writeTree(root, content);
    await build(root, join(at.path, '1.swb'));
    await writeFile(join(root, 'lib/a.js'), 'changed');
    await rm(join(root, 'lib/b.js'));
    await writeFile(join(root, 'new'), noise(100_000, 8));
    await chmod(join(root, 'bin/app'), 0o755);
    await build(root, join(at.path, '2.swb'), {
      definitionChanges: { version: '2.0', release: 2 },
    });
    const diff = await diffBundles(join(at.path, '1.swb'), join(at.path, '2.swb'));
    expect(diff.files[0]?.changes).toEqual([
      { path: 'bin/app', change: 'mode', sizeBytes: 300_000 },
      { path: 'lib/a.js', change: 'changed', sizeBytes: 7 },
      { path: 'lib/b.js', change: 'removed', sizeBytes: 1000 },
      { path: 'new', change: 'added', sizeBytes: 100_000 },
    ]);
    expect(diff.chunkBytes).toBeGreaterThanOrEqual(100_000);
    expect(diff.chunkBytes).toBeLessThan(110_000);
    expect(diff.downloadBytes).toBe(diff.metadataBytes + diff.chunkBytes);
    const same = await diffBundles(join(at.path, '2.swb'), join(at.path, '2.swb'));
    expect(same).toMatchObject({ chunkBytes: 0, requests: 0, files: [{ changes: [] }] });
  });
});

it('the sizes of the file system are those of the bundle', async () => {
  await using at = await scratch();
  await writeTree(join(at.path, 'in'), { a: 'a' });
  const out = join(at.path, 'x.swb');
  const { bundleBytes, manifestBytes, artifactId } = await build(join(at.path, 'in'), out);
  expect((await stat(out)).size).toBe(bundleBytes);
  expect(sha256(manifestBytes)).toBe(artifactId);
  expect(sha256(execFileSync('tar', ['-xOf', out, 'manifest.json']))).toBe(artifactId);
});
