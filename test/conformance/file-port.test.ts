/** One suite for every file port: the real file system and the simulated one must behave the same. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { errnoOf, nodeFiles } from '#/agent/adapters/file-port.ts';
import type { FilePort } from '#/agent/ports.ts';
import { emptyImage } from '#/test/support/sim-fs/image.ts';
import { simFs } from '#/test/support/sim-fs/sim-fs.ts';

interface Subject {
  readonly files: FilePort;
  readonly root: string;
  end(): Promise<void>;
}

const subjects: readonly (readonly [string, () => Promise<Subject>])[] = [
  [
    'the real file system',
    async () => {
      const root = await mkdtemp(join(tmpdir(), 'file-port-'));
      return { files: nodeFiles(), root, end: () => rm(root, { recursive: true }) };
    },
  ],
  [
    'the simulated file system',
    async () => {
      const { files } = simFs(emptyImage());
      await files.mkdir('/root', 0o700);
      return { files, root: '/root', end: async () => undefined };
    },
  ],
];

async function failure(run: () => Promise<unknown>): Promise<string | null> {
  try {
    await run();
    return null;
  } catch (error) {
    return errnoOf(error) ?? String(error);
  }
}

async function put(files: FilePort, path: string, text: string): Promise<void> {
  const file = await files.open(path, 'append');
  await file.write(Buffer.from(text), 0);
  await file.sync();
  await file.close();
}

async function get(files: FilePort, path: string): Promise<string> {
  const file = await files.open(path, 'read');
  const buffer = new Uint8Array(1024);
  const count = await file.read(buffer, 0);
  await file.close();
  return Buffer.from(buffer.subarray(0, count)).toString();
}

describe.each(subjects)('file port: %s', (_name, make) => {
  let subject: Subject;
  let files: FilePort;
  let at: (name: string) => string;
  beforeEach(async () => {
    subject = await make();
    files = subject.files;
    at = (name) => `${subject.root}/${name}`;
  });
  afterEach(() => subject.end());

  it('reads back what was written, at any position, with a hole of zeros before it', async () => {
    const file = await files.open(at('a'), 'create');
    expect(await file.write(Buffer.from('end'), 4)).toBe(3);
    await file.write(Buffer.from('be'), 0);
    const buffer = new Uint8Array(16);
    expect(await file.read(buffer, 0)).toBe(7);
    expect(Buffer.from(buffer.subarray(0, 7)).toString('latin1')).toBe('be\0\0end');
    expect(await file.read(buffer, 7)).toBe(0);
    await file.close();
    expect(await files.stat(at('a'))).toMatchObject({ kind: 'file', sizeBytes: 7 });
  });

  it('create refuses a name that is taken by a file, a directory or a dangling link', async () => {
    await put(files, at('file'), 'x');
    await files.mkdir(at('directory'), 0o700);
    await files.symlink('nowhere', at('link'));
    for (const name of ['file', 'directory', 'link']) {
      expect(await failure(() => files.open(at(name), 'create'))).toBe('EEXIST');
    }
  });

  it('H01 no flag follows a link in the last component', async () => {
    await put(files, at('secret'), 'kept');
    await files.symlink('secret', at('link'));
    expect(await failure(() => files.open(at('link'), 'read'))).toBe('ELOOP');
    expect(await failure(() => files.open(at('link'), 'append'))).toBe('ELOOP');
    expect(await failure(() => files.open(at('link'), 'directory'))).toBe('ENOTDIR');
    expect(await get(files, at('secret'))).toBe('kept');
  });

  it('follows links in the middle of a path', async () => {
    await files.mkdir(at('real'), 0o700);
    await put(files, at('real/file'), 'found');
    await files.symlink('real', at('link'));
    expect(await get(files, at('link/file'))).toBe('found');
    expect(await get(files, at('link/../real/file'))).toBe('found');
  });

  it('append keeps what is there and can truncate it', async () => {
    await put(files, at('a'), 'hello');
    const file = await files.open(at('a'), 'append');
    await file.truncate(2);
    await file.write(Buffer.from('y'), 2);
    await file.close();
    expect(await get(files, at('a'))).toBe('hey');
  });

  it('rename replaces a file and a link as a whole', async () => {
    await put(files, at('new'), 'new');
    await put(files, at('old'), 'old');
    await files.rename(at('new'), at('old'));
    expect(await get(files, at('old'))).toBe('new');
    await files.symlink('one', at('current'));
    await files.symlink('two', at('next'));
    await files.rename(at('next'), at('current'));
    expect(await files.readlink(at('current'))).toBe('two');
    expect((await files.list(subject.root)).map((entry) => entry.name)).toEqual(['current', 'old']);
  });

  it('an open file is still written after its name went to another one', async () => {
    await put(files, at('a'), 'first');
    const file = await files.open(at('a'), 'append');
    await put(files, at('b'), 'second');
    await files.rename(at('b'), at('a'));
    await file.write(Buffer.from('lost '), 0);
    await file.close();
    expect(await get(files, at('a'))).toBe('second');
  });

  it('moves a directory with all that is in it', async () => {
    await files.mkdir(at('tmp'), 0o700);
    await put(files, at('tmp/file'), 'x');
    await files.rename(at('tmp'), at('done'));
    expect(await get(files, at('done/file'))).toBe('x');
    expect(await files.stat(at('tmp'))).toBeNull();
  });

  it('names the errno of what cannot be done', async () => {
    await put(files, at('file'), 'x');
    await files.mkdir(at('full'), 0o700);
    await put(files, at('full/file'), 'x');
    const cases: readonly (readonly [string, () => Promise<unknown>])[] = [
      ['ENOENT', () => files.open(at('none'), 'read')],
      ['ENOENT', () => files.open(at('none/file'), 'append')],
      ['ENOENT', () => files.open(at('none'), 'directory')],
      ['ENOTDIR', () => files.open(at('file/below'), 'read')],
      ['ENOTDIR', () => files.open(at('file'), 'directory')],
      ['EISDIR', () => files.open(at('full'), 'append')],
      ['ENOENT', () => files.unlink(at('none'))],
      ['EISDIR', () => files.unlink(at('full'))],
      ['ENOTEMPTY', () => files.rmdir(at('full'))],
      ['ENOTDIR', () => files.rmdir(at('file'))],
      ['EEXIST', () => files.mkdir(at('file'), 0o700)],
      ['EEXIST', () => files.symlink('x', at('file'))],
      ['EINVAL', () => files.readlink(at('file'))],
      ['ENOENT', () => files.readlink(at('none'))],
      ['ENOENT', () => files.rename(at('none'), at('other'))],
      ['EISDIR', () => files.rename(at('file'), at('full'))],
      ['ENOTDIR', () => files.rename(at('full'), at('file'))],
      ['ENOENT', () => files.list(at('none'))],
    ];
    for (const [errno, run] of cases) expect([errno, await failure(run)]).toEqual([errno, errno]);
  });

  it('stat does not follow links and is null for nothing, also below a file', async () => {
    await put(files, at('file'), 'xyz');
    await files.symlink('file', at('link'));
    expect(await files.stat(at('link'))).toMatchObject({ kind: 'link' });
    expect(await files.stat(at('none'))).toBeNull();
    expect(await files.stat(at('file/below'))).toBeNull();
    expect(await files.stat(subject.root)).toMatchObject({ kind: 'directory' });
  });

  it('list is sorted and names the kinds', async () => {
    await put(files, at('b'), '');
    await files.mkdir(at('c'), 0o700);
    await files.symlink('b', at('a'));
    expect(await files.list(subject.root)).toEqual([
      { name: 'a', kind: 'link' },
      { name: 'b', kind: 'file' },
      { name: 'c', kind: 'directory' },
    ]);
  });

  it('syncs directories', async () => {
    const directory = await files.open(subject.root, 'directory');
    await directory.sync();
    await directory.close();
  });
});
