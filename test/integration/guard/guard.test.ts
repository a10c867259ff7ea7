import { execFile, spawn, type ChildProcess } from 'node:child_process';
import {
  existsSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { nodeFiles } from '#/agent/adapters/file-port.ts';
import { guardFiles, type StartRecipe } from '#/agent/adapters/guard-files.ts';
import { uptimeMs } from '#/agent/adapters/heartbeat.ts';
import { identify } from '#/agent/adapters/processes.ts';
import { createSupervisor, programEnvironment, type Program } from '#/agent/adapters/supervisor.ts';
import { decodeTicket, encodeTicket } from '#/agent/adapters/ticket.ts';
import type { Ticket } from '#/agent/core/ticket.ts';
import type { ArtifactId } from '#/protocol/ids.ts';
import { BOOT, monotonicMs, NEW, OLD, openTicket } from '#/test/support/guard-ticket.ts';

const GUARD = join(import.meta.dirname, '../../../packaging/guard/switchback-guard');
const LOST_MS = 60_000;

let base = '';
let state = '';
let root = '';
let run = '';
let children: ChildProcess[] = [];

beforeEach(async () => {
  base = await mkdtemp(join(tmpdir(), 'switchback-guard-'));
  [state, root, run] = [join(base, 'state dir'), join(base, 'slots'), join(base, 'run')];
  for (const directory of [state, run, join(root, 'releases', OLD), join(root, 'releases', NEW)])
    await mkdir(directory, { recursive: true });
  point(NEW);
  children = [];
});
afterEach(async () => {
  for (const child of children) child.kill('SIGKILL');
  await createSupervisor({
    runDirectory: run,
    logFile: '/dev/null',
    logMaxBytes: 1,
    restartMaxDelayMs: 1,
    onEvent: () => undefined,
  }).stop();
  await rm(base, { recursive: true, force: true });
});

function point(slot: string): void {
  if (existsSync(join(root, 'current'))) unlinkSync(join(root, 'current'));
  symlinkSync(`releases/${slot}`, join(root, 'current'));
}
const live = (): string => readlinkSync(join(root, 'current')).slice('releases/'.length);

const files = () =>
  guardFiles({
    files: nodeFiles(),
    stateDirectory: state,
    runDirectory: run,
    slotsRoot: root,
    heartbeatLostMs: LOST_MS,
    slotPath: (slot) => join(root, 'releases', slot),
  });

const ticket = (change: Partial<Ticket> = {}): Ticket =>
  openTicket(join(root, 'releases', NEW), change);

/** A host on trial: ticket, settings, and how both versions are started. */
async function onTrial(
  change: Partial<Ticket> = {},
  recipe?: (slot: string) => StartRecipe,
): Promise<void> {
  await files().settle();
  for (const slot of [OLD, NEW]) await files().keepRecipe(slot, recipe?.(slot) ?? marker(slot));
  await writeFile(join(state, 'ticket'), encodeTicket(ticket(change)));
}
/** Starting or stopping a version leaves a line. */
const marker = (slot: string): StartRecipe => ({
  kind: 'command',
  start: ['/bin/sh', '-c', `printf 'start %s\\n' "$1" >> '${base}/calls'`, 'sh', slot.slice(0, 1)],
  stop: ['/bin/sh', '-c', `printf 'stop %s\\n' "$1" >> '${base}/calls'`, 'sh', slot.slice(0, 1)],
  environment: { PATH: '/usr/bin:/bin' },
});
const calls = (): string =>
  existsSync(join(base, 'calls')) ? readFileSync(join(base, 'calls'), 'utf8') : '';
const found = (): Ticket | null => decodeTicket(readFileSync(join(state, 'ticket')));

/** The guard has watched the same heartbeat for so long. */
function watched(staleMs: number, beat = ''): void {
  writeFileSync(
    join(run, 'guard-watch'),
    `boot=${BOOT}\nbeat=${beat}\nat=${uptimeMs()}\nstale=${staleMs}\n`,
  );
}
async function guard(phase: 'boot' | 'round' = 'round', environment: Record<string, string> = {}) {
  try {
    const { stderr } = await promisify(execFile)('/bin/sh', [GUARD, phase, state], {
      env: { ...process.env, ...environment },
    });
    return { code: 0, stderr };
  } catch (error) {
    const { code, stderr } = error as { code: number; stderr: string };
    return { code, stderr };
  }
}
/** A process that holds the lock as a living agent does. */
async function holdLock(): Promise<ChildProcess> {
  const script = `
    import { acquireLock } from '#/agent/adapters/lock.ts';
    acquireLock(${JSON.stringify(join(state, 'lock'))}, 'agent run');
    process.stdout.write('held');
    setInterval(() => undefined, 1000);`;
  const child = spawn(process.execPath, ['--input-type=module-typescript', '--eval', script], {
    cwd: join(import.meta.dirname, '../../..'),
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  await new Promise<void>((resolve) => child.stdout?.once('data', () => resolve()));
  return child;
}
const exited = (child: ChildProcess): Promise<void> =>
  new Promise((resolve) =>
    (child.exitCode ?? child.signalCode) ? resolve() : child.once('exit', () => resolve()),
  );

describe('guard: nothing to do', () => {
  it('a host on which nothing was ever installed', async () => {
    expect(await guard()).toEqual({ code: 0, stderr: '' });
  });

  it('no ticket: it leaves its trace for the doctor and changes nothing', async () => {
    await onTrial();
    unlinkSync(join(state, 'ticket'));
    watched(LOST_MS * 2);
    expect((await guard()).code).toBe(0);
    expect(readFileSync(join(run, 'guard-round'), 'utf8')).toContain(BOOT);
    expect([live(), calls()]).toEqual([NEW, '']);
  });

  it('no trial and an agent that hangs: it is ended, so that it is started again, and nothing else is touched', async () => {
    await onTrial();
    unlinkSync(join(state, 'ticket'));
    const agent = await holdLock();
    watched(LOST_MS - 10_000);
    await guard();
    expect(agent.exitCode ?? agent.signalCode).toBeNull();
    watched(LOST_MS);
    expect((await guard()).code).toBe(0);
    await exited(agent);
    expect([agent.signalCode, live(), calls()]).toEqual(['SIGKILL', NEW, '']);
  });

  it('a trial within its deadline whose agent was alive a moment ago', async () => {
    await onTrial();
    watched(LOST_MS - 5_000);
    expect((await guard()).code).toBe(0);
    expect([live(), calls(), found()?.state]).toEqual([NEW, '', 'open']);
  });

  it('armed and not switched: the old version runs, nothing is counted', async () => {
    await onTrial({ lastBootId: 'another-boot' });
    point(OLD);
    watched(LOST_MS * 2);
    expect((await guard('boot')).code).toBe(0);
    expect(found()).toMatchObject({ state: 'open', bootsUsed: 0 });
  });

  it('committed: final, whatever the clock says', async () => {
    await onTrial({ state: 'committed', deadlineRunMs: 1 });
    watched(LOST_MS * 2);
    expect((await guard('boot')).code).toBe(0);
    expect([live(), calls()]).toEqual([NEW, '']);
  });

  it('F53 data that the version before cannot read: it is not taken back', async () => {
    await onTrial({ deadlineRunMs: 1, plan: { ...ticket().plan, oneWay: true } });
    watched(LOST_MS * 2);
    expect((await guard()).code).toBe(0);
    expect([live(), calls()]).toEqual([NEW, '']);
  });
});

describe('guard: takes a version back', () => {
  const expectBack = (code: string): void => {
    expect(live()).toBe(OLD);
    expect(calls()).toBe('stop b\nstart a\n');
    expect(found()).toMatchObject({ state: 'rolling-back', reason: { code } });
    expect(found()?.reason?.message).toContain('guard: ');
  };

  it('F50 an agent that is gone, deleted or crashes at its start: heartbeat lost', async () => {
    await onTrial();
    watched(LOST_MS);
    const { code, stderr } = await guard();
    expect(code).toBe(0);
    expect(stderr).toContain('no sign of life');
    expectBack('E_DEADLINE');
  });

  it('what it did is not done again, and the ticket is left for the agent', async () => {
    await onTrial();
    watched(LOST_MS);
    await guard();
    const before = await readFile(join(state, 'ticket'));
    await guard();
    await guard('boot');
    expect(calls()).toBe('stop b\nstart a\n');
    expect(await readFile(join(state, 'ticket'))).toEqual(before);
  });

  it('the deadline passes with no agent there', async () => {
    await onTrial({ deadlineRunMs: 100_000 });
    await guard();
    expectBack('E_DEADLINE');
  });

  it('F50 an agent that hangs with the lock in its hand is ended first', async () => {
    await onTrial();
    const agent = await holdLock();
    watched(LOST_MS);
    expect((await guard()).code).toBe(0);
    await exited(agent);
    expect(agent.signalCode).toBe('SIGKILL');
    expectBack('E_DEADLINE');
  });

  it('an agent that lives and beats gets a grace behind its own deadline, and no more', async () => {
    await onTrial({ deadlineRunMs: 100_000 });
    const agent = await holdLock();
    expect((await guard()).code).toBe(0);
    expect([live(), calls(), agent.exitCode]).toEqual([NEW, '', null]);
    await onTrial({ deadlineRunMs: 69_000 });
    await guard();
    await exited(agent);
    expectBack('E_DEADLINE');
  });

  it('a process that took over the pid of the lock file is not killed', async () => {
    await onTrial();
    const bystander = spawn('/bin/sleep', ['1000'], { stdio: 'ignore' });
    children.push(bystander);
    await writeFile(
      join(state, 'lock'),
      JSON.stringify({
        v: 1,
        pid: bystander.pid,
        startTicks: 1,
        bootId: BOOT,
        purpose: 'agent run',
      }),
    );
    watched(LOST_MS);
    await guard();
    expect(identify(bystander.pid!)).not.toBeNull();
    expectBack('E_DEADLINE');
  });

  it('F40 F41 each boot counts once, and the one past the limit takes it back', async () => {
    await onTrial({ lastBootId: 'boot-1', bootsUsed: 0 });
    await guard('boot');
    expect(found()).toMatchObject({ state: 'open', bootsUsed: 1, lastBootId: BOOT });
    await guard('boot');
    expect(found()).toMatchObject({ state: 'open', bootsUsed: 1 });
    await onTrial({ lastBootId: 'boot-2', bootsUsed: 2 });
    await guard('boot');
    expect(found()).toMatchObject({ bootsUsed: 3, reason: { code: 'E_TRIAL_BOOTS' } });
    expect([live(), calls()]).toEqual([OLD, 'stop b\nstart a\n']);
  });

  it('F41 a power cut between the decision and the link is finished at the next boot', async () => {
    await onTrial({
      state: 'rolling-back',
      reason: { code: 'E_UNHEALTHY', message: 'http failed' },
    });
    await guard('boot');
    expect([live(), calls()]).toEqual([OLD, 'stop b\nstart a\n']);
    expect(found()?.reason).toEqual({ code: 'E_UNHEALTHY', message: 'http failed' });
  });

  it('an agent that died between link and restart: the old version is started once it is given up', async () => {
    await onTrial({ state: 'rolling-back' });
    point(OLD);
    watched(LOST_MS - 10_000);
    await guard();
    expect(calls()).toBe('');
    watched(LOST_MS);
    await guard();
    expect(calls()).toBe('stop b\nstart a\n');
  });

  it('a rollback that an agent is working on is left to it', async () => {
    await onTrial({ state: 'rolling-back' });
    const agent = await holdLock();
    watched(0);
    await guard('boot');
    expect([live(), calls(), agent.exitCode]).toEqual([NEW, '', null]);
  });

  it('nothing was live before: nothing is live after', async () => {
    await onTrial({ rollbackSlot: null, rollbackArtifact: null });
    watched(LOST_MS);
    expect((await guard()).code).toBe(0);
    expect(existsSync(join(root, 'current'))).toBe(false);
    expect(calls()).toBe('stop b\n');
  });

  it('the version before is gone: the link is not broken, it says so and tries again', async () => {
    await onTrial();
    await rm(join(root, 'releases', OLD), { recursive: true });
    watched(LOST_MS);
    const { code, stderr } = await guard();
    expect([code, live(), calls()]).toEqual([1, NEW, '']);
    expect(stderr).toContain('is not there');
  });

  it('F52 a version before that does not start is said, and tried again', async () => {
    await onTrial({}, (slot) => ({ ...marker(slot), start: ['/bin/false'] }) as StartRecipe);
    watched(LOST_MS);
    const { code, stderr } = await guard();
    expect([code, live()]).toEqual([1, OLD]);
    expect(stderr).toContain(`starting ${OLD} failed`);
    await files().keepRecipe(OLD, marker(OLD));
    watched(LOST_MS);
    expect((await guard()).code).toBe(0);
    expect(calls()).toBe('stop b\nstop b\nstart a\n');
  });

  it('a stray link of a cut-off switch is no obstacle', async () => {
    await onTrial();
    symlinkSync('releases/x', join(root, '.current.tmp'));
    watched(LOST_MS);
    await guard();
    expectBack('E_DEADLINE');
    expect(existsSync(join(root, '.current.tmp'))).toBe(false);
  });
});

describe('guard: time', () => {
  it('I10 the time of rounds without an agent is kept for the next boot', async () => {
    await onTrial({ clock: { runMs: 100_000, bootId: BOOT, monotonicMs: monotonicMs() - 50_000 } });
    await guard();
    expect(found()?.clock.runMs).toBeGreaterThanOrEqual(150_000);
    expect(found()?.state).toBe('open');
  });

  it('time of another boot is not counted, and not lost', async () => {
    await onTrial({
      clock: { runMs: 100_000, bootId: 'boot-1', monotonicMs: 1 },
      lastBootId: 'boot-1',
    });
    await guard('boot');
    expect(found()?.clock).toMatchObject({ runMs: 100_000, bootId: BOOT });
  });

  it('F42 a host that slept for hours has neither lost its agent nor passed its deadline', async () => {
    const up = uptimeMs();
    const slept = Math.floor(up * 0.9);
    // The heartbeat knows: uptime ran on while the monotonic clock stood still.
    const beat = `${BOOT} ${up} ${up - slept}`;
    const clock = { runMs: 100_000, bootId: BOOT, monotonicMs: Math.max(0, up - slept - 1_000) };
    await onTrial({ clock, deadlineRunMs: 100_000 + Math.floor(slept / 2) });
    writeFileSync(join(run, 'heartbeat'), `${beat}\n`);
    writeFileSync(join(run, 'guard-watch'), `boot=${BOOT}\nbeat=${beat}\nat=0\nstale=0\n`);
    expect((await guard()).code).toBe(0);
    expect(live()).toBe(NEW);
    expect(found()?.clock.runMs).toBeLessThan(100_000 + slept / 2);
  });

  it('a heartbeat that changes begins the count anew', async () => {
    await onTrial();
    watched(LOST_MS * 2, `${BOOT} 1 1`);
    writeFileSync(join(run, 'heartbeat'), `${BOOT} 2 2\n`);
    await guard();
    expect([live(), calls()]).toEqual([NEW, '']);
  });

  it('what was watched in another boot says nothing about this one', async () => {
    await onTrial();
    writeFileSync(join(run, 'guard-watch'), `boot=another\nbeat=\nat=1\nstale=${LOST_MS * 2}\n`);
    await guard();
    expect(live()).toBe(NEW);
  });
});

describe('guard: bad input', () => {
  it.each([
    ['cut off', (bytes: Buffer) => bytes.subarray(0, bytes.length - 40)],
    [
      'with a flipped bit',
      (bytes: Buffer) => Buffer.from(bytes.map((byte, at) => (at === 60 ? byte ^ 1 : byte))),
    ],
    ['empty', () => Buffer.alloc(0)],
  ])('F30 a ticket that is %s is not acted on', async (_name, change) => {
    await onTrial({ deadlineRunMs: 1 });
    await writeFile(join(state, 'ticket'), change(await readFile(join(state, 'ticket'))));
    watched(LOST_MS * 2);
    const { code, stderr } = await guard();
    expect([code, live(), calls()]).toEqual([1, NEW, '']);
    expect(stderr).toContain('damaged');
  });

  it('a ticket in the place of which a link stands is not followed', async () => {
    await onTrial({ deadlineRunMs: 1 });
    const elsewhere = join(base, 'elsewhere');
    await writeFile(elsewhere, await readFile(join(state, 'ticket')));
    unlinkSync(join(state, 'ticket'));
    symlinkSync(elsewhere, join(state, 'ticket'));
    expect((await guard()).code).toBe(1);
    expect(live()).toBe(NEW);
  });

  it('a slot with a path in its name is refused', async () => {
    await onTrial({ rollbackSlot: '../../etc', deadlineRunMs: 1 });
    const { code, stderr } = await guard();
    expect([code, live()]).toEqual([1, NEW]);
    expect(stderr).toContain('odd slots');
  });

  it('F29 a state directory that cannot be written: no switch without the durable intent', async () => {
    await onTrial();
    await mkdir(join(state, '.ticket.tmp'));
    watched(LOST_MS);
    const { code } = await guard();
    expect([code, live(), calls(), found()?.state]).toEqual([1, NEW, '', 'open']);
  });

  it('the ticket that it wrote is read by the agent with every other field as it was', async () => {
    await onTrial({ version: '2.0+a~b', baselinePassed: ['a', 'b'] });
    watched(LOST_MS);
    await guard();
    const { state: _state, reason: _reason, clock: _clock, ...rest } = found()!;
    const {
      state: _s,
      reason: _r,
      clock: _c,
      ...wanted
    } = ticket({ version: '2.0+a~b', baselinePassed: ['a', 'b'] });
    expect(rest).toEqual(wanted);
  });

  it('arguments with spaces, quotes, backslashes, newlines and percent signs arrive as they are', async () => {
    const odd = `it's "a" \\n b\\\\c\n%s $HOME \`id\` ä`;
    await onTrial({}, (slot) => ({
      ...marker(slot),
      kind: 'command',
      start: [
        '/bin/sh',
        '-c',
        `printf '%s' "$1" > '${base}/odd'; printf '%s' "$ODD" > '${base}/odd-env'`,
        'sh',
        odd,
      ],
      stop: null,
      environment: { PATH: '/usr/bin:/bin', ODD: odd },
    }));
    watched(LOST_MS);
    expect((await guard()).code).toBe(0);
    expect(await readFile(join(base, 'odd'), 'utf8')).toBe(odd);
    expect(await readFile(join(base, 'odd-env'), 'utf8')).toBe(odd);
  });
});

describe('guard: ways of starting', () => {
  it('units are stopped and restarted by systemctl, without waiting at boot', async () => {
    // A stand-in records what would be asked of systemd; test/e2e does it in a machine with one.
    const bin = '/usr/local/bin/systemctl';
    if (existsSync(bin)) throw new Error(`${bin} is in the way of this test`);
    await writeFile(bin, `#!/bin/sh\nprintf '%s\\n' "$*" >> '${base}/calls'\n`);
    await chmod(bin, 0o755);
    try {
      await onTrial({}, (slot) => ({
        kind: 'units',
        units: slot === OLD ? ['web.service', 'db.service'] : ['web.service'],
      }));
      watched(LOST_MS);
      expect((await guard()).code).toBe(0);
      expect(calls()).toBe('stop -- web.service\nrestart -- web.service db.service\n');
      await rm(join(base, 'calls'));
      await rm(join(state, 'guard', 'finished'));
      point(NEW);
      await guard('boot');
      expect(calls()).toBe(
        '--no-block stop -- web.service\n--no-block restart -- web.service db.service\n',
      );
    } finally {
      await rm(bin);
    }
  });

  it('a supervised process is ended with its children, and the one before runs as the agent would run it', async () => {
    const program = async (slot: ArtifactId): Promise<Program> => {
      const cwd = join(root, 'releases', slot);
      await writeFile(
        join(cwd, 'serve'),
        `#!/bin/sh\necho $$ >> '${base}/pids-${slot.slice(0, 1)}'\nsetsid sleep 1000 &\necho "$GREETING"\nexec sleep 1000\n`,
        { mode: 0o755 },
      );
      return {
        slot,
        artifactId: slot,
        argv: [join(cwd, 'serve')],
        cwd,
        environment: { GREETING: 'good day' },
        stopTimeoutMs: 1000,
        uid: null,
        gid: null,
      };
    };
    const supervisor = () =>
      createSupervisor({
        runDirectory: run,
        logFile: join(base, 'service.log'),
        logMaxBytes: 65_536,
        restartMaxDelayMs: 100,
        onEvent: () => undefined,
      });
    const programs = { [OLD]: await program(OLD), [NEW]: await program(NEW) };
    await onTrial({}, (slot) => {
      const { argv, cwd } = programs[slot as ArtifactId]!;
      const environment = programEnvironment(programs[slot as ArtifactId]!, run);
      return {
        kind: 'process',
        start: argv,
        environment,
        cwd,
        log: join(base, 'service.log'),
        uid: null,
        gid: null,
      };
    });
    const first = supervisor();
    await first.replaceWith(programs[NEW]!);
    first.detach();
    const pidsOf = async (name: string): Promise<number[]> => {
      for (let tries = 0; tries < 200; tries += 1) {
        const text = await readFile(join(base, `pids-${name}`), 'utf8').catch(() => '');
        if (text.endsWith('\n')) return text.trim().split('\n').map(Number);
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      throw new Error(`no ${name}`);
    };
    const [newPid] = await pidsOf('b');
    watched(LOST_MS);
    expect((await guard()).code).toBe(0);
    expect(identify(newPid!)).toBeNull();
    const oldPids = await pidsOf('a');
    // The next agent adopts what the guard started, and starts nothing anew.
    const next = supervisor();
    expect(next.running()).toEqual([OLD]);
    await next.replaceWith(programs[OLD]!);
    expect(await pidsOf('a')).toEqual(oldPids);
    expect(await readFile(join(base, 'service.log'), 'utf8')).toContain('good day');
    await next.stop();
  }, 60_000);
});
