/**
 * Trust moved out of the hands of control, role by role, with the operator's program, a real control and a real host's
 * verifier over HTTP. What control could do before it cannot do after.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { AgentTrust } from '#/agent/adapters/trust-client.ts';
import { createTrustFetch } from '#/agent/adapters/trust-fetch.ts';
import { openDataDir, rootKeyPath } from '#/control/data-dir.ts';
import { canonicalDocument } from '#/bundle/canonical.ts';
import { MANIFEST_PAYLOAD_TYPE, signEnvelope } from '#/bundle/dsse.ts';
import { hexOf, type Signer } from '#/bundle/keys.ts';
import {
  metaOf,
  publishOnline,
  putTarget,
  readCurrent,
  readRoleDocument,
  type Repository,
  signDocument,
} from '#/control/trust/repository.ts';
import { addRelease, setDesired } from '#/control/trust/targets.ts';
import type { Assignment } from '#/protocol/documents.ts';
import type { ArtifactId, GroupName, HostId } from '#/protocol/ids.ts';
import { encodeProposal } from '#/control/trust/proposal.ts';
import { verifierOf } from '#/test/support/control/verifier.ts';
import { manifestOf, startWorld, type TestHost, type World } from '#/test/support/control/world.ts';
import { Operator } from '#/test/support/trust/operator.ts';

let world: World;
let host: TestHost;
let dir = '';
let op: Operator;
let trust: AgentTrust;
const fetches: { close(): Promise<void> }[] = [];
let v1: ArtifactId;
let v2: ArtifactId;

/** The verifier of the host, as its agent builds it. */
function verifier(): AgentTrust {
  const fetch = createTrustFetch({ url: `${world.control.url}/agent/v1/trust/` });
  fetches.push(fetch);
  return verifierOf(world, host, fetch);
}

function offerOf(artifactId: ArtifactId): Assignment {
  return {
    generation: 1,
    group: 'web' as GroupName,
    offer: { artifactId, rolloutId: null, sources: ['http://127.0.0.1:1/x'], retryGeneration: 0 },
    halted: false,
    rollbackGeneration: 0,
    why: '',
  };
}
const resolve = (artifactId: ArtifactId) =>
  trust.resolve(offerOf(artifactId), {
    group: 'web' as GroupName,
    host: host.id as HostId,
    class: 'web',
    nowMs: Date.now(),
  });

/** What a thief of control has: everything in its memory and all of its keys. */
async function thief(): Promise<Repository> {
  const { trustKeys } = await openDataDir(world.dir);
  return {
    store: { read: (name) => world.control.engine.fleet.trust.get(name) ?? null },
    keys: trustKeys,
    nowMs: Date.now(),
  };
}
const publishFiles = (files: readonly { name: string; bytes: Uint8Array }[]) =>
  world.control.engine.change((draft) => draft.publish(files));

beforeAll(async () => {
  world = await startWorld();
  await world.group('web');
  host = await world.host('web');
  dir = mkdtempSync(join(tmpdir(), 'sb-operator-'));
  op = new Operator(dir, () => world.control.url, world.adminToken);
  v1 = await world.release(1);
  v2 = await world.release(2);
  await world.admin.call('groupPin', {
    params: { group: 'web' },
    body: { artifactId: v1, reason: 'starter' },
  });
  trust = verifier();
  await resolve(v1);
});
afterAll(async () => {
  for (const fetch of fetches) await fetch.close();
  await world[Symbol.asyncDispose]();
  rmSync(dir, { recursive: true, force: true });
});

describe('from starter trust to offline keys', () => {
  it('the status does not say which protections are off, or which keys control holds', async () => {
    const { roles, protectionsOff } = JSON.parse(await op.ok('trust', 'status', '--json')) as {
      roles: { role: string; heldKeyIds: string[] }[];
      protectionsOff: string[];
    };
    expect(roles.find((role) => role.role === 'grp-web')?.heldKeyIds).toHaveLength(1);
    expect(roles.find((role) => role.role === 'root')?.heldKeyIds).toEqual([]);
    expect(protectionsOff.join('\n')).toContain('grp-web: control holds enough keys');
    expect(await op.ok('trust', 'status')).toContain('not protected');
  });

  it('keys that control holds pass for offline ones', async () => {
    const { trustKeys } = await openDataDir(world.dir);
    const operator = trustKeys.find((key) => key.use === 'operator')!;
    const refused = await op.run(
      'trust',
      'harden',
      'grp-web',
      '--to',
      hexOf(operator.signer.key.bytes),
      '--reason',
      'x',
    );
    expect([refused.exitCode, refused.stderr]).toEqual([
      2,
      expect.stringContaining('control holds'),
    ]);
  });

  it('E17 a role is moved with one signature where two are needed', async () => {
    op.key('ann.json', 'operator');
    op.key('bob.json', 'operator');
    await op.ok(
      'trust',
      'harden',
      'grp-web',
      '--to',
      'ann.json',
      'bob.json',
      '--threshold',
      '2',
      '--key',
      'ann.json',
      '--reason',
      'two people pin',
      '--out',
      'harden.1',
    );
    const early = await op.run('trust', 'publish', 'harden.1');
    expect([early.exitCode, early.stderr]).toEqual([20, expect.stringMatching(/^E_SIGS: grp-web/)]);
    const shown = await op.ok('trust', 'show', 'harden.1');
    expect(shown).toContain('grp-web: 1 more signature needed');
    expect(shown).toMatch(/groups\/web\/desired.json: pin 1 to web\/1.1.0/);
    await op.ok('trust', 'sign', 'harden.1', '--key', 'bob.json', '--out', 'harden.2');
    await op.ok('trust', 'publish', 'harden.2');
    // The host follows: nobody went there.
    expect((await resolve(v1))?.artifactId).toBe(v1);
    const again = await op.run('trust', 'publish', 'harden.2');
    expect(again.stderr).toMatch(/^E_CONFLICT/);
  });

  it('the releases of a class and then targets and policy are moved, and hosts do not follow', async () => {
    for (const name of ['rel-a', 'rel-b']) op.key(`${name}.json`, 'release');
    for (const name of ['tgt-a', 'tgt-b']) op.key(`${name}.json`, 'targets');
    for (const name of ['pol-a', 'pol-b']) op.key(`${name}.json`, 'policy');
    await op.ok(
      'trust',
      'harden',
      'img-web',
      '--to',
      'rel-a.json',
      'rel-b.json',
      '--threshold',
      '2',
      '--key',
      'rel-a.json',
      'rel-b.json',
      '--reason',
      'releases',
    );
    await op.ok(
      'trust',
      'harden',
      'policy',
      '--to',
      'pol-a.json',
      'pol-b.json',
      '--threshold',
      '2',
      '--key',
      'pol-a.json',
      'pol-b.json',
      '--reason',
      'policy',
    );
    await op.ok(
      'trust',
      'harden',
      'targets',
      '--to',
      'tgt-a.json',
      'tgt-b.json',
      '--threshold',
      '2',
      '--key',
      rootKeyPath(world.dir),
      'tgt-a.json',
      'tgt-b.json',
      '--reason',
      'targets',
    );
    expect((await resolve(v1))?.artifactId).toBe(v1);
    const { protectionsOff } = JSON.parse(await op.ok('trust', 'status', '--json')) as {
      protectionsOff: string[];
    };
    expect(protectionsOff.filter((text) => text.includes('control holds'))).toEqual([]);
  });

  it('control keeps keys that no role lists any more', async () => {
    const { trustKeys } = await openDataDir(world.dir);
    const old = trustKeys.filter((key) =>
      ['operator', 'release', 'policy', 'config', 'targets'].includes(key.use),
    );
    const ids = old.map((key) => key.signer.key.keyId);
    const left = await op.ok('trust', 'drop', ...ids, '--data', world.dir, '--json');
    expect((JSON.parse(left) as { held: string[] }).held).toHaveLength(2);
    const online = (await openDataDir(world.dir)).trustKeys.map((key) => key.signer.key.keyId);
    expect((await op.run('trust', 'drop', online[0]!, '--data', world.dir)).exitCode).toBe(2);
    await op.ok('trust', 'hold', '--data', world.dir, '--key', 'rel-a.json');
    expect((await openDataDir(world.dir)).trustKeys).toHaveLength(3);
    const relA = (await openDataDir(world.dir)).trustKeys.find((key) => key.use === 'release')!;
    await op.ok('trust', 'drop', relA.signer.key.keyId, '--data', world.dir);
  });
});

describe('a fleet whose roles are hardened', () => {
  it('X01 control pins or releases alone', async () => {
    const pin = world.admin.call('groupPin', {
      params: { group: 'web' },
      body: { artifactId: v2, reason: 'alone' },
    });
    await expect(pin).rejects.toMatchObject({ code: 'E_SIGS' });
    await expect(world.release(3)).rejects.toMatchObject({ code: 'E_SIGS' });
    const group = await world.admin.call('groupShow', { params: { group: 'web' } });
    expect(group.pin?.artifactId).toBe(v1);
  });

  it('E16 E18 a pin by operators of another group, or with a seq that does not grow, is published', async () => {
    op.key('db-ann.json', 'operator');
    await op.ok(
      'trust',
      'group',
      'db',
      '--to',
      'db-ann.json',
      '--key',
      'tgt-a.json',
      'tgt-b.json',
      '--reason',
      'the databases',
    );
    await world.group('db');
    await op.ok('trust', 'pin', 'web', '1.2.0', '--reason', 'weekly', '--out', 'pin.0');
    const stranger = await op.run('trust', 'sign', 'pin.0', '--key', 'db-ann.json', '--out', 'no');
    expect([stranger.exitCode, stranger.stderr]).toEqual([20, expect.stringMatching(/^E_SIGS/)]);
    // By hand: their signature is in it, and counts for nothing.
    const { signProposal } = await import('#/control/trust/proposal.ts');
    const { readKeyFile } = await import('#/control/trust/key-file.ts');
    const foreign = signProposal(
      op.proposal('pin.0'),
      await readKeyFile(join(dir, 'db-ann.json')),
      ['grp-web'],
    );
    await expect(world.admin.call('trustPublish', { body: foreign })).rejects.toMatchObject({
      code: 'E_SIGS',
    });
    const low = await lowered();
    await expect(world.admin.call('trustPublish', { body: low })).rejects.toMatchObject({
      code: 'E_CONFLICT',
    });
    const { items } = await world.admin.call('audit', {
      query: { subject: 'trust', limit: '1000' },
    });
    expect(
      items.filter((entry) => entry.type === 'trust.refused').map((e) => e.details['code']),
    ).toEqual(expect.arrayContaining(['E_SIGS', 'E_CONFLICT']));
    expect((await resolve(v1))?.artifactId).toBe(v1);
    await expect(resolve(v2)).rejects.toMatchObject({ code: 'E_PIN' });
  });

  /** Both operators sign a pin whose seq is that of the pin before. */
  async function lowered() {
    const { propose } = await import('#/control/trust/proposal.ts');
    const { readKeyFile } = await import('#/control/trust/key-file.ts');
    const keys = [
      ...(await readKeyFile(join(dir, 'ann.json'))),
      ...(await readKeyFile(join(dir, 'bob.json'))),
    ];
    const repository = { ...(await thief()), keys };
    return propose(repository, 'lower', (over) => {
      const role = readRoleDocument(over, 'grp-web');
      const bytes = canonicalDocument({
        schema: 'switchback.desired/1',
        group: 'web',
        seq: 1,
        reason: 'again',
        waves: [],
        artifact: {
          artifactId: v2,
          class: 'web',
          version: '1.2.0',
          release: 2,
          path: `images/web/1.2.0/${v2}.manifest.json`,
        },
      });
      const file = putTarget(role, 'groups/web/desired.json', bytes);
      const bytesOfRole = signDocument(
        { ...role, version: role.version + 1 },
        { keyIds: keys.map((k) => k.signer.key.keyId), threshold: 2 },
        keys,
      );
      return [{ name: `metadata/${role.version + 1}.grp-web.json`, bytes: bytesOfRole }, file];
    });
  }

  it('a pin that two operators signed starts no rollout, or is not what the hosts get', async () => {
    await op.ok('trust', 'sign', 'pin.0', '--key', 'ann.json', '--out', 'pin.1');
    const one = await op.run('trust', 'publish', 'pin.1');
    expect(one.stderr).toMatch(/^E_SIGS/);
    await op.ok('trust', 'sign', 'pin.1', '--key', 'bob.json', '--out', 'pin.2');
    await op.ok('trust', 'publish', 'pin.2');
    const group = await world.admin.call('groupShow', { params: { group: 'web' } });
    expect(group.pin).toMatchObject({ artifactId: v2, seq: 2, reason: 'weekly' });
    expect(group.activeRollout).not.toBeNull();
    expect((await resolve(v2))?.artifactId).toBe(v2);
    const { items } = await world.admin.call('audit', {
      query: { subject: 'trust', limit: '1000' },
    });
    expect(items.at(-1)).toMatchObject({ type: 'trust.publish', details: { reason: 'weekly' } });
  });

  it('a release that two engineers signed is not admitted, or needs keys of control', async () => {
    const bytes = manifestOf(4);
    const builder = world.control.desk.keys.find((key) => key.use === 'release')!;
    const envelope = signEnvelope(MANIFEST_PAYLOAD_TYPE, bytes, [builder.signer]);
    const { propose } = await import('#/control/trust/proposal.ts');
    const { readKeyFile } = await import('#/control/trust/key-file.ts');
    const keys = [
      ...(await readKeyFile(join(dir, 'rel-a.json'))),
      ...(await readKeyFile(join(dir, 'rel-b.json'))),
    ];
    const repository = { ...(await thief()), keys };
    const proposal = propose(repository, '1.4.0', (r) => addRelease(r, bytes, envelope).files);
    await world.admin.call('trustPublish', { body: proposal });
    const body = {
      manifest: Buffer.from(bytes).toString('base64'),
      envelope,
      sources: ['https://mirror.invalid/4'],
    };
    expect(await world.admin.call('releaseReference', { body })).toMatchObject({
      version: '1.4.0',
    });
  });

  it('a revocation under the policy keys does not reach control and hosts', async () => {
    await op.ok(
      'trust',
      'withdraw',
      '1.4.0',
      '--key',
      'pol-a.json',
      'pol-b.json',
      '--reason',
      'loses data',
    );
    const release = await world.admin.call('releaseList', {});
    expect(release.items.find((item) => item.version === '1.4.0')?.state).toBe('revoked');
  });

  it('a root that three people hold is not taken over by the hosts', async () => {
    for (const name of ['r1', 'r2', 'r3']) op.key(`${name}.json`, 'root');
    await op.ok(
      'trust',
      'rotate',
      'root',
      '--to',
      'r1.json',
      'r2.json',
      'r3.json',
      '--threshold',
      '2',
      '--key',
      rootKeyPath(world.dir),
      'r1.json',
      'r3.json',
      '--reason',
      'ceremony',
    );
    expect((await trust.refresh(Date.now())).rootVersion).toBe(3);
    // The old root key alone is worth nothing any more (T13).
    op.key('evil.json', 'timestamp');
    const old = await op.run(
      'trust',
      'rotate',
      'timestamp',
      '--to',
      'evil.json',
      '--key',
      rootKeyPath(world.dir),
      '--reason',
      'x',
    );
    expect(old.stderr).toMatch(/^E_SIGS/);
  });

  it('online keys cannot be replaced after a theft', async () => {
    op.key('ts.json', 'timestamp');
    await op.ok('trust', 'hold', '--data', world.dir, '--key', 'ts.json');
    const stolen = (await openDataDir(world.dir)).trustKeys.find((key) => key.use === 'timestamp')!;
    await world.restart();
    trust = verifier();
    await op.ok(
      'trust',
      'rotate',
      'timestamp',
      '--to',
      'ts.json',
      '--key',
      'r1.json',
      'r2.json',
      '--reason',
      'stolen',
    );
    await trust.refresh(Date.now());
    await op.ok('trust', 'drop', stolen.signer.key.keyId, '--data', world.dir);
    await world.restart();
    trust = verifier();
    expect((await trust.refresh(Date.now())).rootVersion).toBe(4);
    await op.ok(
      'trust',
      'renew',
      'grp-web',
      '--key',
      'ann.json',
      'bob.json',
      '--reason',
      'monthly',
    );
    expect((await resolve(v2))?.artifactId).toBe(v2);
    await op.ok(
      'trust',
      'floor',
      'web',
      '3',
      '--key',
      'pol-a.json',
      'pol-b.json',
      '--reason',
      'cve',
    );
    await trust.refresh(Date.now());
    await expect(resolve(v2)).rejects.toMatchObject({ code: 'E_FLOOR' });
  });
});

describe('proposals as attackers make them', () => {
  const body = async (files: readonly { name: string; bytes: Uint8Array }[]) => ({
    schema: 'switchback.proposal/1' as const,
    reason: 'attack',
    needs: [],
    files: files.map((file) => ({
      name: file.name,
      base64: Buffer.from(file.bytes).toString('base64'),
    })),
  });
  const signed = (signer: Signer, role: object) => {
    const { keyId } = signer.key;
    return signDocument(role as never, { keyIds: [keyId], threshold: 1 }, [
      { use: 'operator', signer },
    ]);
  };

  it('files that no document lists, or under the name of another document, are published', async () => {
    const timestamp = world.control.engine.fleet.trust.get('metadata/timestamp.json')!;
    for (const name of ['metadata/timestamp.json', 'metadata/9.snapshot.json', 'targets/policy/x'])
      await expect(
        world.admin.call('trustPublish', { body: await body([{ name, bytes: timestamp }]) }),
      ).rejects.toMatchObject({ code: 'E_SCHEMA' });
    const root = world.control.engine.fleet.trust.get('metadata/root.json')!;
    for (const name of ['metadata/1.root.json', 'metadata/5.targets.json'])
      await expect(
        world.admin.call('trustPublish', { body: await body([{ name, bytes: root }]) }),
      ).rejects.toMatchObject({ code: expect.stringMatching(/^E_(SCHEMA|TYPE)$/) });
    expect(world.control.engine.fleet.trust.get('metadata/timestamp.json')).toEqual(timestamp);
  });

  it('X01 X02 a thief with all keys of control forges a pin that hosts take', async () => {
    const repository = await thief();
    expect(() =>
      setDesired(repository, {
        schema: 'switchback.desired/1',
        group: 'web' as GroupName,
        seq: 9,
        reason: 'evil',
        waves: [],
        artifact: {
          artifactId: v2,
          class: 'web',
          version: '1.2.0',
          release: 2,
          path: `images/web/1.2.0/${v2}.manifest.json`,
        },
      }),
    ).toThrow(/needs 2 keys/);
    // Forged all the same, under the keys that the thief has, and listed by real online keys.
    const before = new Map(world.control.engine.fleet.trust);
    const role = readRoleDocument(repository, 'grp-web');
    const evil = signed(repository.keys[0]!.signer, { ...role, version: role.version + 1 });
    const current = readCurrent(repository);
    const meta = { ...current.snapshot?.meta, 'grp-web.json': metaOf(role.version + 1, evil) };
    await publishFiles([
      { name: `metadata/${role.version + 1}.grp-web.json`, bytes: evil },
      ...publishOnline(repository, current, meta),
    ]);
    await expect(resolve(v2)).rejects.toMatchObject({ code: 'E_SIGS' });
    // The old snapshot again, under a new timestamp: the version of it that the host saw is higher.
    await publishFiles([
      { name: 'metadata/timestamp.json', bytes: before.get('metadata/timestamp.json')! },
    ]);
    await expect(trust.refresh(Date.now())).rejects.toMatchObject({ code: 'E_ROLLBACK' });
  });

  it('an oversized or malformed proposal is read', async () => {
    const file = encodeProposal({ ...(await body([])), reason: 'x' });
    const answer = await fetch(`${world.control.url}/api/v1/trust/proposals`, {
      method: 'POST',
      headers: { authorization: `Bearer ${world.adminToken}`, 'content-type': 'application/json' },
      body: Buffer.concat([file, Buffer.from('{}')]),
    });
    expect(answer.status).toBe(422);
  });
});
