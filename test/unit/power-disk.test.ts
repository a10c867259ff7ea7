/** What the disk of the power cuts may hold afterwards. */
import { describe, expect, it } from 'vitest';
import type { DiskEvent, LoggedEvent } from '#/test/support/power-disk/log.ts';
import { cutAt, type FileSystem } from '#/test/support/power-disk/power-disk.ts';
import { simRandom } from '#/test/support/sim-host/sim-clock.ts';

const SEEDS = 3000;
const write = (offset: number, sizeBytes: number): DiskEvent => ({
  do: 'write',
  offset,
  bytes: new Uint8Array(sizeBytes),
});

/** Where a write after a flush ended on the disk, over many cuts: all places, in order. */
function endsOf(fileSystem: FileSystem, offset: number, sizeBytes: number): readonly number[] {
  const asked = [write(offset, sizeBytes), { do: 'flush' } as const, write(offset, sizeBytes)];
  const events = asked.map((event, index): LoggedEvent => ({ event, logBytes: index }));
  const ends = new Set<number>();
  for (let seed = 0; seed < SEEDS; seed += 1) {
    const random = simRandom(seed);
    const [first, second, third] = cutAt({ events, fileSystem }, 3, () => random.unit()).onDisk;
    expect([first, second]).toEqual(events.slice(0, 2));
    if (third?.event.do === 'write') ends.add(offset + third.event.bytes.length);
  }
  return [...ends].sort((x, y) => x - y);
}

const multiples = (unit: number, from: number, to: number): number[] =>
  Array.from({ length: (to - from) / unit + 1 }, (_, index) => from + index * unit);

describe('a write that was not flushed', () => {
  it('is torn at any sector under ext4 and btrfs, at blocks of 4 KiB under XFS', () => {
    const far = 1024 * 1024;
    for (const fileSystem of ['ext4', 'btrfs'] as const)
      expect(endsOf(fileSystem, far, 4096)).toEqual(multiples(512, far + 512, far + 4096));
    expect(endsOf('xfs', far, 16_384)).toEqual(multiples(4096, far + 4096, far + 16_384));
    expect(endsOf('xfs', far, 4096)).toEqual([far + 4096]);
  });

  it('tears a superblock, which no file system can be mounted with', () => {
    expect(endsOf('ext4', 1024, 1024)).toEqual([2048]);
    expect(endsOf('btrfs', 65_536, 4096)).toEqual([69_632]);
    for (const [fileSystem, superblock] of [
      ['ext4', 0],
      ['btrfs', 65_536],
    ] as const) {
      const ends = endsOf(fileSystem, superblock, 8192);
      expect(ends).toEqual(multiples(512, superblock + 4096, superblock + 8192));
    }
  });
});
