/** The Merkle tree over the audit table: grown in the transaction of each entry, read as tiles. docs/specs/audit-log.md. */
import { createHash } from 'node:crypto';
import type { Kysely } from 'kysely';
import { entryBytes } from '#/bundle/log/entry.ts';
import { leafHash } from '#/bundle/log/merkle.ts';
import { type Tile, tileRoot, TILE_WIDTH } from '#/bundle/log/tiles.ts';
import { isProblem, must } from '#/protocol/errors.ts';
import type { AuditEntry } from '#/protocol/operator-plane.ts';
import type { Tables } from './schema.ts';

type Db = Kysely<Tables>;

/** Entries that are added in one go when a store is loaded that was written before there was a tree. */
const FILL_ROWS = 1000;

/** The entry, or one that says how long its details were and what their digest is: a change never fails for its length. */
export function fitting(entry: AuditEntry): AuditEntry {
  try {
    entryBytes(entry);
    return entry;
  } catch (error) {
    if (!isProblem(error, 'E_TOOBIG')) throw error;
    const text = JSON.stringify(entry.details);
    const digest = createHash('sha256').update(text).digest('hex');
    return { ...entry, details: { leftOutBytes: Buffer.byteLength(text), sha256: digest } };
  }
}

/** Adds the leaf of an entry, and the hashes of the tiles that it completes. */
export async function appendToLog(tx: Db, entry: AuditEntry): Promise<void> {
  let hash = leafHash(entryBytes(entry));
  for (let level = 0, n = entry.id - 1; ; level += 1) {
    await tx
      .insertInto('log_hashes')
      .values({ level, n, hash: Buffer.from(hash).toString('hex') })
      .execute();
    if ((n + 1) % TILE_WIDTH !== 0) return;
    n = (n + 1) / TILE_WIDTH - 1;
    const bytes = await tileHashes(tx, { level, index: n, width: TILE_WIDTH });
    must(bytes !== null, `L8: tile ${level}/${n} is whole`);
    hash = tileRoot(bytes);
  }
}

/** The hashes of a tile, or null when the tree has not that many. */
export async function tileHashes(db: Db, tile: Tile): Promise<Uint8Array | null> {
  const first = tile.index * TILE_WIDTH;
  const rows = await db
    .selectFrom('log_hashes')
    .select('hash')
    .where('level', '=', tile.level)
    .where('n', '>=', first)
    .where('n', '<', first + tile.width)
    .orderBy('n')
    .execute();
  return rows.length === tile.width
    ? Buffer.from(rows.map((row) => row.hash).join(''), 'hex')
    : null;
}

/** Entries that the tree has. */
export async function logSize(db: Db): Promise<number> {
  const row = await db
    .selectFrom('log_hashes')
    .select((eb) => eb.fn.max('n').as('last'))
    .where('level', '=', 0)
    .executeTakeFirst();
  return row?.last === null || row?.last === undefined ? 0 : Number(row.last) + 1;
}

/** Adds entries that were written before there was a tree. */
export async function fillLog(
  tx: Db,
  entriesAfter: (id: number, limit: number) => Promise<readonly AuditEntry[]>,
): Promise<void> {
  for (let size = await logSize(tx); ; ) {
    const entries = await entriesAfter(size, FILL_ROWS);
    if (entries.length === 0) return;
    for (const entry of entries) await appendToLog(tx, entry);
    size = entries.at(-1)?.id ?? size;
  }
}
