/** What the kernel is really asked for: the recipes under strace. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'strace-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

const syscalls =
  'openat,write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,symlink,symlinkat,mkdir,mkdirat,ftruncate,close';

/** Runs code in a Node process under strace; answers with the calls on files of the directory, in short form. */
function traced(code: string): readonly string[] {
  const imports = ['durable', 'file-port', 'journal']
    .map((name) => `...(await import(${JSON.stringify(resolve(`agent/adapters/${name}.ts`))}))`)
    .join(', ');
  const script = `const m = { ${imports} }; const d = ${JSON.stringify(directory)};
    const files = m.nodeFiles(); ${code}`;
  const log = join(directory, 'strace.log');
  execFileSync(
    'strace',
    ['-f', '-qq', '-y', '-e', `trace=${syscalls}`, '-o', log, process.execPath].concat([
      '--input-type=module',
      '-e',
      script,
    ]),
    { env: { ...process.env, UV_THREADPOOL_SIZE: '1' }, stdio: ['ignore', 'ignore', 'inherit'] },
  );
  const lines = readFileSync(log, 'utf8').split('\n');
  return lines.flatMap((line) => {
    if (!line.includes(directory) || line.includes('strace.log')) return [];
    const match = /^\d+\s+(\w+)\((.*)\)\s+= (.*)$/.exec(line);
    if (match === null) throw new Error(`a line of strace that is not understood: ${line}`);
    const [, call, args = '', result = ''] = match;
    const names = [...`${args} ${result}`.matchAll(/[<"]([^<>"]*)[>"]/g)]
      .map((name) => name[1] ?? '')
      .filter((name) => name.startsWith(directory))
      .map((name) => name.slice(directory.length) || '/');
    if (call === 'close') return [];
    const flags = ['O_CREAT', 'O_EXCL', 'O_NOFOLLOW', 'O_DIRECTORY'].filter((flag) =>
      args.includes(flag),
    );
    const failed = result.startsWith('-1') ? ` ${result.split(' ')[1]}` : '';
    const last = call === 'openat' ? names.slice(-1) : [...new Set(names)];
    return [[call, ...last, ...flags].join(' ') + failed];
  });
}

it('H02 replaceFile: open a fresh temporary, write, fsync, rename, fsync of the directory', () => {
  expect(traced(`await m.replaceFile(files, d + '/file', Buffer.from('x'));`)).toEqual([
    'openat /.file.tmp O_CREAT O_EXCL O_NOFOLLOW',
    'pwrite64 /.file.tmp',
    'fsync /.file.tmp',
    'rename /.file.tmp /file',
    'openat / O_NOFOLLOW O_DIRECTORY',
    'fsync /',
  ]);
});

it('F31 switchLink: symlink under a temporary name, rename over, fsync of the directory', () => {
  expect(traced(`await m.switchLink(files, 'releases/x', d + '/current');`)).toEqual([
    'unlink /.current.tmp ENOENT',
    'symlink /.current.tmp',
    'rename /.current.tmp /current',
    'openat / O_NOFOLLOW O_DIRECTORY',
    'fsync /',
  ]);
});

it('removeFile and makeDirectory sync the parent', () => {
  const calls = traced(`await m.makeDirectory(files, d + '/made');
    await m.replaceFile(files, d + '/made/file', Buffer.from('x'));
    await m.removeFile(files, d + '/made/file');`);
  expect(calls.slice(0, 3)).toEqual(['mkdir /made', 'openat / O_NOFOLLOW O_DIRECTORY', 'fsync /']);
  expect(calls.slice(-3)).toEqual([
    'unlink /made/file',
    'openat /made O_NOFOLLOW O_DIRECTORY',
    'fsync /made',
  ]);
});

it('H02 an appended record is one write and one fsync', () => {
  const calls = traced(`const j = await m.openJournal(files, d + '/journal');
    await j.append({ bootId: 'b', monotonicMs: 0, wallMs: 0, data: {} });
    await j.append({ bootId: 'b', monotonicMs: 0, wallMs: 0, data: {} });`);
  expect(calls.slice(-4)).toEqual([
    'pwrite64 /journal',
    'fsync /journal',
    'pwrite64 /journal',
    'fsync /journal',
  ]);
});
