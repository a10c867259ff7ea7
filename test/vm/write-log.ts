/**
 * What a power cut leaves of a disk: QEMU's blklogwrites wrote down every write and flush that the guest made, in the format of
 * dm-log-writes. Everything up to the last flush that has ended is on the disk; of what was written after it, any sectors may be.
 */
import { closeSync, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import type { Random } from '#/test/chaos/random.ts';

const SECTOR = 512;
/** "jsfwshr", the mark of dm-log-writes. */
const MAGIC = 0x6a736677736872n;
const [FLUSH, FUA, DISCARD] = [1n, 2n, 4n];
const COPY_BYTES = 1024 * 1024;
/** Partitions begin at multiples of this. */
const MIB = 1024 * 1024;
/** In a partition: ext4's superblock has this sector and the one before it, and is written as a whole or not at all (decision 0098). */
const SUPERBLOCK_END = 1536;

export interface LoggedWrite {
  /** Byte on the disk. */
  readonly offset: number;
  readonly sizeBytes: number;
  /** Where its data lie in the log; null for a discard, which leaves what was there. */
  readonly dataAt: number | null;
  readonly isFua: boolean;
  /** True: all entries before this one are on the disk. */
  readonly isFlush: boolean;
}

export interface WriteLog {
  readonly writes: readonly LoggedWrite[];
  /** False: QEMU was killed while an earlier entry was still on its way into the log; what follows cannot be told. */
  readonly isWhole: boolean;
}

/** How much of what was not flushed is there after the cut. */
export const cutKinds = ['nothing', 'some writes', 'torn writes', 'everything'] as const;
export type CutKind = (typeof cutKinds)[number];

/** Reads a log. Throws when it is none; an empty one is of a QEMU that had not opened its disk yet. */
export function readWriteLog(path: string): WriteLog {
  const file = openSync(path, 'r');
  try {
    const { size } = fstatSync(file);
    if (isZeroFrom(file, 0, size)) return { writes: [], isWhole: true };
    const header = Buffer.alloc(SECTOR);
    readSync(file, header, 0, SECTOR, 0);
    if (header.readBigUInt64LE(0) !== MAGIC || header.readUInt32LE(24) !== SECTOR)
      throw new Error(`${path} is no log of blklogwrites`);
    const writes: LoggedWrite[] = [];
    let at = SECTOR;
    while (at + SECTOR <= size) {
      readSync(file, header, 0, SECTOR, at);
      const entry = entryOf(header, at);
      if (entry === null || (entry.dataAt !== null && entry.dataAt + entry.sizeBytes > size)) break;
      writes.push(entry);
      at += SECTOR + (entry.dataAt === null ? 0 : entry.sizeBytes);
    }
    return { writes, isWhole: endsAt(file, at, size) };
  } finally {
    closeSync(file);
  }
}

function entryOf(header: Buffer, at: number): LoggedWrite | null {
  const [sector, count, flags] = [
    header.readBigUInt64LE(0),
    header.readBigUInt64LE(8),
    header.readBigUInt64LE(16),
  ];
  const isFlush = (flags & FLUSH) !== 0n;
  if (flags > 31n || (count === 0n && !isFlush)) return null;
  const sizeBytes = Number(count) * SECTOR;
  const hasData = (flags & DISCARD) === 0n && sizeBytes > 0;
  return {
    offset: Number(sector) * SECTOR,
    sizeBytes,
    dataAt: hasData ? at + SECTOR : null,
    isFua: (flags & FUA) !== 0n,
    isFlush,
  };
}

/** The last entry may have been cut short: its own bytes do not count as a hole. */
function endsAt(file: number, from: number, size: number): boolean {
  const header = Buffer.alloc(SECTOR);
  if (from + SECTOR <= size) {
    readSync(file, header, 0, SECTOR, from);
    if (header.some((byte) => byte !== 0)) return true;
  }
  return isZeroFrom(file, from, size);
}

function isZeroFrom(file: number, from: number, size: number): boolean {
  const piece = Buffer.alloc(COPY_BYTES);
  for (let at = from; at < size; at += COPY_BYTES) {
    const read = readSync(file, piece, 0, COPY_BYTES, at);
    if (piece.subarray(0, read).some((byte) => byte !== 0)) return false;
  }
  return true;
}

export interface CutResult {
  readonly flushed: number;
  readonly unflushed: number;
  /** Of the unflushed ones: whole, in part. */
  readonly kept: number;
  readonly torn: number;
}

/** Makes of `disk`, as it was when the log began, what the cut leaves. */
export function applyCut(
  log: WriteLog,
  logPath: string,
  disk: string,
  kind: CutKind,
  random: Random,
): CutResult {
  const from = openSync(logPath, 'r');
  const to = openSync(disk, 'r+');
  try {
    const last = log.writes.findLastIndex((write) => write.isFlush);
    let [kept, torn] = [0, 0];
    for (const [index, write] of log.writes.entries()) {
      if (write.dataAt === null) continue;
      if (index <= last || write.isFua || kind === 'everything') copy(from, to, write);
      else if (kind !== 'nothing' && random.unit() < 0.5) copy(from, to, write);
      else if (kind === 'torn writes') {
        copy(from, to, write, () => random.unit() < 0.5);
        torn += 1;
        continue;
      } else continue;
      if (index > last) kept += 1;
    }
    const unflushed = log.writes.slice(last + 1).filter((write) => write.dataAt !== null).length;
    return { flushed: last + 1, unflushed, kept, torn };
  } finally {
    closeSync(from);
    closeSync(to);
  }
}

/** The write's data, or those of its sectors that `has` says are there. */
function copy(from: number, to: number, write: LoggedWrite, has?: () => boolean): void {
  const step = has === undefined ? COPY_BYTES : SECTOR;
  const piece = Buffer.alloc(step);
  let isThere = true;
  for (let done = 0; done < write.sizeBytes; done += step) {
    const isWithTheLast = (write.offset + done) % MIB === SUPERBLOCK_END;
    if (has !== undefined && !isWithTheLast) isThere = has();
    if (!isThere) continue;
    const sizeBytes = Math.min(step, write.sizeBytes - done);
    readSync(from, piece, 0, sizeBytes, (write.dataAt ?? 0) + done);
    writeSync(to, piece, 0, sizeBytes, write.offset + done);
  }
}
