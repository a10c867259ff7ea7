/**
 * A control plane in the hands of an attacker: its database, its process, every key on its disk, and what operators and hosts
 * send to it. The fleet was moved to offline keys before. The host is real: its identity, its line, its verifier, its disk.
 */
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { nodeFiles } from '#/agent/adapters/file-port.ts';
import { readMemory } from '#/agent/adapters/trust-state.ts';
import { createTrustStore } from '#/agent/adapters/trust-store.ts';
import type { TrustMemory } from '#/bundle/trust/resolve.ts';
import { rootKeyPath } from '#/control/data-dir.ts';
import {
  metaOf,
  publishOnline,
  readCurrent,
  readRoleDocument,
  type Repository,
  signDocument,
} from '#/control/trust/repository.ts';
import type { Assignment } from '#/protocol/documents.ts';
import type { ArtifactId, GroupName } from '#/protocol/ids.ts';
import { startWorld, type World } from '#/test/support/control/world.ts';
import { Operator } from '#/test/support/trust/operator.ts';
import { RealHost } from '#/test/support/trust/real-host.ts';

let world: World;
let host: RealHost;
let op: Operator;
const versions = new Map<number, ArtifactId>();
const artifact = (release: number): ArtifactId => versions.get(release)!;
/** Every file that was ever published: what a thief can play back. */
const history = new Map<string, Uint8Array>();
/** Keys that control held before roles were hardened: they are on its disk for ever. */
let stolen: Repository['keys'] = [];

const remember = (): void => {
  for (const [name, bytes] of world.control.engine.fleet.trust) history.set(name, bytes);
};

/** What the attacker has in hands. */
const thief = (): Repository => ({
  store: { read: (name) => world.control.engine.fleet.trust.get(name) ?? null },
  keys: stolen,
  nowMs: Date.now(),
});

/** Puts files into the database of control, past every rule of it, with a fresh snapshot that lists them. */
const plant = (roles: Planted): Promise<void> => plantBy(stolen, roles);
type Planted = Readonly<Record<string, { version: number; bytes: Uint8Array }>>;
async function plantBy(keys: Repository['keys'], roles: Planted): Promise<void> {
  const repository = { ...thief(), keys };
  const current = readCurrent(repository);
  const meta = { ...current.snapshot?.meta };
  const files = Object.entries(roles).map(([role, { version, bytes }]) => {
    meta[`${role}.json`] = metaOf(version, bytes);
    return { name: `metadata/${version}.${role}.json`, bytes };
  });
  const online = publishOnline(repository, current, meta);
  await world.control.engine.change((draft) => draft.publish([...files, ...online]));
}

/** The role as it stands, signed by everything that the attacker has, with a change. */
function forged(role: string, change: (document: ReturnType<typeof readRoleDocument>) => void) {
  const document = readRoleDocument(thief(), role);
  change(document);
  const version = document.version + 1;
  const keyIds = stolen.map((key) => key.signer.key.keyId);
  const bytes = signDocument({ ...document, version }, { keyIds, threshold: 1 }, stolen);
  return { [role]: { version, bytes } };
}

const played = (role: string, version: number) => ({
  [role]: { version, bytes: history.get(`metadata/${version}.${role}.json`)! },
});

const resolve = (artifactId: ArtifactId, offsetMs = 0) => {
  const offer: Assignment['offer'] = {
    artifactId,
    rolloutId: null,
    sources: ['http://127.0.0.1:1/x'],
    retryGeneration: 0,
  };
  return host.trust.resolve(
    {
      generation: 9,
      group: 'web' as GroupName,
      offer,
      halted: false,
      rollbackGeneration: 0,
      why: '',
    },
    {
      group: 'web' as GroupName,
      host: host.identity.host,
      class: 'web',
      nowMs: Date.now() + offsetMs,
    },
  );
};

const memory = async (): Promise<TrustMemory> => {
  const store = createTrustStore(nodeFiles(), join(host.directory, 'trust'));
  return (await readMemory(store, host.identity.host))!;
};

/** What the host remembers after the attack is what it remembered before, or more. */
async function wentOnlyForward(before: TrustMemory): Promise<void> {
  const after = await memory();
  for (const field of ['floors', 'committed', 'pins'] as const)
    for (const [key, value] of Object.entries(before[field]))
      expect(after[field][key]).toBeGreaterThanOrEqual(value);
  expect(after.revokedArtifacts).toEqual(expect.arrayContaining([...before.revokedArtifacts]));
  expect(after.timeFloor).toBeGreaterThanOrEqual(before.timeFloor);
}

/**
 * The attack is refused with this code, and nothing that the host remembers went back. Then both are as they were: what the
 * attacker's snapshots leave behind is the last test's.
 */
async function refused(attack: () => Promise<void>, code: string, artifactId: ArtifactId) {
  const before = await memory();
  const truth = { ...readCurrent(thief()).snapshot?.meta };
  const disk = `${host.directory}.before`;
  cpSync(host.directory, disk, { recursive: true });
  await attack();
  await expect(resolve(artifactId)).rejects.toMatchObject({ code });
  await wentOnlyForward(before);
  const repository = thief();
  const online = publishOnline(repository, readCurrent(repository), truth);
  await world.control.engine.change((draft) => draft.publish(online));
  await host.stop();
  rmSync(host.directory, { recursive: true });
  cpSync(disk, host.directory, { recursive: true });
  rmSync(disk, { recursive: true });
  await host.start();
  expect((await resolve(artifact(2)))?.artifactId).toBe(artifact(2));
}

beforeAll(async () => {
  world = await startWorld();
  await world.group('web');
  op = new Operator(
    mkdtempSync(join(tmpdir(), 'sb-operator-')),
    () => world.control.url,
    world.adminToken,
  );
  for (const release of [1, 2, 3]) versions.set(release, await world.release(release));
  await world.admin.call('groupPin', {
    params: { group: 'web' },
    body: { artifactId: artifact(1), reason: 'first' },
  });
  remember();
  stolen = world.control.desk.keys;
  const roles = {
    'grp-web': 'operator',
    'img-web': 'release',
    policy: 'policy',
    targets: 'targets',
  } as const;
  for (const [role, use] of Object.entries(roles)) {
    const keys = [`${role}-a.json`, `${role}-b.json`];
    for (const key of keys) op.key(key, use);
    const root = role === 'targets' ? [rootKeyPath(world.dir)] : [];
    await op.ok(
      'trust',
      'harden',
      role,
      '--to',
      ...keys,
      '--threshold',
      '2',
      '--key',
      ...keys,
      ...root,
      '--reason',
      'x',
    );
    remember();
  }
  host = await RealHost.enrol(world);
  await host.line.poll(null, 'idle');
  await resolve(artifact(1));
  await op.ok(
    'trust',
    'pin',
    'web',
    '1.2.0',
    '--key',
    'grp-web-a.json',
    'grp-web-b.json',
    '--reason',
    'second',
  );
  remember();
  await op.ok(
    'trust',
    'withdraw',
    '1.1.0',
    '--key',
    'policy-a.json',
    'policy-b.json',
    '--reason',
    'hole',
  );
  await op.ok(
    'trust',
    'floor',
    'web',
    '2',
    '--key',
    'policy-a.json',
    'policy-b.json',
    '--reason',
    'hole',
  );
  remember();
  expect((await resolve(artifact(2)))?.artifactId).toBe(artifact(2));
}, 120_000);
afterAll(async () => {
  await host[Symbol.asyncDispose]();
  await world[Symbol.asyncDispose]();
  rmSync(op.dir, { recursive: true, force: true });
});

describe('whoever holds control', () => {
  it('X01 re-pins a group', async () => {
    const repin = () =>
      plant(
        forged('grp-web', ({ targets }) => {
          delete targets['groups/web/desired.json'];
        }),
      );
    await refused(repin, 'E_SIGS', artifact(3));
    // By its own routes it cannot even make one.
    const body = { artifactId: artifact(3), reason: 'evil' };
    await expect(
      world.admin.call('groupPin', { params: { group: 'web' }, body }),
    ).rejects.toMatchObject({ code: 'E_SIGS' });
  });

  it('X01 offers what no pin names, lists what nobody released, or names other keys', async () => {
    await refused(() => Promise.resolve(), 'E_PIN', artifact(3));
    await refused(() => plant(forged('img-web', () => undefined)), 'E_SIGS', artifact(2));
    await refused(() => plant(forged('policy', () => undefined)), 'E_SIGS', artifact(2));
    await refused(() => plant(forged('targets', () => undefined)), 'E_SIGS', artifact(2));
  });

  it('X02 serves the pin of before', async () => {
    const version = readRoleDocument(thief(), 'grp-web').version;
    await refused(() => plant(played('grp-web', version - 1)), 'E_ROLLBACK', artifact(1));
  });

  it('X08 removes a revocation and lowers a floor', async () => {
    const version = readRoleDocument(thief(), 'policy').version;
    await refused(() => plant(played('policy', version - 1)), 'E_ROLLBACK', artifact(2));
    expect(await memory()).toMatchObject({ floors: { web: 2 }, revokedArtifacts: [artifact(1)] });
    const anew = await RealHost.enrol(world);
    // Also a host that has seen nothing yet gets it from the newest policy that was signed.
    await anew.trust.refresh(Date.now());
    await anew[Symbol.asyncDispose]();
  });

  it('X01 leaves hosts behind that follow nobody any more, though root replaced the stolen online keys', async () => {
    const before = await memory();
    await plant(forged('grp-web', () => undefined));
    await expect(resolve(artifact(2))).rejects.toMatchObject({ code: 'E_SIGS' });
    await wentOnlyForward(before);
    // The ceremony: new keys for both online roles, signed by root; control is set up anew with them and the true files.
    const truth = history.get(
      `metadata/${readRoleDocument(thief(), 'grp-web').version - 1}.grp-web.json`,
    )!;
    const fresh = [op.key('ts.json', 'timestamp'), op.key('sn.json', 'snapshot')];
    Object.assign(world.control.desk, { keys: [...stolen, ...fresh] });
    for (const [role, file] of [
      ['timestamp', 'ts.json'],
      ['snapshot', 'sn.json'],
    ] as const)
      await op.ok(
        'trust',
        'rotate',
        role,
        '--to',
        file,
        '--key',
        rootKeyPath(world.dir),
        '--reason',
        'stolen',
      );
    const repository = { ...thief(), keys: fresh };
    const current = readCurrent(repository);
    const version = readRoleDocument(repository, 'grp-web').version - 1;
    const meta = { ...current.snapshot?.meta, 'grp-web.json': metaOf(version, truth) };
    await world.control.engine.change((draft) =>
      draft.publish(publishOnline(repository, current, meta)),
    );
    expect((await resolve(artifact(2)))?.artifactId).toBe(artifact(2));
    // The stolen keys sign nothing any more.
    await plantBy(
      stolen,
      forged('grp-web', () => undefined),
    ).then(
      () => expect.unreachable(),
      (error: unknown) => expect(error).toMatchObject({ code: 'E_SIGS' }),
    );
  });

  it('X04 starts all waves at once', async () => {
    await op.ok(
      'trust',
      'pin',
      'web',
      '1.3.0',
      '--key',
      'grp-web-a.json',
      'grp-web-b.json',
      '--wave',
      '100@2h',
      '--reason',
      'third, from tonight on',
    );
    // Control offers it now; the host waits for the signed time, whatever it is told.
    expect(await resolve(artifact(3))).toBeNull();
    expect(host.notices.at(-1)).toMatchObject({ kind: 'no-switch' });
    expect((await resolve(artifact(3), 2 * 3_600_000 + 60_000))?.artifactId).toBe(artifact(3));
  });

  it('X03 freezes the fleet', async () => {
    const days = 26 * 3_600_000;
    await expect(host.trust.refresh(Date.now() + days)).rejects.toMatchObject({
      code: 'E_EXPIRED',
    });
    const { timestampExpires } = await host.trust.status();
    expect((timestampExpires ?? 0) * 1000).toBeLessThan(Date.now() + days);
  });
});
