/** The files of the supervisor: the record of the process it runs, and the bounded log of that process. */
import {
  closeSync,
  copyFileSync,
  fstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { dirname } from 'node:path';

const RECORD_MAX_BYTES = 64 * 1024;

/** Version 1 of `process.json` in the run directory. */
export interface ProcessRecord {
  readonly v: 1;
  readonly pid: number;
  readonly startTicks: number;
  readonly artifactId: string;
  readonly digest: string;
  readonly stopTimeoutMs: number;
}

/** The log, or nothing when it cannot be opened: a full disk must not keep a service down (F69). */
export function openLog(logFile: string): number | 'ignore' {
  try {
    mkdirSync(dirname(logFile), { recursive: true, mode: 0o700 });
    return openSync(logFile, 'a', 0o600);
  } catch {
    return 'ignore';
  }
}

/** Copies a full log to `.1` and empties it; the program writes on, in append mode. */
export function rotateLog(logFile: string, maxBytes: number): void {
  try {
    if (statSync(logFile).size <= maxBytes) return;
    copyFileSync(logFile, `${logFile}.1`);
    truncateSync(logFile, 0);
  } catch {
    // No room for the copy: the log itself is what must stay bounded.
    try {
      if (statSync(logFile).size > maxBytes) truncateSync(logFile, 0);
    } catch {
      return;
    }
  }
}

/** A hint in a directory that is gone after a reboot: losing it costs nothing, so it needs no fsync. */
export function writeRecord(path: string, record: ProcessRecord): void {
  writeFileSync(`${path}.tmp`, JSON.stringify(record), { mode: 0o600 });
  renameSync(`${path}.tmp`, path);
}

/** The record, or null when there is none or it is torn: the marks of the processes say the same. */
export function readRecord(path: string): ProcessRecord | null {
  let file: number;
  try {
    file = openSync(path, 'r');
  } catch {
    return null;
  }
  try {
    if (fstatSync(file).size > RECORD_MAX_BYTES) return null;
    const record: unknown = JSON.parse(readFileSync(file, 'utf8'));
    return isRecord(record) ? record : null;
  } catch {
    return null;
  } finally {
    closeSync(file);
  }
}

function isRecord(value: unknown): value is ProcessRecord {
  if (typeof value !== 'object' || value === null) return false;
  const record = value as Record<string, unknown>;
  return (
    record['v'] === 1 &&
    Number.isSafeInteger(record['pid']) &&
    Number.isSafeInteger(record['startTicks']) &&
    typeof record['artifactId'] === 'string' &&
    typeof record['digest'] === 'string' &&
    Number.isSafeInteger(record['stopTimeoutMs'])
  );
}
