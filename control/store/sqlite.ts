/** Opens the SQLite file: node:sqlite under Kysely, with every setting that durability rests on read back. */
import { readdirSync, readFileSync } from 'node:fs';
import { DatabaseSync, type SQLInputValue, type StatementSync } from 'node:sqlite';
import { Kysely, SqliteDialect } from 'kysely';
import { Problem } from '#/protocol/errors.ts';
import type { Store } from './port.ts';
import type { Tables } from './schema.ts';
import { createStore } from './store.ts';

/** Control is the only writer; a backup tool may hold the lock for a moment. Waiting blocks the polls, so it is short. */
const BUSY_TIMEOUT_MS = 500;
/** Prepared statements that are kept. */
const MAX_STATEMENTS = 500;

/** What the store asks of an open database. */
export type SqliteHandle = Pick<DatabaseSync, 'prepare' | 'close'>;

export interface SqliteOptions {
  readonly path: string;
  /** Told of every statement that is run: for tests that count queries, and for metrics. */
  readonly onQuery?: (sql: string) => void;
}

function openDatabase(path: string): DatabaseSync {
  const db = new DatabaseSync(path, { timeout: BUSY_TIMEOUT_MS });
  // journal_mode persists in the file; the others belong to the connection. FULL: a commit is on disk when it returns.
  db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;');
  const expected = {
    journal_mode: 'wal',
    synchronous: 2,
    foreign_keys: 1,
    busy_timeout: BUSY_TIMEOUT_MS,
  };
  for (const [name, value] of Object.entries(expected)) {
    const row = db.prepare(`PRAGMA ${name}`).get() ?? {};
    const found = Object.values(row)[0];
    if (found !== value) {
      db.close();
      throw new Problem('E_CONFIG', `${path}: ${name} is ${String(found)}, expected ${value}`);
    }
  }
  return db;
}

/** Numbered SQL files, each run once, in order, in a transaction. `user_version` is the number of the last one. */
export function migrate(db: DatabaseSync): void {
  const folder = new URL('./migrations/', import.meta.url);
  const files = readdirSync(folder)
    .filter((file) => /^\d{4}_[a-z0-9_]+\.sql$/.test(file))
    .sort();
  const row = db.prepare('PRAGMA user_version').get() as { user_version: number };
  if (row.user_version > files.length)
    throw new Problem(
      'E_CONFIG',
      `the store is of version ${row.user_version}, this program knows up to ${files.length}; use a newer one`,
    );
  for (const [index, file] of files.entries()) {
    if (index < row.user_version) continue;
    const sql = readFileSync(new URL(file, folder), 'utf8');
    db.exec(`BEGIN IMMEDIATE; ${sql}; PRAGMA user_version = ${index + 1}; COMMIT;`);
  }
}

/** The subset of better-sqlite3 that Kysely's SqliteDialect asks for. */
function forKysely(db: SqliteHandle): {
  close(): void;
  prepare(sql: string): {
    reader: boolean;
    all(p: readonly unknown[]): unknown[];
    run(p: readonly unknown[]): { changes: number | bigint; lastInsertRowid: number | bigint };
    iterate(p: readonly unknown[]): IterableIterator<unknown>;
  };
} {
  const cache = new Map<string, StatementSync>();
  const statementOf = (sql: string): StatementSync => {
    const known = cache.get(sql);
    if (known !== undefined) return known;
    if (cache.size >= MAX_STATEMENTS) cache.clear();
    const statement = db.prepare(sql);
    cache.set(sql, statement);
    return statement;
  };
  return {
    close: () => db.close(),
    prepare: (sql) => {
      const statement = statementOf(sql);
      const given = (p: readonly unknown[]): SQLInputValue[] => p as SQLInputValue[];
      return {
        reader: statement.columns().length > 0,
        all: (p) => statement.all(...given(p)),
        run: (p) => statement.run(...given(p)),
        iterate: (p) => statement.iterate(...given(p)),
      };
    },
  };
}

/** A store in the file at `path` (':memory:' is refused by the WAL check on purpose). */
export function openSqliteStore(options: SqliteOptions): Store {
  const database = openDatabase(options.path);
  try {
    migrate(database);
  } catch (error) {
    database.close();
    throw error;
  }
  return storeOver(database, options.onQuery);
}

/** A store over a database that is open and migrated. */
export function storeOver(database: SqliteHandle, onQuery?: (sql: string) => void): Store {
  const db = new Kysely<Tables>({
    dialect: new SqliteDialect({ database: forKysely(database) }),
    log: (event) => onQuery?.(event.query.sql),
  });
  return createStore(db);
}
