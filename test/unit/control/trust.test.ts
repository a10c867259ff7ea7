import { describe, expect, it } from 'vitest';
import { addGroup, refreshTimestamp } from '#/control/trust/delegations.ts';
import { storedKeyOf } from '#/control/trust/key-file.ts';
import {
  acceptProposal,
  decodeProposal,
  encodeProposal,
  propose,
  signProposal,
} from '#/control/trust/proposal.ts';
import type { HeldKey, Repository } from '#/control/trust/repository.ts';
import { renewRoot, revokeKey, rotateRole } from '#/control/trust/rotation.ts';
import { trustStatus } from '#/control/trust/starter.ts';
import { setDesired, setFloors } from '#/control/trust/targets.ts';
import type { GroupName } from '#/protocol/ids.ts';
import {
  agentOf,
  assignmentOf,
  contextOf,
  DAY_MS,
  NOW_MS,
  seedOf,
  TrustWorld,
} from '#/test/support/trust-world.ts';

function codeOf(run: () => unknown): string {
  try {
    run();
    return 'accepted';
  } catch (error) {
    return (error as { code: string }).code;
  }
}

async function ready() {
  const world = new TrustWorld();
  const artifact = world.release(1);
  world.pin(artifact, 1);
  const agent = agentOf(world);
  const resolve = async () =>
    (await agent.trust.resolve(assignmentOf(artifact), contextOf(world.nowMs)))?.seq;
  await resolve();
  return { world, artifact, agent, resolve };
}

/** The repository with keys more at hand. */
function having(world: TrustWorld, ...keys: HeldKey[]): Repository {
  return { ...world.repository(), keys: [...world.repository().keys, ...keys] };
}

describe('freshness', () => {
  it('nothing is signed again before half of a life is over', () => {
    const world = new TrustWorld();
    expect(refreshTimestamp(world.repository())).toEqual([]);
    world.nowMs += DAY_MS * 0.6;
    expect(refreshTimestamp(world.repository()).map((file) => file.name)).toEqual([
      'metadata/timestamp.json',
    ]);
  });

  it('a repository that is refreshed each half day stays valid for a year', async () => {
    const { world, resolve } = await ready();
    for (let day = 0; day < 340; day += 0.7) {
      world.nowMs = NOW_MS + day * DAY_MS;
      world.publish(refreshTimestamp(world.repository()));
    }
    world.publish(renewRoot(world.repository()));
    expect(await resolve()).toBe(1);
  }, 120_000);
});

describe('rotation', () => {
  it.each(['root', 'targets', 'snapshot', 'timestamp', 'policy', 'img-web', 'grp-blue'])(
    'hosts follow when %s gets two other keys',
    async (role) => {
      const { world, resolve } = await ready();
      const use = role === 'img-web' ? 'release' : role === 'grp-blue' ? 'operator' : role;
      const keys = [31, 32].map((number) => storedKeyOf(use as 'root', seedOf(number)));
      const to = { keys: keys.map((key) => key.signer.key), threshold: 2 };
      world.publish(rotateRole(having(world, ...keys), role, to));
      expect(await resolve()).toBe(1);
      const status = trustStatus(world.repository()).roles.find((each) => each.role === role);
      expect(status?.threshold).toBe(2);
      expect(status?.heldKeyIds).toEqual([]);
      expect(await agentOf(world).trust.refresh(world.nowMs)).toMatchObject({
        rootVersion: ['root', 'targets', 'snapshot', 'timestamp'].includes(role) ? 2 : 1,
      });
    },
  );

  it('a threshold above the number of keys is refused', () => {
    const world = new TrustWorld();
    const to = { keys: [world.key('root').key], threshold: 2 };
    expect(codeOf(() => rotateRole(world.repository(), 'root', to))).toBe('E_USAGE');
    expect(codeOf(() => rotateRole(world.repository(), 'grp-blue', to))).toBe('E_USAGE');
  });

  it('a key that a role can not do without is not revoked', async () => {
    const { world, resolve } = await ready();
    const old = world.key('operator').key;
    expect(codeOf(() => revokeKey(world.repository(), old.keyId))).toBe('E_CONFLICT');
    const next = storedKeyOf('operator', seedOf(33));
    const to = { keys: [next.signer.key], threshold: 1 };
    world.publish(rotateRole(having(world, next), 'grp-blue', to));
    world.publish(revokeKey(world.repository(), old.keyId));
    expect(await resolve()).toBe(1);
  });
});

describe('proposals', () => {
  it('a pin of a group whose two operators sign elsewhere reaches the hosts once both have signed', async () => {
    const { world, artifact, resolve } = await ready();
    const [ann, bob] = [41, 42].map((number) => storedKeyOf('operator', seedOf(number)));
    const to = { keys: [ann!.signer.key, bob!.signer.key], threshold: 2 };
    world.publish(rotateRole(having(world, ann!, bob!), 'grp-blue', to));
    const pin = (repository: Repository) =>
      setDesired(repository, {
        schema: 'switchback.desired/1',
        group: 'blue' as GroupName,
        seq: 2,
        artifact,
        reason: 'signed by two',
        waves: [],
      });
    expect(codeOf(() => pin(world.repository()))).toBe('E_SIGS');
    const made = encodeProposal(propose(world.repository(), 'pin', pin));
    const byAnn = signProposal(decodeProposal(made), [ann!], ['grp-blue']);
    expect(codeOf(() => acceptProposal(world.repository(), byAnn))).toBe('E_SIGS');
    const byBoth = signProposal(byAnn, [bob!], ['grp-blue']);
    world.publish(acceptProposal(world.repository(), byBoth));
    expect(await resolve()).toBe(2);
    expect(codeOf(() => acceptProposal(world.repository(), byBoth))).toBe('E_CONFLICT');
  });

  it('a root that is rotated on another machine is accepted with signatures of old and new', async () => {
    const { world, resolve } = await ready();
    const control = { ...world.repository(), keys: world.keys.control };
    const next = storedKeyOf('root', seedOf(44));
    const to = { keys: [next.signer.key], threshold: 1 };
    const proposal = propose(control, 'new root key', (r) => rotateRole(r, 'root', to));
    const byNew = signProposal(proposal, [next], ['root']);
    expect(codeOf(() => acceptProposal(control, byNew))).toBe('E_SIGS');
    const byBoth = signProposal(byNew, world.keys.root, ['root']);
    world.publish(acceptProposal(control, byBoth));
    expect(await resolve()).toBe(1);
    expect(trustStatus(control).roles[0]).toMatchObject({ role: 'root', version: 2 });
  });

  it('a proposal that was changed after it was signed is refused', async () => {
    const { world } = await ready();
    const control = { ...world.repository(), keys: world.keys.control };
    const proposal = propose(control, 'floor', (r) => setFloors(r, { web: 1 }));
    expect(codeOf(() => acceptProposal(control, proposal))).toBe('accepted');
    const changed = proposal.files.map((file) => ({
      ...file,
      base64: Buffer.from(
        Buffer.from(file.base64, 'base64')
          .toString()
          .replace(/"expires":"2026/, '"expires":"2036'),
      ).toString('base64'),
    }));
    expect(codeOf(() => acceptProposal(control, { ...proposal, files: changed }))).toBe('E_SIGS');
  });
});

describe('proposals that nobody could have made', () => {
  it.each([
    ['a signature without its bytes', { signatures: [{ keyid: 'a' }] }],
    ['no document', { signed: null, signatures: [] }],
    ['a document of another kind', { signed: { _type: 'root' }, signatures: [] }],
  ])('%s ends control instead of being refused', async (_, content) => {
    const { world } = await ready();
    const control = { ...world.repository(), keys: world.keys.control };
    const made = propose(control, 'floor', (r) => setFloors(r, { web: 1 }));
    const files = made.files.map((file) =>
      file.name.endsWith('policy.json')
        ? { ...file, base64: Buffer.from(JSON.stringify(content)).toString('base64') }
        : file,
    );
    for (const use of [
      () => acceptProposal(control, { ...made, files }),
      () => signProposal({ ...made, files }, [], ['policy']),
    ])
      expect(['E_SCHEMA', 'E_TYPE', 'E_SPEC']).toContain(codeOf(use));
  });
});

describe('status', () => {
  it('starter trust says for each role what control could do, and hardening silences it', () => {
    const world = new TrustWorld();
    const control = { ...world.repository(), keys: world.keys.control };
    const before = trustStatus(control);
    expect(before.roles.map((role) => role.role)).toEqual([
      'root',
      'timestamp',
      'snapshot',
      'targets',
      'policy',
      'grp-blue',
    ]);
    expect(before.protectionsOff.join('\n')).toContain('grp-blue: control holds enough keys');
    expect(before.protectionsOff.join('\n')).toContain('root: one stolen key is enough');
    const keys = [51, 52].map((number) => storedKeyOf('operator', seedOf(number)));
    const to = { keys: keys.map((key) => key.signer.key), threshold: 2 };
    world.publish(rotateRole(having(world, ...keys), 'grp-blue', to));
    expect(trustStatus(control).protectionsOff.join('\n')).not.toContain('grp-blue');
  });

  it('a pin that does not grow, of what is not released, or of an unknown group is refused', async () => {
    const { world, artifact } = await ready();
    const pin = (changes: object) =>
      codeOf(() => {
        world.pin(artifact, 2, changes);
      });
    expect(pin({ seq: 1 })).toBe('E_CONFLICT');
    expect(pin({ group: 'nobody' })).toBe('E_NOT_FOUND');
    expect(pin({ artifact: { ...artifact, release: 1, artifactId: 'c'.repeat(64) } })).toBe(
      'E_NOT_FOUND',
    );
    expect(codeOf(() => world.release(1, { version: '9.9' }))).toBe('E_CONFLICT');
    expect(codeOf(() => addGroup(world.repository(), 'blue'))).toBe('E_CONFLICT');
    world.publish(setFloors(world.repository(), { web: 2 }));
    expect(codeOf(() => setFloors(world.repository(), { web: 1 }))).toBe('E_CONFLICT');
  });
});
