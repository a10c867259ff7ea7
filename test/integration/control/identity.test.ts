import { describe, expect, it } from 'vitest';
import type { Assignment } from '#/protocol/documents.ts';
import type { ArtifactId } from '#/protocol/ids.ts';
import { hex, startWorld, TestHost, type World } from '#/test/support/control/world.ts';

async function oneHost(): Promise<{ world: World; host: TestHost }> {
  const world = await startWorld();
  const group = await world.group('web');
  return { world, host: await world.host(group) };
}

async function pinWeb(world: World, artifactId: ArtifactId): Promise<void> {
  await world.admin.call('groupPin', {
    params: { group: 'web' },
    body: { artifactId, reason: 'wanted' },
  });
}

/** One host that was just offered its first version. */
async function offeredHost(): Promise<{
  world: World;
  host: TestHost;
  v1: ArtifactId;
  offer: NonNullable<Assignment['offer']>;
}> {
  const { world, host } = await oneHost();
  const v1 = await world.release(1);
  await pinWeb(world, v1);
  const { offer } = (await host.poll()).body;
  if (!offer) throw new Error('nothing offered');
  return { world, host, v1, offer };
}

/** A second machine with the same key: its own boot, its own idea of the sequence. */
function cloneOf(host: TestHost): TestHost {
  const clone = new TestHost(host.world, host.signer, host.id);
  clone.token = host.token;
  clone.seq = host.seq;
  return clone;
}

describe('reports are counted once', () => {
  it('F57 a report whose answer was lost is acknowledged again and counted once', async () => {
    const { world, host, v1, offer } = await offeredHost();
    await using _ = world;
    host.running = v1;
    const envelope = host.sign(host.document([host.event(offer, hex(16), 'confirmed')]));
    const first = await host.send(envelope);
    const again = await host.send(envelope);
    expect([first.status, again.status]).toEqual([202, 202]);
    expect(again.body['ackSeq']).toBe(first.body['ackSeq']);
    const detail = await world.admin.call('hostShow', { params: { host: host.id } });
    expect(detail.attempts).toHaveLength(1);
    const timeline = await world.admin.call('hostTimeline', { params: { host: host.id } });
    expect(timeline.items).toHaveLength(1);
    const audit = await world.admin.call('audit', {
      query: { subject: `host/${host.id}`, limit: '1000' },
    });
    expect(audit.items.filter((e) => e.type === 'attempt.confirmed')).toHaveLength(1);
  });

  it('F77 reports out of order end the attempt once and never bring an older state back', async () => {
    const { world, host, v1, offer } = await offeredHost();
    await using _ = world;
    const attempt = hex(16);
    const accepted = host.sign(host.document([host.event(offer, attempt, 'accepted')]));
    const staged = host.sign(
      host.document([host.event(offer, attempt, 'staged')], { state: 'staged' }),
    );
    host.running = v1;
    const confirmed = host.sign(
      host.document([host.event(offer, attempt, 'confirmed')], { state: 'idle' }),
    );
    expect((await host.send(accepted)).status).toBe(202);
    expect((await host.send(confirmed)).status).toBe(202);
    expect((await host.send(staged)).status).toBe(202);
    const detail = await world.admin.call('hostShow', { params: { host: host.id } });
    expect(detail.running).toBe(v1);
    expect(detail.state).toBe('idle');
    expect(detail.reportSeq).toBe(3);
    expect(detail.attempts).toHaveLength(1);
    expect(detail.attempts[0]?.outcome).toBe('confirmed');
    const timeline = await world.admin.call('hostTimeline', { params: { host: host.id } });
    expect(timeline.items.map((e) => e.kind)).toEqual(['confirmed', 'staged', 'accepted']);
  });

  it('F77 an end that stands only in a report that comes late is counted', async () => {
    const { world, host, v1, offer } = await offeredHost();
    await using _ = world;
    host.running = v1;
    const ended = host.sign(host.document([host.event(offer, hex(16), 'confirmed')]));
    const plain = host.sign(host.document([]));
    expect((await host.send(plain)).status).toBe(202);
    expect((await host.send(ended)).status).toBe(202);
    const detail = await world.admin.call('hostShow', { params: { host: host.id } });
    expect(detail.attempts[0]?.outcome).toBe('confirmed');
    expect(detail.reportSeq).toBe(2);
  });

  it('F77 a late report for an offer that was taken back does not count for the new one', async () => {
    const { world, host } = await oneHost();
    await using _ = world;
    const [v1, v2] = [await world.release(1), await world.release(2)];
    await pinWeb(world, v1);
    const first = (await host.poll()).body.offer;
    await pinWeb(world, v2);
    const second = (await host.poll()).body.offer;
    if (!first || !second) throw new Error('nothing offered');
    await host.report([host.event(first, hex(16), 'rolled-back', 'E_UNHEALTHY')]);
    const rollouts = await world.admin.call('rolloutList', {});
    const running = rollouts.items.find((r) => r.artifactId === v2);
    expect(running?.state).toBe('running');
    expect(running?.counts.failed).toBe(0);
  });

  it('the evidence that is kept is the envelope that the host signed', async () => {
    const { world, host } = await oneHost();
    await using _ = world;
    const envelope = host.sign(host.document([]));
    await host.send(envelope);
    const stored = await world.control.engine.store.report(host.id, 1);
    expect(JSON.parse(stored?.envelope ?? '')).toEqual(envelope);
  });
});

describe('one identity, two machines', () => {
  it('E11 two machines that take turns with one key are quarantined, and neither is offered anything', async () => {
    const { world, host } = await oneHost();
    await using _ = world;
    const clone = cloneOf(host);
    expect((await host.report([])).status).toBe(202);
    // The clone does not know of that report: it is told to go on after it, once.
    const conflict = await clone.report([]);
    expect([conflict.status, conflict.body['code']]).toEqual([409, 'E_REPORT_SEQUENCE']);
    clone.seq = (conflict.body['details'] as { lastSeq: number }).lastSeq;
    expect((await clone.report([])).status).toBe(202);
    host.seq = clone.seq;
    const forked = await host.report([]);
    expect([forked.status, forked.body['code']]).toEqual([403, 'E_FORKED']);
    const v1 = await world.release(1);
    await pinWeb(world, v1);
    for (const each of [host, clone]) {
      expect((await each.poll()).status).toBe(403);
      expect((await each.authenticate()).status).toBe(403);
    }
    const detail = await world.admin.call('hostShow', { params: { host: host.id } });
    expect(detail.condition).toBe('quarantined');
  });

  it('F75 a copied key that only polls is noticed by its boot id, a single late poll is not', async () => {
    let skewMs = 0;
    await using world = await startWorld({ nowMs: () => Date.now() + skewMs });
    await world.group('web');
    const host = await world.host('web');
    await host.report([]);
    const clone = cloneOf(host);
    await clone.report([]);
    expect((await clone.poll()).status).toBe(200);
    expect((await host.poll()).status).toBe(503);
    expect((await host.poll()).status).toBe(503);
    expect((await clone.poll()).status).toBe(304);
    skewMs = 150_000;
    expect((await host.poll()).status).toBe(403);
    expect((await clone.poll()).status).toBe(403);
  });

  it('F62 a quarantined host takes part again only with a new identity, which takes its place', async () => {
    const { world, host } = await oneHost();
    await using _ = world;
    await world.admin.call('hostLabels', {
      params: { host: host.id },
      body: { labels: { role: 'web' } },
    });
    await host.report([]);
    await cloneOf(host).report([]);
    for (let i = 0; i < 2; i += 1) await host.report([]);
    expect((await host.poll()).status).toBe(403);
    const { token } = await world.admin.call('hostAction', {
      params: { host: host.id },
      body: { action: 're-enrol', reason: 'cloned' },
    });
    const { signerOf } = await import('#/bundle/keys.ts');
    const { enrolWith } = await import('#/test/support/control/world.ts');
    const { randomBytes } = await import('node:crypto');
    const answer = await enrolWith(world, signerOf(randomBytes(32)), { token: token ?? '' });
    expect(answer.status).toBe(201);
    const fresh = await world.admin.call('hostShow', {
      params: { host: JSON.parse(answer.text).host },
    });
    expect(fresh.labels).toEqual({ role: 'web' });
    const list = await world.admin.call('hostList', {});
    const elsewhere = world.admin.call('hostList', { query: { group: 'wbe' } });
    await expect(elsewhere).rejects.toMatchObject({ code: 'E_NOT_FOUND' });
    expect(list.items.map((h) => h.id)).toEqual([fresh.id]);
  });

  it('F63 a host whose snapshot was restored is told where the sequence stands and goes on', async () => {
    const { world, host } = await oneHost();
    await using _ = world;
    for (let i = 0; i < 3; i += 1) await host.report([]);
    host.seq = 1;
    host.bootId = hex(16);
    const rewound = await host.report([]);
    expect([rewound.status, rewound.body['code']]).toEqual([409, 'E_REPORT_SEQUENCE']);
    host.seq = (rewound.body['details'] as { lastSeq: number }).lastSeq;
    expect((await host.report([])).status).toBe(202);
    expect((await host.poll()).status).toBe(200);
  });
});
