import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const main = fileURLToPath(new URL('../../control/cli/main.ts', import.meta.url));

interface Ended {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no address');
  await new Promise((done) => server.close(done));
  return address.port;
}

describe('the operator program against a real control', () => {
  let dir = '';
  let control: ChildProcess;
  let initial: Ended;
  let port = 0;
  const log: string[] = [];

  const env = () => ({
    PATH: process.env['PATH'] ?? '',
    HOME: dir,
    SWITCHBACK_CONFIG: join(dir, 'operator.json'),
    SOURCE_DATE_EPOCH: '1764100000',
  });
  const run = (args: readonly string[]): Promise<Ended> =>
    new Promise((done) => {
      execFile(
        process.execPath,
        [main, ...args],
        { cwd: dir, env: env() },
        (error, stdout, stderr) => {
          const exitCode = error === null ? 0 : typeof error.code === 'number' ? error.code : -1;
          done({ exitCode, stdout, stderr });
        },
      );
    });
  /** The parsed JSON of a command that must succeed. */
  const json = async <T>(args: readonly string[]): Promise<T> => {
    const { exitCode, stdout, stderr } = await run([...args, '--json']);
    expect([exitCode, stderr.includes('"code"') ? stderr : '']).toEqual([0, '']);
    return JSON.parse(stdout) as T;
  };

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'cli-control-'));
    port = await freePort();
    initial = await run(['init', '--data', 'fleet', '--listen', `127.0.0.1:${port}`]);
    if (initial.exitCode !== 0) throw new Error(initial.stderr);
    control = spawn(process.execPath, [main, 'serve', '--data', 'fleet'], {
      cwd: dir,
      env: env(),
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    control.stdout?.on('data', (part: Buffer) => log.push(part.toString()));
    control.stderr?.on('data', (part: Buffer) => log.push(part.toString()));
    for (let tries = 0; ; tries += 1) {
      const answer = await fetch(`http://127.0.0.1:${port}/healthz`).catch(() => null);
      if (answer?.ok === true) break;
      if (tries > 300 || control.exitCode !== null) throw new Error(`control: ${log.join('')}`);
      await new Promise((done) => setTimeout(done, 100));
    }
    await mkdir(join(dir, 'site'));
    await writeFile(join(dir, 'site', 'index.html'), 'hello\n'.repeat(5000));
    await writeFile(
      join(dir, 'web.toml'),
      'name = "web"\nclass = "web"\nversion = "1.0.0"\nrelease = 1\n',
    );
  });
  afterAll(async () => {
    control.kill('SIGTERM');
    if (control.exitCode === null) await new Promise((done) => control.on('exit', done));
    await rm(dir, { recursive: true, force: true });
  });

  it('init leaves a secret readable by others, or does not say what is not protected', async () => {
    expect(initial.stdout + initial.stderr).toMatch(/not protected/);
    expect(initial.stdout + initial.stderr).toMatch(/root/);
    const config = join(dir, 'operator.json');
    expect((await stat(config)).mode & 0o777).toBe(0o600);
    const { releaseKeys, token } = JSON.parse(await readFile(config, 'utf8')) as {
      releaseKeys: string;
      token: string;
    };
    expect((await stat(releaseKeys)).mode & 0o777).toBe(0o600);
    expect(initial.stdout + initial.stderr).not.toContain(token);
  });

  it('init runs over a fleet that is there', async () => {
    const again = await run(['init', '--data', 'fleet', '--listen', `127.0.0.1:${port}`]);
    expect(again.exitCode).toBe(20);
    expect(again.stderr).toMatch(/^E_CONFLICT/);
  });

  it('a group is lost between create, set, show and ls, or another change of it is overwritten', async () => {
    const made = await json<{ name: string; rollout: { canaryCount: number } }>([
      'group',
      'create',
      'web',
      '--canary',
      '2',
      '--soak',
      '1s',
    ]);
    expect(made).toMatchObject({ name: 'web', rollout: { canaryCount: 2, soakSeconds: 1 } });
    const set = await json(['group', 'set', 'web', '--max-failures', '2.5']);
    expect(set).toMatchObject({
      rollout: { canaryCount: 2, soakSeconds: 1, maxFailurePercent: 2.5 },
    });
    expect(await json<{ items: { name: string }[] }>(['group', 'ls'])).toMatchObject({
      items: [{ name: 'web' }],
    });
    expect((await run(['group', 'show', 'web'])).stdout).toMatch(/failure bound +2\.5%/);
    expect((await run(['group', 'create', 'web'])).stderr).toMatch(/^E_CONFLICT/);
    expect((await run(['group', 'show', 'nowhere'])).stderr).toMatch(/^E_NOT_FOUND/);
  });

  it('a bundle cannot be built, imported, found by version, and pinned', async () => {
    const built = await json<{ artifactId: string }>([
      'bundle',
      'build',
      'site',
      '--definition',
      'web.toml',
      '--out',
      'web.bundle',
    ]);
    const release = await json<{ artifactId: string; signers: string[] }>([
      'release',
      'import',
      'web.bundle',
    ]);
    expect(release.artifactId).toBe(built.artifactId);
    expect(release.signers).toHaveLength(1);
    expect(await json(['release', 'import', 'web.bundle'])).toMatchObject({
      artifactId: built.artifactId,
    });
    for (const name of ['1.0.0', 'web/1.0.0', built.artifactId.slice(0, 8)]) {
      expect(await json(['release', 'show', name])).toMatchObject({ artifactId: built.artifactId });
    }
    const pinned = await json<{ pin: { reason: string } }>([
      'pin',
      'web',
      '1.0.0',
      '--reason',
      'first',
      '--expires',
      '7d',
    ]);
    expect(pinned.pin).toMatchObject({ group: 'web', version: '1.0.0', reason: 'first' });
    expect((await run(['pin', 'web', '9.9.9', '--reason', 'x'])).stderr).toMatch(
      /^E_NOT_FOUND: no release '9\.9\.9'/,
    );
  });

  it('a bundle signed by a stranger is admitted', async () => {
    await run(['key', 'new', 'stranger.json', '--use', 'release']);
    await run([
      'bundle',
      'build',
      'site',
      '--definition',
      'web.toml',
      '--out',
      'foreign.bundle',
      '--key',
      'stranger.json',
      '--set-version',
      '6.6.6',
      '--set-release',
      '6',
    ]);
    const refused = await run(['release', 'import', 'foreign.bundle']);
    expect(refused.exitCode).toBe(20);
    expect(refused.stderr).toMatch(/E_SIGS/);
    expect(await json<{ items: unknown[] }>(['release', 'ls'])).toMatchObject({
      items: [{ version: '1.0.0' }],
    });
  });

  it('a bundle that is held elsewhere is not admitted, or its bytes are uploaded', async () => {
    await json([
      'bundle',
      'build',
      'site',
      '--definition',
      'web.toml',
      '--out',
      'elsewhere.bundle',
      '--set-version',
      '1.1.0',
      '--set-release',
      '2',
    ]);
    const { version } = await json<{ version: string }>(['version']);
    expect(await json(['bundle', 'verify', 'elsewhere.bundle'])).toMatchObject({
      attestations: ['https://slsa.dev/provenance/v1'],
    });
    // The provenance says which program built it.
    const content = await readFile(join(dir, 'elsewhere.bundle'), 'latin1');
    const payload = /"payload":"([^"]+)","payloadType":"application\/vnd.in-toto\+json"/.exec(
      content,
    );
    const statement = Buffer.from(payload?.[1] ?? '', 'base64').toString();
    expect(statement).toContain(`"switchback":"${version}"`);
    const url = 'https://mirror.invalid/elsewhere.bundle';
    const admitted = await json<{ sources: string[] }>([
      'release',
      'reference',
      'elsewhere.bundle',
      url,
    ]);
    expect(admitted).toMatchObject({ version: '1.1.0', sources: [url] });
    const refused = await run(['release', 'reference', 'foreign.bundle', url]);
    expect([refused.exitCode, refused.stderr.slice(0, 6)]).toEqual([20, 'E_SIGS']);
  });

  it('a halt is not in force, not shown, or cannot be lifted', async () => {
    await json(['halt', '--group', 'web', '--reason', 'drill']);
    expect(await json(['status'])).toMatchObject({ halts: [{ reason: 'drill' }] });
    expect((await run(['status'])).stdout).toMatch(/halted +.*drill/);
    await json(['halt', '--lift', '--group', 'web', '--reason', 'drill over']);
    expect(await json(['status'])).toMatchObject({ halts: [] });
  });

  it('a join text does not hold what a host needs', async () => {
    const made = await json<{ join: string; rootSha256: string }>([
      'host',
      'token',
      'web',
      '--labels',
      'name=web-1',
      '--ttl',
      '15m',
    ]);
    expect(made.join).toMatch(/^sbj1\./);
    const inside = JSON.parse(Buffer.from(made.join.slice(5), 'base64url').toString()) as {
      u: string[];
      r: string;
    };
    expect(inside).toMatchObject({ u: [`http://127.0.0.1:${port}`], r: made.rootSha256 });
    expect((await run(['host', 'token', 'web'])).stdout).toMatch(/^sbj1\.\S+\n$/);
  });

  it('the audit log or the event stream misses a change', async () => {
    const { items } = await json<{ items: { type: string; subject: string }[] }>([
      'audit',
      'ls',
      '--subject',
      'group/web',
    ]);
    expect(items.length).toBeGreaterThanOrEqual(3);
    const { stdout } = await run(['events', '--after', '0', '--count', '3', '--json']);
    const lines = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { id: number });
    expect(lines.map((line) => line.id)).toEqual([1, 2, 3]);
  });

  it('the trust status does not know the roles', async () => {
    const { roles, protectionsOff } = await json<{
      roles: { role: string; hasExpired: boolean }[];
      protectionsOff: string[];
    }>(['trust', 'status']);
    expect(roles.map((role) => role.role)).toEqual(
      expect.arrayContaining(['root', 'timestamp', 'snapshot', 'targets']),
    );
    expect(roles.every((role) => !role.hasExpired)).toBe(true);
    expect(protectionsOff.length).toBeGreaterThan(0);
  });

  it('lists without hosts and rollouts fail instead of being empty', async () => {
    expect(await json(['host', 'ls'])).toEqual({ items: [] });
    expect((await run(['host', 'ls'])).stdout).toBe('no hosts\n');
    expect((await run(['host', 'show', 'h-abcdef'])).stderr).toMatch(/^E_NOT_FOUND/);
    expect((await run(['rollout', 'ls'])).exitCode).toBe(0);
  });

  it('a pin is not removed, or a revoked release can be pinned', async () => {
    await json(['unpin', 'web']);
    expect(await json(['group', 'show', 'web'])).toMatchObject({ pin: null });
    expect(await json(['release', 'revoke', '1.0.0', '--reason', 'drill'])).toMatchObject({
      state: 'revoked',
    });
    expect((await run(['pin', 'web', '1.0.0', '--reason', 'again'])).stderr).toMatch(/^E_REVOKED/);
    // What was pinned keeps its sequence, so that no old pin can be played back under its name.
    expect((await run(['group', 'rm', 'web'])).stderr).toMatch(/^E_NOT_ALLOWED_NOW/);
    await json(['group', 'create', 'db']);
    expect(await json(['group', 'rm', 'db'])).toEqual({ removed: 'db' });
    expect(await json(['group', 'ls'])).toMatchObject({ items: [{ name: 'web' }] });
  });

  it('SIGTERM ends control with another code than 0', async () => {
    control.kill('SIGTERM');
    const code = await new Promise((done) => control.on('exit', done));
    expect(code).toBe(0);
    expect((await run(['status'])).exitCode).toBe(75);
  });
});
