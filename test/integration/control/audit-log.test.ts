/** The audit log of a real control: pins in it, exports of it, and what an intruder with the database can do to it. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, describe, expect, it } from 'vitest';
import { createTrustFetch } from '#/agent/adapters/trust-fetch.ts';
import { hexOf } from '#/bundle/keys.ts';
import { type LogIdentity, openCheckpoint, signCheckpoint } from '#/bundle/log/checkpoint.ts';
import { exportLog } from '#/control/cli/audit/export.ts';
import { verifyExport, type VerifyResult } from '#/control/cli/audit/verify.ts';
import { openDataDir } from '#/control/data-dir.ts';
import { headAt } from '#/control/engine/log.ts';
import { raiseEpoch } from '#/control/engine/reports.ts';
import { readLog } from '#/control/trust/targets.ts';
import type { Assignment } from '#/protocol/documents.ts';
import type { GroupName } from '#/protocol/ids.ts';
import { startWorld, type TestHost, type World } from '#/test/support/control/world.ts';
import { agentOf, memoryStore } from '#/test/support/trust-world.ts';

let world: World;
const made: string[] = [];

afterEach(async () => {
  await world[Symbol.asyncDispose]();
  for (const dir of made.splice(0)) rmSync(dir, { recursive: true, force: true });
});

async function identityOf(): Promise<LogIdentity> {
  const read = (name: string): Uint8Array | null =>
    world.control.engine.fleet.trust.get(name) ?? null;
  const policy = readLog({ store: { read }, keys: [], nowMs: 0 });
  const { logKey } = await openDataDir(world.dir);
  if (policy === null || logKey === null) throw new Error('no log');
  expect(policy.keys).toEqual([hexOf(logKey.key.bytes)]);
  return { origin: policy.origin, keys: [logKey.key] };
}

async function exported(): Promise<string> {
  // Checkpoints are signed every few seconds: a new one for this export.
  await world.restart();
  const dir = mkdtempSync(join(tmpdir(), 'sb-audit-'));
  made.push(dir);
  await exportLog(world.admin, join(dir, 'log'));
  return join(dir, 'log');
}

async function verified(since: string | null = null): Promise<VerifyResult> {
  return verifyExport(await exported(), await identityOf(), since);
}

/** Edits the database of a control that is stopped meanwhile. */
async function inDatabase(edit: (db: DatabaseSync) => void): Promise<void> {
  await world.control.stop();
  const db = new DatabaseSync(join(world.dir, 'control.db'));
  edit(db);
  db.close();
  await world.restart();
}

/** Two releases went through two hosts of a group; what the hosts saw of the log stands in their reports. */
async function rolledOut(): Promise<{ hosts: readonly TestHost[]; group: GroupName }> {
  world = await startWorld();
  const group = await world.group('web');
  const hosts = [await world.host(group), await world.host(group)];
  for (const release of [1, 2]) {
    const artifactId = await world.release(release);
    const body = { artifactId, reason: `release ${release}` };
    await world.admin.call('groupPin', { params: { group }, body });
    for (let round = 0; round < 4; round += 1) for (const host of hosts) await host.follow();
  }
  const { store } = world.control.engine;
  const { origin } = await identityOf();
  const { size, root } = await headAt(store, await store.logSize());
  for (const host of hosts) await host.report([], { log: { origin, size, root: hexOf(root) } });
  return { hosts, group };
}

describe('an export', () => {
  it('holds, goes on from an earlier one, and has the hosts as its witnesses', async () => {
    const { hosts, group } = await rolledOut();
    const before = readFileSync(join(await exported(), 'checkpoint'), 'utf8');
    const body = { reason: 'test' };
    for (let n = 0; n < 300; n += 1) {
      await world.admin.call('hostHold', { params: { host: (hosts[0] as TestHost).id }, body });
    }
    const result = await verified(before);
    expect(result.size).toBeGreaterThan(300);
    expect(result.witnesses).toBe(2);
    expect(result.outcomes).toBe(4);
    expect(group).toBe('web');
  });

  it('X06 F80 an entry that was edited in the database is named by its index', async () => {
    await rolledOut();
    const found = await world.admin.call('audit', { query: { subject: 'group/web' } });
    const pin = found.items.find((item) => item.type === 'pin');
    await inDatabase((db) => {
      db.prepare("UPDATE audit SET actor = 'somebody' WHERE id = ?").run(pin?.id ?? 0);
    });
    await expect(verified()).rejects.toMatchObject({
      code: 'E_LOG',
      details: { index: (pin?.id ?? 0) - 1 },
    });
  });

  it('X06 an entry that was deleted is named by its index', async () => {
    await rolledOut();
    await inDatabase((db) => db.prepare('DELETE FROM audit WHERE id = 7').run());
    await expect(verified()).rejects.toMatchObject({ code: 'E_LOG', details: { index: 6 } });
  });

  it('X06 a history that was rewritten together with its hashes contradicts what hosts signed', async () => {
    await rolledOut();
    await inDatabase((db) => {
      db.prepare("UPDATE audit SET actor = 'somebody' WHERE type = 'pin'").run();
      // The tree is made anew from the entries at the next start.
      db.prepare('DELETE FROM log_hashes').run();
    });
    await expect(verified()).rejects.toThrow(/saw another log/);
  });

  it('X06 a log that lost its end contradicts the checkpoint that was kept and the hosts', async () => {
    await rolledOut();
    const kept = readFileSync(join(await exported(), 'checkpoint'), 'utf8');
    await inDatabase((db) => {
      db.prepare('DELETE FROM audit WHERE id > 10').run();
      db.prepare('DELETE FROM log_hashes WHERE n >= 10').run();
    });
    await expect(verified(kept)).rejects.toThrow(/saw \d+ entries, this log has/);
    await expect(verified()).rejects.toThrow(/saw \d+ entries, this log has/);
  });

  it('X07 a host that was shown another log says so in its report: control and the export tell', async () => {
    const { hosts } = await rolledOut();
    const { origin } = await identityOf();
    const [host] = hosts;
    await host?.report([], { log: { origin, size: 5, root: 'ab'.repeat(32) } });
    const { items } = await world.admin.call('audit', { query: { subject: `host/${host?.id}` } });
    expect(items.filter((item) => item.type === 'log.differs')).toHaveLength(1);
    await expect(verified()).rejects.toThrow(/saw another log of 5 entries/);
  });

  it('X09 an outcome that the host never signed is named', async () => {
    const { hosts, group } = await rolledOut();
    const artifactId = await world.release(3);
    const body = { artifactId, reason: 'bad' };
    await world.admin.call('groupPin', { params: { group }, body });
    for (const host of hosts) await host.follow('rolled-back', 'E_UNHEALTHY');
    expect((await verified()).outcomes).toBe(5);
    await inDatabase((db) => {
      db.prepare("UPDATE audit SET type = 'attempt.confirmed' WHERE type LIKE 'attempt.%'").run();
      db.prepare('DELETE FROM log_hashes').run();
      db.prepare('DELETE FROM reports').run();
    });
    await expect(verified()).rejects.toThrow(/says attempt.confirmed, the host signed/);
  });

  it('L03 is refused under a key or an origin that is not that of the log', async () => {
    await rolledOut();
    const dir = await exported();
    const identity = await identityOf();
    const { enrolment } = await openDataDir(world.dir);
    const other = { ...identity, keys: [enrolment.key] };
    await expect(verifyExport(dir, other, null)).rejects.toMatchObject({ code: 'E_LOG' });
    const renamed = { ...identity, origin: `${identity.origin}0` };
    await expect(verifyExport(dir, renamed, null)).rejects.toMatchObject({ code: 'E_LOG' });
    const forged = signCheckpoint(
      identity.origin,
      { size: 1, root: new Uint8Array(32) },
      enrolment,
    );
    expect(() => openCheckpoint(forged, identity)).toThrow(/not signed/);
  });
});

describe('a store that was put back', () => {
  it('F73 begins the log anew, under an origin that the policy signed', async () => {
    const { hosts, group } = await rolledOut();
    const before = await identityOf();
    expect(before.origin).toMatch(/\/1$/);
    await raiseEpoch(world.control.desk, { epoch: 7, host: (hosts[0] as TestHost).id });
    const after = await identityOf();
    expect(after.origin).toBe(before.origin.replace(/1$/, '2'));
    // What hosts saw of the old log is no contradiction of the new one.
    const seen = { origin: before.origin, size: 99_999, root: 'ab'.repeat(32) };
    expect((await hosts[0]?.report([], { log: seen }))?.status).toBe(202);
    const artifactId = await world.release(3);
    const body = { artifactId, reason: 'after the restore' };
    await world.admin.call('groupPin', { params: { group }, body });
    const { items } = await world.admin.call('audit', { query: { limit: '1000' } });
    expect(items.filter((item) => item.type.startsWith('log.')).map((item) => item.type)).toEqual([
      'log.renew',
    ]);
    expect((await verified()).origin).toBe(after.origin);
  });
});

describe('pins of a real control', () => {
  it('carry a proof that agents accept, over a log that grows in between', async () => {
    const { hosts, group } = await rolledOut();
    const host = hosts[0] as TestHost;
    const fetch = createTrustFetch({ url: `${world.control.url}/agent/v1/trust/` });
    const root = world.control.engine.fleet.trust.get('metadata/1.root.json') as Uint8Array;
    const options = { anchor: { root, targets: null }, fetch };
    const agent = agentOf(
      { files: new Map([['metadata/1.root.json', root]]), fetch: () => fetch } as never,
      memoryStore(),
      options,
    );
    const context = { group, host: host.id, class: 'web', nowMs: Date.now() };
    let lastSize = 0;
    for (const release of [3, 4]) {
      const artifactId = await world.release(release);
      await world.admin.call('groupPin', {
        params: { group },
        body: { artifactId, reason: 'proved' },
      });
      const offer = {
        artifactId,
        rolloutId: null,
        sources: ['http://127.0.0.1:1/'],
        retryGeneration: 0,
      };
      const assignment: Assignment = {
        generation: 1,
        group,
        offer,
        halted: false,
        rollbackGeneration: 0,
        why: '',
      };
      expect((await agent.trust.resolve(assignment, context))?.artifactId).toBe(artifactId);
      expect(agent.trust.seenLog()?.size).toBeGreaterThan(lastSize);
      lastSize = agent.trust.seenLog()?.size ?? 0;
    }
    await fetch.close();
  });
});
