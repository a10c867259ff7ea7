/** Config sets with the operator's program, a real control, and hosts with real keys: built, sealed, listed, pinned. */
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openEntries, ownSecrets, peekConfigSet, readSealed } from '#/bundle/config-set.ts';
import { hexOf } from '#/bundle/keys.ts';
import { sealPublicKeyOf } from '#/bundle/seal.ts';
import { openDataDir } from '#/control/data-dir.ts';
import { signStatement } from '#/control/engine/statements.ts';
import { findConfigSet } from '#/control/trust/configs.ts';
import { encodeKeyFile } from '#/control/trust/key-file.ts';
import type { Repository } from '#/control/trust/repository.ts';
import { type ArtifactId, type ConfigId, versionIdOf } from '#/protocol/ids.ts';
import {
  sealSecretOf,
  startWorld,
  type TestHost,
  type World,
} from '#/test/support/control/world.ts';
import { Operator } from '#/test/support/trust/operator.ts';
import { definitionOf } from '#/test/support/config-world.ts';

const SECRET = 'correct horse battery staple 3141592';
let world: World;
let host: TestHost;
let dir = '';
let op: Operator;
let v1: ArtifactId;
let plainArtifact: ArtifactId;
let first: ConfigId;
let second: ConfigId;

const repository = (): Repository => ({
  store: { read: (name) => world.control.engine.fleet.trust.get(name) ?? null },
  keys: [],
  nowMs: Date.now(),
});
const definition = (version: number, artifact: string, level = 'info'): string =>
  definitionOf(version, artifact, level);
const write = (name: string, text: string, mode = 0o600): void => {
  writeFileSync(join(dir, name), text);
  chmodSync(join(dir, name), mode);
};
const json = async <T>(...args: readonly string[]): Promise<T> =>
  JSON.parse(await op.ok(...args, '--json')) as T;

async function build(version: number, level?: string): Promise<ConfigId> {
  write(`web-${version}.toml`, definition(version, v1, level));
  const args = [`web-${version}.toml`, '--out', `web-${version}.config`, '--key', 'config.json'];
  return (await json<{ configId: ConfigId }>('config', 'build', ...args)).configId;
}
const importFile = (name: string): Promise<string> =>
  op.ok('config', 'import', name, '--key', 'config.json', '--reason', 'test');

beforeAll(async () => {
  world = await startWorld();
  await world.group('web');
  await world.group('other');
  host = await world.host('web');
  dir = mkdtempSync(join(tmpdir(), 'sb-config-'));
  op = new Operator(dir, () => world.control.url, world.adminToken);
  const { trustKeys } = await openDataDir(world.dir);
  const key = trustKeys.filter((each) => each.use === 'config');
  writeFileSync(join(dir, 'config.json'), encodeKeyFile(key as never), { mode: 0o600 });
  op.key('stranger.json', 'config');
  v1 = await world.release(1, { config: { schema: 'web', version: 2 } });
  plainArtifact = await world.release(2);
  write('password.txt', SECRET);
});
afterAll(async () => {
  await world[Symbol.asyncDispose]();
  rmSync(dir, { recursive: true, force: true });
});

describe('a config set', () => {
  it('a secret in a file that others may read is taken', async () => {
    write('open.toml', definition(1, v1).replace('password.txt', 'open.txt'));
    write('open.txt', SECRET, 0o644);
    const ran = await op.run('config', 'build', 'open.toml', '--out', 'x', '--key', 'config.json');
    expect(ran.exitCode).toBe(78);
    expect(ran.stderr).toContain('only its owner may read a secret');
  });

  it('G08 the secret stands in a file, an output or control, or its data keys are readable by others', async () => {
    first = await build(1);
    expect(statSync(join(dir, 'web-1.config.keys')).mode & 0o777).toBe(0o600);
    expect(readFileSync(join(dir, 'web-1.config'), 'utf8')).not.toContain(SECRET);
    const shown = await op.ok('config', 'inspect', 'web-1.config');
    expect(shown).toContain('DB_PASSWORD');
    expect(shown).toContain('"info"');
    expect(shown).not.toContain(SECRET);
  });

  it('a host that nobody compared the key of is sealed for', async () => {
    const result = await json<{
      sealedFor: string[];
      strangers: { host: string; sealKey: string }[];
    }>('config', 'seal', 'web-1.config');
    expect(result.sealedFor).toEqual([]);
    const sealKey = hexOf(sealPublicKeyOf(sealSecretOf(host.signer)));
    expect(result.strangers).toEqual([{ host: host.id, sealKey, why: 'new' }]);
    const accepted = await json<{ added: string[]; strangers: string[] }>(
      'config',
      'seal',
      'web-1.config',
      '--accept',
      host.id,
    );
    expect(accepted).toMatchObject({ added: [host.id], strangers: [] });
    expect(await json('config', 'seal', 'web-1.config')).toMatchObject({ added: [] });
  });

  it('is listed, opens for its host, and the log has no more than digests of ciphertext (G09)', async () => {
    await importFile('web-1.config');
    const { items } = await world.admin.call('configList', {});
    expect(items).toMatchObject([
      { configId: first, scope: 'web', version: 1, secrets: 1, plain: 1, sealedFor: [host.id] },
    ]);
    const { known, sealed } = findConfigSet(repository(), first);
    const own = ownSecrets(sealed, known, host.id, v1);
    const entries = openEntries(known, own, host.id, v1, [sealSecretOf(host.signer)]);
    const secret = entries.find((entry) => entry.name === 'DB_PASSWORD');
    expect(Buffer.from(secret?.bytes ?? []).toString()).toBe(SECRET);
    const { items: audit } = await world.admin.call('audit', { query: {} });
    const entry = audit.find((each) => each.type === 'config.import');
    expect(entry?.details).toMatchObject({ configId: first, hosts: [host.id] });
    const everything =
      JSON.stringify(audit) + [...world.control.engine.fleet.trust.values()].join();
    expect(everything).not.toContain(SECRET);
  });

  it('signed by a stranger, or altered, is listed', async () => {
    const file = JSON.parse(readFileSync(join(dir, 'web-1.config'), 'utf8')) as {
      sealed: { boxes: Record<string, string> };
    };
    expect(
      (await op.run('config', 'verify', 'web-1.config', '--key', 'stranger.json')).stderr,
    ).toContain('E_SIGS');
    await op.ok('config', 'verify', 'web-1.config');
    const box = file.sealed.boxes['DB_PASSWORD'] ?? '';
    file.sealed.boxes['DB_PASSWORD'] = `${box.startsWith('A') ? 'B' : 'A'}${box.slice(1)}`;
    write('bad.config', JSON.stringify(file));
    const ran = await op.run(
      'config',
      'import',
      'bad.config',
      '--key',
      'config.json',
      '--reason',
      'x',
    );
    expect(ran.exitCode).toBe(20);
    expect(ran.stderr).toContain('E_SEAL');
    write('web-9.toml', definition(9, v1));
    await op.ok('config', 'build', 'web-9.toml', '--out', 'web-9.config', '--key', 'stranger.json');
    const stranger = await op.run(
      'config',
      'import',
      'web-9.config',
      '--key',
      'config.json',
      '--reason',
      'x',
    );
    expect(stranger.stderr).toContain('E_SIGS');
  });

  it('another config set takes the version of one that is listed', async () => {
    write('again.toml', definition(1, v1, 'debug'));
    await op.ok('config', 'build', 'again.toml', '--out', 'again.config', '--key', 'config.json');
    const ran = await op.run(
      'config',
      'import',
      'again.config',
      '--key',
      'config.json',
      '--reason',
      'x',
    );
    expect(ran.stderr).toContain('E_CONFLICT');
  });
});

describe('a pin', () => {
  it('lacks the config that the artifact takes, or names one for an artifact that takes none', async () => {
    const bare = await op.run('pin', 'web', '1.1.0', '--reason', 'x');
    expect(bare.stderr).toContain('E_CONFIG_SET');
    const needless = await op.run(
      'pin',
      'web',
      plainArtifact,
      '--config-set',
      'web/1',
      '--reason',
      'x',
    );
    expect(needless.stderr).toContain('E_CONFIG_SET');
    const elsewhere = await op.run('pin', 'other', v1, '--config-set', 'web/1', '--reason', 'x');
    expect(elsewhere.stderr).toContain('E_CONFIG_SET');
  });

  it('is of both: the host is offered both and reports both, and a new config alone is a rollout', async () => {
    await op.ok('pin', 'web', v1, '--config-set', 'web/1', '--reason', 'first');
    expect(await host.follow()).toBe(true);
    expect(host.running).toBe(versionIdOf(v1, first));
    await world.control.engine.settled();
    const shown = await world.admin.call('hostShow', { params: { host: host.id } });
    expect(shown.runningVersion).toBe(`1.1.0 with config ${first.slice(0, 12)}`);

    second = await build(2, 'debug');
    await op.ok('config', 'seal', 'web-2.config');
    await importFile('web-2.config');
    await op.ok('pin', 'web', v1, '--config-set', second.slice(0, 12), '--reason', 'more words');
    host.etag = null;
    const { body } = await host.poll();
    expect(body.offer).toMatchObject({ artifactId: v1, configId: second });
    if (body.offer === null) throw new Error('nothing was offered');
    await host.finish(body.offer, 'rolled-back', 'E_UNHEALTHY');
    await world.control.engine.settled();
    // What failed is the pair: the config of before is offered again, and runs.
    host.running = versionIdOf(v1, first);
    const group = await world.admin.call('groupShow', { params: { group: 'web' } });
    expect(group.current?.artifactId).toBe(versionIdOf(v1, first));
    expect(group.pin?.artifactId).toBe(versionIdOf(v1, second));
  });

  it('the signed pin names both, and both of before', () => {
    const pins = [...world.control.engine.fleet.trust]
      .filter(([name]) => /^targets\/groups\/web\/.*desired/.test(name))
      .map(([, bytes]) => JSON.parse(Buffer.from(bytes).toString()) as Record<string, unknown>)
      .filter((pin) => pin['seq'] === 2);
    expect(pins[0]).toMatchObject({
      artifact: { artifactId: v1 },
      config: { configId: second, scope: 'web', version: 2 },
      previous: { artifactId: v1 },
      previousConfig: { configId: first, version: 1 },
    });
  });

  it('a config set that is pinned is dropped', async () => {
    const ran = await op.run('config', 'drop', 'web/2', '--key', 'config.json', '--reason', 'x');
    expect(ran.stderr).toContain('E_CONFLICT');
    await op.ok('config', 'drop', 'web/1', '--key', 'config.json', '--reason', 'retired');
    const { items } = await world.admin.call('configList', {});
    expect(items.map((item) => item.version)).toEqual([2]);
  });
});

describe('X05 control swaps the key that secrets are sealed to', () => {
  const seal = () => op.run('config', 'seal', 'web-2.config', '--accept', 'all');
  const swap = (change: object) =>
    world.control.engine.change(async (draft) => {
      await draft.putHost({ ...draft.host(host.id), ...change });
    });

  it('X05 without the enrolment key: sealing is refused, nothing is sealed to the thief', async () => {
    const before = world.control.engine.fleet.hosts.get(host.id);
    const thief = sealPublicKeyOf(new Uint8Array(32).fill(66));
    const { trustKeys } = await openDataDir(world.dir);
    // Everything in the database, and every online key but that of enrolment.
    const online = trustKeys.find((key) => key.use === 'snapshot');
    const stated = JSON.parse(
      Buffer.from(
        (JSON.parse(before?.statement ?? '') as { payload: string }).payload,
        'base64',
      ).toString(),
    ) as Record<string, unknown>;
    const statement = signStatement(online!.signer, {
      ...(stated as never as Parameters<typeof signStatement>[1]),
      sealKey: hexOf(thief),
    });
    await swap({ sealKey: hexOf(thief) });
    expect(await json('config', 'seal', 'web-2.config')).toMatchObject({ added: [] });
    await swap({ statement });
    const refused = await seal();
    expect(refused.exitCode).toBe(20);
    expect(refused.stderr).toContain('E_SIGS');
    await swap({ sealKey: before!.sealKey, statement: before!.statement });
  });

  it('X05 with the enrolment key: a host with another key, or a new one, is left out until somebody compared', async () => {
    const before = world.control.engine.fleet.hosts.get(host.id);
    const { enrolment } = await openDataDir(world.dir);
    const thief = hexOf(sealPublicKeyOf(new Uint8Array(32).fill(66)));
    const statement = signStatement(enrolment, {
      schema: 'switchback.host-statement/1',
      host: host.id,
      group: before!.group,
      class: 'web',
      arch: 'amd64',
      signKey: before!.signKey,
      sealKey: thief,
      seq: 9,
      issuedAtMs: Date.now(),
    });
    await swap({ sealKey: thief, statement });
    const result = await json('config', 'seal', 'web-2.config');
    expect(result).toMatchObject({
      sealedFor: [],
      strangers: [{ host: host.id, sealKey: thief, why: 'other key' }],
    });
    const file = JSON.parse(readFileSync(join(dir, 'web-2.config'), 'utf8')) as {
      envelope: Parameters<typeof peekConfigSet>[0];
      sealed: { hosts: object };
    };
    expect(file.sealed.hosts).toEqual({});
    expect(peekConfigSet(file.envelope).configId).toBe(second);
    expect(readSealed(Buffer.from(JSON.stringify(file.sealed))).hosts).toEqual({});
    await swap({ sealKey: before!.sealKey, statement: before!.statement });
  });
});
