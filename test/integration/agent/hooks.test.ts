import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createExec } from '#/agent/adapters/exec.ts';
import { hostArch, hostFacts } from '#/agent/adapters/host-facts.ts';
import { createHooks } from '#/agent/adapters/hooks.ts';
import { beat } from '#/agent/adapters/heartbeat.ts';
import { identify } from '#/agent/adapters/processes.ts';
import { requestReboot } from '#/agent/adapters/reboot.ts';
import { systemClock } from '#/agent/adapters/clock.ts';
import { defaultSettings } from '#/agent/config.ts';

let base = '';
beforeEach(async () => {
  base = await mkdtemp(join(tmpdir(), 'switchback-hooks-'));
});
afterEach(async () => {
  await rm(base, { recursive: true, force: true });
});
const read = (name: string): Promise<string> => readFile(join(base, name), 'utf8').catch(() => '');
const hooks = (change: Partial<ReturnType<typeof defaultSettings>['hooks']>) =>
  createHooks({ ...defaultSettings().hooks, ...change }, createExec());
const signal = new AbortController().signal;

describe('drain and undrain', () => {
  it('without hooks there is nothing to wait for', async () => {
    await hooks({}).drain(signal);
    await hooks({}).undrain();
  });

  it('F60 exit code 0 is drained; anything else is E_HOOK with code and output', async () => {
    await hooks({ drain: ['/bin/sh', '-c', `echo $SWITCHBACK_HOOK > ${base}/hook`] }).drain(signal);
    expect(await read('hook')).toBe('drain\n');
    await expect(
      hooks({ drain: ['/bin/sh', '-c', 'echo guests still here; exit 9'] }).drain(signal),
    ).rejects.toMatchObject({
      code: 'E_HOOK',
      message: expect.stringContaining('exit code 9: guests still here'),
    });
    await expect(hooks({ undrain: ['/nonexistent'] }).undrain()).rejects.toMatchObject({
      code: 'E_HOOK',
    });
  });

  it('F60 a drain that never ends is ended at its deadline with its children', async () => {
    const script = `sleep 1000 & echo $! > ${base}/child; trap "" TERM; wait; sleep 1000`;
    const drain = hooks({ drain: ['/bin/sh', '-c', script], drainTimeoutMs: 300 }).drain(signal);
    await expect(drain).rejects.toMatchObject({ code: 'E_HOOK', details: { ended: 'timeout' } });
    expect(identify(Number(await read('child')))).toBeNull();
  }, 20_000);

  it('F58 a drain is called off when the pin is taken back', async () => {
    const abort = new AbortController();
    const drain = hooks({
      drain: ['/bin/sh', '-c', `echo up > ${base}/up; exec sleep 1000`],
    }).drain(abort.signal);
    await expect.poll(() => read('up')).toBe('up\n');
    abort.abort();
    await expect(drain).rejects.toMatchObject({ code: 'E_HOOK', details: { ended: 'aborted' } });
  });
});

describe('reboot', () => {
  const program = async (name: string, code: number): Promise<string> => {
    const path = join(base, name);
    await writeFile(path, `#!/bin/sh\necho "${name} $*" >> ${base}/calls\nexit ${code}\n`, {
      mode: 0o755,
    });
    return path;
  };

  it('F33 is asked for in order first, and with force when it did not come', async () => {
    const [systemctl, reboot] = [await program('systemctl', 0), await program('reboot', 0)];
    await requestReboot(createExec(), { force: false, systemctl, reboot });
    await requestReboot(createExec(), { force: true, systemctl, reboot });
    expect(await read('calls')).toBe('systemctl --no-block reboot\nsystemctl reboot --force\n');
  });

  it('F33 a host whose systemd does not answer is asked by other means; nobody at all is E_ACTIVATION', async () => {
    const systemctl = await program('systemctl', 1);
    await requestReboot(createExec(), {
      force: true,
      systemctl,
      reboot: await program('reboot', 0),
    });
    expect(await read('calls')).toBe('systemctl reboot --force\nreboot -f\n');
    const reboot = await program('reboot', 1);
    await expect(
      requestReboot(createExec(), { force: false, systemctl, reboot }),
    ).rejects.toMatchObject({
      code: 'E_ACTIVATION',
      message: expect.stringContaining('exit code 1'),
    });
  });
});

describe('heartbeat', () => {
  it('changes while the agent lives, and a directory that cannot be written does not end it', async () => {
    const abort = new AbortController();
    const failures: unknown[] = [];
    const options = {
      clock: systemClock(),
      intervalMs: 20,
      signal: abort.signal,
      onFailure: (error: unknown) => failures.push(error),
    };
    const beats = [
      beat({ ...options, runDirectory: base }),
      beat({ ...options, runDirectory: join(base, 'missing') }),
    ];
    await expect.poll(() => read('heartbeat')).toMatch(/^[0-9a-f-]{36} \d+ \d+\n$/);
    const first = await read('heartbeat');
    await expect.poll(() => read('heartbeat')).not.toBe(first);
    await expect.poll(() => failures.length).toBeGreaterThan(1);
    abort.abort();
    await Promise.all(beats);
  });
});

describe('facts of the host', () => {
  it('F62 carry what tells clones apart, are short, and fit the schema', async () => {
    const facts = await hostFacts({
      bootId: 'aaaa-bbbb',
      machine: 'cd'.repeat(32),
      slotsRoot: base,
    });
    expect(facts).toMatchObject({
      boot: 'aaaabbbb',
      machine: 'cd'.repeat(8),
      node: process.version,
    });
    expect(Number(facts['memoryBytes'])).toBeGreaterThan(0);
    expect(Number(facts['diskBytes'])).toBeGreaterThan(0);
    for (const value of Object.values(facts)) expect(String(value).length).toBeLessThanOrEqual(256);
  }, 30_000);

  it('an architecture without artifacts is told as such', () => {
    expect([hostArch('x64'), hostArch('arm64'), hostArch('riscv64')]).toEqual([
      'amd64',
      'arm64',
      null,
    ]);
  });
});
