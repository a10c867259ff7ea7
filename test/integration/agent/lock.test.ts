/** The single-writer lock between real processes. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { acquireLock, readOwner } from '#/agent/adapters/lock.ts';

let directory: string;
let path: string;
let children: ChildProcess[];
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'lock-'));
  path = join(directory, 'lock');
  children = [];
});
afterEach(() => {
  for (const child of children) child.kill('SIGKILL');
  rmSync(directory, { recursive: true });
});

/** A process that takes the lock, says so, and holds it until it is killed. */
async function holder(): Promise<ChildProcess> {
  const module = JSON.stringify(resolve('agent/adapters/lock.ts'));
  const code = `const { acquireLock } = await import(${module});
    try { acquireLock(${JSON.stringify(path)}, 'holder'); console.log('held'); setInterval(() => {}, 1e6); }
    catch (error) { console.log(error.code); }`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', code], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  const [said] = await new Promise<Buffer[]>((done) =>
    child.stdout?.once('data', (data: Buffer) => done([data])),
  );
  expect(said?.toString().trim()).toBe('held');
  return child;
}

const ended = (child: ChildProcess): Promise<void> =>
  new Promise((done) => child.once('exit', () => done()));

it('F27 H09 a second agent is refused with the name of the first, which goes on', async () => {
  const child = await holder();
  expect(() => acquireLock(path, 'second')).toThrow(`held by pid ${child.pid} (holder)`);
  expect(readOwner(path)).toMatchObject({ pid: child.pid, purpose: 'holder' });
  expect(child.exitCode).toBeNull();
});

it('F27 the lock of a killed agent is taken over at once, and says from whom', async () => {
  const child = await holder();
  const end = ended(child);
  child.kill('SIGKILL');
  await end;
  const lock = acquireLock(path, 'second');
  expect(lock.takenOverFrom).toMatchObject({ pid: child.pid, purpose: 'holder' });
  lock.release();
});

it('F27 a foreign or damaged lock file does not keep the agent out', () => {
  writeFileSync(path, 'not an owner');
  const lock = acquireLock(path, 'agent');
  expect(lock.takenOverFrom).toBeNull();
  expect(readOwner(path)).toMatchObject({ pid: process.pid });
  lock.release();
  expect(readFileSync(path, 'utf8')).toBe('');
});

it('H09 of many that start at once exactly one gets it', async () => {
  const first = await holder();
  const module = JSON.stringify(resolve('agent/adapters/lock.ts'));
  const code = `const { acquireLock } = await import(${module});
    try { acquireLock(${JSON.stringify(path)}, 'racer'); console.log('held'); setTimeout(() => {}, 3000); }
    catch (error) { console.log(error.code); }`;
  const end = ended(first);
  first.kill('SIGKILL');
  await end;
  const said = await Promise.all(
    [1, 2, 3, 4].map(
      () =>
        new Promise<string>((done) => {
          const child = spawn(process.execPath, ['--input-type=module', '-e', code], {
            stdio: ['ignore', 'pipe', 'inherit'],
          });
          children.push(child);
          child.stdout.once('data', (data: Buffer) => done(data.toString().trim()));
        }),
    ),
  );
  expect(said.toSorted()).toEqual(['E_BUSY', 'E_BUSY', 'E_BUSY', 'held']);
});

it('F30 on a read-only file system the lock holds as before: the host is observed, never by two', () => {
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'none', directory]);
  expect(mounted.status).toBe(0);
  try {
    writeFileSync(path, '');
    expect(spawnSync('mount', ['-o', 'remount,ro', directory]).status).toBe(0);
    const lock = acquireLock(path, 'agent');
    expect(() => acquireLock(path, 'second')).toThrow('is held by another process');
    lock.release();
    acquireLock(path, 'third').release();
    const missing = join(directory, 'missing');
    expect(() => acquireLock(missing, 'agent')).toThrow(`the lock ${missing} cannot be opened`);
  } finally {
    spawnSync('umount', [directory]);
  }
});
