/**
 * The guard of a host with two root partitions: another command line of the kernel and other programs, in a mount namespace of its
 * own. ORDER is a file, the ESP a directory.
 */
import { execFile, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { BackendKind, PartitionSlot } from '#/agent/adapters/boot/backend.ts';
import { initialOrder, type Order, orderWrites, readOrder } from '#/agent/adapters/boot/order.ts';
import { nodeFiles } from '#/agent/adapters/file-port.ts';
import { guardFiles } from '#/agent/adapters/guard-files.ts';
import { uptimeMs } from '#/agent/adapters/heartbeat.ts';
import { decodeTicket, encodeTicket } from '#/agent/adapters/ticket.ts';
import type { Ticket } from '#/agent/core/ticket.ts';
import type { ArtifactId } from '#/protocol/ids.ts';
import { partUuids } from '#/test/support/boot/grub-disk.ts';

const GUARD = join(import.meta.dirname, '../../../packaging/guard/switchback-guard');
const BOOT = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
const LOST_MS = 60_000;
const canUnshare =
  process.getuid?.() === 0 &&
  spawnSync('unshare', ['-m', 'true'], { stdio: 'ignore' }).status === 0;
const shells = [['dash'], ['busybox', 'sh']].filter(
  ([program = '']) => spawnSync('sh', ['-c', `command -v ${program}`]).status === 0,
);

let base = '';
const at = (name: string): string => join(base, name);

beforeEach(async () => {
  base = await mkdtemp(join(tmpdir(), 'switchback-guard-'));
  for (const name of ['state', 'run', 'bin', 'esp/loader/entries'])
    mkdirSync(at(name), { recursive: true });
  for (const name of ['systemctl', 'reboot', 'efibootmgr', 'fw_setenv', 'loader'])
    await program(name, '');
});
afterEach(async () => {
  await rm(base, { recursive: true, force: true });
});

/** A program that leaves a line for its call, and does `more`. */
async function program(name: string, more: string): Promise<void> {
  const path = at(`bin/${name}`);
  writeFileSync(path, `#!/bin/sh\necho "${name} $*" >>"${at('calls')}"\n${more}\n`);
  await chmod(path, 0o755);
}
const calls = (): readonly string[] =>
  existsSync(at('calls')) ? readFileSync(at('calls'), 'utf8').trim().split('\n') : [];

function ticket(change: Partial<Ticket>): Ticket {
  return {
    schema: 'switchback.ticket/1',
    attempt: 'c'.repeat(32),
    kind: 'install',
    rolloutId: null,
    artifactId: 'b'.repeat(64) as ArtifactId,
    version: '2.0',
    class: 'vm',
    release: 2,
    retryGeneration: 0,
    targetSlot: 'b',
    targetIdentity: partUuids.b,
    rollbackSlot: 'a',
    rollbackArtifact: 'a'.repeat(64) as ArtifactId,
    state: 'open',
    reason: null,
    maxBoots: 2,
    bootsUsed: 0,
    armBootId: 'another-boot',
    lastBootId: 'another-boot',
    deadlineRunMs: 1_000_000,
    clock: {
      runMs: 100_000,
      bootId: BOOT,
      monotonicMs: Number(process.hrtime.bigint() / 1_000_000n),
    },
    plan: {
      ...{ soakMs: 1, deadlineMs: 900_000, maxBoots: 2 },
      control: 'offline-ok',
      oneWay: false,
      checks: [],
    },
    baselinePassed: [],
    ...change,
  };
}
const found = (): Ticket | null => decodeTicket(readFileSync(at('state/ticket')));

async function onTrial(backend: BackendKind, change: Partial<Ticket> = {}): Promise<void> {
  await guardFiles({
    files: nodeFiles(),
    stateDirectory: at('state'),
    runDirectory: at('run'),
    slotsRoot: '/',
    heartbeatLostMs: LOST_MS,
    slotPath: () => '/',
    partitions: () =>
      Promise.resolve([
        ...([
          ['mode', 'partition'],
          ['backend', backend],
        ] as const),
        ...([
          ['slot_a', partUuids.a],
          ['slot_b', partUuids.b],
        ] as const),
        ...([
          ['env', at('env')],
          ['esp', at('esp')],
          ['program', at('bin/loader')],
        ] as const),
      ]),
  }).settle();
  writeFileSync(at('state/ticket'), encodeTicket(ticket(change)));
}
/** The guard has watched the same heartbeat for so long. */
function watched(staleMs: number): void {
  const text = `boot=${BOOT}\nbeat=\nat=${uptimeMs()}\nstale=${staleMs}\n`;
  writeFileSync(at('run/guard-watch'), text);
}

/** One look of the guard on a host that runs `slot`. */
async function guard(
  phase: 'boot' | 'round',
  slot: PartitionSlot | 'other',
  shell: readonly string[] = ['dash'],
): Promise<{ readonly code: number; readonly stderr: string }> {
  const root = slot === 'other' ? '99999999-9999-4999-8999-999999999999' : partUuids[slot];
  writeFileSync(
    at('cmdline'),
    `BOOT_IMAGE=/boot/vmlinuz root=PARTUUID=${root.toUpperCase()} ro quiet panic=5\n`,
  );
  const script = `mount --bind "${at('cmdline')}" /proc/cmdline && mount --bind "${at('bin')}" /usr/local/bin &&
    exec "$@"`;
  const argv = ['-m', '--propagation', 'private', 'sh', '-c', script, 'sh', ...shell];
  try {
    const { stderr } = await promisify(execFile)('unshare', [...argv, GUARD, phase, at('state')]);
    return { code: 0, stderr };
  } catch (error) {
    const { code, stderr } = error as { code: number; stderr: string };
    return { code, stderr };
  }
}

/** An ORDER on which slot b is on trial, `writes` writes after the first. */
function trialOrder(writes: number): Uint8Array {
  const region = initialOrder('a', 'console=ttyS0 panic=5');
  for (let write = 0; write < writes; write += 1) {
    const { found: before } = readOrder(region);
    const order: Order = {
      ...{ default: 'a', trial: 'b', tries: 2, arm: 100000002, bad: null },
      arguments: { a: 'console=ttyS0 panic=5', b: `x=${'y'.repeat(write * 50)}` },
    };
    for (const { position, bytes } of orderWrites(before, order)) region.set(bytes, position);
  }
  return region;
}
/** The same order with the trial taken back, as the agent writes it. */
function takenBack(region: Uint8Array): Uint8Array {
  const after = new Uint8Array(region);
  const { found: before } = readOrder(region);
  if (before === null) throw new Error('an order');
  const order: Order = { ...before.order, default: 'a', trial: null, tries: 0, arm: 0, bad: 'b' };
  for (const { position, bytes } of orderWrites(before, order)) after.set(bytes, position);
  return after;
}
const env = (): Uint8Array => new Uint8Array(readFileSync(at('env')));
const writeEnv = (region: Uint8Array): void =>
  writeFileSync(at('env'), Buffer.concat([region, Buffer.alloc(8192)]));

describe.skipIf(!canUnshare)('guard: two partitions', () => {
  it('F39 the agent of the target never lives and nobody takes it back', async () => {
    await onTrial('grub');
    writeEnv(trialOrder(1));
    expect(await guard('boot', 'b')).toMatchObject({ code: 0 });
    expect(found()).toMatchObject({ state: 'open', bootsUsed: 1, lastBootId: BOOT });
    expect(calls()).toEqual([]);
    expect(await guard('boot', 'b')).toMatchObject({ code: 0 });
    expect(found()?.bootsUsed).toBe(1);
    watched(LOST_MS);
    const { code, stderr } = await guard('round', 'b');
    expect([code, stderr]).toEqual([0, expect.stringContaining('no sign of life')]);
    expect(found()).toMatchObject({ state: 'rolling-back', reason: { code: 'E_DEADLINE' } });
    expect(readOrder(env()).found?.order).toMatchObject({ default: 'a', trial: null, bad: 'b' });
    expect(calls()).toEqual(['systemctl --no-block reboot']);
  });

  it('F41 trial boots are used up and the target stays', async () => {
    await onTrial('grub', { bootsUsed: 2 });
    writeEnv(trialOrder(1));
    expect((await guard('boot', 'b')).code).toBe(0);
    expect(found()).toMatchObject({
      state: 'rolling-back',
      reason: { code: 'E_TRIAL_BOOTS' },
      bootsUsed: 3,
    });
    expect(readOrder(env()).found?.order).toMatchObject({ default: 'a', bad: 'b' });
    // Early in a boot nothing is running yet that would have to be stopped in order.
    expect(calls()).toEqual(['systemctl reboot --force']);
  });

  it('the deadline passes without an agent', async () => {
    await onTrial('grub', { deadlineRunMs: 100_000 });
    writeEnv(trialOrder(1));
    expect((await guard('round', 'b')).code).toBe(0);
    expect(found()).toMatchObject({ state: 'rolling-back', reason: { code: 'E_DEADLINE' } });
    expect(calls()).toEqual(['systemctl --no-block reboot']);
  });

  it.each([
    ['the former slot runs', 'a', {}],
    ['F35 a third root runs', 'other', { bootsUsed: 9 }],
    ['it is committed', 'b', { state: 'committed', bootsUsed: 9 }],
    ['F53 it is one-way', 'b', { bootsUsed: 9, plan: { ...ticket({}).plan, oneWay: true } }],
  ] as const)('something is done although %s', async (_, slot, change) => {
    await onTrial('grub', change);
    const region = trialOrder(1);
    writeEnv(region);
    watched(LOST_MS);
    expect(await guard('boot', slot)).toMatchObject({ code: 0 });
    expect(await guard('round', slot)).toMatchObject({ code: 0 });
    expect(env().subarray(0, 8192)).toEqual(region);
    expect(calls()).toEqual([]);
  });

  it.each(shells)(
    'ORDER by %s is not the one that the agent writes, byte for byte',
    async (...shell) => {
      for (const writes of [1, 2, 3, 4]) {
        await onTrial('grub', { bootsUsed: 2 });
        const region = trialOrder(writes);
        writeEnv(region);
        expect(await guard('boot', 'b', shell)).toMatchObject({ code: 0 });
        expect(env().subarray(0, 8192)).toEqual(takenBack(region));
        // Once more: it stands there already.
        expect(await guard('boot', 'b', shell)).toMatchObject({ code: 0 });
        expect(env().subarray(0, 8192)).toEqual(takenBack(region));
      }
    },
  );

  it('F32 ORDER with one torn copy, with none, or with two loses the way back', async () => {
    const whole = trialOrder(2);
    const torn = (position: number): Uint8Array =>
      new Uint8Array(whole).fill(0x23, position + 512, position + 1024);
    for (const region of [
      torn(0),
      torn(4096),
      new Uint8Array(8192),
      new Uint8Array(8192).fill(0xff),
    ]) {
      await onTrial('grub', { bootsUsed: 2 });
      writeEnv(region);
      expect(await guard('boot', 'b')).toMatchObject({ code: 0 });
      const { found: order } = readOrder(env());
      expect(order?.order).toMatchObject({ default: 'a', trial: null, bad: 'b' });
      const isLost = readOrder(region).found === null;
      expect(order?.order.arguments.a).toBe(isLost ? 'quiet panic=5' : 'console=ttyS0 panic=5');
    }
  });

  it('systemd-boot: an entry of the target stays, or the good one goes', async () => {
    const entries = at('esp/loader/entries');
    const good = 'switchback-a-aaaaaaaaaaaa-1.conf';
    const write = (): void => {
      for (const name of [good, 'switchback-b-bbbbbbbbbbbb-2+1-1.conf', 'other.conf'])
        writeFileSync(join(entries, name), 'linux /x\n');
    };
    await onTrial('systemd-boot', { bootsUsed: 2 });
    write();
    expect(await guard('boot', 'b')).toMatchObject({ code: 0 });
    expect(readdirSync(entries).toSorted()).toEqual(['other.conf', good]);
    expect(calls()).toEqual(['systemctl reboot --force']);
    // Without a good entry nothing is removed: the counted one is all there is.
    write();
    await rm(join(entries, good));
    expect(await guard('round', 'b')).toMatchObject({ code: 1 });
    expect(readdirSync(entries)).toContain('switchback-b-bbbbbbbbbbbb-2+1-1.conf');
  });

  it('EFI, U-Boot and a program are not told', async () => {
    await program(
      'efibootmgr',
      'echo "BootOrder: 0001,0002"; echo "Boot0001* switchback-a"; printf "Boot0002* switchback-b\\tHD(2)\\n"',
    );
    await program('fw_setenv', `cat >>"${at('calls')}"`);
    const told: Record<string, readonly string[]> = {
      efi: ['efibootmgr ', 'efibootmgr -q -b 0002 -B'],
      uboot: [
        'fw_setenv -s -',
        ...[
          'switchback_default=a',
          'switchback_trial=none',
          'switchback_left=0',
          'switchback_bad=b',
        ],
      ],
      custom: ['loader set-default a', 'loader set-bad b'],
    };
    for (const backend of ['efi', 'uboot', 'custom'] as const) {
      writeFileSync(at('calls'), '');
      await onTrial(backend, { bootsUsed: 2 });
      expect(await guard('boot', 'b')).toMatchObject({ code: 0 });
      expect(calls().map((line) => line.trim())).toEqual(
        [...(told[backend] ?? []), 'systemctl reboot --force'].map((line) => line.trim()),
      );
    }
  });

  it('P14 a boot loader that cannot be told holds the way back up for ever', async () => {
    await program('loader', 'exit 1');
    await onTrial('custom', { bootsUsed: 3 });
    for (const code of [1, 1, 0]) expect((await guard('round', 'b')).code).toBe(code);
    expect(calls().filter((line) => line.startsWith('systemctl'))).toEqual([
      'systemctl --no-block reboot',
    ]);
  });

  it('F33 a host that does not reboot is not asked harder', async () => {
    await onTrial('grub', { bootsUsed: 3 });
    writeEnv(trialOrder(1));
    expect((await guard('round', 'b')).code).toBe(0);
    writeFileSync(at('run/guard-reboot'), `at=${uptimeMs() - 130_000}\n`);
    expect((await guard('round', 'b')).code).toBe(0);
    expect(calls()).toEqual(['systemctl --no-block reboot', 'systemctl reboot --force']);
  });

  it('shellcheck has something to say', () => {
    const names = ['switchback-guard', 'guard-directory', 'guard-partition'];
    const { stdout, error } = spawnSync('shellcheck', ['-x', ...names], {
      cwd: join(GUARD, '..'),
      encoding: 'utf8',
    });
    if (error === undefined) expect(stdout).toBe('');
    for (const name of names)
      expect(readFileSync(join(GUARD, '..', name), 'utf8').split('\n').length).toBeLessThan(200);
  });
});
