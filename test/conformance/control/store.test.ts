/** One suite for every store: what control rests on. A new adapter is one line in `adapters`. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Attempt, Host } from '#/control/core/model.ts';
import type { Store } from '#/control/store/port.ts';
import { openSqliteStore } from '#/control/store/sqlite.ts';
import { isProblem } from '#/protocol/errors.ts';
import type { HostId } from '#/protocol/ids.ts';
import {
  artifactOf,
  blankGroup,
  blankHost,
  blankRelease,
  GROUP,
  hostIdOf,
  SmallFleet,
} from '#/test/support/control/small-fleet.ts';
import { eventOf, hex } from '#/test/support/control/world.ts';

interface Place {
  open(): Promise<Store>;
  remove(): void;
}
const adapters: Readonly<Record<string, () => Place>> = {
  'node:sqlite': () => {
    const dir = mkdtempSync(join(tmpdir(), 'sb-store-'));
    return {
      open: () => Promise.resolve(openSqliteStore({ path: join(dir, 'control.db') })),
      remove: () => rmSync(dir, { recursive: true, force: true }),
    };
  },
};

const host = (i: number, more: Partial<Host> = {}): Host =>
  blankHost(i, { keyId: `key${i}`, lastSeenAtMs: null, ...more });
const attempt = (n: number, more: Partial<Attempt> = {}): Attempt => ({
  host: hostIdOf(1),
  n,
  rolloutId: null,
  stage: null,
  artifactId: artifactOf(1),
  retryGeneration: 0,
  agentAttempt: null,
  phase: 'offered',
  outcome: 'open',
  code: null,
  message: '',
  offeredAtMs: 5,
  switchedAtMs: null,
  endedAtMs: null,
  ...more,
});

describe.each(Object.entries(adapters))('store on %s', (_, makePlace) => {
  let place: Place;
  let store: Store;
  beforeEach(async () => {
    place = makePlace();
    store = await place.open();
    await store.write(async (w) => {
      await w.putGroup(blankGroup({}));
      await w.putRelease(blankRelease(1));
      await w.putHost(host(1));
    });
  });
  afterEach(async () => {
    await store.close();
    place.remove();
  });
  const reopen = async (): Promise<void> => {
    await store.close();
    store = await place.open();
  };

  it('what was written is read back the same after it was opened anew', async () => {
    const rich = host(2, {
      labels: { role: 'web' },
      facts: { cpu: 4, name: 'ä', ok: true },
      hold: { reason: 'r', actor: 'a', atMs: 1 },
      quarantine: { reason: 'q', atMs: 2 },
      retries: { [artifactOf(1)]: 3 },
      forgiven: { [artifactOf(1)]: 2 },
      pastBoots: ['x', 'y'],
      healthy: false,
      running: artifactOf(1),
      denied: [{ artifactId: artifactOf(1), code: 'E_UNHEALTHY' }],
      generation: 9_007_199_254_740_991,
    });
    const fleet = new SmallFleet({ hosts: 3, policy: {} });
    const rollout = fleet.pin(1);
    await store.write(async (w) => {
      await w.putHost(rich);
      await w.putRollout(rollout);
      await w.putAttempt({ ...attempt(1), host: rich.id });
      await w.putHalt({ scope: 'fleet', reason: 'r', actor: 'a', atMs: 3 });
      await w.setMeta('epoch', '7');
    });
    await reopen();
    const rows = await store.load();
    expect(rows.hosts.find((h) => h.id === rich.id)).toEqual({
      ...rich,
      attempts: [{ ...attempt(1), host: rich.id }],
    });
    expect(rows.rollouts).toEqual([rollout]);
    expect(rows.groups).toEqual([blankGroup({})]);
    expect(rows.releases).toEqual([blankRelease(1)]);
    expect(rows.halts).toHaveLength(1);
    expect(rows.meta.get('epoch')).toBe('7');
  });

  it('nothing of a write that throws is there', async () => {
    await expect(
      store.write(async (w) => {
        await w.putHost(host(5));
        await w.audit({ atMs: 1, actor: 'a', type: 't', subject: 's', details: {} });
        throw new Error('power cut');
      }),
    ).rejects.toThrow('power cut');
    const rows = await store.load();
    expect(rows.hosts.map((h) => h.id)).toEqual([hostIdOf(1)]);
    expect(rows.lastAuditId).toBe(0);
  });

  it('writes that are called at one time run one after the other', async () => {
    const order: number[] = [];
    await Promise.all(
      [1, 2, 3, 4, 5].map((i) =>
        store.write(async (w) => {
          order.push(i);
          await w.audit({ atMs: i, actor: 'a', type: 't', subject: 's', details: { i } });
          order.push(i);
        }),
      ),
    );
    expect(order).toEqual([1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
    const entries = await store.auditAfter(0, 10, null);
    expect(entries.map((e) => e.id)).toEqual([1, 2, 3, 4, 5]);
  });

  it('F77 an event that comes twice is new only once', async () => {
    const events = [
      eventOf(artifactOf(1), null, hex(16), 'accepted'),
      eventOf(artifactOf(1), null, hex(16), 'staged'),
    ];
    const first = await store.write((w) => w.addNewEvents(hostIdOf(1), 1, events, 10));
    const again = await store.write((w) =>
      w.addNewEvents(
        hostIdOf(1),
        2,
        [...events, eventOf(artifactOf(1), null, hex(16), 'trial')],
        11,
      ),
    );
    expect(first).toHaveLength(2);
    expect(again.map((e) => e.phase)).toEqual(['trial']);
    expect(await store.events(hostIdOf(1), null, 10)).toHaveLength(3);
  });

  it('the digest of a report is kept under its number', async () => {
    await store.write((w) =>
      w.addReport({ host: hostIdOf(1), seq: 4, digest: 'd', envelope: '{}', receivedAtMs: 1 }),
    );
    expect(await store.write((w) => w.reportDigest(hostIdOf(1), 4))).toBe('d');
    expect(await store.write((w) => w.reportDigest(hostIdOf(1), 5))).toBeNull();
    expect((await store.report(hostIdOf(1), 4))?.envelope).toBe('{}');
  });

  it('pruning keeps the newest report of each host', async () => {
    await store.write(async (w) => {
      await w.putHost(host(1, { seq: 2 }));
      for (const seq of [1, 2])
        await w.addReport({
          host: hostIdOf(1),
          seq,
          digest: `d${seq}`,
          envelope: '{}',
          receivedAtMs: seq,
        });
    });
    await store.prune(100);
    expect(await store.report(hostIdOf(1), 1)).toBeNull();
    expect((await store.report(hostIdOf(1), 2))?.digest).toBe('d2');
  });

  it('a host that is forgotten takes its attempts and evidence along, and late last-seen times of it are passed over', async () => {
    await store.write((w) => w.putAttempt(attempt(1)));
    await store.write((w) => w.deleteHost(hostIdOf(1)));
    await store.saveSeen(new Map<HostId, number>([[hostIdOf(1), 5]]));
    expect(await store.attempts(hostIdOf(1), 10)).toEqual([]);
    expect((await store.load()).hosts).toEqual([]);
  });

  it('last-seen times are kept', async () => {
    await store.saveSeen(new Map<HostId, number>([[hostIdOf(1), 77]]));
    await store.saveSeen(new Map<HostId, number>([[hostIdOf(1), 78]]));
    expect((await store.load()).hosts[0]?.lastSeenAtMs).toBe(78);
  });

  it('only the last attempts of a host are loaded, oldest first', async () => {
    await store.write(async (w) => {
      for (let n = 1; n <= 20; n += 1) await w.putAttempt(attempt(n, { outcome: 'failed' }));
    });
    const loaded = (await store.load()).hosts[0]?.attempts.map((a) => a.n) ?? [];
    expect(loaded).toHaveLength(16);
    expect([loaded[0], loaded.at(-1)]).toEqual([5, 20]);
  });

  it('rollouts are paged newest first', async () => {
    const fleet = new SmallFleet({ hosts: 1, policy: {} });
    for (let i = 1; i <= 5; i += 1) {
      fleet.now += 1000;
      const rollout = { ...fleet.pin(1), startedAtMs: fleet.now };
      await store.write((w) => w.putRollout(rollout));
    }
    const first = await store.rollouts({}, null, 2);
    const second = await store.rollouts({}, first.nextCursor, 2);
    const third = await store.rollouts({}, second.nextCursor, 2);
    const ids = [...first.items, ...second.items, ...third.items].map((r) => r.id.slice(-1));
    expect(ids).toEqual(['5', '4', '3', '2', '1']);
    expect(third.nextCursor).toBeNull();
  });

  it('a join token is found by its hash, marked once, and taken back only while unused', async () => {
    const token = {
      id: 'jt-1',
      hash: 'h',
      group: GROUP,
      labels: {},
      description: '',
      replacesHost: null,
      createdAtMs: 1,
      expiresAtMs: 2,
      usedAtMs: null,
      usedBy: null,
      actor: 'a',
    };
    await store.write((w) => w.addJoinToken(token));
    expect(await store.write((w) => w.joinTokenByHash('h'))).toEqual(token);
    await store.write((w) => w.markJoinTokenUsed('jt-1', hostIdOf(1), 5));
    expect(await store.write((w) => w.deleteJoinToken('jt-1'))).toBe(false);
    expect((await store.joinTokens())[0]?.usedBy).toBe(hostIdOf(1));
  });

  it('a pin that was removed is not loaded', async () => {
    const pin = new SmallFleet({ hosts: 1, policy: {} });
    pin.pin(1);
    const made = pin.group.pin;
    if (made === null) throw new Error('no pin');
    await store.write((w) => w.addPin(made));
    expect((await store.load()).groups[0]?.pin).toEqual(made);
    await store.write((w) => w.removePin(GROUP, null, 9));
    expect((await store.load()).groups[0]?.pin).toBeNull();
  });
});

describe('the SQLite file', () => {
  it('has exactly the tables that are checked in', () => {
    const dir = mkdtempSync(join(tmpdir(), 'sb-store-'));
    const path = join(dir, 'x.db');
    const store = openSqliteStore({ path });
    const db = new DatabaseSync(path);
    const rows = db
      .prepare('SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type DESC, name')
      .all();
    const dump = rows.map((row) => `${String(row['sql'])};`).join('\n');
    db.close();
    void store.close();
    rmSync(dir, { recursive: true, force: true });
    const file = new URL('../../../control/store/schema.sql', import.meta.url);
    expect(`${dump}\n`).toBe(readFileSync(file, 'utf8'));
  });

  it('refuses a file that a newer program made', () => {
    const dir = mkdtempSync(join(tmpdir(), 'sb-store-'));
    const path = join(dir, 'x.db');
    const db = new DatabaseSync(path);
    db.exec('PRAGMA user_version = 999');
    db.close();
    expect(() => openSqliteStore({ path })).toThrow(/newer/);
    rmSync(dir, { recursive: true, force: true });
  });

  it('F72 a store that another holds locked is E_UNAVAILABLE, and takes writes again afterwards', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'sb-store-'));
    const path = join(dir, 'x.db');
    const store = openSqliteStore({ path });
    await store.check();
    const other = new DatabaseSync(path);
    other.exec('BEGIN IMMEDIATE');
    const error = await store.write((w) => w.setMeta('a', 'b')).catch((e: unknown) => e);
    expect(isProblem(error, 'E_UNAVAILABLE')).toBe(true);
    other.exec('ROLLBACK');
    await store.write((w) => w.setMeta('a', 'c'));
    expect((await store.load()).meta.get('a')).toBe('c');
    other.close();
    await store.close();
    rmSync(dir, { recursive: true, force: true });
  });

  it('refuses settings under which a commit is not durable', () => {
    expect(() => openSqliteStore({ path: ':memory:' })).toThrow(/journal_mode/);
  });
});
