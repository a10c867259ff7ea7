import { expect, it } from 'vitest';
import {
  agentOf,
  assignmentOf,
  contextOf,
  DAY_MS,
  TrustWorld,
} from '#/test/support/trust-world.ts';

it('a pinned release becomes an offer with the verified manifest', async () => {
  const world = new TrustWorld();
  const artifact = world.release(1);
  world.pin(artifact, 1);
  const { trust, notices } = agentOf(world);
  const offer = await trust.resolve(assignmentOf(artifact), contextOf(world.nowMs));
  expect(offer).toMatchObject({ artifactId: artifact.artifactId, seq: 1 });
  expect(offer?.manifest.version).toBe('1.0.1');
  expect(notices).toEqual([]);
});

it('a second resolve of the same state fetches only the next root, the timestamp and the envelope', async () => {
  const world = new TrustWorld();
  const artifact = world.release(1);
  world.pin(artifact, 1);
  const { trust } = agentOf(world);
  await trust.resolve(assignmentOf(artifact), contextOf(world.nowMs));
  world.requests.length = 0;
  await trust.resolve(assignmentOf(artifact), contextOf(world.nowMs));
  expect(
    world.requests.map((name) =>
      name
        .split('/')
        .at(-1)
        ?.replace(/^[0-9a-f]{64}/, 'H'),
    ),
  ).toEqual(['2.root.json', 'timestamp.json', `H.${artifact.artifactId}.manifest.dsse.json`]);
});

it('a restarted agent goes on from its cache without fetching a role again', async () => {
  const world = new TrustWorld();
  const artifact = world.release(1);
  world.pin(artifact, 1);
  const first = agentOf(world);
  await first.trust.resolve(assignmentOf(artifact), contextOf(world.nowMs));
  world.requests.length = 0;
  const second = agentOf(world, first.store);
  await second.trust.resolve(assignmentOf(artifact), contextOf(world.nowMs + DAY_MS / 2));
  expect(world.requests.filter((name) => /\d\.(targets|policy|grp|img)/.test(name))).toEqual([]);
});
