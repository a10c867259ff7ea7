/**
 * One control per data directory: the fleet is kept in memory, so two would undo each other's decisions. The lock is that of
 * SQLite on an empty file `lock`; the kernel frees it with the process, however that ends.
 */
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { Problem } from '#/protocol/errors.ts';

/** A control that is told to end answers what is open first. */
const WAIT_MS = 2000;
const SQLITE_BUSY = 5;

export interface DataLock {
  release(): void;
}

/**
 * Takes the lock of an existing data directory.
 * @throws Problem E_BUSY when another control has it, E_IO when the file cannot be opened.
 */
export function lockDataDir(dataDir: string): DataLock {
  const path = join(dataDir, 'lock');
  let db: DatabaseSync | null = null;
  try {
    db = new DatabaseSync(path, { timeout: WAIT_MS });
    db.exec('BEGIN EXCLUSIVE');
    const held = db;
    return { release: () => held.close() };
  } catch (cause) {
    db?.close();
    if (cause instanceof Error && 'errcode' in cause && cause.errcode === SQLITE_BUSY)
      throw new Problem('E_BUSY', `another control runs on ${dataDir}`, { dataDir }, { cause });
    throw new Problem('E_IO', `lock ${path}`, { path }, { cause });
  }
}
