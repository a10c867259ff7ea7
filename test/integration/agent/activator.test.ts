import { lutimesSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, symlink, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { activationFor, createActivator, type HostActivator } from '#/agent/adapters/activator.ts';
import { versionOfUnit, type UnitEvidence } from '#/agent/adapters/activator-units.ts';
import { createExec } from '#/agent/adapters/exec.ts';
import { nodeFiles } from '#/agent/adapters/file-port.ts';
import { identify } from '#/agent/adapters/processes.ts';
import type { SupervisorEvent } from '#/agent/adapters/supervisor.ts';
import { settingsFrom } from '#/agent/config.ts';
import type { Activation, Manifest } from '#/bundle/manifest.ts';
import type { ArtifactId } from '#/protocol/ids.ts';

const [A, B] = ['a', 'b'].map((digit) => digit.repeat(64) as ArtifactId) as [
  ArtifactId,
  ArtifactId,
];
let base = '';
let events: SupervisorEvent[] = [];
let activators: HostActivator[] = [];
let activations: Record<string, Activation> = {};
let live: ArtifactId | null = null;

beforeEach(async () => {
  base = await mkdtemp(join(tmpdir(), 'switchback-activator-'));
  for (const slot of [A, B]) await mkdir(join(base, 'releases', slot), { recursive: true });
  await mkdir(join(base, 'state'));
  [events, activators, activations, live] = [[], [], {}, null];
});
afterEach(async () => {
  for (const one of activators) await one.deactivate().catch(() => undefined);
  await rm(base, { recursive: true, force: true });
});

/** Only the activation of a manifest matters here. */
const manifestOf = (slot: string): Manifest => ({ activation: activations[slot] }) as Manifest;

function activator(toml = '', bootId = 'boot-1'): HostActivator {
  const one = createActivator({
    settings: settingsFrom([{ file: 'test', text: toml }]).settings.activation,
    runDirectory: join(base, 'run'),
    stateDirectory: join(base, 'state'),
    slotPath: (slot) => join(base, 'releases', slot),
    currentLink: join(base, 'current'),
    configPath: () => null,
    live: () =>
      Promise.resolve(
        live === null ? null : { slot: live, artifactId: live, manifest: manifestOf(live) },
      ),
    exec: createExec(),
    files: nodeFiles(),
    heartbeatLostMs: 60_000,
    bootId,
    onEvent: (event) => events.push(event),
    systemctl: join(base, 'systemctl'),
    rebootWaitMs: 20,
  });
  activators.push(one);
  return one;
}
async function switchTo(slot: ArtifactId): Promise<void> {
  await unlink(join(base, 'current')).catch(() => undefined);
  await symlink(`releases/${slot}`, join(base, 'current'));
  live = slot;
}
const activate = async (one: HostActivator, slot: ArtifactId): Promise<void> => {
  await switchTo(slot);
  await one.activate(slot, slot, manifestOf(slot));
};
const read = (name: string): Promise<string> => readFile(join(base, name), 'utf8').catch(() => '');
const guardFile = (slot: string): Promise<string> => read(`state/guard/start.${slot}`);

async function program(slot: ArtifactId): Promise<Activation> {
  const path = join(base, 'releases', slot, 'serve');
  await writeFile(path, '#!/bin/sh\nexec sleep 1000\n', { mode: 0o755 });
  return { kind: 'process', argv: ['{slot}/serve', '--root', '{slot}'], stopTimeoutMs: 1000 };
}

describe('process', () => {
  it('runs the version in its slot, and says which one runs', async () => {
    activations = { [A]: await program(A), [B]: await program(B) };
    const one = activator();
    expect(await one.observe()).toBeNull();
    await activate(one, A);
    expect(await one.observe()).toBe(A);
    await activate(one, B);
    expect(await one.observe()).toBe(B);
    await one.deactivate();
    expect(await one.observe()).toBeNull();
  });

  it('an activation that is asked for again changes nothing', async () => {
    activations = { [A]: await program(A) };
    const one = activator();
    await activate(one, A);
    await one.activate(A, A, manifestOf(A));
    expect(events.map((event) => event.event)).toEqual(['started', 'adopted']);
  });

  it('the link is switched and the restart did not come: the old version is what runs', async () => {
    activations = { [A]: await program(A), [B]: await program(B) };
    const one = activator();
    await activate(one, A);
    await switchTo(B);
    expect(await one.observe()).toBe(A);
  });

  it('F50 the next agent looks after what runs as soon as it has looked', async () => {
    activations = { [A]: await program(A) };
    const first = activator();
    await activate(first, A);
    await first.close();
    const next = activator();
    expect(await next.observe()).toBe(A);
    const adopted = events.find((event) => event.event === 'adopted');
    process.kill((adopted as { pid: number }).pid, 'SIGKILL');
    await expect
      .poll(() => events.filter((event) => event.event === 'started').length, { timeout: 5000 })
      .toBe(2);
  });

  it('after a reboot nothing runs until the agent starts what is live', async () => {
    activations = { [A]: await program(A) };
    live = A;
    const one = activator();
    expect(await one.observe()).toBeNull();
    await one.resume();
    expect(await one.observe()).toBe(A);
  });

  it('stop_with_agent stops the service with the agent', async () => {
    activations = { [A]: await program(A) };
    const one = activator('[activation]\nstop_with_agent = true\n');
    await activate(one, A);
    const { pid } = events[0] as { pid: number };
    await one.close();
    expect(identify(pid)).toBeNull();
  });

  it('the guard knows how to start it before it runs for the first time', async () => {
    activations = { [A]: { kind: 'process', argv: [join(base, 'missing')], stopTimeoutMs: 1000 } };
    const one = activator();
    await expect(activate(one, A)).rejects.toMatchObject({ code: 'E_ACTIVATION' });
    expect(await guardFile(A)).toContain(`start=${join(base, 'missing')}\n`);
    expect(await read('state/guard/settings')).toContain(`root=${base}\n`);
  });

  it('what the guard knows of versions that are gone is removed', async () => {
    activations = { [A]: await program(A), [B]: await program(B) };
    const one = activator();
    await activate(one, A);
    await rm(join(base, 'releases', A), { recursive: true });
    await activate(one, B);
    expect(await guardFile(A)).toBe('');
    expect(await guardFile(B)).toContain('kind=process\n');
  });

  it('an account that does not exist is E_ACTIVATION with its name', async () => {
    activations = { [A]: await program(A) };
    const one = activator('[activation]\nuser = "nobody-of-this-name"\n');
    await expect(activate(one, A)).rejects.toMatchObject({ code: 'E_ACTIVATION' });
  });

  it('another account than root runs the service', async () => {
    activations = {
      [A]: {
        kind: 'process',
        argv: ['/bin/sh', '-c', `id -un > ${base}/who; sleep 1000`],
        stopTimeoutMs: 500,
      },
    };
    const { chmod } = await import('node:fs/promises');
    await chmod(base, 0o777);
    const one = activator('[activation]\nuser = "nobody"\n');
    await activate(one, A);
    await expect.poll(() => read('who')).toBe('nobody\n');
  });
});

describe('command', () => {
  const command = (fails = ''): Activation => ({
    kind: 'command',
    start: [
      '/bin/sh',
      '-c',
      `echo start "$1" >> ${base}/calls; sleep 1000 >/dev/null 2>&1 & ${fails} exit 0`,
      'sh',
      '{slot}',
    ],
    stop: ['/bin/sh', '-c', `echo stop "$1" >> ${base}/calls`, 'sh', '{slot}'],
    timeoutMs: 5_000,
  });

  it('stops the version before, starts the new one, and leaves what it started running', async () => {
    activations = { [A]: command(), [B]: command() };
    const one = activator();
    await activate(one, A);
    expect(await one.observe()).toBe(A);
    await rm(join(base, 'calls'));
    await activate(one, B);
    expect(await read('calls')).toBe(`stop ${base}/releases/${A}\nstart ${base}/releases/${B}\n`);
    expect(await one.observe()).toMatch(/^(?:b{64}|mixed)$/);
    const { findByEnvironment, signalProcess } = await import('#/agent/adapters/processes.ts');
    for (const left of findByEnvironment('SWITCHBACK_COMMAND_OF', join(base, 'run')))
      signalProcess(left, 'SIGKILL');
  });

  it('F52 a start that fails is loud, with code and output', async () => {
    activations = {
      [A]: {
        kind: 'command',
        start: ['/bin/sh', '-c', 'echo no such database >&2; exit 4'],
        timeoutMs: 5000,
      },
    };
    await expect(activate(activator(), A)).rejects.toMatchObject({
      code: 'E_ACTIVATION',
      message: expect.stringContaining('exit code 4: no such database'),
    });
  });

  it('F43 a start that hangs is ended at its limit', async () => {
    activations = { [A]: { kind: 'command', start: ['/bin/sleep', '1000'], timeoutMs: 200 } };
    await expect(activate(activator(), A)).rejects.toMatchObject({
      code: 'E_ACTIVATION',
      message: expect.stringContaining('killed after'),
    });
  });

  it('what was started in another boot does not run any more', async () => {
    activations = { [A]: { kind: 'command', start: ['/bin/true'], timeoutMs: 5000 } };
    await activate(activator(), A);
    expect(await activator().observe()).toBe(A);
    expect(await activator('', 'boot-2').observe()).toBeNull();
  });

  it('F32 after a power cut the next agent starts what is live, once', async () => {
    const start = ['/bin/sh', '-c', `echo start >> ${base}/calls`];
    activations = { [A]: { kind: 'command', start, timeoutMs: 5000 } };
    await switchTo(A);
    const one = activator('', 'boot-2');
    await one.resume();
    await one.resume();
    expect(await read('calls')).toBe('start\n');
    expect(await one.observe()).toBe(A);
  });
});

describe('units', () => {
  /** A stand-in for systemctl whose units have the states of a file; test/e2e has a real systemd. */
  const systemd = async (show: string): Promise<void> => {
    await writeFile(join(base, 'show'), show);
    await writeFile(
      join(base, 'systemctl'),
      `#!/bin/sh\necho "$*" >> ${base}/calls\ncase $1 in show) cat ${base}/show;; restart) exit \${FAIL:-0};; esac\n`,
      { mode: 0o755 },
    );
  };
  const active = (invocation = 'i1', more = ''): string =>
    `LoadState=loaded\nActiveState=active\nSubState=running\nMainPID=0\nInvocationID=${invocation}\n${more}`;

  it('restarts the units in one order, stops those that the new version has no more', async () => {
    activations = {
      [A]: { kind: 'units', units: ['web.service', 'old.service'] },
      [B]: { kind: 'units', units: ['web.service'] },
    };
    await systemd(`${active()}\n${active()}`);
    const one = activator();
    await activate(one, A);
    await rm(join(base, 'calls'));
    await systemd(active('i2'));
    await activate(one, B);
    const calls = (await read('calls')).split('\n').filter((line) => !line.startsWith('show'));
    expect(calls).toEqual(['stop -- old.service', 'restart -- web.service', '']);
    expect(await one.observe()).toBe(B);
    expect(await guardFile(B)).toBe('switchback-start/1\nkind=units\nunit=web.service\n');
  });

  it('F52 a unit that is not up after its restart is loud', async () => {
    activations = { [A]: { kind: 'units', units: ['web.service'] } };
    await systemd(
      'LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=exit-code\nMainPID=0\n',
    );
    await expect(activate(activator(), A)).rejects.toMatchObject({
      code: 'E_ACTIVATION',
      message: 'unit web.service is failed (failed, exit-code) after restart',
    });
  });

  it('F52 a unit that runs another version after its restart is loud', async () => {
    activations = { [A]: await program(A), [B]: { kind: 'units', units: ['web.service'] } };
    const other = activator();
    await activate(other, A);
    const { pid } = events[0] as { pid: number };
    await systemd(active('i1').replace('MainPID=0', `MainPID=${pid}`));
    live = B;
    const units = createActivator({
      settings: settingsFrom([]).settings.activation,
      runDirectory: join(base, 'run2'),
      stateDirectory: join(base, 'state'),
      slotPath: (slot) => join(base, 'releases', slot),
      currentLink: join(base, 'current'),
      configPath: () => null,
      live: () => Promise.resolve(null),
      exec: createExec(),
      files: nodeFiles(),
      heartbeatLostMs: 1000,
      bootId: 'boot-1',
      onEvent: () => undefined,
      systemctl: join(base, 'systemctl'),
    });
    await expect(units.activate(B, B, manifestOf(B))).rejects.toMatchObject({
      code: 'E_ACTIVATION',
      message: `unit web.service runs ${A} after restart, not ${B}`,
    });
  });

  it('F32 after a power cut the next agent starts units that the boot did not start', async () => {
    activations = { [A]: { kind: 'units', units: ['web.service'] } };
    await switchTo(A);
    const one = activator('', 'boot-2');
    await systemd(
      'LoadState=loaded\nActiveState=inactive\nSubState=dead\nMainPID=0\nInvocationID=\n',
    );
    // The stand-in does not bring them up: that is loud, as at a switch.
    await expect(one.resume()).rejects.toMatchObject({ code: 'E_ACTIVATION' });
    expect(await read('calls')).toContain('restart -- web.service');
    await rm(join(base, 'calls'));
    const later = Math.ceil(Date.now() / 1000) + 60;
    await systemd(
      active('i2', `ExecMainStartTimestamp=@${later}\nActiveEnterTimestamp=@${later}\n`),
    );
    await one.resume();
    expect(await read('calls')).not.toContain('restart');
  });

  it('the link was switched and the units were not restarted: the old version runs', async () => {
    activations = {
      [A]: { kind: 'units', units: ['web.service'] },
      [B]: { kind: 'units', units: ['web.service'] },
    };
    await systemd(active('i1'));
    const one = activator();
    await activate(one, A);
    await switchTo(B);
    expect(await one.observe()).toBe(A);
  });

  it('one of two units down is no version running mixed: what runs decides', async () => {
    activations = { [A]: { kind: 'units', units: ['a.service', 'b.service'] } };
    await systemd(`${active()}\n${active()}`);
    const one = activator();
    await activate(one, A);
    await systemd(`${active()}\nLoadState=loaded\nActiveState=inactive\nMainPID=0\n`);
    expect(await one.observe()).toBe(A);
    await systemd(
      'LoadState=loaded\nActiveState=inactive\n\nLoadState=loaded\nActiveState=failed\n',
    );
    expect(await one.observe()).toBeNull();
  });

  const evidence = (change: Partial<UnitEvidence>): UnitEvidence => ({
    state: { unit: 'u', activeState: 'active', invocation: 'i1', startedAtS: 100 },
    pathArtifact: null,
    live: B,
    linkedAtS: 200,
    before: null,
    ...change,
  });
  it.each([
    [
      'the path of its process says it',
      { pathArtifact: A, before: { artifactId: B, invocations: {} } },
      A,
    ],
    ['started by us for the live version', { before: { artifactId: B, invocations: {} } }, B],
    [
      'started by us before the link was switched',
      { before: { artifactId: A, invocations: { u: 'i1' } } },
      A,
    ],
    ['started before the link was made, nobody knows by whom', {}, 'unknown'],
    ['started after the link was made', { linkedAtS: 50 }, B],
    ['started in the second in which the link was made', { linkedAtS: 100.5 }, 'unknown'],
    [
      'restarted by systemd since, before the link was switched',
      { before: { artifactId: A, invocations: { u: 'i0' } } },
      'unknown',
    ],
    [
      'down',
      { state: { unit: 'u', activeState: 'failed', invocation: '', startedAtS: null } },
      null,
    ],
  ] as const)('version of a unit: %s', (_what, change, expected) => {
    expect(versionOfUnit(evidence(change as Partial<UnitEvidence>))).toBe(expected);
  });

  it('a unit that was started after the link counts as the live version without any record', async () => {
    activations = { [A]: { kind: 'units', units: ['web.service'] } };
    await switchTo(A);
    lutimesSync(join(base, 'current'), 1000, 1000);
    await systemd(active('i1', 'ExecMainStartTimestamp=@5000\n'));
    expect(await activator().observe()).toBe(A);
    await systemd(active('i1', 'ExecMainStartTimestamp=@900\n'));
    expect(await activator().observe()).toBe('mixed');
  });
});

describe('reboot', () => {
  it('F33 a version that a reboot starts: asked for, then forced, then a loud failure; the old one runs until then', async () => {
    activations = { [A]: { kind: 'reboot' }, [B]: { kind: 'reboot' } };
    await writeFile(join(base, 'systemctl'), `#!/bin/sh\necho "$*" >> ${base}/calls\n`, {
      mode: 0o755,
    });
    const one = activator();
    await switchTo(A);
    expect(await one.observe()).toBe(A);
    await expect(activate(one, B)).rejects.toMatchObject({ code: 'E_ACTIVATION' });
    expect(await read('calls')).toBe('--no-block reboot\nreboot --force\n');
    expect(await one.observe()).toBe(A);
    // After the reboot there is no record of this boot: it came up from what is live.
    const next = activator('', 'boot-2');
    expect(await next.observe()).toBe(B);
    await next.activate(B, B, manifestOf(B));
    expect((await read('calls')).split('\n')).toHaveLength(3);
  });
});

describe('the way of the host', () => {
  it('goes before that of the manifest', () => {
    const settings = (toml: string) =>
      settingsFrom([{ file: 't', text: `[activation]\n${toml}` }]).settings.activation;
    const manifest: Activation = { kind: 'units', units: ['a.service'] };
    expect(activationFor(settings(''), manifest)).toBe(manifest);
    expect(activationFor(settings('kind = "none"'), manifest)).toEqual({ kind: 'none' });
    expect(activationFor(settings('kind = "units"\nunits = ["b.service"]'), manifest)).toEqual({
      kind: 'units',
      units: ['b.service'],
    });
    expect(
      activationFor(settings('kind = "process"\nstart = ["{slot}/x"]\ntimeout_ms = 500'), manifest),
    ).toEqual({
      kind: 'process',
      argv: ['{slot}/x'],
      stopTimeoutMs: 500,
    });
    expect(
      activationFor(settings('kind = "command"\nstart = ["x"]\nstop = ["y"]'), manifest),
    ).toMatchObject({ kind: 'command', start: ['x'], stop: ['y'] });
  });

  it('a version of another way than the one before: the one before is stopped first', async () => {
    activations = { [A]: await program(A), [B]: { kind: 'none' } };
    const one = activator();
    await activate(one, A);
    const { pid } = events[0] as { pid: number };
    await activate(one, B);
    expect(identify(pid)).toBeNull();
    expect(await one.observe()).toBe(B);
  });
});
