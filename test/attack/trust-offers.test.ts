/**
 * Attacks on what an agent installs, with the metadata in order: C03, C16, C18-C20, E16-E18, H03, H04, X01-X04, X08 as far as
 * the trust state goes. Each refusal leaves the trust state as it was or further on.
 */
import { describe, expect, it } from 'vitest';
import { readMemory } from '#/agent/adapters/trust-state.ts';
import { canonicalDocument } from '#/bundle/canonical.ts';
import { MANIFEST_PAYLOAD_TYPE, signEnvelope } from '#/bundle/dsse.ts';
import { manifestEnvelopePath } from '#/bundle/trust/documents.ts';
import { emptyMemory, type TrustMemory } from '#/bundle/trust/resolve.ts';
import { dateText } from '#/bundle/trust/shape.ts';
import { waveRank } from '#/bundle/trust/waves.ts';
import {
  metaOf,
  publish,
  publishOnline,
  putTarget,
  readCurrent,
  readRoleDocument,
  signDocument,
  withFiles,
} from '#/control/trust/repository.ts';
import { addClass, addGroup, refreshTimestamp } from '#/control/trust/delegations.ts';
import {
  clearDesired,
  clearHostDesired,
  revoke,
  setBuilders,
  setFloors,
  setHostDesired,
} from '#/control/trust/targets.ts';
import type { ArtifactRef, DesiredDocument } from '#/protocol/documents.ts';
import type { GroupName } from '#/protocol/ids.ts';
import {
  agentOf,
  assignmentOf,
  contextOf,
  DAY_MS,
  HOST,
  manifestFor,
  memoryStore,
  NOW_MS,
  signerNumber,
  type TestAgent,
  TrustWorld,
} from '#/test/support/trust-world.ts';

interface Scene {
  readonly world: TrustWorld;
  readonly agent: TestAgent;
  readonly artifact: ArtifactRef;
}

/** Release 1 is pinned and was resolved once. */
async function ready(): Promise<Scene> {
  const world = new TrustWorld();
  const artifact = world.release(1);
  world.pin(artifact, 1);
  const agent = agentOf(world);
  await agent.trust.resolve(assignmentOf(artifact), contextOf(world.nowMs));
  return { world, agent, artifact };
}

async function memoryOf(agent: TestAgent): Promise<TrustMemory> {
  try {
    return (await readMemory(agent.store, HOST)) ?? emptyMemory;
  } catch (error) {
    // Damaged on purpose.
    expect(error).toMatchObject({ code: 'E_STATE' });
    return emptyMemory;
  }
}

/** The offer is refused with this code, and no number that the host remembers went down. */
async function refuses(scene: Scene, code: string, artifact = scene.artifact): Promise<void> {
  const before = await memoryOf(scene.agent);
  await expect(
    scene.agent.trust.resolve(assignmentOf(artifact), contextOf(scene.world.nowMs)),
  ).rejects.toMatchObject({ code });
  const after = await memoryOf(scene.agent);
  expect(after.timeFloor).toBeGreaterThanOrEqual(before.timeFloor);
  for (const field of ['floors', 'committed', 'pins'] as const) {
    for (const [key, value] of Object.entries(before[field])) {
      expect(after[field][key]).toBeGreaterThanOrEqual(value);
    }
  }
  expect(after.revokedArtifacts).toEqual(expect.arrayContaining([...before.revokedArtifacts]));
}

/** Replaces what a path is published as, under the role's own signature: what a thief of its keys can do. */
function republish(
  world: TrustWorld,
  role: string,
  path: string,
  bytes: Uint8Array,
  custom?: unknown,
): void {
  const document = readRoleDocument(world.repository(), role);
  const kept = custom ?? document.targets[path]?.custom;
  const file = putTarget(document, path, bytes, kept as never);
  world.publish(publish(world.repository(), new Map([[role, document]]), [file]));
}

function envelopeBytes(manifest: Uint8Array, signers = [signerNumber(3)]): Uint8Array {
  return canonicalDocument(signEnvelope(MANIFEST_PAYLOAD_TYPE, manifest, signers));
}

describe('what is installed', () => {
  it('C03 a manifest swapped for another one that is validly signed is refused', async () => {
    const scene = await ready();
    const second = scene.world.release(2);
    const manifest = canonicalDocument(manifestFor(1));
    const envelope = envelopeBytes(manifest, [scene.world.key('release')]);
    republish(scene.world, 'img-web', manifestEnvelopePath(second), envelope);
    scene.world.pin(second, 2);
    await refuses(scene, 'E_ARTIFACT', second);
  });

  it('C05 a manifest that release engineers list without the builders is refused', async () => {
    const scene = await ready();
    const manifest = canonicalDocument(manifestFor(1));
    republish(
      scene.world,
      'img-web',
      manifestEnvelopePath(scene.artifact),
      envelopeBytes(manifest),
    );
    await refuses(scene, 'E_SIGS');
  });

  it('C05 one builder of two is not enough, once the policy wants two', async () => {
    const scene = await ready();
    const { world } = scene;
    const keys = [world.key('release'), signerNumber(4)].map((signer) =>
      Buffer.from(signer.key.bytes).toString('hex'),
    );
    world.publish(
      setBuilders(world.repository(), {
        schema: 'switchback.builders/1',
        classes: [{ class: 'web', threshold: 2, keys }],
      }),
    );
    await refuses(scene, 'E_SIGS');
  });

  it.each([{}, { md5: 'd41d8cd98f00b204e9800998ecf8427e' }, { sha512: 'a'.repeat(128) }])(
    'C16 a target with the hashes %j is refused',
    async (hashes) => {
      const scene = await ready();
      const document = readRoleDocument(scene.world.repository(), 'img-web');
      document.targets[scene.artifact.path]!.hashes = hashes as never;
      scene.world.publish(publish(scene.world.repository(), new Map([['img-web', document]]), []));
      await refuses(scene, 'E_HASHALG');
    },
  );

  it('C18 an artifact of another class or architecture is refused', async () => {
    const scene = await ready();
    const other = scene.world.release(1, { class: 'db' });
    scene.world.pin(other, 2);
    await refuses(scene, 'E_CLASS', other);
    const arm = scene.world.release(9, { arch: 'arm64' });
    scene.world.pin(arm, 3);
    await refuses(scene, 'E_CLASS', arm);
  });

  it('an artifact that needs a newer agent is refused', async () => {
    const scene = await ready();
    const future = scene.world.release(7, { minAgent: 2_000_000 });
    scene.world.pin(future, 2);
    await refuses(scene, 'E_AGENT_TOO_OLD', future);
  });

  it('C19 a release below the floor is refused, also after the floor was taken back', async () => {
    const scene = await ready();
    const { world } = scene;
    world.publish(setFloors(world.repository(), { web: 2 }));
    await refuses(scene, 'E_FLOOR');
    const floors = { schema: 'switchback.floors/1', floors: [] };
    republish(world, 'policy', 'policy/floors.json', canonicalDocument(floors));
    await refuses(scene, 'E_FLOOR');
    expect((await memoryOf(scene.agent)).floors).toEqual({ web: 2 });
  });

  it('C20 X08 a revoked artifact is refused, also after the revocation was taken back', async () => {
    const scene = await ready();
    const { world, artifact } = scene;
    world.publish(revoke(world.repository(), { artifacts: [artifact.artifactId] }));
    await refuses(scene, 'E_REVOKED');
    const empty = { schema: 'switchback.revoked/1', artifacts: [], keyIds: [] };
    republish(world, 'policy', 'policy/revoked.json', canonicalDocument(empty));
    await refuses(scene, 'E_REVOKED');
  });

  it('C20 a signature by a revoked key does not count, as builder and as operator', async () => {
    const scene = await ready();
    const { world } = scene;
    world.publish(revoke(world.repository(), { keyIds: [world.key('release').key.keyId] }));
    await refuses(scene, 'E_SIGS');
    const other = await ready();
    const operator = other.world.key('operator').key.keyId;
    other.world.publish(revoke(other.world.repository(), { keyIds: [operator] }));
    await refuses(other, 'E_SIGS');
  });
});

describe('what is pinned', () => {
  it('X01 a pin that control moved without the operators is refused', async () => {
    const scene = await ready();
    const { world } = scene;
    const second = world.release(2);
    // Control holds only the online keys: it signs the role with one of those, and lists it as it should be.
    const online = world
      .repository()
      .keys.filter((key) => key.use === 'timestamp' || key.use === 'snapshot');
    const current = readCurrent(world.repository());
    const document = readRoleDocument(world.repository(), 'grp-blue');
    const pinned = { ...scene.artifact, artifactId: second.artifactId };
    const file = putTarget(document, 'groups/blue/desired.json', canonicalDocument(pinned));
    const version = document.version + 1;
    const thief = world.key('timestamp').key.keyId;
    const bytes = signDocument({ ...document, version }, { keyIds: [thief], threshold: 1 }, online);
    const meta = { ...current.snapshot?.meta, 'grp-blue.json': metaOf(version, bytes) };
    world.publish([
      file,
      { name: `metadata/${version}.grp-blue.json`, bytes },
      ...publishOnline({ ...world.repository(), keys: online }, current, meta),
    ]);
    await refuses(scene, 'E_SIGS', second);
    await refuses(scene, 'E_SIGS');
  });

  it('X01 an offer that the signed pin does not name is refused', async () => {
    const scene = await ready();
    const second = scene.world.release(2);
    await refuses(scene, 'E_PIN', second);
  });

  it('X02 the old pin served again is refused', async () => {
    const scene = await ready();
    const { world } = scene;
    const old = new Map(world.files);
    const second = world.release(2);
    world.pin(second, 2);
    await scene.agent.trust.resolve(assignmentOf(second), contextOf(world.nowMs));
    for (const [name, bytes] of old) world.files.set(name, bytes);
    await refuses(scene, 'E_ROLLBACK');
  });

  it('E18 a pin with a lower seq in a newer role is refused', async () => {
    const scene = await ready();
    const { world } = scene;
    const second = world.release(2);
    world.pin(second, 5);
    await scene.agent.trust.resolve(assignmentOf(second), contextOf(world.nowMs));
    const path = 'groups/blue/desired.json';
    const desired: DesiredDocument = {
      schema: 'switchback.desired/1',
      group: 'blue' as GroupName,
      seq: 4,
      artifact: scene.artifact,
      reason: 'older',
      waves: [],
    };
    republish(world, 'grp-blue', path, canonicalDocument(desired));
    await refuses(scene, 'E_ROLLBACK');
  });

  it('E16 the pin of another group, signed by that group, is refused', async () => {
    const scene = await ready();
    const { world } = scene;
    const green = signerNumber(8);
    world.publish(addGroup(world.repository(), 'green', { keys: [green.key], threshold: 1 }));
    const role = readRoleDocument(world.repository(), 'grp-green');
    const desired = { schema: 'switchback.desired/1', group: 'blue', seq: 9 };
    const file = putTarget(role, 'groups/blue/desired.json', canonicalDocument(desired));
    const keys = [...world.repository().keys, { use: 'operator' as const, signer: green }];
    world.publish(publish({ ...world.repository(), keys }, new Map([['grp-green', role]]), [file]));
    // The path belongs to grp-blue alone: the pin of before holds.
    const offer = await scene.agent.trust.resolve(
      assignmentOf(scene.artifact),
      contextOf(world.nowMs),
    );
    expect(offer?.seq).toBe(1);
  });

  it('a document of another group under the own path is refused', async () => {
    const scene = await ready();
    const desired: DesiredDocument = {
      schema: 'switchback.desired/1',
      group: 'green' as GroupName,
      seq: 3,
      artifact: scene.artifact,
      reason: 'of another group',
      waves: [],
    };
    republish(scene.world, 'grp-blue', 'groups/blue/desired.json', canonicalDocument(desired));
    await refuses(scene, 'E_PIN');
  });

  it('X04 a wave that control opens early stays closed until its signed time', async () => {
    const scene = await ready();
    const { world, agent } = scene;
    const second = world.release(2);
    const opensAt = world.nowMs / 1000 + 3600;
    const rank = waveRank(HOST);
    expect(rank).toBeLessThan(50);
    world.pin(second, 2, {
      previous: scene.artifact,
      waves: [
        { percent: 0, notBefore: 0 },
        { percent: 50, notBefore: opensAt },
        { percent: 100, notBefore: opensAt + 3600 },
      ],
    });
    const early = await agent.trust.resolve(assignmentOf(second), contextOf(world.nowMs));
    expect(early).toBeNull();
    expect(agent.notices.at(-1)?.kind).toBe('no-switch');
    // What ran before may be offered at any time.
    const back = await agent.trust.resolve(assignmentOf(scene.artifact), contextOf(world.nowMs));
    expect(back?.artifactId).toBe(scene.artifact.artifactId);
    const inTime = await agent.trust.resolve(assignmentOf(second), contextOf((opensAt + 1) * 1000));
    expect(inTime?.artifactId).toBe(second.artifactId);
  });

  it('a pin that has expired causes no switch', async () => {
    const scene = await ready();
    const { world, agent } = scene;
    world.pin(scene.artifact, 2, { expiresAt: world.nowMs / 1000 });
    expect(
      await agent.trust.resolve(assignmentOf(scene.artifact), contextOf(world.nowMs)),
    ).toBeNull();
  });

  it('X02 a pin that was taken back is nothing to do, and served again it is refused', async () => {
    const scene = await ready();
    const { world, agent, artifact } = scene;
    const pinned = new Map(world.files);
    world.publish(clearDesired(world.repository(), 'blue'));
    expect(await agent.trust.resolve(assignmentOf(artifact), contextOf(world.nowMs))).toBeNull();
    expect(agent.notices.at(-1)).toMatchObject({
      kind: 'no-switch',
      message: 'group blue is not pinned',
    });
    const unpinned = new Map(world.files);
    for (const [name, bytes] of pinned) world.files.set(name, bytes);
    await refuses(scene, 'E_ROLLBACK');
    // Its file alone, without the role that lists it, is nothing either.
    for (const [name, bytes] of unpinned) world.files.set(name, bytes);
    expect(await agent.trust.resolve(assignmentOf(artifact), contextOf(world.nowMs))).toBeNull();
    // A pin that follows holds; one below what was seen does not.
    world.pin(artifact, 1);
    const again = await agent.trust.resolve(assignmentOf(artifact), contextOf(world.nowMs));
    expect(again?.seq).toBe(1);
    world.pin(world.release(2), 3);
    await agent.trust.resolve(assignmentOf(world.release(2)), contextOf(world.nowMs));
    world.publish(clearDesired(world.repository(), 'blue'));
    world.pin(artifact, 2);
    await refuses(scene, 'E_ROLLBACK');
  });

  it('the pin of a single host goes before that of its group, until it is taken back', async () => {
    const scene = await ready();
    const { world, agent } = scene;
    const second = world.release(2);
    world.publish(
      setHostDesired(world.repository(), {
        schema: 'switchback.desired/1',
        group: 'blue' as GroupName,
        host: HOST,
        seq: 2,
        artifact: second,
        reason: 'trying it here',
        waves: [],
      }),
    );
    const offer = await agent.trust.resolve(assignmentOf(second), contextOf(world.nowMs));
    expect(offer?.artifactId).toBe(second.artifactId);
    await refuses(scene, 'E_PIN');
    world.publish(clearHostDesired(world.repository(), 'blue', HOST));
    const again = await agent.trust.resolve(assignmentOf(scene.artifact), contextOf(world.nowMs));
    expect(again?.seq).toBe(1);
  });
});

describe('state and clock', () => {
  it.each([
    ['truncated', (bytes: Uint8Array) => bytes.subarray(0, 40)],
    ['zeroed', (bytes: Uint8Array) => new Uint8Array(bytes.length)],
    ['empty', () => new Uint8Array()],
  ])(
    'H03 a trust state that is %s is told and rebuilt, floors come from the policy',
    async (_name, damage) => {
      const scene = await ready();
      const { world, agent, artifact } = scene;
      world.publish(setFloors(world.repository(), { web: 2 }));
      await refuses(scene, 'E_FLOOR');
      agent.store.files.set('memory', damage(agent.store.files.get('memory')!));
      const restarted = agentOf(world, agent.store);
      await refuses({ world, agent: restarted, artifact }, 'E_FLOOR');
      expect(restarted.notices[0]?.kind).toBe('state-rebuilt');
      expect((await memoryOf(restarted)).floors).toEqual({ web: 2 });
    },
  );

  it('H03 the trust state of another host is not taken over', async () => {
    const scene = await ready();
    const other = agentOf(scene.world, scene.agent.store, { owner: `h-${'9'.repeat(32)}` });
    await other.trust.refresh(scene.world.nowMs);
    expect(other.notices[0]?.kind).toBe('state-rebuilt');
  });

  it('H03 a damaged or foreign file of the metadata cache is fetched again, never trusted', async () => {
    const scene = await ready();
    const other = new TrustWorld();
    other.files.set('metadata/2.root.json', scene.world.files.get('metadata/1.root.json')!);
    for (const name of scene.agent.store.files.keys()) {
      if (name !== 'memory') scene.agent.store.files.set(name, Buffer.from('{"signed":{}}'));
    }
    scene.agent.store.files.set('root.2.json', Buffer.from('junk'));
    const restarted = agentOf(scene.world, scene.agent.store);
    const offer = await restarted.trust.resolve(
      assignmentOf(scene.artifact),
      contextOf(scene.world.nowMs),
    );
    expect(offer?.artifactId).toBe(scene.artifact.artifactId);
  });

  it('H04 a clock of 1970 does not make expired metadata valid, nor valid metadata unusable', async () => {
    const scene = await ready();
    const { world, agent, artifact } = scene;
    world.nowMs += 2 * DAY_MS;
    world.publish(refreshTimestamp(world.repository()));
    await agent.trust.refresh(world.nowMs);
    const offer = await agent.trust.resolve(assignmentOf(artifact), contextOf(0));
    expect(offer?.artifactId).toBe(artifact.artifactId);
    expect(agent.notices.at(-1)?.kind).toBe('clock-behind');
    // The same host is shown a timestamp that has expired since: its clock says 1970, its floor says otherwise.
    const expired = new TrustWorld();
    const late = agentOf(expired, memoryStore(), { builtAtMs: NOW_MS + 2 * DAY_MS });
    await expect(late.trust.refresh(0)).rejects.toMatchObject({ code: 'E_EXPIRED' });
  });

  it('H04 a clock of 2039 refuses everything and leaves no floor behind', async () => {
    const scene = await ready();
    const { world, agent, artifact } = scene;
    const in2039 = 2_180_000_000_000;
    await expect(
      agent.trust.resolve(assignmentOf(artifact), contextOf(in2039)),
    ).rejects.toMatchObject({ code: 'E_EXPIRED' });
    const offer = await agent.trust.resolve(assignmentOf(artifact), contextOf(world.nowMs));
    expect(offer?.artifactId).toBe(artifact.artifactId);
  });

  it('H04 signed time raises the floor, but never past what the offline keys signed', async () => {
    const scene = await ready();
    const { world, agent } = scene;
    await agent.trust.observeSignedTime(world.nowMs + DAY_MS, world.nowMs);
    expect((await agent.trust.status()).timeFloor).toBe((world.nowMs + DAY_MS) / 1000);
    await agent.trust.observeSignedTime(4_000_000_000_000, world.nowMs);
    expect((await agent.trust.status()).timeFloor).toBe(NOW_MS / 1000 + 365 * 86_400 - 1);
    await agent.trust.observeSignedTime(world.nowMs, world.nowMs + 600_000);
    expect(agent.notices.at(-1)?.kind).toBe('clock-ahead');
  });

  it('X03 a freeze ends in a refusal when the day of the timestamp is over', async () => {
    const scene = await ready();
    const { trust } = scene.agent;
    const { timestampExpires } = await trust.status();
    expect(dateText(timestampExpires ?? 0)).toBe(dateText(NOW_MS / 1000 + 86_400));
    await expect(trust.refresh((timestampExpires ?? 0) * 1000)).rejects.toMatchObject({
      code: 'E_EXPIRED',
    });
  });

  it('a refresh that fails half way keeps the newer timestamp as the base', async () => {
    const scene = await ready();
    const { world, agent } = scene;
    const old = world.files.get('metadata/timestamp.json')!;
    world.pin(scene.artifact, 2);
    const snapshots = [...world.files.keys()].filter((name) => name.endsWith('.snapshot.json'));
    const newest = snapshots.at(-1)!;
    const kept = world.files.get(newest)!;
    world.files.delete(newest);
    await refuses(scene, 'E_HTTP');
    world.files.set('metadata/timestamp.json', old);
    await refuses(scene, 'E_ROLLBACK');
    world.files.set(newest, kept);
    expect(agent.notices).toEqual([]);
  });
});

it('the owner of a class may be another than the starter key', async () => {
  const world = new TrustWorld();
  const engineer = signerNumber(21);
  const added = addClass(world.repository(), 'db', { keys: [engineer.key], threshold: 1 });
  const keys = [...world.repository().keys, { use: 'release' as const, signer: engineer }];
  const repository = {
    ...world.repository(),
    keys,
    store: withFiles(world.repository().store, added),
  };
  expect(readRoleDocument(repository, 'img-db').version).toBe(0);
  const document = readRoleDocument(repository, 'img-db');
  world.publish([...added, ...publish(repository, new Map([['img-db', document]]), [])]);
  expect(readRoleDocument(world.repository(), 'img-db').version).toBe(1);
}, 20_000);
