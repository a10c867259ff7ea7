/** Pins that were taken back, and control from an old backup, against the verifier of a real host. */
import { expect, it } from 'vitest';
import type { ArtifactId, GroupName } from '#/protocol/ids.ts';
import { startWorld, type World } from '#/test/support/control/world.ts';
import { RealHost } from '#/test/support/trust/real-host.ts';

const group = 'web' as GroupName;

async function pin(world: World, release: number): Promise<ArtifactId> {
  const artifactId = await world.release(release);
  await world.admin.call('groupPin', {
    params: { group },
    body: { artifactId, reason: `release ${release}` },
  });
  return artifactId;
}

/** What the verifier of the host makes of an offer, whatever control would say. */
function resolve(host: RealHost, artifactId: ArtifactId) {
  const offer = {
    artifactId,
    rolloutId: null,
    sources: ['http://127.0.0.1:1/b'],
    retryGeneration: 0,
  };
  const assignment = { generation: 1, group, offer, halted: false, rollbackGeneration: 0, why: '' };
  const context = { group, host: host.identity.host, class: 'web', nowMs: Date.now() };
  return host.trust.resolve(assignment, context);
}

it('X02 an offer of what was pinned before the unpin is taken up by no host', async () => {
  await using world = await startWorld();
  await world.group(group, { canaryCount: 0, wavePercents: [100], soakSeconds: 0 });
  await using host = await RealHost.enrol(world);
  const first = await pin(world, 1);
  expect((await resolve(host, first))?.artifactId).toBe(first);
  await world.admin.call('groupUnpin', { params: { group } });
  expect(await resolve(host, first)).toBeNull();
  expect(host.notices.at(-1)?.message).toBe('group web is not pinned');
  // Pinned anew it goes on.
  const second = await pin(world, 2);
  expect((await resolve(host, second))?.seq).toBe(2);
});
