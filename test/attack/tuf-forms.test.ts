/** Protections that stand behind another one: each is asked for itself here, because no repository shows it alone. */
import { describe, expect, it } from 'vitest';
import { encodeEnvelope, MANIFEST_PAYLOAD_TYPE, signEnvelope } from '#/bundle/dsse.ts';
import { hexOf, sha256 } from '#/bundle/keys.ts';
import { decodeMetadata } from '#/bundle/trust/metadata.ts';
import { agentRules } from '#/bundle/trust/rules.ts';
import { requireDigests } from '#/bundle/trust/trusted-set.ts';
import { canonicalDocument } from '#/bundle/canonical.ts';
import { desiredPath, FLOORS_PATH, manifestEnvelopePath } from '#/bundle/trust/documents.ts';
import { delegate } from '#/control/trust/delegations.ts';
import {
  emptyTargets,
  metaOf,
  publish,
  publishTimestamp,
  putTarget,
  readCurrent,
  readRoleDocument,
  signDocument,
} from '#/control/trust/repository.ts';
import { addRelease, revoke, setBuilders, setFloors } from '#/control/trust/targets.ts';
import {
  agentOf,
  assignmentOf,
  contextOf,
  manifestFor,
  signerNumber,
  TrustWorld,
} from '#/test/support/trust-world.ts';

describe('what is listed about a file', () => {
  const bytes = Buffer.from('content');
  const hashes = new Map([['sha256', sha256(bytes)]]);

  it('A14 bytes with the signed digest and another length than the signed one', () => {
    requireDigests('x', bytes, { length: bytes.length, hashes });
    for (const length of [0, bytes.length - 1, bytes.length + 1])
      expect(() => requireDigests('x', bytes, { length, hashes })).toThrow(
        expect.objectContaining({ code: 'E_HASH' }),
      );
  });

  it('A14 bytes with one of two signed digests', () => {
    const both = new Map([...hashes, ['sha512', '0'.repeat(128)]]);
    expect(() => requireDigests('x', bytes, { length: null, hashes: both })).toThrow(
      expect.objectContaining({ code: 'E_HASH' }),
    );
  });
});

describe('a thief of the timestamp key alone', () => {
  it.each(['by a key of nobody', 'by the timestamp key'])(
    'A01 lists a snapshot of his own, signed %s',
    async (whose) => {
      const world = new TrustWorld();
      const agent = agentOf(world);
      await agent.trust.refresh(world.nowMs);
      const repository = world.repository();
      const current = readCurrent(repository);
      const signer = whose === 'by a key of nobody' ? signerNumber(77) : world.key('timestamp');
      const snapshot = { ...current.snapshot!, version: current.snapshot!.version + 1 };
      const role = { keyIds: [signer.key.keyId], threshold: 1 };
      const bytes = signDocument(snapshot, role, [{ use: 'snapshot', signer }]);
      world.publish([
        { name: `metadata/${snapshot.version}.snapshot.json`, bytes },
        publishTimestamp(repository, current, metaOf(snapshot.version, bytes)),
      ]);
      await expect(agent.trust.refresh(world.nowMs)).rejects.toMatchObject({ code: 'E_SIGS' });
    },
  );
});

describe('whoever holds the targets keys by mistake', () => {
  it('A22 gives the paths of a group to another role as well', async () => {
    const world = new TrustWorld();
    const artifact = world.release(1);
    world.pin(artifact, 1);
    const agent = agentOf(world);
    const pinned = await agent.trust.resolve(assignmentOf(artifact), contextOf(world.nowMs));
    expect(pinned?.seq).toBe(1);
    const repository = world.repository();
    const { targets } = readCurrent(repository);
    const operator = world.key('operator').key;
    delegate(targets, 'grp-red', ['groups/*/*'], { keys: [operator], threshold: 1 });
    // In front of the others, so that it is asked first.
    targets.delegations!.roles.unshift(targets.delegations!.roles.pop()!);
    const red = emptyTargets(repository);
    const bytes = canonicalDocument({
      schema: 'switchback.desired/1',
      group: 'blue',
      seq: 2,
      artifact,
      reason: 'by red',
      waves: [],
    });
    const file = putTarget(red, desiredPath('blue'), bytes);
    world.publish(
      publish(
        repository,
        new Map([
          ['targets', targets],
          ['grp-red', red],
        ]),
        [file],
      ),
    );
    // What red lists is no pin of blue: there is nothing to do.
    expect(await agent.trust.resolve(assignmentOf(artifact), contextOf(world.nowMs))).toBeNull();
  });
});

describe('a builder whose key was revoked', () => {
  it('C05 signed a manifest that is pinned', async () => {
    const world = new TrustWorld();
    const builder = signerNumber(61);
    const classes = [{ class: '*', threshold: 1, keys: [hexOf(builder.key.bytes)] }];
    world.publish(setBuilders(world.repository(), { schema: 'switchback.builders/1', classes }));
    const manifest = canonicalDocument(manifestFor(1));
    const envelope = signEnvelope(MANIFEST_PAYLOAD_TYPE, manifest, [builder]);
    const { ref, files } = addRelease(world.repository(), manifest, envelope);
    world.publish(files);
    world.pin(ref, 1);
    const agent = agentOf(world);
    const resolve = () => agent.trust.resolve(assignmentOf(ref), contextOf(world.nowMs));
    expect((await resolve())?.artifactId).toBe(ref.artifactId);
    world.publish(revoke(world.repository(), { keyIds: [builder.key.keyId] }));
    await expect(resolve()).rejects.toMatchObject({ code: 'E_SIGS' });
  });
});

describe('policy keys that go back on their word', () => {
  it('C19 a floor that is signed lower than before', async () => {
    const world = new TrustWorld();
    const artifact = world.release(1);
    world.pin(artifact, 1);
    world.publish(setFloors(world.repository(), { web: 2 }));
    const agent = agentOf(world);
    const resolve = () => agent.trust.resolve(assignmentOf(artifact), contextOf(world.nowMs));
    await expect(resolve()).rejects.toMatchObject({ code: 'E_FLOOR' });
    const repository = world.repository();
    const policy = readRoleDocument(repository, 'policy');
    const floors = [{ class: 'web', release: 1 }];
    const bytes = canonicalDocument({ schema: 'switchback.floors/1', floors });
    const file = putTarget(policy, FLOORS_PATH, bytes);
    world.publish(publish(repository, new Map([['policy', policy]]), [file]));
    await expect(resolve()).rejects.toMatchObject({ code: 'E_FLOOR' });
  });
});

describe('release engineers who list something else than is pinned', () => {
  it('C03 another release number beside the same manifest', async () => {
    const world = new TrustWorld();
    const artifact = world.release(1);
    world.pin(artifact, 1);
    const agent = agentOf(world);
    const repository = world.repository();
    const role = readRoleDocument(repository, 'img-web');
    const entry = role.targets[artifact.path]!;
    entry.custom = { ...(entry.custom as object), release: 9 };
    world.publish(publish(repository, new Map([['img-web', role]]), []));
    await expect(
      agent.trust.resolve(assignmentOf(artifact), contextOf(world.nowMs)),
    ).rejects.toMatchObject({ code: 'E_ARTIFACT' });
  });
});

describe('a builder and release engineers together', () => {
  it('C03 put another manifest of the same number into the envelope of what is pinned', async () => {
    const world = new TrustWorld();
    const artifact = world.release(1);
    world.pin(artifact, 1);
    const agent = agentOf(world);
    const other = canonicalDocument(manifestFor(1, { created: 1_700_000_001 }));
    const envelope = signEnvelope(MANIFEST_PAYLOAD_TYPE, other, [world.key('release')]);
    const repository = world.repository();
    const role = readRoleDocument(repository, 'img-web');
    const file = putTarget(role, manifestEnvelopePath(artifact), encodeEnvelope(envelope));
    world.publish(publish(repository, new Map([['img-web', role]]), [file]));
    await expect(
      agent.trust.resolve(assignmentOf(artifact), contextOf(world.nowMs)),
    ).rejects.toMatchObject({ code: 'E_ARTIFACT' });
  });
});

describe('forms of a targets role', () => {
  const targets = (changes: object): Uint8Array =>
    Buffer.from(
      JSON.stringify({
        signatures: [],
        signed: {
          _type: 'targets',
          spec_version: '1.0.34',
          version: 1,
          expires: '2030-01-01T00:00:00Z',
          targets: {},
          ...changes,
        },
      }),
    );
  const delegating = (name: string): object => ({
    delegations: {
      keys: {},
      roles: [{ name, keyids: ['a'], threshold: 1, terminating: true, paths: ['x/*'] }],
    },
  });
  const read = (changes: object) => () => decodeMetadata('targets', targets(changes), agentRules);

  it('A25 a delegation to a role of any name', () => {
    expect(read(delegating('grp-web'))).not.toThrow();
    for (const name of ['web', 'grp-', 'grp-Web', '../grp-web', 'constructor', 'grp-%2e%2e'])
      expect(read(delegating(name))).toThrow(expect.objectContaining({ code: 'E_SCHEMA' }));
  });

  it('C16 a target with sha512 and no sha256', () => {
    const target = (hashes: object): object => ({ targets: { 'a/b': { length: 1, hashes } } });
    expect(read(target({ sha256: '0'.repeat(64) }))).not.toThrow();
    for (const hashes of [{}, { md5: '0'.repeat(32) }, { sha512: '0'.repeat(128) }])
      expect(read(target(hashes))).toThrow(expect.objectContaining({ code: 'E_HASHALG' }));
  });

  it('A25 a snapshot that names what is no role', () => {
    const hashes = { sha256: '0'.repeat(64) };
    const snapshot = (name: string) => () =>
      decodeMetadata(
        'snapshot',
        targets({ _type: 'snapshot', meta: { [name]: { version: 1, length: 1, hashes } } }),
        agentRules,
      );
    expect(snapshot('grp-web.json')).not.toThrow();
    for (const name of ['../x.json', 'root', 'grp-web', 'constructor.json', 'grp-%2e%2e.json'])
      expect(snapshot(name)).toThrow(expect.objectContaining({ code: 'E_SCHEMA' }));
  });
});
