/** The Merkle tree that the store grows with its audit entries: the same as one in memory, whatever is rolled back or restarted. */
import { mkdtempSync, rmSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { entryBytes } from '#/bundle/log/entry.ts';
import { hexOf } from '#/bundle/keys.ts';
import type { Store, StoreWriter } from '#/control/store/port.ts';
import { openSqliteStore } from '#/control/store/sqlite.ts';
import { headAt } from '#/control/engine/log.ts';
import { MemoryTree } from '#/test/support/log/memory-tree.ts';

let dir: string;
let store: Store;
const open = (): Store => openSqliteStore({ path: join(dir, 'control.db') });
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'sb-log-'));
  store = open();
});
afterEach(async () => {
  await store.close();
  rmSync(dir, { recursive: true, force: true });
});

const append = (writer: StoreWriter, n: number, details: Record<string, unknown> = {}) =>
  writer.audit({ atMs: n, actor: 'a', type: 't', subject: 's', details: { n, ...details } });

async function rootInMemory(): Promise<string> {
  const tree = new MemoryTree();
  for (const entry of await store.auditAfter(0, 10_000, null)) tree.append(entryBytes(entry));
  return hexOf(tree.head().root);
}
const rootOf = async (from: { logSize: Store['logSize']; logTile: Store['logTile'] }) =>
  hexOf((await headAt(from, await from.logSize())).root);

describe('the tree of the store', () => {
  it('is that of its entries past the first tile, also within a transaction, and without what was rolled back', async () => {
    await store.write(async (writer) => {
      for (let n = 0; n < 255; n += 1) await append(writer, n, { half: n / 2, gone: undefined });
    });
    await store
      .write(async (writer) => {
        for (let n = 0; n < 5; n += 1) await append(writer, n);
        throw new Error('taken back');
      })
      .catch(() => undefined);
    expect(await store.logSize()).toBe(255);
    const inside = await store.write(async (writer) => {
      for (let n = 0; n < 300; n += 1) await append(writer, n);
      return rootOf(writer);
    });
    expect(await store.logSize()).toBe(555);
    expect(await rootOf(store)).toBe(inside);
    expect(await rootInMemory()).toBe(inside);
    expect(await store.logTile({ level: 1, index: 0, width: 2 })).toHaveLength(64);
    expect(await store.logTile({ level: 1, index: 0, width: 3 })).toBeNull();
    expect(await store.logTile({ level: 0, index: 2, width: 44 })).toBeNull();
  });

  it('takes in entries that were written before there was a tree', async () => {
    await store.write(async (writer) => {
      for (let n = 0; n < 300; n += 1) await append(writer, n);
    });
    const before = await rootOf(store);
    await store.close();
    const db = new DatabaseSync(join(dir, 'control.db'));
    db.exec('DELETE FROM log_hashes');
    db.close();
    store = open();
    await store.load();
    expect(await rootOf(store)).toBe(before);
    await store.write((writer) => append(writer, 300));
    expect(await rootOf(store)).toBe(await rootInMemory());
  });

  it('a change does not fail because what it says of itself is too long', async () => {
    const entry = await store.write((writer) => append(writer, 1, { text: 'x'.repeat(70_000) }));
    expect(entry.details).toMatchObject({ leftOutBytes: expect.any(Number) });
    expect(await rootOf(store)).toBe(await rootInMemory());
  });
});
