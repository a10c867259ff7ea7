import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { randomFrom } from '#/test/chaos/random.ts';
import { applyCut, type CutKind, readWriteLog } from '#/test/vm/write-log.ts';

const SECTOR = 512;
const [FLUSH, FUA] = [1, 2];
let directory = '';
beforeEach(() => (directory = mkdtempSync(join(tmpdir(), 'sb-write-log-'))));
afterEach(() => rmSync(directory, { recursive: true }));

interface Entry {
  readonly sector?: number;
  readonly fill?: number;
  readonly sectors?: number;
  readonly flags?: number;
}

function logOf(entries: readonly Entry[]): Buffer {
  const head = Buffer.alloc(SECTOR);
  head.writeBigUInt64LE(0x6a736677736872n, 0);
  head.writeBigUInt64LE(1n, 8);
  head.writeUInt32LE(SECTOR, 24);
  const parts: Buffer[] = [head];
  for (const { sector = 0, fill = 0, sectors = 0, flags = 0 } of entries) {
    const header = Buffer.alloc(SECTOR);
    header.writeBigUInt64LE(BigInt(sector), 0);
    header.writeBigUInt64LE(BigInt(sectors), 8);
    header.writeBigUInt64LE(BigInt(flags), 16);
    parts.push(header, Buffer.alloc(sectors * SECTOR, fill));
  }
  return Buffer.concat(parts);
}

/** The first byte of each of the disk's sectors after the cut. */
function after(log: Buffer, kind: CutKind, seed = 'x'): readonly number[] {
  const [logPath, disk] = [join(directory, 'log'), join(directory, 'disk')];
  writeFileSync(logPath, log);
  writeFileSync(disk, Buffer.alloc(8 * SECTOR, 9));
  applyCut(readWriteLog(logPath), logPath, disk, kind, randomFrom(seed));
  const bytes = readFileSync(disk);
  return Array.from({ length: 8 }, (_, index) => bytes[index * SECTOR] ?? -1);
}

const LOG = logOf([
  { sector: 0, sectors: 2, fill: 1 },
  { flags: FLUSH },
  { sector: 2, sectors: 2, fill: 2 },
  { sector: 4, sectors: 1, fill: 3, flags: FUA },
  { sector: 5, sectors: 3, fill: 4 },
]);

describe('what a power cut leaves', () => {
  it('what was flushed, or written with FUA, is always there; nothing else has to be', () => {
    expect(after(LOG, 'nothing')).toEqual([1, 1, 9, 9, 3, 9, 9, 9]);
    expect(after(LOG, 'everything')).toEqual([1, 1, 2, 2, 3, 4, 4, 4]);
  });

  it('unflushed writes are lost whole, or in any of their sectors', () => {
    const seen = { whole: new Set<string>(), torn: new Set<string>() };
    for (let seed = 0; seed < 60; seed += 1) {
      const whole = after(LOG, 'some writes', `${seed}`);
      expect([whole[0], whole[1], whole[4]]).toEqual([1, 1, 3]);
      expect(new Set(whole.slice(5)).size).toBe(1);
      seen.whole.add(whole.join(','));
      seen.torn.add(after(LOG, 'torn writes', `${seed}`).join(','));
    }
    expect(seen.whole.size).toBe(4);
    expect(seen.torn.size).toBeGreaterThan(8);
  });

  it('a superblock of ext4 is never torn', () => {
    const seen = new Set<string>();
    for (let seed = 0; seed < 20; seed += 1) {
      const [, , first, second] = after(LOG, 'torn writes', `${seed}`);
      expect(second).toBe(first);
      seen.add(`${first}`);
    }
    expect(seen.size).toBe(2);
  });

  it('an entry that the kill cut short does not count, and hides nothing', () => {
    const path = join(directory, 'log');
    writeFileSync(path, LOG.subarray(0, LOG.length - SECTOR));
    const log = readWriteLog(path);
    expect(log.writes.length).toBe(4);
    expect(log.isWhole).toBe(true);
  });

  it('a hole in the log, with entries behind it, is told', () => {
    const path = join(directory, 'log');
    writeFileSync(path, Buffer.concat([LOG, Buffer.alloc(4 * SECTOR), Buffer.alloc(SECTOR, 1)]));
    expect(readWriteLog(path).isWhole).toBe(false);
  });

  it('a kill before the disk was opened leaves nothing', () => {
    const path = join(directory, 'log');
    for (const sizeBytes of [0, 2 * SECTOR]) {
      writeFileSync(path, Buffer.alloc(sizeBytes));
      expect(readWriteLog(path)).toEqual({ writes: [], isWhole: true });
    }
  });

  it('another file is refused', () => {
    const path = join(directory, 'log');
    writeFileSync(path, Buffer.alloc(2 * SECTOR, 1));
    expect(() => readWriteLog(path)).toThrow(/no log of blklogwrites/);
  });
});
