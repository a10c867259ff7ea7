import { execFile, spawn } from 'node:child_process';
import { createServer, type Server } from 'node:http';
import { chmod, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { writeConfig } from '#/control/cli/settings.ts';

const main = fileURLToPath(new URL('../../control/cli/main.ts', import.meta.url));

interface Ended {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

describe('the operator program as a process', () => {
  let dir = '';
  let server: Server;
  let url = '';
  /** What the server answers next, and what it was asked. */
  let answer: { status: number; body: string; type?: string } = { status: 200, body: '{}' };
  let asked: { url: string; authorization: string }[] = [];

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'cli-'));
    server = createServer((request, response) => {
      asked.push({ url: request.url ?? '', authorization: request.headers.authorization ?? '' });
      response.writeHead(answer.status, { 'content-type': answer.type ?? 'application/json' });
      response.end(answer.body);
    });
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    const address = server.address();
    if (address === null || typeof address === 'string') throw new Error('no address');
    url = `http://127.0.0.1:${address.port}`;
  });
  afterAll(async () => {
    await new Promise((done) => server.close(done));
    await rm(dir, { recursive: true, force: true });
  });

  const run = (args: readonly string[], env: Record<string, string> = {}): Promise<Ended> =>
    new Promise((done) => {
      execFile(
        process.execPath,
        [main, ...args],
        { cwd: dir, env: { PATH: process.env['PATH'] ?? '', HOME: dir, ...env } },
        (error, stdout, stderr) => {
          const exitCode = error === null ? 0 : typeof error.code === 'number' ? error.code : -1;
          done({ exitCode, stdout, stderr });
        },
      );
    });
  const connected = () => ({ SWITCHBACK_URL: url, SWITCHBACK_TOKEN: 'sba_secret' });

  it('help of every level ends with 0 and goes to stdout', async () => {
    for (const args of [['--help'], ['rollout', '--help'], ['rollout', 'watch', '--help']]) {
      const { exitCode, stdout, stderr } = await run(args);
      expect([exitCode, stderr]).toEqual([0, '']);
      expect(stdout).toContain('Usage: switchback');
    }
  });

  it.each([
    [['rollout', 'watch']],
    [['nonsense']],
    [['host', 'nonsense']],
    [['host', 'ls', '--nonsense']],
    [['host', 'ls', '--condition', 'happy']],
    [['pin', 'web', '1.0.0']],
    [['host', 'token', '--ttl', 'soon']],
  ])('wrong usage %j ends with 2 and says what is accepted', async (args) => {
    const { exitCode, stdout, stderr } = await run(args, connected());
    expect([exitCode, stdout]).toEqual([2, '']);
    expect(stderr).toMatch(/^E_USAGE: .+\n {2}next: /);
  });

  it('a family without a command shows its help and ends with 2', async () => {
    const { exitCode, stderr } = await run(['rollout']);
    expect(exitCode).toBe(2);
    expect(stderr).toContain('watch');
  });

  it('without address and token the three ways to give them are told', async () => {
    const { exitCode, stderr } = await run(['status']);
    expect(exitCode).toBe(2);
    for (const way of ['--url', 'SWITCHBACK_URL', 'switchback init']) expect(stderr).toContain(way);
  });

  it('a settings file that others may read is refused, with its mode', async () => {
    const path = join(dir, 'open.json');
    await writeConfig(path, { schema: 'switchback.cli-config/1', url, token: 't' });
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    await chmod(path, 0o644);
    const { exitCode, stderr } = await run(['status', '--config', path]);
    expect(exitCode).toBe(78);
    expect(stderr).toContain('644');
  });

  it('a settings file of another version or with an unknown key is refused by name of the key', async () => {
    const path = join(dir, 'wrong.json');
    const good = { schema: 'switchback.cli-config/1', url, token: 't' };
    for (const [bad, key] of [
      [{ ...good, schema: 'switchback.cli-config/2' }, 'schema'],
      [{ ...good, tokn: 'x' }, 'tokn'],
      [{ ...good, url: 'nowhere' }, 'url'],
    ] as const) {
      await writeFile(path, JSON.stringify(bad), { mode: 0o600 });
      const { exitCode, stderr } = await run(['status', '--config', path]);
      expect(exitCode).toBe(78);
      expect(stderr).toContain(key);
    }
  });

  it('flags go before the environment, and the environment before the file', async () => {
    const path = join(dir, 'config.json');
    const token = join(dir, 'token');
    await writeConfig(path, {
      schema: 'switchback.cli-config/1',
      url: 'http://127.0.0.1:1',
      token: 'of-file',
    });
    await writeFile(token, 'of-flag\n', { mode: 0o600 });
    answer = { status: 200, body: '{"items":[],"nextCursor":null}' };
    asked = [];
    await run(['group', 'ls', '--config', path, '--url', url]);
    await run(['group', 'ls', '--config', path], connected());
    await run(['group', 'ls', '--config', path, '--token-file', token], connected());
    expect(asked.map((one) => one.authorization)).toEqual([
      'Bearer of-file',
      'Bearer sba_secret',
      'Bearer of-flag',
    ]);
  });

  it('no connection is 75, with the cause; nothing listens on port 1', async () => {
    const { exitCode, stderr } = await run(['status'], {
      SWITCHBACK_URL: 'http://127.0.0.1:1',
      SWITCHBACK_TOKEN: 't',
    });
    expect(exitCode).toBe(75);
    expect(stderr).toMatch(/^E_NETWORK: .*\n {2}caused by: connect ECONNREFUSED/);
  });

  it('the code that control answers with decides the exit code', async () => {
    const problem = { code: 'E_NOT_FOUND', message: 'no group web', details: {}, requestId: 'q-7' };
    answer = { status: 404, body: JSON.stringify(problem) };
    const text = await run(['group', 'show', 'web'], connected());
    expect(text.exitCode).toBe(20);
    expect(text.stderr).toContain('E_NOT_FOUND: no group web\n  request: q-7\n');
    const json = await run(['group', 'show', 'web', '--json'], connected());
    expect(JSON.parse(json.stderr)).toMatchObject({
      code: 'E_NOT_FOUND',
      exit: 20,
      details: { requestId: 'q-7' },
    });
    expect(json.stdout).toBe('');
  });

  it('a proxy that answers with a page of HTML is not taken for control', async () => {
    answer = { status: 502, body: '<html>bad gateway</html>', type: 'text/html' };
    const { exitCode, stderr } = await run(['status'], connected());
    expect(exitCode).toBe(75);
    expect(stderr).toMatch(/^E_HTTP: .*502/);
    answer = { status: 200, body: '<html>log in</html>', type: 'text/html' };
    expect((await run(['status'], connected())).stderr).toMatch(/^E_HTTP: .*not JSON/);
  });

  it('the token is in no output', async () => {
    answer = { status: 500, body: '{}' };
    const { stdout, stderr } = await run(['status'], connected());
    expect(stdout + stderr).not.toContain('sba_secret');
  });

  it('a reader that stops early is no failure', async () => {
    const item = { id: 1, atMs: 0, actor: 'a', type: 't', subject: 's', details: {} };
    const items = Array.from({ length: 20_000 }, () => item);
    answer = { status: 200, body: JSON.stringify({ items, nextCursor: null }) };
    const child = spawn(
      'bash',
      ['-c', `"$0" "$1" audit ls | head -1; exit "\${PIPESTATUS[0]}"`, process.execPath, main],
      {
        cwd: dir,
        env: { PATH: process.env['PATH'] ?? '', HOME: dir, ...connected() },
      },
    );
    const stderr: Buffer[] = [];
    child.stderr.on('data', (part: Buffer) => stderr.push(part));
    const code = await new Promise((done) => child.on('exit', done));
    expect([code, Buffer.concat(stderr).toString()]).toEqual([0, '']);
  });

  it('a key file never shows its secret, is private, and is not overwritten', async () => {
    const path = join(dir, 'release.json');
    const made = await run(['key', 'new', path, '--use', 'release', '--json']);
    expect(made.exitCode).toBe(0);
    const { keys } = JSON.parse(await readFile(path, 'utf8')) as { keys: { seed: string }[] };
    const shown = await run(['key', 'show', path]);
    for (const output of [made.stdout, shown.stdout]) expect(output).not.toContain(keys[0]!.seed);
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect((await run(['key', 'new', path, '--use', 'release'])).exitCode).toBe(20);
  });

  it('a bundle is built the same twice, verified, and refused under another key', async () => {
    const tree = join(dir, 'tree');
    await run(['key', 'new', join(dir, 'k1.json'), '--use', 'release']);
    await run(['key', 'new', join(dir, 'k2.json'), '--use', 'release']);
    await writeFile(
      join(dir, 'd.toml'),
      'name = "web"\nclass = "web"\nversion = "1.0.0"\nrelease = 1\n',
    );
    await rm(tree, { recursive: true, force: true });
    await mkdir(tree);
    await writeFile(join(tree, 'index.html'), 'hello\n'.repeat(10_000));
    const build = (out: string, ...more: string[]) =>
      run(
        [
          'bundle',
          'build',
          tree,
          '--definition',
          'd.toml',
          '--out',
          out,
          '--key',
          'k1.json',
          '--json',
          ...more,
        ],
        { SOURCE_DATE_EPOCH: '1764100000' },
      );
    const first = await build('a.bundle');
    const second = await build('b.bundle', '--workers', '1');
    expect([first.exitCode, second.exitCode]).toEqual([0, 0]);
    const bytes = await Promise.all([
      readFile(join(dir, 'a.bundle')),
      readFile(join(dir, 'b.bundle')),
    ]);
    expect(bytes[0].equals(bytes[1])).toBe(true);
    const good = await run(['bundle', 'verify', 'a.bundle', '--keys', 'k1.json', '--json']);
    expect(JSON.parse(good.stdout)).toMatchObject({
      version: '1.0.0',
      release: 1,
      signaturesChecked: true,
    });
    const foreign = await run(['bundle', 'verify', 'a.bundle', '--keys', 'k2.json']);
    expect(foreign.exitCode).toBe(20);
    expect(foreign.stderr).toMatch(/E_SIGS/);
    const { artifactId } = JSON.parse(first.stdout) as { artifactId: string };
    const sign = ['bundle', 'sign', 'a.bundle', '--key', 'k2.json', '--out', 'both.bundle'];
    await run([...sign, '--artifact', artifactId]);
    expect((await run(['bundle', 'verify', 'both.bundle', '--keys', 'k2.json'])).exitCode).toBe(0);
    expect((await run(['bundle', 'verify', 'both.bundle', '--keys', 'k1.json'])).exitCode).toBe(0);
    expect((await run([...sign, '--artifact', 'f'.repeat(64)])).stderr).toMatch(/^E_ARTIFACT/);
    const unchecked = await run(['bundle', 'verify', 'a.bundle', '--no-signatures']);
    expect(unchecked.stdout).toContain('NOT checked');
  });
});
