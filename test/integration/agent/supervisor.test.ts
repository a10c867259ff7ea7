import { execFileSync, spawn } from 'node:child_process';
import { appendFile, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  createSupervisor,
  type Program,
  type Supervisor,
  type SupervisorEvent,
} from '#/agent/adapters/supervisor.ts';
import { identify } from '#/agent/adapters/processes.ts';
import type { ArtifactId } from '#/protocol/ids.ts';

const idOf = (digit: string): ArtifactId => digit.repeat(64) as ArtifactId;
let directory = '';
let supervisors: Supervisor[] = [];
let events: SupervisorEvent[] = [];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'switchback-supervisor-'));
  supervisors = [];
  events = [];
});
afterEach(async () => {
  for (const one of supervisors) await one.stop();
  await rm(directory, { recursive: true, force: true });
});

function supervisor(options: Partial<Parameters<typeof createSupervisor>[0]> = {}): Supervisor {
  const one = createSupervisor({
    runDirectory: join(directory, 'run'),
    logFile: join(directory, 'log', 'service.log'),
    logMaxBytes: 64 * 1024,
    restartMaxDelayMs: 400,
    onEvent: (event) => events.push(event),
    ...options,
  });
  supervisors.push(one);
  return one;
}

/** A service that says its name and pid, then runs `rest`. */
async function version(digit: string, rest = 'exec sleep 1000'): Promise<Program> {
  const cwd = join(directory, 'releases', idOf(digit));
  await mkdir(cwd, { recursive: true });
  await writeFile(
    join(cwd, 'service'),
    `#!/bin/sh\necho $$ >> ${directory}/pids-${digit}\necho version ${digit}\n${rest}\n`,
    { mode: 0o755 },
  );
  return {
    slot: idOf(digit),
    artifactId: idOf(digit),
    argv: [join(cwd, 'service')],
    cwd,
    environment: { GREETING: 'hello' },
    stopTimeoutMs: 2_000,
    uid: null,
    gid: null,
  };
}

async function until(what: string, holds: () => Promise<boolean> | boolean): Promise<void> {
  for (let tries = 0; tries < 1000; tries += 1) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`never: ${what}`);
}
async function pids(digit: string): Promise<readonly number[]> {
  const text = await readFile(join(directory, `pids-${digit}`), 'utf8').catch(() => '');
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map(Number);
}
async function firstPid(digit: string, count = 1): Promise<number> {
  await until(`start ${count} of ${digit}`, async () => (await pids(digit)).length >= count);
  return (await pids(digit))[count - 1]!;
}

describe('supervisor', () => {
  it('the old version is gone and the new one runs when the switch returns', async () => {
    const one = supervisor();
    await one.replaceWith(await version('a'));
    const old = await firstPid('a');
    expect(one.running()).toEqual([idOf('a')]);
    await one.replaceWith(await version('b'));
    expect(identify(old)).toBeNull();
    expect(one.running()).toEqual([idOf('b')]);
    expect(events.map((event) => event.event)).toEqual(['started', 'stopped', 'started']);
  });

  it('a version that ignores SIGTERM is killed after its time, with its children', async () => {
    const one = supervisor();
    const stubborn = await version(
      'a',
      `trap "" TERM\nsleep 1000 &\necho $! > ${directory}/child\nwhile :; do wait; done`,
    );
    await one.replaceWith({ ...stubborn, stopTimeoutMs: 200 });
    const old = await firstPid('a');
    await until('child', async () =>
      (await readFile(join(directory, 'child'), 'utf8').catch(() => '')).endsWith('\n'),
    );
    const child = Number(await readFile(join(directory, 'child'), 'utf8'));
    await one.replaceWith(await version('b'));
    expect(identify(old)).toBeNull();
    expect(identify(child)).toBeNull();
    expect(events).toContainEqual({ event: 'stopped', pid: old, signal: 'SIGKILL' });
  });

  it('children that left the session of the old version do not stay behind', async () => {
    const one = supervisor();
    await one.replaceWith(
      await version(
        'a',
        `setsid sh -c 'echo $$ > ${directory}/child; exec sleep 1000' &\nexec sleep 1000`,
      ),
    );
    await until('child', async () =>
      (await readFile(join(directory, 'child'), 'utf8').catch(() => '')).endsWith('\n'),
    );
    const child = Number(await readFile(join(directory, 'child'), 'utf8'));
    await one.replaceWith(await version('b'));
    expect(identify(child)).toBeNull();
    expect(one.running()).toEqual([idOf('b')]);
  });

  it('F52 a version that cannot start leaves the old one running, and says why', async () => {
    const one = supervisor();
    await one.replaceWith(await version('a'));
    const old = await firstPid('a');
    const broken = { ...(await version('b')), argv: [join(directory, 'missing')] };
    await expect(one.replaceWith(broken)).rejects.toMatchObject({ code: 'E_ACTIVATION' });
    expect(identify(old)).not.toBeNull();
    expect(one.running()).toEqual([idOf('a')]);
  });

  it('a program that dies is started again, with growing pauses up to the limit', async () => {
    const one = supervisor();
    await one.replaceWith(await version('a', 'exit 7'));
    await until('five starts', async () => (await pids('a')).length >= 5);
    await one.stop();
    const delays = events.flatMap((event) => (event.event === 'died' ? [event.delayMs] : []));
    expect(delays.slice(0, 4)).toEqual([100, 200, 400, 400]);
    expect(events).toContainEqual(expect.objectContaining({ event: 'died', how: 'exit code 7' }));
    expect(one.restarts()).toBeGreaterThanOrEqual(4);
    const count = (await pids('a')).length;
    await new Promise((resolve) => setTimeout(resolve, 600));
    expect((await pids('a')).length).toBe(count);
  });

  it('the service runs in a minimal environment with its own variables', async () => {
    const one = supervisor();
    process.env['SWITCHBACK_TEST_SECRET'] = 'x';
    await one.replaceWith(await version('a', `env > ${directory}/env\nexec sleep 1000`));
    delete process.env['SWITCHBACK_TEST_SECRET'];
    await until('environment', async () =>
      (await readFile(join(directory, 'env'), 'utf8').catch(() => '')).includes('PWD='),
    );
    const environment = await readFile(join(directory, 'env'), 'utf8');
    expect(environment).toContain('GREETING=hello');
    expect(environment).toContain(`SWITCHBACK_SLOT=${idOf('a')}`);
    expect(environment).not.toContain('SWITCHBACK_TEST_SECRET');
  });

  it('the log of a chatty service stays bounded while it writes on', async () => {
    const one = supervisor({ logMaxBytes: 4096 });
    const line = 'x'.repeat(100);
    await one.replaceWith(await version('a', `while :; do echo ${line}; done`));
    const log = join(directory, 'log', 'service.log');
    await until('rotation', async () => (await stat(`${log}.1`).catch(() => null)) !== null);
    await one.replaceWith(await version('b'));
    await appendFile(log, 'y'.repeat(10_000));
    await until('empty again', async () => (await stat(log)).size <= 4096);
  });
});

describe('supervisor across a death of the agent', () => {
  const agent = (program: Program): string => `
    import { createSupervisor } from '#/agent/adapters/supervisor.ts';
    const supervisor = createSupervisor({ runDirectory: ${JSON.stringify(join(directory, 'run'))}, logFile: ${JSON.stringify(join(directory, 'log', 'service.log'))},
      logMaxBytes: 65536, restartMaxDelayMs: 1000, onEvent: () => undefined });
    await supervisor.replaceWith(${JSON.stringify(program)});
    process.stdout.write('up');
    setInterval(() => undefined, 1000);`;

  async function killedAgent(program: Program): Promise<void> {
    const file = join(
      process.cwd(),
      'agent',
      `.supervised-${process.pid}-${Math.trunc(performance.now())}.ts`,
    );
    await writeFile(file, agent(program));
    const child = spawn(process.execPath, [file], { stdio: ['ignore', 'pipe', 'inherit'] });
    await new Promise<void>((resolve) => child.stdout.once('data', () => resolve()));
    child.kill('SIGKILL');
    await new Promise((resolve) => child.once('exit', resolve));
    await rm(file);
  }

  it('F50 an agent killed by SIGKILL leaves the service running, and the next one adopts it', async () => {
    const program = await version('a');
    await killedAgent(program);
    const pid = await firstPid('a');
    expect(identify(pid)).not.toBeNull();
    const one = supervisor();
    expect(one.running()).toEqual([idOf('a')]);
    await one.replaceWith(program);
    expect(events).toEqual([{ event: 'adopted', pid, artifactId: idOf('a') }]);
    expect(await pids('a')).toEqual([pid]);
  });

  it('an adopted service that dies is started again', async () => {
    const program = await version('a');
    await killedAgent(program);
    const pid = await firstPid('a');
    const one = supervisor();
    await one.replaceWith(program);
    process.kill(pid, 'SIGKILL');
    expect(await firstPid('a', 2)).not.toBe(pid);
  });

  it('an agent killed before it wrote its record finds the service by its marks', async () => {
    const program = await version('a');
    await killedAgent(program);
    await rm(join(directory, 'run', 'process.json'));
    const one = supervisor();
    expect(one.running()).toEqual([idOf('a')]);
    await one.replaceWith(await version('b'));
    expect(identify(await firstPid('a'))).toBeNull();
  });

  it('F69 a log that cannot be opened does not keep the service down', async () => {
    await writeFile(join(directory, 'log'), 'a file where the directory should be');
    const one = supervisor();
    await one.replaceWith(await version('a'));
    expect(one.running()).toEqual([idOf('a')]);
  });

  it('a record whose pid now is another process is not believed, and that process is not touched', async () => {
    await killedAgent(await version('a'));
    const pid = await firstPid('a');
    const record = JSON.parse(
      await readFile(join(directory, 'run', 'process.json'), 'utf8'),
    ) as object;
    process.kill(pid, 'SIGKILL');
    const bystander = spawn('/bin/sleep', ['1000'], { stdio: 'ignore' });
    await writeFile(
      join(directory, 'run', 'process.json'),
      JSON.stringify({ ...record, pid: bystander.pid }),
    );
    const one = supervisor();
    await one.replaceWith(await version('b'));
    expect(identify(bystander.pid!)).not.toBeNull();
    bystander.kill('SIGKILL');
  });

  it('the same artifact with other arguments is started anew', async () => {
    const program = await version('a');
    const one = supervisor();
    await one.replaceWith(program);
    const pid = await firstPid('a');
    await one.replaceWith({ ...program, environment: { GREETING: 'bye' } });
    expect(identify(pid)).toBeNull();
    expect(await firstPid('a', 2)).not.toBe(pid);
  });

  it('a service that serves is dead only between its stop and its start', async () => {
    const one = supervisor();
    await one.replaceWith(await version('a'));
    await one.replaceWith(await version('b'));
    // All that is slow (checks, log) was done before the stop: between the two there is only the start itself.
    expect(events.map((event) => event.event)).toEqual(['started', 'stopped', 'started']);
    expect(
      execFileSync('/bin/ps', ['-o', 'pid=', '-p', String(await firstPid('b'))]).length,
    ).toBeGreaterThan(0);
  });
});
