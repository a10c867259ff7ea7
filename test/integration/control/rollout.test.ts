import { describe, expect, it } from 'vitest';
import type { ArtifactId } from '#/protocol/ids.ts';
import { startWorld } from '#/test/support/control/world.ts';

describe('a rollout over real HTTP', () => {
  it('goes canary first, counts only confirmed, and ends as the version of the group', async () => {
    await using world = await startWorld();
    const group = await world.group('web');
    const hosts = [];
    for (let i = 0; i < 5; i += 1) hosts.push(await world.host(group));
    const artifactId = await world.release(1);
    const { rollout } = await world.admin.call('groupPin', {
      params: { group },
      body: { artifactId, reason: 'first version' },
    });
    expect(rollout?.stages.map((s) => s.name)).toEqual(['canary', '100 %']);
    const offered = [];
    for (const host of hosts) if ((await host.poll()).body.offer !== null) offered.push(host);
    expect(offered).toHaveLength(1);
    expect(await offered[0]?.follow()).toBe(true);
    for (const host of hosts) if (host !== offered[0]) expect(await host.follow()).toBe(true);
    const view = await world.admin.call('rolloutShow', { params: { rollout: rollout?.id ?? '' } });
    expect(view.state).toBe('done');
    expect(view.counts.confirmed).toBe(5);
    const after = await world.admin.call('groupShow', { params: { group } });
    expect(after.current?.artifactId).toBe(artifactId);
    expect(view.decisions.map((d) => d.kind)).toContain('pass-stage');
  });

  it('halts after a failed canary, and offers nothing to anybody else', async () => {
    await using world = await startWorld();
    const group = await world.group('web');
    const hosts = [await world.host(group), await world.host(group), await world.host(group)];
    const v1 = await world.release(1);
    await world.admin.call('groupPin', {
      params: { group },
      body: { artifactId: v1, reason: 'v1' },
    });
    for (let i = 0; i < 2; i += 1) for (const host of hosts) await host.follow();
    expect(hosts.map((h) => h.running)).toEqual([v1, v1, v1]);
    const v2 = await world.release(2);
    const { rollout } = await world.admin.call('groupPin', {
      params: { group },
      body: { artifactId: v2, reason: 'v2' },
    });
    let failed = 0;
    for (const host of hosts) if (await host.follow('rolled-back', 'E_UNHEALTHY')) failed += 1;
    expect(failed).toBe(1);
    const view = await world.admin.call('rolloutShow', { params: { rollout: rollout?.id ?? '' } });
    expect(view.state).toBe('halted');
    expect(view.words).toContain('surely above');
    for (const host of hosts) expect(await host.follow()).toBe(false);
    const failedHost = view.decisions.find((d) => d.kind === 'offer')?.host ?? '';
    const why = await world.admin.call('hostWhy', { params: { host: failedHost } });
    expect(why.answer).toContain('halted');
    expect(why.failed).toMatchObject({ version: '1.2.0', code: 'E_UNHEALTHY' });
    expect(why.next.words).toContain('switchback rollout resume web --reason');
    const summary = await world.admin.call('summary', {});
    expect(summary.attention.some((a) => a.words.includes('halted'))).toBe(true);
    const params = { host: failedHost };
    const timeline = await world.admin.call('hostTimeline', { params, query: {} });
    expect(timeline.items.map(({ version }) => version)).toContain('1.2.0');
    const rolloutId = rollout?.id ?? '';
    await world.admin.call('rolloutAbort', {
      params: { rollout: rolloutId },
      body: { reason: 'bad' },
    });
    const aborted = await world.admin.call('groupShow', { params: { group } });
    expect(aborted.pin?.version).toBe('1.2.0');
    expect([aborted.current?.version, aborted.hosts.onTarget]).toEqual(['1.1.0', 0]);
  });

  it('the list of hosts does not say what one in an attempt waits for', async () => {
    await using world = await startWorld();
    const group = await world.group('web');
    const host = await world.host(group);
    const artifactId = await world.release(1);
    await world.admin.call('groupPin', { params: { group }, body: { artifactId, reason: 'v1' } });
    const { offer } = (await host.poll()).body;
    if (offer === null) throw new Error('no offer');
    const shown = async (): Promise<string> =>
      (await world.admin.call('hostShow', { params: { host: host.id } })).why;
    expect(await shown()).toBe('nothing stands against it');
    const why = 'version 1.1.0 waits for its maintenance window';
    const more = { state: 'waiting', why } as const;
    await host.report([host.event(offer, 'a'.repeat(32), 'waiting')], more);
    await world.control.engine.settled();
    expect(await shown()).toBe(why);
  });

  it('calls no host of a pinned group unpinned before its first rollout has come to it', async () => {
    await using world = await startWorld();
    const group = await world.group('web', { canaryCount: 1 });
    const hosts = [await world.host(group), await world.host(group), await world.host(group)];
    const conditions = async (): Promise<string[]> => {
      await world.control.engine.settled();
      const { items } = await world.admin.call('hostList', { query: { group } });
      return items.map(({ condition }) => condition).sort();
    };
    expect(await conditions()).toEqual(['unpinned', 'unpinned', 'unpinned']);
    const v1 = await world.release(1);
    const body = { artifactId: v1, reason: 'v1' };
    await world.admin.call('groupPin', { params: { group }, body });
    expect(await conditions()).toEqual(['behind', 'behind', 'updating']);
    for (const host of hosts)
      if ((await host.poll()).body.offer === null) await host.report([], { running: v1 });
    expect(await conditions()).toEqual(['current', 'current', 'updating']);
  });

  it('names a release that was revoked for as long as a host runs it', async () => {
    await using world = await startWorld();
    const group = await world.group('web');
    const host = await world.host(group);
    const body = { artifactId: await world.release(1), reason: 'v1' };
    await world.admin.call('groupPin', { params: { group }, body });
    await host.follow();
    const artifact = body.artifactId;
    await world.admin.call('releaseRevoke', { params: { artifact }, body: { reason: 'leaks' } });
    const { attention } = await world.admin.call('summary', {});
    expect(attention).toContainEqual(
      expect.objectContaining({
        words: expect.stringMatching(
          /was revoked \(leaks\) and still runs on 1 hosts, pinned by web$/u,
        ),
        act: expect.stringContaining('switchback pin web'),
      }),
    );
  });

  it('F55 the same version is not offered again after a rollback until an operator says retry', async () => {
    await using world = await startWorld();
    const group = await world.group('web', {
      canaryCount: 0,
      wavePercents: [100],
      soakSeconds: 0,
      maxFailurePercent: 50,
    });
    const host = await world.host(group);
    const v1 = await world.release(1);
    await world.admin.call('groupPin', {
      params: { group },
      body: { artifactId: v1, reason: 'v1' },
    });
    expect(await host.follow('rolled-back', 'E_UNHEALTHY')).toBe(true);
    expect(await host.follow()).toBe(false);
    host.etag = null;
    const before = (await host.poll()).body;
    expect(before.offer).toBeNull();
    await world.admin.call('hostAction', {
      params: { host: host.id },
      body: { action: 'retry', reason: 'fixed the disk' },
    });
    await world.control.engine.settled();
    host.etag = null;
    const { offer } = (await host.poll()).body;
    expect(offer?.retryGeneration).toBeGreaterThan(0);
    expect(await host.follow()).toBe(true);
  });

  it('a retry is of the version that the host should run and refuses, not of an older failure', async () => {
    await using world = await startWorld();
    const group = await world.group('web', {
      canaryCount: 0,
      wavePercents: [100],
      soakSeconds: 0,
      maxFailurePercent: 50,
    });
    const host = await world.host(group);
    const pinned = async (release: number): Promise<ArtifactId> => {
      const artifactId = await world.release(release);
      const body = { artifactId, reason: 'next' };
      await world.admin.call('groupPin', { params: { group }, body });
      return artifactId;
    };
    const v1 = await pinned(1);
    expect(await host.follow()).toBe(true);
    await pinned(2);
    expect(await host.follow('rolled-back', 'E_UNHEALTHY')).toBe(true);
    const v3 = await pinned(3);
    expect(await host.follow()).toBe(true);
    // The operator of the host went back by hand.
    host.running = v1;
    const denied = [{ artifactId: v3, code: 'E_RECALLED' }];
    expect((await host.send(host.sign(host.document([], { denied })))).status).toBe(202);
    const { words } = await world.admin.call('hostAction', {
      params: { host: host.id },
      body: { action: 'retry', reason: 'again' },
    });
    expect(words).toBe('1.3.0 may be tried again');
    await world.control.engine.settled();
    host.etag = null;
    expect((await host.poll()).body.offer?.artifactId).toBe(v3);
  });

  it('F58 an abort takes the offer back before the host acted on it', async () => {
    await using world = await startWorld();
    const group = await world.group('web');
    const host = await world.host(group);
    const v1 = await world.release(1);
    const { rollout } = await world.admin.call('groupPin', {
      params: { group },
      body: { artifactId: v1, reason: 'v1' },
    });
    expect((await host.poll()).body.offer?.artifactId).toBe(v1);
    await world.admin.call('rolloutAbort', {
      params: { rollout: rollout?.id ?? '' },
      body: { reason: 'wrong one' },
    });
    await world.control.engine.settled();
    const after = await host.poll();
    expect(after.status).toBe(200);
    expect(after.body.offer).toBeNull();
  });

  it('a halt of the fleet reaches every host at its next poll, and lifting it goes on', async () => {
    await using world = await startWorld();
    const group = await world.group('web');
    const hosts = [await world.host(group), await world.host(group)];
    const v1 = await world.release(1);
    await world.admin.call('groupPin', {
      params: { group },
      body: { artifactId: v1, reason: 'v1' },
    });
    await world.admin.call('halt', { body: { reason: 'fire' } });
    for (const host of hosts) expect((await host.poll()).body.halted).toBe(true);
    await world.admin.call('lift', { body: { reason: 'out' } });
    for (const host of hosts) {
      const { status, body } = await host.poll();
      expect(status).toBe(200);
      expect(body.halted).toBe(false);
    }
  });
});
