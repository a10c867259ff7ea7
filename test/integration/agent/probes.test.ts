import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, utimes, writeFile } from 'node:fs/promises';
import { createServer, type RequestListener, type Server } from 'node:http';
import { createServer as createTcpServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { HealthCheck } from '#/bundle/manifest.ts';
import { createExec } from '#/agent/adapters/exec.ts';
import { identify } from '#/agent/adapters/processes.ts';
import { createProbes } from '#/agent/adapters/probes.ts';

const common = {
  name: 'c',
  required: true,
  timeoutMs: 5000,
  intervalMs: 1,
  successesNeeded: 1,
  failuresAllowed: 0,
  baseline: 'must-pass',
  startAfterMs: 0,
} as const;

let directory = '';
const open: { close(): void }[] = [];
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'switchback-probes-'));
});
afterEach(async () => {
  for (const one of open.splice(0)) one.close();
  await rm(directory, { recursive: true, force: true });
});

const probes = () =>
  createProbes({
    exec: createExec(),
    slotPath: () => directory,
    diskPath: directory,
    wallMs: () => Date.now(),
    monotonicMs: () => performance.now(),
    systemctl: join(directory, 'systemctl'),
  });
const run = (check: Partial<HealthCheck> & { kind: HealthCheck['kind'] }) =>
  probes().run({ ...common, ...check } as HealthCheck);

async function serve(listener: RequestListener): Promise<{ url: string; server: Server }> {
  const server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  open.push({
    close: () => {
      server.closeAllConnections();
      server.close();
    },
  });
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return { url: `http://127.0.0.1:${address.port}/health`, server };
}

const isAlive = (pid: number): boolean => identify(pid) !== null;
async function pidFrom(file: string): Promise<number> {
  for (let tries = 0; tries < 200; tries += 1) {
    const text = await readFile(file, 'utf8').catch(() => '');
    if (/^\d+\n/.test(text)) return Number(text);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`no pid in ${file}`);
}

/** What was sent SIGKILL takes a moment to go on a busy machine. */
const expectDead = (pid: number): Promise<void> =>
  expect.poll(() => isAlive(pid), { timeout: 5000 }).toBe(false);

describe('http check', () => {
  it('passes on the expected status and text', async () => {
    const { url } = await serve((_request, response) => response.end('all is well'));
    const result = await run({ kind: 'http', url, status: 200, bodyIncludes: 'is well' });
    expect(result).toMatchObject({ ok: true, name: 'c', detail: `GET ${url}: status 200` });
  });

  it('another status fails, with what the service said', async () => {
    const { url } = await serve((_request, response) => {
      response.statusCode = 503;
      response.end('database\nis gone');
    });
    const result = await run({ kind: 'http', url, status: 200 });
    expect(result.ok).toBe(false);
    expect(result.detail).toContain('status 503, expected 200: database is gone');
  });

  it('H06 the right status with the wrong text fails', async () => {
    const { url } = await serve((_request, response) => response.end('starting'));
    const result = await run({ kind: 'http', url, status: 200, bodyIncludes: 'ready' });
    expect(result.ok).toBe(false);
    expect(result.detail).toContain('does not contain "ready"');
  });

  it('a redirect is not followed to a service that is healthy', async () => {
    const healthy = await serve((_request, response) => response.end('ok'));
    const { url } = await serve((_request, response) => {
      response.writeHead(302, { location: healthy.url });
      response.end();
    });
    expect((await run({ kind: 'http', url, status: 200 })).ok).toBe(false);
  });

  it('F43 a service that takes the connection and never answers fails at the timeout', async () => {
    const { url } = await serve(() => undefined);
    const result = await run({ kind: 'http', url, status: 200, timeoutMs: 150 });
    expect(result.ok).toBe(false);
    expect(result.durationMs).toBeGreaterThanOrEqual(140);
  });

  it('F43 a body that drips for ever fails at the timeout', async () => {
    const { url } = await serve((_request, response) => {
      const timer = setInterval(() => response.write('.'), 10);
      response.on('close', () => clearInterval(timer));
    });
    const result = await run({ kind: 'http', url, status: 200, timeoutMs: 200 });
    expect(result.ok).toBe(false);
  });

  it('H06 an endless body is read only up to its limit', async () => {
    const { url } = await serve((_request, response) => {
      const block = Buffer.alloc(64 * 1024, 'x');
      const write = (): void => {
        while (response.write(block));
        response.once('drain', write);
      };
      write();
    });
    const result = await run({
      kind: 'http',
      url,
      status: 200,
      bodyIncludes: 'y',
      timeoutMs: 5000,
    });
    expect(result.ok).toBe(false);
    expect(result.detail).toContain('does not contain');
  });

  it('a port on which nothing listens is a plain refusal', async () => {
    const { url, server } = await serve(() => undefined);
    server.close();
    server.closeAllConnections();
    const result = await run({ kind: 'http', url, status: 200 });
    expect(result).toMatchObject({ ok: false });
    expect(result.detail).toContain('connection refused');
  });
});

describe('tcp check', () => {
  it('passes where something listens and fails where nothing does', async () => {
    const server = createTcpServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const port = (server.address() as { port: number }).port;
    expect(await run({ kind: 'tcp', host: '127.0.0.1', port })).toMatchObject({ ok: true });
    await new Promise((resolve) => server.close(resolve));
    const result = await run({ kind: 'tcp', host: '127.0.0.1', port });
    expect(result).toMatchObject({ ok: false, detail: `connect 127.0.0.1:${port}: ECONNREFUSED` });
  });
});

describe('exec check', () => {
  it('exit code 0 passes, any other fails with code and output', async () => {
    expect(await run({ kind: 'exec', argv: ['/bin/true'] })).toMatchObject({ ok: true });
    const result = await run({ kind: 'exec', argv: ['/bin/sh', '-c', 'echo no disk >&2; exit 3'] });
    expect(result).toMatchObject({ ok: false, detail: 'exit code 3: no disk' });
  });

  it('a program that is not there fails with its name', async () => {
    const result = await run({ kind: 'exec', argv: ['/nonexistent/check'] });
    expect(result).toMatchObject({ ok: false });
    expect(result.detail).toContain('start /nonexistent/check: ENOENT');
  });

  it('{slot} stands for the directory of the version', async () => {
    await writeFile(join(directory, 'check'), '#!/bin/sh\nexit 0\n', { mode: 0o755 });
    expect((await run({ kind: 'exec', argv: ['{slot}/check'] })).ok).toBe(true);
  });

  it('F43 a check that hangs is killed at its timeout with its children', async () => {
    const file = join(directory, 'pid');
    const result = await run({
      kind: 'exec',
      argv: ['/bin/sh', '-c', `trap "" TERM; sleep 1000 & echo $! > ${file}; wait`],
      timeoutMs: 1500,
    });
    expect(result.ok).toBe(false);
    expect(result.detail).toMatch(/killed after \d+ ms/);
    await expectDead(await pidFrom(file));
  });

  it('H06 a child that left the session and dropped its output is killed too', async () => {
    const file = join(directory, 'pid');
    const result = await run({
      kind: 'exec',
      argv: [
        '/bin/sh',
        '-c',
        `setsid sh -c 'echo $$ > ${file}; exec sleep 1000' </dev/null >/dev/null 2>&1 & while [ ! -s ${file} ]; do sleep 0.01; done; exit 0`,
      ],
      timeoutMs: 5000,
    });
    expect(result.ok).toBe(true);
    await expectDead(await pidFrom(file));
  });

  it('H06 exit code 0 after the timeout is a failure', async () => {
    const result = await run({
      kind: 'exec',
      argv: ['/bin/sh', '-c', 'trap "exit 0" TERM; sleep 3; exit 0'],
      timeoutMs: 200,
    });
    expect(result.ok).toBe(false);
  });

  it('H06 endless output is cut, and the end of it is kept', async () => {
    const result = await run({
      kind: 'exec',
      argv: ['/bin/sh', '-c', 'head -c 3000000 /dev/zero | tr "\\0" x; echo; echo the end; exit 1'],
      timeoutMs: 8000,
    });
    expect(result.ok).toBe(false);
    expect(result.detail.length).toBeLessThanOrEqual(1024);
  });

  it('H11 nothing of the environment of the agent reaches a check', async () => {
    process.env['SWITCHBACK_TEST_SECRET'] = 'x';
    const result = await run({
      kind: 'exec',
      argv: ['/bin/sh', '-c', 'test -z "$SWITCHBACK_TEST_SECRET" && test -z "$NODE_OPTIONS"'],
    });
    delete process.env['SWITCHBACK_TEST_SECRET'];
    expect(result.ok).toBe(true);
  });
});

describe('process check', () => {
  it('sees a program by its file, not by its name', async () => {
    const child = spawn('/bin/sleep', ['1000'], { stdio: 'ignore' });
    open.push({ close: () => child.kill('SIGKILL') });
    expect(await run({ kind: 'process', executable: '/bin/sleep' })).toMatchObject({ ok: true });
    expect(await run({ kind: 'process', executable: '/usr/bin/cksum' })).toMatchObject({
      ok: false,
    });
    expect((await run({ kind: 'process', executable: '/nonexistent' })).detail).toContain('ENOENT');
  });
});

describe('file check', () => {
  it('must be there, and young enough where that is asked', async () => {
    const path = join(directory, 'beat');
    expect((await run({ kind: 'file', path })).ok).toBe(false);
    await writeFile(path, '');
    expect((await run({ kind: 'file', path, maxAgeMs: 60_000 })).ok).toBe(true);
    await utimes(path, new Date(0), new Date(Date.now() - 120_000));
    const old = await run({ kind: 'file', path, maxAgeMs: 60_000 });
    expect(old.ok).toBe(false);
    expect(old.detail).toContain('at most 60000 ms');
  });
});

describe('unit check', () => {
  const systemctl = (output: string, code = 0) =>
    writeFile(join(directory, 'systemctl'), `#!/bin/sh\nprintf '${output}'\nexit ${code}\n`, {
      mode: 0o755,
    });
  it('only an active unit passes', async () => {
    await systemctl('LoadState=loaded\\nActiveState=active\\nSubState=running\\nNRestarts=0\\n');
    expect((await run({ kind: 'unit', unit: 'web.service' })).ok).toBe(true);
    await systemctl(
      'LoadState=loaded\\nActiveState=activating\\nSubState=auto-restart\\nResult=exit-code\\nNRestarts=4\\n',
    );
    const storm = await run({ kind: 'unit', unit: 'web.service' });
    expect(storm.ok).toBe(false);
    expect(storm.detail).toContain('activating (auto-restart), result exit-code, 4 restarts');
    await systemctl('LoadState=not-found\\nActiveState=inactive\\n');
    expect((await run({ kind: 'unit', unit: 'x.service' })).detail).toContain('is not known');
    await systemctl('no systemd here', 1);
    expect((await run({ kind: 'unit', unit: 'x.service' })).detail).toContain('exit code 1');
  });
});

describe('resource check', () => {
  it('compares free disk and memory with their limits and says both', async () => {
    const enough = await run({
      kind: 'resource',
      minDiskFreeBytes: 1,
      minMemoryFreeBytes: 1,
      timeoutMs: 5000,
    });
    expect(enough.ok).toBe(true);
    expect(enough.detail).toMatch(/bytes free in .*, \d+ bytes of memory available/);
    const never = Number.MAX_SAFE_INTEGER;
    expect((await run({ kind: 'resource', minDiskFreeBytes: never })).ok).toBe(false);
    expect((await run({ kind: 'resource', minMemoryFreeBytes: never, timeoutMs: 5000 })).ok).toBe(
      false,
    );
    expect((await run({ kind: 'resource', maxLoadPerCorePercent: 100_000 })).ok).toBe(true);
  });
});
