import { createRequire } from 'node:module';
import { execFile, spawn } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import type * as Http from 'node:http';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { agentCommands, helpText, runCli } from '#/agent/cli/main.ts';
import { askAgent } from '#/agent/cli/socket-client.ts';
import { createLogger, logSetback, logState } from '#/agent/adapters/logging.ts';
import { createMetrics } from '#/agent/adapters/metrics.ts';
import { initialState, type State } from '#/agent/core/state.ts';
import { createLocalAgent, type WiredLocalAgent } from '#/agent/local-agent.ts';
import { serveLocal, serveMetrics, type LocalServer } from '#/agent/local.ts';
import type { Command, Event, Failure } from '#/agent/core/event.ts';
import { systemClock } from '#/agent/adapters/clock.ts';
import type { ArtifactId } from '#/protocol/ids.ts';

const http = createRequire(import.meta.url)('node:http') as typeof Http;
const A = 'a'.repeat(64) as ArtifactId;
let base = '';
let socket = '';
const open: LocalServer[] = [];
let state: State = initialState();
let commands: Command[] = [];
let refusal: Failure | null = null;
let isStarted = true;
let slotsRead = (): void | Promise<void> => undefined;
let local: WiredLocalAgent;
/** Ctrl-C in the command that waits. */
let interrupt: (() => void) | null = null;

beforeEach(async () => {
  base = await mkdtemp(join(tmpdir(), 'switchback-local-'));
  socket = join(base, 'run', 'agent.sock');
  [state, commands, refusal, isStarted] = [initialState(), [], null, true];
  slotsRead = () => undefined;
  await writeFile(
    join(base, 'agent.toml'),
    `[state]\ndirectory = "${base}/state"\nrun_directory = "${base}/run"\n[local]\nsocket = "${socket}"\n`,
  );
});
afterEach(async () => {
  for (const one of open.splice(0)) await one.close();
  await rm(base, { recursive: true, force: true });
});

/** The local API over a runner whose state the test sets. */
async function agent(): Promise<void> {
  local = createLocalAgent({
    runner: () => ({
      state: () => state,
      isStarted: () => isStarted,
      command: (command) => {
        if (refusal !== null) return refusal;
        commands.push(command);
        return null;
      },
    }),
    boot: () => Promise.resolve(null),
    store: { history: () => Promise.resolve([]), waitingReports: () => [] },
    clock: systemClock(),
    windows: { at: () => ({ open: true, opensAt: null, closesAt: null }) },
    slots: async () => {
      await slotsRead();
      return [];
    },
    host: { id: 'h-1', group: 'web', class: 'web' },
    control: () => ({ url: 'https://control', lastContactMs: 0 }),
    rotateKeys: null,
    trust: () => null,
    restarts: () => 2,
    agentVersion: '0.1.0',
    pid: process.pid,
    metrics: createMetrics(),
    log: createLogger('error'),
  });
  open.push(await serveLocal({ socket, agent: local, log: createLogger('error') }));
}
function go(to: State): void {
  const from = state;
  state = to;
  local.onTransition({ from, to, event: { type: 'ticked' } as Event });
}
const end = (
  phase: 'confirmed' | 'rolled-back',
  code: 'E_UNHEALTHY' | 'E_RECALLED' | null,
): State => ({
  ...initialState(),
  lastEnd: {
    ref: { id: 'b'.repeat(32), rolloutId: null, artifactId: A },
    phase,
    code,
    message: code === null ? '' : 'http failed',
    atWallMs: 1,
  },
});
async function cli(...argv: string[]): Promise<{ code: number; out: string; error: string }> {
  let [out, error] = ['', ''];
  const code = await runCli(
    [...argv, '--config', join(base, 'agent.toml')],
    {
      version: '0.1.0',
      runDaemon: () => Promise.resolve(0),
      verifyLive: () =>
        Promise.resolve({
          artifactId: A,
          entries: 3,
          differences: [{ path: 'bin/x', what: 'other content' }],
        }),
    },
    {
      out: (text) => (out += text),
      error: (text) => (error += text),
      isTty: false,
      onInterrupt(act) {
        interrupt = act;
        return () => (interrupt = null);
      },
    },
  );
  return { code, out, error };
}

it('before the disk was read the status claims nothing', async () => {
  isStarted = false;
  await agent();
  const { out } = await cli('status', '--json');
  expect(JSON.parse(out)).toMatchObject({ state: 'starting', step: null, live: null });
  expect((await cli('explain')).out).toContain('reads its disk');
  // Started while the surroundings are read: state and name of it belong together.
  slotsRead = () => {
    isStarted = true;
    state = { ...initialState(), known: { ...initialState().known, artifactId: A, live: 's' } };
  };
  expect(JSON.parse((await cli('status', '--json')).out)).toMatchObject({
    state: 'idle',
    live: { artifactId: A },
  });
});

describe('the socket', () => {
  it('is for root alone', async () => {
    await agent();
    expect((await stat(socket)).mode & 0o777).toBe(0o600);
    expect((await stat(join(base, 'run'))).mode & 0o777).toBe(0o700);
  });

  it('of a dead agent is taken over; of a living one is E_BUSY; something else is not removed', async () => {
    await mkdir(join(base, 'run'), { mode: 0o700 });
    const script = `require('net').createServer().listen(${JSON.stringify(socket)}, () => process.kill(process.pid, 'SIGKILL'))`;
    const child = spawn(process.execPath, ['-e', script]);
    await new Promise((resolve) => child.once('exit', resolve));
    await agent();
    expect((await cli('status')).code).toBe(0);
    await expect(
      serveLocal({ socket, agent: local, log: createLogger('error') }),
    ).rejects.toMatchObject({ code: 'E_BUSY' });
    const file = join(base, 'run', 'file');
    await writeFile(file, 'x');
    await expect(
      serveLocal({ socket: file, agent: local, log: createLogger('error') }),
    ).rejects.toMatchObject({ code: 'E_CONFIG' });
    expect(await readFile(file, 'utf8')).toBe('x');
  });

  const raw = (path: string, body: string, method = 'POST'): Promise<string> =>
    new Promise((resolve, reject) => {
      const request = http.request({ socketPath: socket, method, path }, (answer) => {
        let text = '';
        answer.on('data', (piece: Buffer) => (text += piece.toString()));
        answer.on('end', () => resolve(text));
      });
      request.on('error', reject);
      request.end(body);
    });

  it('E20 what is not a request of ours is answered with a code and changes nothing', async () => {
    await agent();
    expect(await raw('/v1', 'nonsense')).toContain('E_PARSE');
    expect(await raw('/v1', '{"ask":"explode"}')).toContain('E_SCHEMA');
    expect(await raw('/v1', '{"ask":"status","__proto__":{"x":1}}')).toContain('E_SCHEMA');
    expect(
      await raw(
        '/v1',
        '{"ask":"order","wait":false,"command":{"kind":"install-file","path":"relative"}}',
      ),
    ).toContain('E_SCHEMA');
    expect(await raw('/elsewhere', '{}')).toContain('E_NOT_FOUND');
    expect(await raw('/v1', '', 'GET')).toContain('E_NOT_FOUND');
    expect(await raw('/v1', 'x'.repeat(20_000))).toContain('E_TOOBIG');
    expect(commands).toEqual([]);
  });

  it('a client that connects and says nothing does not hold up the others', async () => {
    await agent();
    const silent = connect(socket);
    await new Promise((resolve) => silent.once('connect', resolve));
    expect((await cli('status')).code).toBe(0);
    silent.destroy();
  });
});

describe('commands', () => {
  it('status and explain, for people and for programs', async () => {
    await agent();
    const text = await cli('status');
    expect(text.out).toContain('h-1 in group web');
    expect(text.out).toContain('Nothing is under way');
    const json = JSON.parse((await cli('status', '--json')).out) as Record<string, unknown>;
    expect(json).toMatchObject({
      schema: 'switchback.agent-status/1',
      state: 'idle',
      serviceRestarts: 2,
      paused: false,
    });
    expect((await cli('explain')).out).toContain('Nothing is under way');
  });

  it('orders reach the machine; what is not possible now comes back with its code', async () => {
    await agent();
    for (const command of ['check', 'pause', 'resume']) expect((await cli(command)).code).toBe(0);
    expect((await cli('retry')).code).toBe(0);
    expect(commands.map((command) => command.kind)).toEqual(['check', 'pause', 'resume', 'clear']);
    refusal = { code: 'E_NOT_ALLOWED_NOW', kind: 'refused', message: 'a trial is under way' };
    const refused = await cli('rollback', '--json');
    expect([refused.code, refused.out]).toEqual([20, '']);
    expect(JSON.parse(refused.error)).toMatchObject({
      code: 'E_NOT_ALLOWED_NOW',
      message: 'a trial is under way',
      exit: 20,
    });
  });

  it('rotate-keys on a host that is not enrolled is called done', async () => {
    await agent();
    const { code, error } = await cli('rotate-keys');
    expect([code, error]).toEqual([75, expect.stringContaining('E_UNAVAILABLE')]);
  });

  it('install waits for the end of the attempt: 0 only for confirmed', async () => {
    await agent();
    const file = join(base, 'web.bundle');
    await writeFile(file, '');
    const good = cli('install', file);
    await expect.poll(() => commands.length).toBe(1);
    expect(commands[0]).toEqual({ kind: 'install-file', path: file });
    go({ ...state, modes: { ...state.modes, paused: true } });
    go(end('confirmed', null));
    expect(await good).toMatchObject({ code: 0, out: `confirmed: ${A.slice(0, 12)}\n` });
    const bad = cli('install', file);
    await expect.poll(() => commands.length).toBe(2);
    go(end('rolled-back', 'E_UNHEALTHY'));
    const { code, error } = await bad;
    expect(code).toBe(20);
    expect(error).toContain('E_UNHEALTHY: rolled-back: http failed');
  });

  it('a view that was read too late for the end of the attempt is told to nobody', async () => {
    await agent();
    let release = (): void => undefined;
    const held = new Promise<void>((resolve) => (release = resolve));
    slotsRead = () => held;
    const told: string[] = [];
    const ended = local.follow((view) => told.push(view.state), new AbortController().signal);
    go({ ...state, modes: { ...state.modes, paused: true } });
    go(end('confirmed', null));
    expect(await ended).toMatchObject({ phase: 'confirmed' });
    release();
    await local.status();
    expect(told).toEqual([]);
  });

  it('install --json tells the progress line by line', async () => {
    await agent();
    const file = join(base, 'web.bundle');
    await writeFile(file, '');
    const done = cli('install', file, '--json');
    await expect.poll(() => commands.length).toBe(1);
    local.onProgress({
      phase: 'download',
      doneBytes: 5,
      totalBytes: 10,
      fetchedBytes: 5,
      reusedBytes: 0,
    });
    await expect
      .poll(async () => (await askAgent<{ state: string }>(socket, { ask: 'status' })).state)
      .toBe('idle');
    go(end('confirmed', null));
    const lines = (await done).out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(lines.at(-1)).toMatchObject({ end: { phase: 'confirmed' } });
    expect(lines[0]).toHaveProperty('progress');
  });

  it('the agent ends while somebody waits: that is said, not taken for success', async () => {
    await agent();
    const file = join(base, 'web.bundle');
    await writeFile(file, '');
    const waiting = cli('install', file);
    await expect.poll(() => commands.length).toBe(1);
    await open.splice(0)[0]?.close();
    expect((await waiting).code).toBe(75);
  });

  it('Ctrl-C while somebody waits: what goes on, and how to look after it, is not said', async () => {
    await agent();
    const file = join(base, 'web.bundle');
    await writeFile(file, '');
    const waiting = cli('install', file);
    await expect.poll(() => commands.length).toBe(1);
    interrupt?.();
    const { code, error } = await waiting;
    expect(code).toBe(130);
    expect(error).toContain('the agent goes on with it: `switchback-agent status`');
    expect(interrupt).toBeNull();
  });

  it('a rollback that ended a trial, as it was told to, is called a failure', async () => {
    await agent();
    const asked = cli('rollback');
    await expect.poll(() => commands.length).toBe(1);
    go(end('rolled-back', 'E_RECALLED'));
    expect(await asked).toMatchObject({ code: 0, out: `rolled back: ${A.slice(0, 12)}\n` });
    const failed = cli('rollback');
    await expect.poll(() => commands.length).toBe(2);
    go({ ...end('rolled-back', 'E_UNHEALTHY') });
    expect((await failed).code).toBe(20);
  });

  it('no agent runs: status says so; explain and history read the files', async () => {
    const { code, error } = await cli('status');
    expect(code).toBe(75);
    expect(error).toContain('no agent runs');
    expect(error).toContain('switchback-agent run');
    await mkdir(join(base, 'state'));
    expect((await cli('explain')).out).toContain('No agent runs');
    expect(await cli('history', '--json')).toMatchObject({ code: 0, out: '[]\n' });
  });

  it('F24 verify says what differs, and its exit code says that something does', async () => {
    const { code, out } = await cli('verify');
    expect(code).toBe(74);
    expect(out).toContain('bin/x: other content');
  });

  it('wrong use is exit code 2 with the usage', async () => {
    for (const argv of [
      ['install'],
      ['status', 'extra'],
      ['nonsense'],
      ['config'],
      ['history', '-n', '0'],
      ['retry', 'zz'],
      ['status', '--what'],
      ['enrol'],
    ]) {
      const { code, error } = await cli(...argv);
      expect([argv, code]).toEqual([argv, 2]);
      expect(error).toContain('E_USAGE');
    }
    expect((await cli('install', join(base, 'missing'))).code).toBe(20);
  });

  it('every command has help with examples that name it', () => {
    for (const command of agentCommands) {
      expect(command.examples.length).toBeGreaterThan(0);
      for (const example of command.examples)
        expect(example).toContain(`switchback-agent ${command.name}`);
      expect(helpText(command)).toContain('--json');
    }
  });

  it('config check names file and key, and ends with 78', async () => {
    await writeFile(join(base, 'agent.toml'), '[poll]\nintervall_ms = 3\n');
    const { code, error } = await cli('config', 'check');
    expect(code).toBe(78);
    expect(error).toContain(
      `${base}/agent.toml: unknown key poll.intervall_ms (did you mean interval_ms?)`,
    );
  });

  it('doctor looks at a host on which nothing is set up yet, and says what to do', async () => {
    const { code, out } = await cli('doctor', '--json');
    const { findings } = JSON.parse(out) as {
      findings: { subject: string; verdict: string; act: string | null }[];
    };
    const verdicts = Object.fromEntries(findings.map(({ subject, verdict }) => [subject, verdict]));
    expect(code).toBe(1);
    expect(verdicts).toMatchObject({
      guard: 'broken',
      'state directory': 'warning',
      identity: 'warning',
      clock: 'ok',
    });
    for (const { verdict, act } of findings) expect(act === null).toBe(verdict === 'ok');
  });

  it('doctor calls a state directory that others may read broken', async () => {
    await mkdir(join(base, 'state'));
    await chmod(join(base, 'state'), 0o755);
    const { out } = await cli('doctor');
    expect(out).toContain(`BROKEN  state directory: ${base}/state has mode 755`);
    await chmod(join(base, 'state'), 0o700);
    expect((await cli('doctor')).out).toContain('can be written and synced');
  });
});

describe('metrics', () => {
  it('are served on loopback and tell state, attempts and restarts', async () => {
    await agent();
    go(end('confirmed', null));
    const server = (await serveMetrics('127.0.0.1:0', () => local.metricsText()))!;
    open.push(server);
    const text = await (await fetch(`http://127.0.0.1:${server.port}/metrics`)).text();
    expect(text).toContain('switchback_agent_attempts_total{phase="confirmed"} 1\n');
    expect(text).toContain('switchback_agent_service_restarts_total 2\n');
    expect(text).toMatch(
      /# TYPE switchback_agent_build_info gauge\nswitchback_agent_build_info\{version="0\.1\.0",node="v[\d.]+"\} 1\n/,
    );
    expect((await fetch(`http://127.0.0.1:${server.port}/`)).status).toBe(404);
  });

  it('labels cannot break out of their quotes, and series are bounded', () => {
    const metrics = createMetrics();
    metrics.only('switchback_agent_state_info', { state: 'a"b\\c\nd' });
    expect(metrics.text()).toContain('{state="a\\"b\\\\c\\nd"} 1');
    for (let n = 0; n < 1000; n += 1)
      metrics.add('switchback_agent_attempts_total', 1, { phase: `p${n}` });
    expect(
      metrics
        .text()
        .split('\n')
        .filter((line) => line.startsWith('switchback_agent_attempts_total{')),
    ).toHaveLength(64);
  });

  it('a port that is taken is E_CONFIG', async () => {
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
    const { port } = taken.address() as { port: number };
    await expect(serveMetrics(`127.0.0.1:${port}`, () => '')).rejects.toMatchObject({
      code: 'E_CONFIG',
    });
    await new Promise((resolve) => taken.close(resolve));
    expect(await serveMetrics('', () => '')).toBeNull();
  });
});

describe('log and environment of a process', () => {
  const node = (script: string, environment: Record<string, string> = {}, stdout?: string) =>
    promisify(execFile)(
      '/bin/sh',
      [
        '-c',
        `exec "$0" --input-type=module-typescript --eval "$1" ${stdout ?? ''}`,
        process.execPath,
        script,
      ],
      {
        cwd: join(import.meta.dirname, '../../..'),
        env: { PATH: process.env['PATH'] ?? '', ...environment },
      },
    );

  it('a change of state is one line; polls without news are none; secrets do not appear', async () => {
    const file = join(base, 'log');
    const { openSync } = await import('node:fs');
    const log = createLogger('info', openSync(file, 'a'));
    logState(log, { from: 'trial', to: 'committing', version: '2.0' });
    logState(log, { from: 'idle', to: 'checking' });
    log.info({ token: 'sbj_secret', inner: { authorization: 'Bearer secret' } }, 'x');
    const lines = (await readFile(file, 'utf8'))
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as object);
    expect(lines).toHaveLength(2);
    expect(lines[0]).toMatchObject({
      level: 'info',
      event: 'state',
      from: 'trial',
      to: 'committing',
      version: '2.0',
    });
    expect(JSON.stringify(lines)).not.toContain('secret"');
  });

  it('F30 F60 a hook that failed and is tried again, or a state that cannot be written, leaves no trace in the log', async () => {
    const file = join(base, 'log');
    const { openSync } = await import('node:fs');
    const log = createLogger('info', openSync(file, 'a'));
    const hung = { code: 'E_HOOK', message: 'killed after 5 s' };
    const about = { state: 'waiting', operation: 'drain', tries: 1, failure: hung } as const;
    logSetback(log, { ...about, observed: [false, false] });
    const failure = { code: 'E_READ_ONLY', message: 'not open' };
    const blind = { ...about, operation: null, failure };
    logSetback(log, { ...blind, observed: [false, true] });
    logSetback(log, { ...blind, observed: [true, true] });
    logSetback(log, { ...blind, failure: null, observed: [true, false] });
    const lines = (await readFile(file, 'utf8')).trim().split('\n');
    expect(lines.map((line) => JSON.parse(line) as object)).toMatchObject([
      { level: 'warn', event: 'try-failed', operation: 'drain', tries: 1, code: 'E_HOOK' },
      { level: 'error', event: 'only-observed', code: 'E_READ_ONLY' },
      { level: 'info', event: 'acts-again' },
    ]);
  });

  it('F69 a full device behind stdout costs lines, not the agent', async () => {
    const script = `import { createLogger } from '#/agent/adapters/logging.ts';
      const log = createLogger('info');
      for (let n = 0; n < 100; n += 1) log.info({ n }, 'x'.repeat(1000));
      setTimeout(() => process.stderr.write('alive'), 20);`;
    expect((await node(script, {}, '> /dev/full')).stderr).toContain('alive');
  });

  it('H11 variables by which Node loads code or changes trust are gone before anything runs', async () => {
    const evil = join(base, 'evil.cjs');
    await writeFile(
      evil,
      `require('fs').appendFileSync(${JSON.stringify(join(base, 'ran'))}, process.argv.join(' ') + '\\n')`,
    );
    const file = join(process.cwd(), 'agent', `.scrubbed-${process.pid}.ts`);
    await writeFile(
      file,
      `import { scrubEnvironment } from '#/agent/adapters/environment.ts';
       scrubEnvironment();
       console.log(JSON.stringify({ ...process.env, pid: process.pid, parent: process.ppid }));
       process.exitCode = 7;`,
    );
    const environment = {
      NODE_OPTIONS: `--require ${evil}`,
      NODE_EXTRA_CA_CERTS: '/etc/hostname',
      NODE_TLS_REJECT_UNAUTHORIZED: '0',
      HTTPS_PROXY: 'http://evil',
      http_proxy: 'http://evil',
      LD_PRELOAD: '',
      TMPDIR: '/evil',
      PATH: `relative:${process.env['PATH']}`,
      SWITCHBACK_KEPT: 'yes',
    };
    const run = promisify(execFile)(process.execPath, [file], { env: environment }).catch(
      (error: unknown) => error as { code: number; stdout: string },
    );
    const { code, stdout } = (await run) as { code: number; stdout: string };
    await rm(file);
    const clean = JSON.parse(stdout) as Record<string, string | number>;
    expect(code).toBe(7);
    expect(Object.keys(clean).sort()).toEqual(['PATH', 'SWITCHBACK_KEPT', 'parent', 'pid']);
    // The same process, not a child of it: whoever started it and signals it means this one.
    expect(clean['parent']).toBe(process.pid);
    expect(clean['PATH']).not.toContain('relative');
    // Code that Node had loaded ran in the first process only, never in the one that works.
    expect((await readFile(join(base, 'ran'), 'utf8')).trim().split('\n')).toHaveLength(1);
  });
});
