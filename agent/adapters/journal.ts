/**
 * The journal: one record per transition, appended and synced before any effect of the transition runs. The state of the
 * agent is the last record that reads well; there is no second copy of it. Format and reasons:
 * docs/specs/durable-state.md, section 4 (recipe 3).
 *
 *     <crc32 of the rest of the line, 8 hex digits> <length of the JSON, 7 digits> <JSON>\n
 */
import { crc32 } from 'node:zlib';
import { must, Problem } from '#/protocol/errors.ts';
import type { FilePort } from '#/agent/ports.ts';
import { appendRecord, readAll, readFile, replaceFile } from './durable.ts';
import { hex32 } from './state-file.ts';

export const JOURNAL_VERSION = 1;

export interface JournalLimits {
  /** A record over this is a bug of the caller. */
  readonly recordBytes: number;
  /** Past this size the journal is rotated to its newest records. */
  readonly rotateBytes: number;
}
export const journalLimits: JournalLimits = { recordBytes: 1024 * 1024, rotateBytes: 1024 * 1024 };

/** What a record carries; `data` is the caller's. */
export interface JournalRecord {
  readonly v: number;
  /** Grows by one with each record of this host. */
  readonly seq: number;
  readonly bootId: string;
  readonly monotonicMs: number;
  /** For people; order comes from `seq`. */
  readonly wallMs: number;
  readonly data: unknown;
}

/** `torn`: the last record was cut off, as a crash does. `rotten`: a record before others is unreadable, as no crash does. */
export type JournalDamage = 'none' | 'torn' | 'rotten';

export interface Journal {
  /** What was read when it was opened, oldest first. */
  readonly records: readonly JournalRecord[];
  readonly damage: JournalDamage;
  /** After a failed append the journal takes no more: open it anew from what the disk holds. */
  isBroken(): boolean;
  /** Durable on return. */
  append(record: Omit<JournalRecord, 'v' | 'seq'>): Promise<JournalRecord>;
  /** The newest records, oldest first, at most `count`; read from disk. */
  tail(count: number): Promise<readonly JournalRecord[]>;
  close(): Promise<void>;
}

/** One line of the journal. */
export function encodeRecord(record: JournalRecord): Uint8Array {
  const json = Buffer.from(JSON.stringify(record));
  const rest = Buffer.concat([Buffer.from(`${String(json.byteLength).padStart(7, '0')} `), json]);
  return Buffer.concat([Buffer.from(`${hex32(crc32(rest))} `), rest, Buffer.from('\n')]);
}

const PREFIX_BYTES = 17; // crc, space, length, space
const PREFIX = /^([0-9a-f]{8}) ([0-9]{7}) $/;
const SPACE = 32;
const LINE_FEED = 10;

/** Where the JSON of the record at `start` begins and ends; null when there is no good record. */
function frameAt(bytes: Buffer, start: number): { from: number; to: number } | null {
  if (bytes[start + 8] !== SPACE || bytes[start + 16] !== SPACE) return null;
  const match = PREFIX.exec(bytes.toString('latin1', start, start + PREFIX_BYTES));
  if (match === null) return null;
  const from = start + PREFIX_BYTES;
  const to = from + Number(match[2]);
  if (bytes[to] !== LINE_FEED) return null;
  if (hex32(crc32(bytes.subarray(start + 9, to))) !== match[1]) return null;
  return { from, to };
}

export interface JournalFrames {
  /** The JSON of each good record, oldest first. */
  readonly frames: readonly Uint8Array[];
  /** Bytes from the start that are good records. */
  readonly goodBytes: number;
  readonly damage: JournalDamage;
}

/** Reads up to the first bad record. A good record after it means rot, for only the last append can be unsynced. */
export function readFrames(content: Uint8Array): JournalFrames {
  const bytes = Buffer.from(content.buffer, content.byteOffset, content.byteLength);
  const frames: Uint8Array[] = [];
  let goodBytes = 0;
  while (goodBytes < bytes.byteLength) {
    const found = frameAt(bytes, goodBytes);
    if (found === null) break;
    frames.push(bytes.subarray(found.from, found.to));
    goodBytes = found.to + 1;
  }
  if (goodBytes === bytes.byteLength) return { frames, goodBytes, damage: 'none' };
  for (let at = goodBytes + 1; at < bytes.byteLength; at += 1) {
    if (frameAt(bytes, at) !== null) return { frames, goodBytes, damage: 'rotten' };
  }
  return { frames, goodBytes, damage: 'torn' };
}

function recordOf(frame: Uint8Array): JournalRecord {
  return JSON.parse(Buffer.from(frame).toString('utf8')) as JournalRecord;
}

/** The newest record, by which an agent starts; the older ones are not parsed. */
export function newestRecord(bytes: Uint8Array): {
  readonly record: JournalRecord | null;
  readonly damage: JournalDamage;
} {
  const { frames, damage } = readFrames(bytes);
  const newest = frames.at(-1);
  return { record: newest === undefined ? null : recordOf(newest), damage };
}

export interface JournalContent {
  readonly records: readonly JournalRecord[];
  /** Bytes from the start that are good records. */
  readonly goodBytes: number;
  readonly damage: JournalDamage;
}

/** All good records up to the first bad one. */
export function parseJournal(bytes: Uint8Array): JournalContent {
  const { frames, goodBytes, damage } = readFrames(bytes);
  return { records: frames.map(recordOf), goodBytes, damage };
}

/**
 * Opens the journal at `path`, making it when missing; its directory was opened (durable.ts). What reads well is written
 * anew as a whole: that cuts off a bad tail, behind which no new record would ever be read, and it makes durable what
 * only the page cache may hold. After a failed fsync the kernel keeps showing the lost bytes as if they were there, and a
 * record synced behind them is gone after a power cut.
 */
export async function openJournal(
  files: FilePort,
  path: string,
  limits: JournalLimits = journalLimits,
): Promise<Journal> {
  const readLimit = 2 * limits.rotateBytes + limits.recordBytes;
  const content = parseJournal((await readFile(files, path, readLimit)) ?? new Uint8Array());
  refuseNewer(path, content.records.at(-1));
  const keepNewest = (records: readonly JournalRecord[]): Uint8Array => {
    const kept: Uint8Array[] = [];
    let keptBytes = 0;
    for (const record of records.toReversed()) {
      const line = encodeRecord(record);
      // The newest record always stays, whatever its size: it is the state.
      if (kept.length > 0 && keptBytes + line.byteLength > limits.rotateBytes / 2) break;
      kept.unshift(line);
      keptBytes += line.byteLength;
    }
    return Buffer.concat(kept);
  };

  const start = keepNewest(content.records);
  await replaceFile(files, path, start);
  let file = await files.open(path, 'append');
  let size = start.byteLength;
  let seq = content.records.at(-1)?.seq ?? 0;
  let isBroken = false;

  const readNow = async (): Promise<JournalContent> =>
    parseJournal(await readAll(file, path, readLimit));

  const rotate = async (): Promise<void> => {
    const kept = keepNewest((await readNow()).records);
    await replaceFile(files, path, kept);
    await file.close();
    file = await files.open(path, 'append');
    size = kept.byteLength;
  };

  const write = async (record: JournalRecord): Promise<void> => {
    const line = encodeRecord(record);
    must(line.byteLength <= limits.recordBytes, `a journal record of ${line.byteLength} bytes`);
    if (size > limits.rotateBytes) await rotate();
    await appendRecord(file, line, size);
    size += line.byteLength;
  };

  return {
    records: content.records,
    damage: content.damage,
    isBroken: () => isBroken,
    async append(body) {
      if (isBroken) throw new Problem('E_IO', `append to ${path}: an earlier write failed`);
      const record = { v: JOURNAL_VERSION, seq: seq + 1, ...body };
      try {
        await write(record);
      } catch (error) {
        isBroken = true;
        throw error;
      }
      seq = record.seq;
      return record;
    },
    async tail(count) {
      return (await readNow()).records.slice(-count);
    },
    close: () => file.close(),
  };
}

function refuseNewer(path: string, newest: JournalRecord | undefined): void {
  if (newest !== undefined && newest.v > JOURNAL_VERSION) {
    throw new Problem('E_STATE', `${path}: version ${newest.v} is newer than this agent`, { path });
  }
}
