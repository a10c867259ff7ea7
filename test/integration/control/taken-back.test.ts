/** Pins that were taken back, and control from an old backup, against the verifier of a real host. */
import { copyFileSync, existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import type { ArtifactId, GroupName } from '#/protocol/ids.ts';
import { VERSIONS_KEPT } from '#/control/trust/repository.ts';
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

it('metadata of which hosts need nothing any more is kept for ever', async () => {
  await using world = await startWorld();
  await world.group(group, { canaryCount: 0, wavePercents: [100], soakSeconds: 0 });
  const snapshots = (): number[] =>
    [...world.control.engine.fleet.trust.keys()]
      .flatMap((name) => /^metadata\/(\d+)\.snapshot\.json$/u.exec(name)?.[1] ?? [])
      .map(Number)
      .sort((x, y) => x - y);
  const newest = (): number => snapshots().at(-1) ?? 0;
  while (newest() < 2 * VERSIONS_KEPT) await world.group(`group-${newest()}`);
  const first = newest() - VERSIONS_KEPT + 1;
  const kept = Array.from({ length: VERSIONS_KEPT }, (_, index) => first + index);
  expect(snapshots()).toEqual(kept);
  // The store has let go of them too; the roots stay, and a host gets through.
  await world.restart();
  expect(snapshots()).toEqual(kept);
  expect(world.control.engine.fleet.trust.has('metadata/1.root.json')).toBe(true);
  await using host = await RealHost.enrol(world);
  await host.trust.refresh(Date.now());
  const artifactId = await pin(world, 1);
  expect((await resolve(host, artifactId))?.artifactId).toBe(artifactId);
});

it('F73 control from an old backup: hosts that saw newer metadata are lost for ever', async () => {
  await using world = await startWorld();
  await world.group(group, { canaryCount: 0, wavePercents: [100], soakSeconds: 0 });
  await using host = await RealHost.enrol(world);
  const port = Number(new URL(world.control.url).port);
  const db = join(world.dir, 'control.db');
  const first = await pin(world, 1);
  expect((await resolve(host, first))?.seq).toBe(1);
  await world.control.stop();
  copyFileSync(db, `${db}.backup`);
  await world.restart({ port });
  for (const release of [2, 3, 4]) {
    const artifactId = await pin(world, release);
    expect((await resolve(host, artifactId))?.seq).toBe(release);
  }
  const polled = await host.line.poll(null, 'idle');
  if (polled.kind !== 'assignment') throw new Error(polled.kind);
  // A day later: the database is the one of yesterday.
  await world.control.stop();
  for (const suffix of ['', '-wal', '-shm']) rmSync(db + suffix, { force: true });
  copyFileSync(`${db}.backup`, db);
  expect(existsSync(`${db}-wal`)).toBe(false);
  await world.restart({ port });
  await expect(host.trust.refresh(Date.now())).rejects.toMatchObject({ code: 'E_ROLLBACK' });
  // It polls with what it was told last, and control learns that it is from before.
  await host.line.poll(polled.etag, 'idle');
  expect(world.control.engine.fleet.epoch).toBeGreaterThan(1);
  await host.trust.refresh(Date.now());
  // The pin of the backup is older than what the host saw, and stays refused.
  await expect(resolve(host, first)).rejects.toMatchObject({ code: 'E_ROLLBACK' });
  const fifth = await pin(world, 5);
  const offer = await resolve(host, fifth);
  expect(offer?.artifactId).toBe(fifth);
  expect(offer?.seq).toBeGreaterThan(4);
  // A host that never saw any of it follows too.
  await using young = await RealHost.enrol(world);
  expect((await resolve(young, fifth))?.artifactId).toBe(fifth);
});
