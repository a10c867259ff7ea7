import { copyFileSync, existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { describe, expect, it } from 'vitest';
import { hex, startWorld } from '#/test/support/control/world.ts';

describe('the poll', () => {
  it('a quiet poll is a 304 and runs no SQL statement at all', async () => {
    const statements: string[] = [];
    await using world = await startWorld({
      onQuery: (sql) => statements.push(sql),
      tickMs: 3_600_000,
    });
    const group = await world.group('web');
    const host = await world.host(group);
    const first = await host.poll();
    expect(first.status).toBe(200);
    await world.control.engine.settled();
    statements.length = 0;
    for (let i = 0; i < 50; i += 1) {
      const { status, etag, pollAfter } = await host.poll();
      expect(status).toBe(304);
      expect(etag).toBe(first.etag);
      expect(pollAfter).toBeGreaterThan(0);
    }
    expect(statements).toEqual([]);
  });

  it('an offer changes the ETag once, and is the same at every poll after', async () => {
    await using world = await startWorld();
    const group = await world.group('web');
    const host = await world.host(group);
    const before = await host.poll();
    const v1 = await world.release(1);
    await world.admin.call('groupPin', {
      params: { group },
      body: { artifactId: v1, reason: 'v1' },
    });
    const offered = await host.poll();
    expect(offered.status).toBe(200);
    expect(offered.body.generation).toBeGreaterThan(before.body.generation);
    expect(offered.body.offer?.sources).toEqual(['https://mirror.invalid/1.bundle']);
    expect((await host.poll()).status).toBe(304);
    const detail = await world.admin.call('hostShow', { params: { host: host.id } });
    expect(detail.attempts).toHaveLength(1);
  });

  it('F59 hosts are told jittered times, and a larger fleet is told to poll less often', async () => {
    const { pollAfterSeconds } = await import('#/control/core/poll.ts');
    const policy = {
      targetPollsPerSecond: 333,
      minSeconds: 30,
      maxSeconds: 3600,
      activeSeconds: 30,
    };
    const at = (hosts: number, unit: number, isActive = false, shedLevel: 0 | 1 = 0): number =>
      pollAfterSeconds({ hosts, policy, isActive, shedLevel, unit });
    expect([at(100_000, 0), at(100_000, 0.999)]).toEqual([270, 330]);
    expect(at(10, 0.5)).toBe(30);
    expect(at(100_000, 0.5, true)).toBe(30);
    expect(at(100_000, 0.5, false, 1)).toBe(601);
  });

  it('F76 at the highest level polls are turned away with Retry-After before anything else; halts and reports are not', async () => {
    await using world = await startWorld();
    const group = await world.group('web');
    const host = await world.host(group);
    await world.restart({ maxInFlight: 0 });
    const turned = await host.poll();
    expect(turned.status).toBe(503);
    expect(Number(turned.retryAfter)).toBeGreaterThan(0);
    expect((await host.report([])).status).toBe(202);
    await world.admin.call('halt', { body: { reason: 'fire' } });
    expect((await world.admin.call('halts', {})).items).toHaveLength(1);
  });

  it('a host that asks too often is told to wait, and the others are not', async () => {
    await using world = await startWorld({ maxHostRequests: 5 });
    const group = await world.group('web');
    const [fast, calm] = [await world.host(group), await world.host(group)];
    let last = 0;
    for (let i = 0; i < 8; i += 1) last = (await fast.poll()).status;
    expect(last).toBe(429);
    expect((await calm.poll()).status).toBe(200);
  });
});

describe('the store fails, or is an old one', () => {
  it('F72 while the database cannot be written nothing new is offered, polls go on, and a report is kept by its host', async () => {
    await using world = await startWorld();
    const group = await world.group('web', { canaryCount: 1, wavePercents: [100], soakSeconds: 0 });
    const hosts = [await world.host(group), await world.host(group)];
    const v1 = await world.release(1);
    await world.admin.call('groupPin', {
      params: { group },
      body: { artifactId: v1, reason: 'v1' },
    });
    const polls = [];
    for (const host of hosts) polls.push({ host, poll: await host.poll() });
    const canary = polls.find((p) => p.poll.body.offer !== null);
    const other = polls.find((p) => p.poll.body.offer === null);
    if (!canary?.poll.body.offer || !other) throw new Error('no canary');
    const blocker = new DatabaseSync(join(world.dir, 'control.db'));
    blocker.exec('BEGIN IMMEDIATE');
    canary.host.running = v1;
    const report = canary.host.sign(
      canary.host.document([canary.host.event(canary.poll.body.offer, hex(16), 'confirmed')]),
    );
    expect((await canary.host.send(report)).status).toBe(503);
    expect((await other.host.poll()).status).toBe(304);
    const health = await fetch(`${world.control.url}/healthz`);
    expect(health.status).toBe(503);
    await health.text();
    blocker.exec('ROLLBACK');
    blocker.close();
    expect((await canary.host.send(report)).status).toBe(202);
    await world.control.engine.settled();
    expect((await other.host.poll()).body.offer?.artifactId).toBe(v1);
    const detail = await world.admin.call('hostShow', { params: { host: canary.host.id } });
    expect(detail.attempts.map((a) => a.outcome)).toEqual(['confirmed']);
  });

  it('F73 control that was restored from an old backup raises its epoch, observes, and moves no host backwards', async () => {
    await using world = await startWorld();
    const group = await world.group('web', { canaryCount: 0, wavePercents: [100], soakSeconds: 0 });
    const hosts = [await world.host(group), await world.host(group)];
    const v1 = await world.release(1);
    await world.admin.call('groupPin', {
      params: { group },
      body: { artifactId: v1, reason: 'v1' },
    });
    for (const host of hosts) await host.follow();
    await world.control.stop();
    const db = join(world.dir, 'control.db');
    copyFileSync(db, `${db}.backup`);
    await world.restart();
    const v2 = await world.release(2);
    await world.admin.call('groupPin', {
      params: { group },
      body: { artifactId: v2, reason: 'v2' },
    });
    for (const host of hosts) await host.follow();
    expect(hosts.map((h) => h.running)).toEqual([v2, v2]);
    for (const host of hosts) await host.poll();
    // A day later: the database is the one of yesterday.
    await world.control.stop();
    for (const suffix of ['', '-wal', '-shm']) if (existsSync(db + suffix)) rmSync(db + suffix);
    copyFileSync(`${db}.backup`, db);
    await world.restart();
    expect(world.control.engine.fleet.epoch).toBe(1);
    const polled = await hosts[0]?.poll();
    expect(world.control.engine.fleet.epoch).toBeGreaterThan(1);
    expect(polled?.status).toBe(200);
    expect(polled?.body.offer).toBeNull();
    expect(polled?.body.why).toContain('restored');
    const summary = await world.admin.call('summary', {});
    expect(summary.observing).toContain('restored');
    for (const host of hosts) expect((await host.report([])).status).toBe(202);
    await world.control.engine.tick(true);
    for (const host of hosts) {
      host.etag = null;
      const { body } = await host.poll();
      expect(body.offer).toBeNull();
      expect(body.why).toContain('pin anew');
    }
    // An order made now counts.
    const again = await world.release(2);
    await world.admin.call('groupPin', {
      params: { group },
      body: { artifactId: again, reason: 'after the restore' },
    });
    const view = await world.admin.call('groupShow', { params: { group } });
    expect(view.hosts.onTarget).toBe(2);
  });

  it('an ETag that a host made up raises no epoch', async () => {
    await using world = await startWorld();
    const host = await world.host(await world.group('web'));
    host.etag = '"e999.g999.000000000000"';
    expect((await host.poll()).status).toBe(200);
    expect(world.control.engine.fleet.epoch).toBe(1);
  });
});
