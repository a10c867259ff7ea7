/** Keys that changed while a host was away, and clocks that are wrong by decades: a host follows, and is never locked out. */
import { expect, it } from 'vitest';
import { type KeyUse, type Repository } from '#/control/trust/repository.ts';
import { refreshTimestamp } from '#/control/trust/delegations.ts';
import { rotateRole } from '#/control/trust/rotation.ts';
import type { Signer } from '#/bundle/keys.ts';
import {
  agentOf,
  assignmentOf,
  contextOf,
  DAY_MS,
  memoryStore,
  NOW_MS,
  signerNumber,
  TrustWorld,
} from '#/test/support/trust-world.ts';

function having(world: TrustWorld, use: KeyUse, ...signers: readonly Signer[]): Repository {
  const repository = world.repository();
  return {
    ...repository,
    keys: [...repository.keys, ...signers.map((signer) => ({ use, signer }))],
  };
}

/** Gives the root role new keys, one after the other; each is signed by the one before it. */
function rotateRoots(world: TrustWorld, signers: readonly Signer[]): void {
  for (const signer of signers) {
    const to = { keys: [signer.key], threshold: 1 };
    world.publish(rotateRole(having(world, 'root', ...signers), 'root', to));
  }
}

it('F12 the root was rotated twice while the host was away: each step is walked, and kept', async () => {
  const world = new TrustWorld();
  const artifact = world.release(1);
  world.pin(artifact, 1);
  const agent = agentOf(world);
  expect((await agent.trust.refresh(world.nowMs)).rootVersion).toBe(1);
  rotateRoots(world, [signerNumber(31), signerNumber(32)]);
  world.requests.length = 0;
  expect((await agent.trust.refresh(world.nowMs)).rootVersion).toBe(3);
  expect(world.requests.filter((name) => name.endsWith('.root.json'))).toEqual([
    'metadata/2.root.json',
    'metadata/3.root.json',
    'metadata/4.root.json',
  ]);
  // A restart begins at the root it got to, although its anchor is still the first.
  world.requests.length = 0;
  const restarted = agentOf(world, agent.store);
  expect((await restarted.trust.refresh(world.nowMs)).rootVersion).toBe(3);
  expect(world.requests).not.toContain('metadata/2.root.json');
  const offer = await restarted.trust.resolve(assignmentOf(artifact), contextOf(world.nowMs));
  expect(offer?.artifactId).toBe(artifact.artifactId);
});

it('F12 a step of the chain is missing: the roots behind it are not jumped to', async () => {
  const world = new TrustWorld();
  const agent = agentOf(world);
  await agent.trust.refresh(world.nowMs);
  rotateRoots(world, [signerNumber(31), signerNumber(32)]);
  world.files.delete('metadata/2.root.json');
  expect((await agent.trust.refresh(world.nowMs)).rootVersion).toBe(1);
});

it('F12 the old root key signs another successor after the rotation: it is never trusted again', async () => {
  const world = new TrustWorld();
  const agent = agentOf(world);
  await agent.trust.refresh(world.nowMs);
  const fork = new Map(world.files);
  rotateRoots(world, [signerNumber(31)]);
  const moved = agentOf(world, agent.store);
  expect((await moved.trust.refresh(world.nowMs)).rootVersion).toBe(2);
  // Whoever has the retired key makes a root 2 and a root 3 of its own, with timestamp keys of its own.
  const thief = new TrustWorld();
  thief.files.clear();
  for (const [name, bytes] of fork) thief.files.set(name, bytes);
  rotateRoots(thief, [signerNumber(41), signerNumber(42)]);
  const mine = signerNumber(43);
  const repository = having(thief, 'root', signerNumber(41), signerNumber(42));
  thief.publish(
    rotateRole(
      { ...repository, keys: [...repository.keys, { use: 'timestamp', signer: mine }] },
      'timestamp',
      { keys: [mine.key], threshold: 1 },
    ),
  );
  world.files.clear();
  for (const [name, bytes] of thief.files) world.files.set(name, bytes);
  await expect(moved.trust.refresh(world.nowMs)).rejects.toMatchObject({ code: 'E_SIGS' });
  expect((await moved.trust.status()).rootVersion).toBe(2);
  // The same roots are taken by a host that never saw the rotation: the refusal is the work of what was kept.
  expect((await agentOf(world).trust.refresh(world.nowMs)).rootVersion).toBe(4);
});

it.each([
  ['1970', 0],
  ['ten years late', NOW_MS - 3650 * DAY_MS],
])(
  'F13 a machine whose clock says %s installs a newer version once it is published',
  async (_name, hostMs) => {
    const world = new TrustWorld();
    const first = world.release(1);
    world.pin(first, 1);
    const agent = agentOf(world);
    await agent.trust.resolve(assignmentOf(first), contextOf(world.nowMs));
    world.nowMs += 30 * DAY_MS;
    const second = world.release(2);
    world.pin(second, 2);
    world.publish(refreshTimestamp(world.repository()));
    // Started anew with the wrong clock: what was signed since is what tells the time.
    const restarted = agentOf(world, agent.store);
    const offer = await restarted.trust.resolve(assignmentOf(second), contextOf(hostMs));
    expect(offer?.artifactId).toBe(second.artifactId);
    expect(restarted.notices.map(({ kind }) => kind)).toContain('clock-behind');
    expect((await restarted.trust.status()).timeFloor).toBeGreaterThanOrEqual(
      (NOW_MS + 30 * DAY_MS) / 1000,
    );
  },
);

it('F13 a clock ten years ahead is refused with a code, and once it is right the host goes on', async () => {
  const world = new TrustWorld();
  const artifact = world.release(1);
  world.pin(artifact, 1);
  const store = memoryStore();
  const ahead = agentOf(world, store);
  await expect(
    ahead.trust.resolve(assignmentOf(artifact), contextOf(NOW_MS + 3650 * DAY_MS)),
  ).rejects.toMatchObject({ code: 'E_EXPIRED' });
  const repaired = agentOf(world, store);
  const offer = await repaired.trust.resolve(assignmentOf(artifact), contextOf(NOW_MS));
  expect(offer?.artifactId).toBe(artifact.artifactId);
});
