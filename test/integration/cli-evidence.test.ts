/** The operator's way through gates and the audit log, command by command, against a real control. */
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startWorld, type World } from '#/test/support/control/world.ts';

const main = fileURLToPath(new URL('../../control/cli/main.ts', import.meta.url));
const APPROVAL = 'https://switchback.invalid/approval/v1';

describe('gates and the audit log, from the command line', () => {
  let dir = '';
  let world: World;

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'cli-evidence-'));
    world = await startWorld();
    await writeFile(join(dir, 'index.html'), 'hello\n');
    await writeFile(
      join(dir, 'web.toml'),
      'name = "web"\nclass = "web"\nversion = "1.0.0"\nrelease = 1\n',
    );
  });
  afterAll(async () => {
    await world[Symbol.asyncDispose]();
    await rm(dir, { recursive: true, force: true });
  });

  const run = (...args: string[]): Promise<{ exitCode: number; stdout: string; stderr: string }> =>
    new Promise((done) => {
      const env = {
        PATH: process.env['PATH'] ?? '',
        HOME: dir,
        SWITCHBACK_URL: world.control.url,
        SWITCHBACK_TOKEN: world.adminToken,
        SOURCE_DATE_EPOCH: '1764100000',
      };
      execFile(process.execPath, [main, ...args], { cwd: dir, env }, (error, stdout, stderr) => {
        const exitCode = error === null ? 0 : typeof error.code === 'number' ? error.code : -1;
        done({ exitCode, stdout, stderr });
      });
    });
  const json = async <T>(...args: string[]): Promise<T> => {
    const { exitCode, stdout, stderr } = await run(...args, '--json');
    expect([exitCode, exitCode === 0 ? '' : stderr]).toEqual([0, '']);
    return JSON.parse(stdout) as T;
  };
  const keyOf = async (use: string): Promise<string> => {
    const { keys } = await json<{ keys: { use: string; public: string }[] }>('trust', 'keys');
    return keys.find((key) => key.use === use)?.public ?? '';
  };
  const file = (name: string, value: object): Promise<void> =>
    writeFile(join(dir, name), JSON.stringify(value));

  it('P03 a pin is denied until it is approved, by the commands that the runbook names', async () => {
    const release = join(world.dir, 'keys/trust.json');
    await json('group', 'create', 'prod');
    await json(
      'bundle',
      'build',
      'index.html',
      '--definition',
      'web.toml',
      '--out',
      'web.bundle',
      '--key',
      release,
    );
    await json('release', 'import', 'web.bundle');
    await json('key', 'new', 'ann.json', '--use', 'release');
    const ann = JSON.parse(await readFile(join(dir, 'ann.json'), 'utf8')) as {
      keys: { public: string }[];
    };
    const keys = [ann.keys[0]?.public ?? ''];
    const attesters = [{ name: 'ann', keys, types: [APPROVAL], builders: [] }];
    await file('attesters.json', { schema: 'switchback.attesters/1', attesters });
    const rule = {
      name: 'approved',
      message: 'ann approved it',
      expression: "'ann' in approvers",
      groups: ['*'],
    };
    const gates = {
      schema: 'switchback.gates/1',
      verifierId: 'gate:test',
      keys: [await keyOf('gate')],
      groups: ['prod'],
      rules: [rule],
    };
    await file('gates.json', gates);
    await file('bad.json', { ...gates, rules: [{ ...rule, expression: 'nobody.knows' }] });
    const bad = await run('trust', 'policy', 'bad.json', '--reason', 'x');
    expect([bad.exitCode, bad.stderr]).toEqual([78, expect.stringMatching(/^E_CONFIG.*no fact/)]);
    await json('trust', 'policy', 'attesters.json', '--reason', 'who approves');
    await json('trust', 'policy', 'gates.json', '--reason', 'approvals');
    const denied = await run('pin', 'prod', '1.0.0', '--reason', 'first');
    expect([denied.exitCode, denied.stderr]).toEqual([
      20,
      expect.stringContaining('ann approved it'),
    ]);
    await file('approval.json', { group: 'prod' });
    await json(
      'attest',
      'web.bundle',
      '--predicate',
      'approval.json',
      '--type',
      APPROVAL,
      '--key',
      'ann.json',
      '--send',
    );
    await json('pin', 'prod', '1.0.0', '--reason', 'approved');
  });

  it('C17 the bundle is rebuilt the same, and after a change it is not', async () => {
    const release = join(world.dir, 'keys/trust.json');
    const rebuild = [
      'bundle',
      'rebuild',
      'web.bundle',
      'index.html',
      '--definition',
      'web.toml',
      '--key',
      release,
    ];
    expect(await json(...rebuild, '--check')).toMatchObject({ isSame: true, keyIds: [] });
    await writeFile(join(dir, 'index.html'), 'hullo\n');
    expect((await run(...rebuild)).stderr).toMatch(/^E_ARTIFACT/);
  });

  it('X06 the log is exported and verified; a byte of the export that changes is found', async () => {
    await json('audit', 'export', '--out', 'log');
    const { origin } = await json<{ origin: string; isKeyFromControl: boolean }>(
      'audit',
      'verify',
      '--export',
      'log',
    );
    const verify = [
      'audit',
      'verify',
      '--export',
      'log',
      '--origin',
      origin,
      '--key',
      await keyOf('log'),
    ];
    expect(await json(...verify)).toMatchObject({ origin, isKeyFromControl: false });
    const [name] =
      (await json<{ size: number }>(...verify)).size > 0 ? ['log/tile/entries/000.p'] : [''];
    const width = (await readFile(join(dir, 'log/checkpoint'), 'utf8')).split('\n')[1];
    const path = join(dir, `${name}/${width}`);
    const bytes = await readFile(path);
    bytes[40] = (bytes[40] ?? 0) ^ 1;
    await writeFile(path, bytes);
    const broken = await run(...verify);
    expect([broken.exitCode, broken.stderr]).toEqual([
      20,
      expect.stringContaining('entry 0 is not'),
    ]);
    expect((await run('audit', 'export', '--out', 'log')).stderr).toMatch(/^E_CONFLICT/);
  });

  it('the example rules that are shipped pass their examples', async () => {
    const examples = fileURLToPath(new URL('../../control/policy/examples/', import.meta.url));
    const test = ['gate', 'test', join(examples, 'gates.json'), join(examples, 'examples.json')];
    expect(await json(...test)).toMatchObject({ wrong: [] });
  });
});
