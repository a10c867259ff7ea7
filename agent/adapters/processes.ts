/** What /proc says about processes: who runs, since when, from which version. Read-only, apart from the signals. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

/** A process that a reused pid cannot be mistaken for. */
export interface ProcessId {
  readonly pid: number;
  /** Start time in clock ticks since boot: field 22 of /proc/PID/stat. */
  readonly startTicks: number;
}

/** More processes than this are not looked at in one pass. */
const SCAN_MAX = 100_000;

function readOrNull(path: string): string | null {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    // A process may end between any two looks at it; to the caller that is "not there".
    return null;
  }
}

function statFields(pid: number): readonly string[] | null {
  const stat = readOrNull(`/proc/${pid}/stat`);
  if (stat === null) return null;
  // The name in parentheses may hold anything, parentheses too; fields are counted behind the last one.
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
}

/** The process now behind `pid`, or null when there is none or only a zombie is left. */
export function identify(pid: number): ProcessId | null {
  const fields = statFields(pid);
  if (fields === null || fields[0] === 'Z' || fields[0] === 'X') return null;
  const startTicks = Number(fields[19]);
  return Number.isSafeInteger(startTicks) ? { pid, startTicks } : null;
}

/** True while exactly this process runs. */
export function isRunning(process: ProcessId): boolean {
  return identify(process.pid)?.startTicks === process.startTicks;
}

/** Session id of a process, or null. */
export function sessionOf(pid: number): number | null {
  const session = Number(statFields(pid)?.[3]);
  return Number.isSafeInteger(session) && session > 0 ? session : null;
}

/** The environment with which a process was started; empty when it cannot be read. */
export function environmentOf(pid: number): ReadonlyMap<string, string> {
  return parseEnvironment(readOrNull(`/proc/${pid}/environ`) ?? '');
}

function parseEnvironment(text: string): ReadonlyMap<string, string> {
  const entries = new Map<string, string>();
  for (const entry of text.split('\0')) {
    const equals = entry.indexOf('=');
    if (equals > 0) entries.set(entry.slice(0, equals), entry.slice(equals + 1));
  }
  return entries;
}

/** Where a link of /proc/PID leads (`exe`, `cwd`, `root`), or null. */
export function linkOf(pid: number, link: 'exe' | 'cwd' | 'root'): string | null {
  try {
    return readlinkSync(`/proc/${pid}/${link}`);
  } catch {
    return null;
  }
}

/** Pids of all processes of which the kernel tells us, threads of the kernel included. */
export function listPids(): readonly number[] {
  const pids: number[] = [];
  for (const entry of readdirSync('/proc')) {
    if (/^[1-9]\d*$/.test(entry)) pids.push(Number(entry));
    if (pids.length >= SCAN_MAX) break;
  }
  return pids;
}

/** A process with the environment with which it was started. */
export interface MarkedProcess extends ProcessId {
  readonly environment: ReadonlyMap<string, string>;
}

/** Running processes that were started with `name=value` (any value when it is null), our own process left out. */
export function findByEnvironment(name: string, value: string | null): readonly MarkedProcess[] {
  const wanted = value === null ? `${name}=` : `${name}=${value}\0`;
  const found: MarkedProcess[] = [];
  for (const pid of listPids()) {
    if (pid === process.pid) continue;
    const environ = readOrNull(`/proc/${pid}/environ`);
    if (environ === null || !`\0${environ}\0`.includes(`\0${wanted}`)) continue;
    const identity = identify(pid);
    // One reading for both: while a process becomes another program its environment reads as empty for a moment.
    if (identity !== null) found.push({ ...identity, environment: parseEnvironment(environ) });
  }
  return found;
}

/** Sends a signal to a process (or, with `group`, to its process group). False when it is gone. */
export function signalProcess(target: ProcessId, signal: NodeJS.Signals, group = false): boolean {
  if (!isRunning(target)) return false;
  try {
    process.kill(group ? -target.pid : target.pid, signal);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
    throw error;
  }
}

/** SIGKILL to every member of a process group, whether or not its leader is still there. */
export function killGroup(pgid: number): void {
  try {
    process.kill(-pgid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
