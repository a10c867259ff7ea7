/**
 * Attacks on config sets and sealed secrets, against the verifier and the machine of an agent: G01 to G08. Each refusal leaves what
 * runs and the trust state as they were or further on, and is reported with its code.
 */
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { configStore } from '#/agent/adapters/config-store.ts';
import { nodeFiles } from '#/agent/adapters/file-port.ts';
import { createSecrets } from '#/agent/adapters/secrets.ts';
import { readMemory } from '#/agent/adapters/trust-state.ts';
import { withConfigs } from '#/agent/host-configs.ts';
import type { Configs, Offer } from '#/agent/ports.ts';
import { bytesOfBase64, base64Of } from '#/bundle/base64.ts';
import { canonicalDocument } from '#/bundle/canonical.ts';
import type { Sealed } from '#/bundle/config-set.ts';
import { sealPublicKeyOf } from '#/bundle/seal.ts';
import { emptyMemory, type TrustMemory } from '#/bundle/trust/resolve.ts';
import { desiredPath } from '#/bundle/trust/documents.ts';
import { addScope } from '#/control/trust/delegations.ts';
import { publish, putTarget, readRoleDocument } from '#/control/trust/repository.ts';
import { revoke } from '#/control/trust/targets.ts';
import type { ArtifactRef, ConfigRef } from '#/protocol/documents.ts';
import type { ErrorCode } from '#/protocol/errors.ts';
import { type GroupName, type HostId, type VersionId, versionIdOf } from '#/protocol/ids.ts';
import {
  forge,
  HOST_SECRET,
  listConfig,
  makeConfig,
  type MadeConfig,
  SECRET,
  TAKES,
} from '#/test/support/config-world.ts';
import {
  agentOf,
  assignmentOf,
  contextOf,
  HOST,
  seedOf,
  signerNumber,
  type TestAgent,
  TrustWorld,
} from '#/test/support/trust-world.ts';
import { endOf, fail, goTo, goToEnd, hostWith, memOf } from '#/test/unit/agent/core/hosts.ts';

interface Scene {
  readonly world: TrustWorld;
  readonly agent: TestAgent;
  readonly artifact: ArtifactRef;
}

function ready(secrets: readonly Uint8Array[] = [HOST_SECRET]): Scene {
  const world = new TrustWorld();
  const artifact = world.release(1, { config: TAKES });
  return { world, artifact, agent: agentOf(world, undefined, { sealSecrets: () => secrets }) };
}

function resolve(
  { agent, world }: Scene,
  artifact: ArtifactRef,
  config: ConfigRef | null,
): Promise<Offer | null> {
  const plain = assignmentOf(artifact);
  const named = config === null ? {} : { configId: config.configId };
  const offer = plain.offer === null ? null : { ...plain.offer, ...named };
  return agent.trust.resolve({ ...plain, offer }, contextOf(world.nowMs));
}

async function memoryOf(agent: TestAgent): Promise<TrustMemory> {
  return (await readMemory(agent.store, HOST)) ?? emptyMemory;
}

/** Refused with this code; nothing that the host remembers went back; what runs is untouched, and the refusal is told. */
async function refuses(
  scene: Scene,
  code: ErrorCode,
  config: ConfigRef | null,
  artifact = scene.artifact,
): Promise<void> {
  const before = await memoryOf(scene.agent);
  await expect(resolve(scene, artifact, config)).rejects.toMatchObject({ code });
  const after = await memoryOf(scene.agent);
  expect(after.timeFloor).toBeGreaterThanOrEqual(before.timeFloor);
  for (const [key, value] of Object.entries(before.pins))
    expect(after.pins[key]).toBeGreaterThanOrEqual(value);
  expectTold(code);
}

/** The machine, told this refusal: it touches no slot, stays on what runs, and reports the code. */
function expectTold(code: ErrorCode): void {
  let host = goTo(hostWith('directory', 'good'), 'checking');
  for (let n = 0; host.agent?.running?.do !== 'resolve' && n < 50; n += 1)
    host = goTo(host, 'checking');
  const { live, slots } = host;
  const refused = fail(host, code, 'refused');
  expect(memOf(refused).unreported.map((report) => report.code)).toContain(code);
  const end = goToEnd(refused);
  expect(endOf(end)).toEqual(['refused', code]);
  expect(end.live).toBe(live);
  expect(end.slots).toEqual(slots);
}

function pinned(scene: Scene, config: MadeConfig, seq = 1): void {
  scene.world.pin(scene.artifact, seq, { config: config.ref });
}

/** A pin that nobody checked, under the keys of the group. */
function forgePin({ world, artifact }: Scene, config: ConfigRef): void {
  const document = readRoleDocument(world.repository(), 'grp-blue');
  const pin = { schema: 'switchback.desired/1', group: 'blue', seq: 1, artifact, config };
  const bytes = canonicalDocument({ ...pin, reason: 'theft', waves: [] });
  const file = putTarget(document, desiredPath('blue'), bytes);
  world.publish(publish(world.repository(), new Map([['grp-blue', document]]), [file]));
}

describe('a config set as its owners made it', () => {
  it('is taken, and kept with its secrets encrypted', async () => {
    const scene = ready();
    const config = makeConfig([scene.artifact], 1);
    listConfig(scene.world, config);
    pinned(scene, config);
    const offer = await resolve(scene, scene.artifact, config.ref);
    expect(offer).toMatchObject({ configId: config.known.configId });
    expect(JSON.stringify(offer)).not.toContain(SECRET);
  });

  it('is sealed to the key that the host had before its rotation', async () => {
    const scene = ready([seedOf(501), HOST_SECRET]);
    const config = makeConfig([scene.artifact], 1);
    listConfig(scene.world, config);
    pinned(scene, config);
    expect(await resolve(scene, scene.artifact, config.ref)).not.toBeNull();
  });
});

describe('what is sealed', () => {
  it('G01 sealed for another host: refused', async () => {
    const other = { host: `h-${'9'.repeat(32)}` as HostId, sealKey: sealPublicKeyOf(seedOf(501)) };
    const scene = ready();
    const config = makeConfig([scene.artifact], 1, {}, other);
    listConfig(scene.world, config);
    pinned(scene, config);
    await refuses(scene, 'E_SEAL', config.ref);
    // The same box under the name of this host.
    const moved = {
      ...config.sealed,
      hosts: { [HOST]: config.sealed.hosts[other.host] },
    } as Sealed;
    const signers = [scene.world.key('config')];
    forge(scene.world, config.ref, { payload: config.known.bytes, signers, sealed: moved });
    await refuses(scene, 'E_SEAL', config.ref);
  });

  it('G02 sealed for another artifact: refused', async () => {
    const scene = ready();
    const second = scene.world.release(2, { config: TAKES });
    const config = makeConfig([scene.artifact, second], 1);
    const own = config.sealed.hosts[HOST] ?? {};
    const swapped = {
      ...config.sealed,
      hosts: { [HOST]: { ...own, [scene.artifact.artifactId]: own[second.artifactId] } },
    } as Sealed;
    listConfig(scene.world, { ...config, sealed: swapped });
    pinned(scene, config);
    await refuses(scene, 'E_SEAL', config.ref);
  });

  it('G02 a config set for other artifacts: refused', async () => {
    const scene = ready();
    const second = scene.world.release(2, { config: TAKES });
    const config = makeConfig([second], 1);
    listConfig(scene.world, config);
    pinned(scene, config);
    await refuses(scene, 'E_CONFIG_SET', config.ref);
  });

  it('G03 what was sealed for an older config set: refused', async () => {
    const scene = ready();
    const older = makeConfig([scene.artifact], 1);
    const newer = makeConfig([scene.artifact], 2, { secrets: older.known.set.secrets });
    const sealed = { ...older.sealed, configId: newer.known.configId };
    listConfig(scene.world, { ...newer, sealed });
    pinned(scene, newer);
    await refuses(scene, 'E_SEAL', newer.ref);
    const signers = [scene.world.key('config')];
    forge(scene.world, newer.ref, { payload: newer.known.bytes, signers, sealed: older.sealed });
    await refuses(scene, 'E_CONFIG_SET', newer.ref);
  });

  it('G04 one bit of a box, or of a sealed key: refused', async () => {
    const flip = (text: string | undefined): string => {
      const bytes = Uint8Array.from(bytesOfBase64(text ?? '') ?? []);
      bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
      return base64Of(bytes);
    };
    const scene = ready();
    const config = makeConfig([scene.artifact], 1);
    listConfig(scene.world, config);
    pinned(scene, config);
    const signers = [scene.world.key('config')];
    const payload = config.known.bytes;
    const boxes = { DB_PASSWORD: flip(config.sealed.boxes['DB_PASSWORD']) };
    forge(scene.world, config.ref, { payload, signers, sealed: { ...config.sealed, boxes } });
    await refuses(scene, 'E_SEAL', config.ref);
    const id = scene.artifact.artifactId;
    const key = config.sealed.hosts[HOST]?.[id]?.['DB_PASSWORD'];
    const hosts = { [HOST]: { [id]: { DB_PASSWORD: flip(key) } } } as Sealed['hosts'];
    forge(scene.world, config.ref, { payload, signers, sealed: { ...config.sealed, hosts } });
    await refuses(scene, 'E_SEAL', config.ref);
  });
});

describe('who signed it', () => {
  it('G05 not signed by the keys of its scope: refused', async () => {
    const scene = ready();
    const config = makeConfig([scene.artifact], 1);
    listConfig(scene.world, config);
    pinned(scene, config);
    const parts = { payload: config.known.bytes, sealed: config.sealed };
    forge(scene.world, config.ref, { ...parts, signers: [signerNumber(3)] });
    await refuses(scene, 'E_SIGS', config.ref);
    forge(scene.world, config.ref, { ...parts, signers: [scene.world.key('release')] });
    await refuses(scene, 'E_SIGS', config.ref);
  });

  it('G05 signed by a key of its scope that was revoked: refused', async () => {
    const scene = ready();
    const { world } = scene;
    const config = makeConfig([scene.artifact], 1);
    const stolen = signerNumber(3);
    // Two keys, each of which may sign; the thief has one, and the role is listed with the other.
    const keys = [world.key('config').key, stolen.key];
    world.publish(addScope(world.repository(), 'web', { keys, threshold: 1 }));
    const parts = { payload: config.known.bytes, sealed: config.sealed, signers: [stolen] };
    forge(world, config.ref, parts);
    pinned(scene, config);
    expect(await resolve(scene, scene.artifact, config.ref)).not.toBeNull();
    world.publish(revoke(world.repository(), { keyIds: [stolen.key.keyId] }));
    await refuses(scene, 'E_SIGS', config.ref);
  });

  it('G05 listed by the role of another scope: refused', async () => {
    const scene = ready();
    const config = makeConfig([scene.artifact], 1);
    scene.world.publish(addScope(scene.world.repository(), 'web'));
    scene.world.publish(addScope(scene.world.repository(), 'db'));
    const signers = [scene.world.key('config')];
    forge(
      scene.world,
      config.ref,
      { payload: config.known.bytes, signers, sealed: config.sealed },
      'cfg-db',
    );
    // The pin is signed by a thief of the group's keys, who does not ask whether it is listed.
    forgePin(scene, config.ref);
    await refuses(scene, 'E_NOTARGET', config.ref);
  });

  it('G05 a group that may pin it does not make it of that group: refused', async () => {
    const scene = ready();
    const config = makeConfig([scene.artifact], 1, { group: 'red' as GroupName });
    listConfig(scene.world, config);
    pinned(scene, config);
    await refuses(scene, 'E_CONFIG_SET', config.ref);
  });
});

describe('what is pinned', () => {
  it('G06 another config set than the pinned one, offered or served: refused', async () => {
    const scene = ready();
    const config = makeConfig([scene.artifact], 1);
    const other = makeConfig([scene.artifact], 2);
    listConfig(scene.world, config);
    listConfig(scene.world, other);
    pinned(scene, config);
    await refuses(scene, 'E_PIN', other.ref);
    // Under the name of the pinned one.
    const signers = [scene.world.key('config')];
    forge(scene.world, config.ref, { payload: other.known.bytes, signers, sealed: other.sealed });
    await refuses(scene, 'E_CONFIG_SET', config.ref);
  });

  it('G06 the artifact without the config that it takes, or with one of another schema: refused', async () => {
    const scene = ready();
    const config = makeConfig([scene.artifact], 1, { configSchema: { id: 'web', version: 1 } });
    listConfig(scene.world, config);
    pinned(scene, config);
    await refuses(scene, 'E_PIN', null);
    await refuses(scene, 'E_CONFIG_SET', config.ref);
    scene.world.pin(scene.artifact, 2);
    await refuses(scene, 'E_CONFIG_SET', null);
  });

  it('G07 what ran before is offered as the pair that it was, and as nothing else', async () => {
    const scene = ready();
    const first = makeConfig([scene.artifact], 1);
    const second = makeConfig([scene.artifact], 2);
    listConfig(scene.world, first);
    listConfig(scene.world, second);
    pinned(scene, second);
    scene.world.pin(scene.artifact, 2, {
      config: second.ref,
      previous: scene.artifact,
      previousConfig: first.ref,
    });
    const before = await resolve(scene, scene.artifact, first.ref);
    expect(before?.configId).toBe(first.known.configId);
    const now = await resolve(scene, scene.artifact, second.ref);
    expect(now?.configId).toBe(second.known.configId);
    await refuses(scene, 'E_PIN', null);
  });
});

describe('what a service is given', () => {
  let dir = '';
  let configs: Configs;
  let one: { version: VersionId; offer: Offer };
  let two: { version: VersionId; offer: Offer };
  const activated: VersionId[] = [];

  beforeEach(async () => {
    dir = mkdtempSync(join(tmpdir(), 'sb-secrets-'));
    const scene = ready();
    const offers: { version: VersionId; offer: Offer }[] = [];
    for (const number of [1, 2]) {
      const config = makeConfig([scene.artifact], number);
      listConfig(scene.world, config);
      pinned(scene, config, number);
      const offer = await resolve(scene, scene.artifact, config.ref);
      if (offer === null) throw new Error('nothing was offered');
      offers.push({ version: versionIdOf(offer.artifactId, offer.configId), offer });
    }
    [one, two] = offers as [typeof one, typeof two];
    configs = createSecrets({
      store: configStore(nodeFiles(), join(dir, 'configs')),
      directory: join(dir, 'run', 'secrets'),
      runDirectory: join(dir, 'run'),
      host: HOST,
      sealSecrets: () => [HOST_SECRET],
      owner: null,
      allowDisk: true,
    });
    for (const { version, offer } of offers)
      if (offer.config) await configs.keep(version, offer.config);
    activated.length = 0;
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  const activator = () =>
    withConfigs(
      {
        observe: () => Promise.resolve(null),
        activate: async (_slot, version) => void activated.push(version),
        deactivate: () => Promise.resolve(),
        resume: () => Promise.resolve(),
        close: () => Promise.resolve(),
        restarts: () => 0,
      },
      configs,
      () => Promise.resolve(one.version),
      (problem) => {
        throw problem;
      },
    );
  const inPlace = (name: string): string => readFileSync(join(dir, 'run', 'config', name), 'utf8');

  it('G07 the config goes back together with the artifact', async () => {
    const { manifest } = one.offer;
    const host = activator();
    await host.activate('a', one.version, manifest);
    expect([inPlace('LEVEL'), inPlace('DB_PASSWORD')]).toEqual(['v1', SECRET]);
    await host.activate('b', two.version, manifest);
    expect(inPlace('LEVEL')).toBe('v2');
    // On trial both are there: the guard may go back without the agent.
    expect(readdirSync(join(dir, 'run', 'secrets'))).toHaveLength(2);
    await host.activate('a', one.version, manifest);
    expect(inPlace('LEVEL')).toBe('v1');
    await configs.wipeAllBut(one.version);
    expect(readdirSync(join(dir, 'run', 'secrets'))).toEqual([one.offer.configId]);
    expect(activated).toEqual([one.version, two.version, one.version]);
    await host.deactivate();
    expect(readdirSync(join(dir, 'run', 'secrets'))).toEqual([]);
  });

  it('G08 no secret in what is kept, and none that others can read', async () => {
    await activator().activate('a', one.version, one.offer.manifest);
    const place = readlinkSync(join(dir, 'run', 'config'));
    expect(statSync(place).mode & 0o777).toBe(0o700);
    for (const name of readdirSync(place)) {
      expect(statSync(join(place, name)).mode & 0o777).toBe(0o400);
    }
    for (const name of readdirSync(join(dir, 'configs'))) {
      const kept = readFileSync(join(dir, 'configs', name));
      expect(statSync(join(dir, 'configs', name)).mode & 0o077).toBe(0);
      expect(kept.includes(SECRET)).toBe(false);
      expect(kept.includes(Buffer.from(SECRET).toString('base64'))).toBe(false);
    }
    expect(place).not.toContain(SECRET);
  });

  it('G08 a directory on a disk is refused before anything is written', async () => {
    const onDiskPath = join(import.meta.dirname, `.secrets-${process.pid}`);
    const onDisk = createSecrets({
      store: configStore(nodeFiles(), join(dir, 'configs')),
      directory: onDiskPath,
      runDirectory: join(dir, 'run'),
      host: HOST,
      sealSecrets: () => [HOST_SECRET],
      owner: null,
      allowDisk: false,
    });
    await expect(onDisk.provide(one.version)).rejects.toMatchObject({ code: 'E_CONFIG' });
    const left = readdirSync(onDiskPath);
    rmSync(onDiskPath, { recursive: true });
    expect(left).toEqual([]);
  });

  it('G04 a config set that rotted where it is kept is not given to anybody', async () => {
    const file = join(dir, 'configs', `${one.version}.json`);
    const bytes = readFileSync(file);
    bytes[bytes.length - 40] = (bytes[bytes.length - 40] ?? 0) ^ 1;
    rmSync(file);
    writeFileSync(file, bytes, { mode: 0o600 });
    await expect(configs.provide(one.version)).rejects.toMatchObject({ code: 'E_STATE' });
    expect(await configs.kept()).toContain(two.version);
    await configs.prune([two.version]);
    expect(await configs.kept()).toEqual([two.version]);
  });
});
