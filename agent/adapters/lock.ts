/**
 * The single-writer lock of a state directory (F27, H09). The kernel holds it (flock on a descriptor of this process), so
 * it ends with its holder, however that dies; the content of the file only says who holds or held it, for people and logs.
 * docs/decisions has why this is not a pid file alone.
 */
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  constants,
  fsyncSync,
  ftruncateSync,
  openSync,
  readFileSync,
  writeSync,
} from 'node:fs';
import * as v from 'valibot';
import { Problem } from '#/protocol/errors.ts';

const MAX_OWNER_BYTES = 4096;
const FLOCK_TIMEOUT_MS = 10_000;

const ownerSchema = v.object({
  v: v.number(),
  pid: v.number(),
  /** Clock ticks after boot at which the process started (field 22 of /proc/<pid>/stat). */
  startTicks: v.number(),
  bootId: v.string(),
  /** What it does: `agent run`, `agent install`. */
  purpose: v.string(),
});
export type LockOwner = v.InferOutput<typeof ownerSchema>;

export interface Lock {
  /** Who held it before and did not let go of it, that is: died with it. */
  readonly takenOverFrom: LockOwner | null;
  /** Lets go. The process's end does the same. */
  release(): void;
}

/**
 * Takes the lock at `path` or throws E_BUSY with its owner. The owner's fields come from /proc. On a file system that became
 * read-only the lock is the same, only its content stays (F30): the host is then observed, not left alone.
 * @throws E_BUSY; E_READ_ONLY: it cannot be opened; E_CONFIG: there is no flock(1)
 */
export function acquireLock(path: string, purpose: string): Lock {
  const { fd, isWritable } = openLock(path);
  try {
    if (!tryFlock(fd)) {
      const owner = readOwner(path);
      const who = owner === null ? 'another process' : `pid ${owner.pid} (${owner.purpose})`;
      throw new Problem('E_BUSY', `${path} is held by ${who}`, owner === null ? {} : { ...owner });
    }
    const takenOverFrom = readOwner(path);
    if (isWritable) writeOwner(fd, thisProcess(purpose));
    return {
      takenOverFrom,
      release() {
        if (isWritable) forgetOwner(fd);
        closeSync(fd);
      },
    };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function openLock(path: string): { readonly fd: number; readonly isWritable: boolean } {
  try {
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW;
    return { fd: openSync(path, flags, 0o600), isWritable: true };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EROFS') throw notOpened(path, error);
  }
  try {
    return { fd: openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW), isWritable: false };
  } catch (error) {
    throw notOpened(path, error);
  }
}

function notOpened(path: string, cause: unknown): Problem {
  return new Problem('E_READ_ONLY', `the lock ${path} cannot be opened`, { path }, { cause });
}

/** Empties the file. The file system may have become read-only meanwhile; then the next holder reads of one that is gone. */
function forgetOwner(fd: number): void {
  try {
    ftruncateSync(fd, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EROFS') throw error;
  }
}

/**
 * Node has no flock; flock(1) locks the open file description that it inherits, which this process shares and keeps
 * when flock(1) has ended. False when someone else holds it.
 */
function tryFlock(fd: number): boolean {
  const ran = spawnSync('flock', ['-n', '-x', '3'], {
    stdio: ['ignore', 'ignore', 'pipe', fd],
    timeout: FLOCK_TIMEOUT_MS,
  });
  if (ran.status === 0) return true;
  if (ran.status === 1 && ran.error === undefined) return false;
  const said = ran.error?.message ?? ran.stderr.toString('utf8').trim();
  throw new Problem(
    'E_CONFIG',
    `flock(1) of util-linux is needed: ${said}`,
    {},
    { cause: ran.error },
  );
}

function thisProcess(purpose: string): LockOwner {
  // The second field may hold spaces and brackets; the fields after the last ')' are plain.
  const stat = readFileSync('/proc/self/stat', 'latin1');
  const startTicks = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]);
  const bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
  return { v: 1, pid: process.pid, startTicks, bootId, purpose };
}

function writeOwner(fd: number, owner: LockOwner): void {
  ftruncateSync(fd, 0);
  writeSync(fd, `${JSON.stringify(owner)}\n`, 0);
  fsyncSync(fd);
}

/** Who stands in the lock file; null when nobody does or it is unreadable. The lock does not depend on it. */
export function readOwner(path: string): LockOwner | null {
  try {
    const text = readFileSync(path, 'utf8');
    if (text.length > MAX_OWNER_BYTES) return null;
    const parsed = v.safeParse(ownerSchema, JSON.parse(text));
    return parsed.success ? parsed.output : null;
  } catch {
    return null;
  }
}
