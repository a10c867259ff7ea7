/** The install child is killed and the install goes on; the live slot serves as seed; the slot is read back. */
import { execFile, spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readSync, writeSync } from 'node:fs';
import {
  link,
  mkdir,
  open,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Progress } from '#/agent/ports.ts';
import type { BuildResult } from '#/control/cli/bundle/build.ts';
import { startFaultServer } from '#/test/support/fault-server/fault-server.ts';
import { bundleOf, makeHost, offerOf } from '#/test/support/install/host.ts';
import { makeTree, scratch, seeded } from '#/test/support/install/payloads.ts';

let work: AsyncDisposable & { readonly path: string };
let first: BuildResult;
let second: BuildResult;
let hosts = 0;
const patch = { offset: 1_000_000, sizeBytes: 30_000, seed: 99 };

beforeAll(async () => {
  work = await scratch();
  await mkdir(join(work.path, 'v1'));
  await mkdir(join(work.path, 'v2'));
  await makeTree(join(work.path, 'v1'), { version: '1' });
  await makeTree(join(work.path, 'v2'), { version: '2', patch });
  first = await build('v1', 1);
  second = await build('v2', 2);
});
afterAll(async () => {
  await work[Symbol.asyncDispose]();
});

function build(version: string, release: number): Promise<BuildResult> {
  const input = join(work.path, version);
  return bundleOf({ input, out: `${input}.bundle`, version, release });
}

async function freshHost(options: Parameters<typeof makeHost>[1] = {}) {
  hosts += 1;
  const root = join(work.path, `host-${hosts}`);
  await mkdir(root);
  return await makeHost(root, { ...options, settings: { workers: 2, ...options.settings } });
}

async function expectSame(version: string, path: string): Promise<void> {
  const { stdout } = await promisify(execFile)('diff', [
    '-r',
    '--no-dereference',
    join(work.path, version),
    `${path}/`,
  ]);
  expect(stdout).toBe('');
}

async function flip(path: string, position: number): Promise<void> {
  await using file = await open(path, 'r+');
  const byte = new Uint8Array(1);
  await file.read(byte, 0, 1, position);
  byte[0] = (byte[0] ?? 0) ^ 0xff;
  await file.write(byte, 0, 1, position);
}

/** At once, before the installer goes on. */
function flipSync(path: string, position: number): void {
  const descriptor = openSync(path, 'r+');
  const byte = new Uint8Array(1);
  readSync(descriptor, byte, 0, 1, position);
  byte[0] = (byte[0] ?? 0) ^ 0xff;
  writeSync(descriptor, byte, 0, 1, position);
  closeSync(descriptor);
}

const doneShare = (step: Progress | undefined): number =>
  step === undefined ? 0 : step.doneBytes / step.totalBytes;

const until = async (condition: () => boolean): Promise<void> => {
  while (!condition()) await sleep(2);
};

describe('an install child that is killed', () => {
  it.for([1, 2, 3, 4])(
    'F2 F28 SIGKILL of the child at three random moments (seed %i): nothing that was done is fetched again',
    async (seed) => {
      await using server = await startFaultServer(await readFile(first.path));
      // Slow enough that the kills fall into the download.
      const settings = { bandwidthBytesPerSecond: 700_000, connections: 1 };
      const host = await freshHost({ run: 'child', settings });
      const offer = offerOf(first, [server.url]);
      const next = seeded(seed);
      let done = 0;
      for (const share of [0.1, 0.35, 0.6]) {
        host.progress.length = 0;
        const download = host.download(offer);
        const killed = expect(download).rejects.toMatchObject({ code: 'E_INTERRUPTED' });
        const reached = share + (next() % 100) / 1000;
        await until(() => doneShare(host.progress.at(-1)) >= reached);
        process.kill(host.children.at(-1) ?? 0, 'SIGKILL');
        await killed;
        done = Math.max(done, host.progress.at(-1)?.doneBytes ?? 0);
      }
      const result = await host.install(offer);
      await expectSame('v1', join(host.root, 'current'));
      expect(done).toBeGreaterThan(1_800_000);
      expect(result.reusedBytes).toBeGreaterThanOrEqual(done);
      expect(result.fetchedBytes).toBeLessThan(131_072 + first.bundleBytes * 0.6);
    },
  );

  it('F2 what is in place is kept: a second run fetches only the leading bytes and the rest', async () => {
    const host = await freshHost();
    await host.download(offerOf(first));
    await rm(join(host.layout.staging(first.artifactId), 'lib/twin-a'));
    const result = await host.download(offerOf(first));
    expect(result.reusedBytes).toBeGreaterThan(2_500_000);
    expect(result.fetchedBytes).toBeLessThan(131_072 + 250_000);
    await host.verify(offerOf(first));
    await expectSame('v1', host.layout.release(first.artifactId));
  });

  it('F2 a run that was ended after it had made its hard links: nothing that was done is fetched again', async () => {
    const host = await freshHost();
    const whole = await host.download(offerOf(first));
    const result = await host.download(offerOf(first));
    expect(result.reusedBytes).toBeGreaterThan(3_000_000);
    expect(result.fetchedBytes).toBeLessThan(Math.min(131_073, whole.fetchedBytes));
    await host.verify(offerOf(first));
    await expectSame('v1', host.layout.release(first.artifactId));
  });

  it('a file that is shared with something outside the slot is made anew, and not written to', async () => {
    const host = await freshHost();
    await host.download(offerOf(first));
    const program = join(host.layout.staging(first.artifactId), 'bin/program');
    const outside = join(host.root, 'outside');
    await link(program, outside);
    await flip(outside, 5);
    const bytes = await readFile(outside);
    await host.download(offerOf(first));
    expect((await stat(program)).nlink).toBe(1);
    expect((await readFile(outside)).equals(bytes)).toBe(true);
    await host.verify(offerOf(first));
    await expectSame('v1', host.layout.release(first.artifactId));
  });

  it('F22 a power cut lost the end of a file that was written: found, written again', async () => {
    const host = await freshHost();
    await host.download(offerOf(first));
    const program = join(host.layout.staging(first.artifactId), 'bin/program');
    await using file = await open(program, 'r+');
    await file.truncate(1_500_000);
    await file.truncate(2_000_000);
    const result = await host.download(offerOf(first));
    expect(result.fetchedBytes).toBeLessThan(131_072 + 500_000);
    await host.verify(offerOf(first));
    await expectSame('v1', host.layout.release(first.artifactId));
  });

  it('F58 an abort ends the child and rejects with the reason; the next run goes on', async () => {
    await using server = await startFaultServer(await readFile(first.path), ({ range }) =>
      range !== null && range[0] > 500_000 ? { do: 'stall', after: 1000 } : null,
    );
    const host = await freshHost({ run: 'child', settings: { idleTimeoutMs: 60_000 } });
    const halt = new AbortController();
    const download = host.download(offerOf(first, [server.url]), halt.signal);
    const aborted = expect(download).rejects.toThrow('recalled');
    await until(() => server.sentBytes() > 400_000);
    halt.abort(new Error('recalled'));
    await aborted;
    expect(() => process.kill(host.children[0] ?? 0, 0)).toThrow();
    await host.install(offerOf(first));
    await expectSame('v1', join(host.root, 'current'));
  });

  it.runIf(existsSync('/proc/self/autogroup'))(
    'the child gives way as a session, which services are too, and not only to its own agent',
    async () => {
      await using server = await startFaultServer(await readFile(first.path), ({ range }) =>
        range !== null && range[0] > 500_000 ? { do: 'stall', after: 1000 } : null,
      );
      const host = await freshHost({ run: 'child', settings: { idleTimeoutMs: 60_000 } });
      const halt = new AbortController();
      const download = host.download(offerOf(first, [server.url]), halt.signal);
      const aborted = expect(download).rejects.toThrow('seen');
      await until(() => server.sentBytes() > 400_000);
      const group = await readFile(`/proc/${host.children[0]}/autogroup`, 'utf8');
      expect(group).toMatch(/nice 10$/m);
      expect(group).not.toBe(await readFile('/proc/self/autogroup', 'utf8'));
      halt.abort(new Error('seen'));
      await aborted;
    },
  );

  it('F2 the agent is killed: its child ends too and writes no more', async () => {
    await using server = await startFaultServer(await readFile(first.path), ({ range }) =>
      range !== null && range[0] > 500_000 ? { do: 'stall', after: 1000 } : null,
    );
    const host = await freshHost();
    const offer = offerOf(first, [server.url]);
    const script = join(import.meta.dirname, '../../support/install/start-install.ts');
    const task = Buffer.from(
      JSON.stringify({ root: host.root, bundle: first.path, url: offer.sources[0] }),
    );
    const agent = spawn(process.execPath, [script, task.toString('base64')], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const pid = Number(await new Promise((resolve) => agent.stdout.once('data', resolve)));
    await until(() => server.sentBytes() > 400_000);
    agent.kill('SIGKILL');
    for (let waits = 0; waits < 200 && isAlive(pid); waits += 1) await sleep(20);
    expect(isAlive(pid)).toBe(false);
  });
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

describe('the live slot as seed', () => {
  it('only what changed is fetched', async () => {
    const host = await freshHost();
    await host.install(offerOf(first));
    const result = await host.install(offerOf(second));
    expect(result.rottenSeedChunks).toBe(0);
    expect(result.fetchedBytes).toBeLessThan(131_072 + 150_000);
    await expectSame('v2', join(host.root, 'current'));
    expect(await host.boot.observe()).toMatchObject({ defaultSlot: second.artifactId });
  });

  it('F83 200 flipped bytes in the live slot: the rotten pieces are fetched and counted', async () => {
    const host = await freshHost();
    await host.install(offerOf(first));
    const program = join(host.layout.release(first.artifactId), 'bin/program');
    for (let i = 0; i < 200; i += 1) await flip(program, i * 9973);
    const result = await host.install(offerOf(second));
    expect(result.rottenSeedChunks).toBeGreaterThan(20);
    await expectSame('v2', join(host.root, 'current'));
  });

  it('F83 files of the live slot are gone, or a link and a fifo: their pieces are fetched', async () => {
    const host = await freshHost();
    await host.install(offerOf(first));
    const live = host.layout.release(first.artifactId);
    await rm(join(live, 'lib/twin-a'));
    await rm(join(live, 'lib/twin-b'));
    await symlink('/dev/zero', join(live, 'lib/twin-a'));
    await rm(join(live, 'bin/program'));
    await promisify(execFile)('mkfifo', [join(live, 'bin/program')]);
    const result = await host.install(offerOf(second));
    expect(result.rottenSeedChunks).toBeGreaterThan(20);
    await expectSame('v2', join(host.root, 'current'));
  });

  it('the kept index is damaged: everything is fetched', async () => {
    const host = await freshHost();
    await host.install(offerOf(first));
    await flip(host.layout.indexFile(first.artifactId), 100);
    const result = await host.install(offerOf(second));
    expect(result.reusedBytes).toBe(0);
    await expectSame('v2', join(host.root, 'current'));
  });
});

describe('read-back', () => {
  it('F24 C21 a byte changed on the disk between download and verify: written anew, then verified', async () => {
    const host = await freshHost();
    await host.download(offerOf(first));
    await flip(join(host.layout.staging(first.artifactId), 'bin/program'), 1_234_567);
    await host.verify(offerOf(first));
    await expectSame('v1', host.layout.release(first.artifactId));
    const { slots } = await host.slots.observe();
    expect(slots[0]?.status).toBe('verified');
  });

  const changes: readonly [string, (staging: string) => Promise<unknown>][] = [
    ['a stray file', (staging) => writeFile(join(staging, 'lib/stray'), 'x')],
    ['a missing file', (staging) => rm(join(staging, 'lib/twin-b'))],
    ['a missing link', (staging) => rm(join(staging, 'lib/program'))],
    [
      'another mode',
      (staging) => promisify(execFile)('chmod', ['4755', join(staging, 'bin/program')]),
    ],
    [
      'another owner',
      (staging) => promisify(execFile)('chown', ['1:1', join(staging, 'bin/program')]),
    ],
    [
      'a file that became a link',
      async (staging) => {
        await rename(join(staging, 'bin/program'), join(staging, 'elsewhere'));
        await symlink('../elsewhere', join(staging, 'bin/program'));
      },
    ],
    [
      'a hard link that became a copy',
      async (staging) => {
        await promisify(execFile)('chmod', ['755', join(staging, 'lib/deep')]);
        const hard = join(staging, 'lib/deep/er/hard');
        const bytes = await readFile(hard);
        await rm(hard);
        await writeFile(hard, bytes);
      },
    ],
  ];
  it.for(changes)(
    'C21 %s in the slot between download and verify: put right before it counts',
    async ([, change]) => {
      const host = await freshHost();
      await host.download(offerOf(first));
      await change(host.layout.staging(first.artifactId));
      await host.verify(offerOf(first));
      await expectSame('v1', host.layout.release(first.artifactId));
      const found = await stat(join(host.layout.release(first.artifactId), 'bin/program'));
      expect(found.mode & 0o7777).toBe(0o755);
    },
  );

  it('F24 the disk changes what is written again and again: E_SLOT after one rewrite, slot bad', async () => {
    const host = await freshHost();
    const offer = offerOf(first);
    await host.download(offer);
    const program = join(host.layout.staging(first.artifactId), 'bin/program');
    await flip(program, 77);
    const never = new AbortController().signal;
    let flips = 0;
    const verify = host.installer.verify(
      offer,
      first.artifactId,
      ({ phase, doneBytes, totalBytes }) => {
        if (phase !== 'download' || doneBytes < totalBytes) return;
        flips += 1;
        flipSync(program, 78);
      },
      never,
    );
    await expect(verify).rejects.toMatchObject({ code: 'E_SLOT' });
    expect(flips).toBeGreaterThan(0);
    const { slots } = await host.slots.observe();
    expect(slots[0]?.status).toBe('bad');
  });

  it('F23 cut after the rename, before the record: read back again, then verified, nothing fetched', async () => {
    const host = await freshHost();
    await host.download(offerOf(first));
    await host.verify(offerOf(first));
    await host.slots.mark(first.artifactId, 'written', null);
    const again = await host.download(offerOf(first, ['http://127.0.0.1:9/gone']));
    expect(again.fetchedBytes).toBe(0);
    await host.verify(offerOf(first, ['http://127.0.0.1:9/gone']));
    const { slots } = await host.slots.observe();
    expect(slots[0]?.status).toBe('verified');
  });

  it('H08 a complete slot that rotted is written anew when it is not in use', async () => {
    const host = await freshHost();
    await host.download(offerOf(first));
    await host.verify(offerOf(first));
    await flip(join(host.layout.release(first.artifactId), 'bin/program'), 5);
    await host.download(offerOf(first));
    await host.verify(offerOf(first));
    await expectSame('v1', host.layout.release(first.artifactId));
  });

  it('H08 a rotted slot that is live or pinned for rollback is never written: E_SLOT', async () => {
    const host = await freshHost();
    await host.install(offerOf(first));
    await host.install(offerOf(second));
    const program = join(host.layout.release(first.artifactId), 'bin/program');
    await flip(program, 5);
    const rotten = await readFile(program);
    await expect(host.verify(offerOf(first))).rejects.toMatchObject({ code: 'E_SLOT' });
    expect(await readFile(program)).toEqual(rotten);
  });
});
