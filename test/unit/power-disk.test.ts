/** What the disk of the power cuts may hold afterwards. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { DiskEvent, LoggedEvent } from '#/test/support/power-disk/log.ts';
import { cutAt } from '#/test/support/power-disk/power-disk.ts';

const logged = (event: DiskEvent, index: number): LoggedEvent => ({ event, logBytes: index });
const writes = fc
  .array(
    fc.oneof(
      fc.constant<DiskEvent>({ do: 'flush' }),
      fc.record({ offset: fc.nat(160), sectors: fc.integer({ min: 1, max: 40 }) }).map(
        ({ offset, sectors }): DiskEvent => ({
          do: 'write',
          offset: offset * 512,
          bytes: new Uint8Array(sectors * 512),
        }),
      ),
    ),
    { maxLength: 12 },
  )
  .map((events) => events.map(logged));
const draws = fc.infiniteStream(fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }));

describe.each([
  ['ext4', 512, 0],
  ['xfs', 4096, 0],
  ['btrfs', 512, 65_536],
] as const)('a disk under %s', (fileSystem, unit, superblock) => {
  it(`loses a flushed write, or tears one elsewhere than at ${unit} bytes, or in the superblock`, () => {
    let tornWrites = 0;
    fc.assert(
      fc.property(writes, draws, (events, stream) => {
        const cut = cutAt({ events, fileSystem }, events.length, () => stream.next().value ?? 0);
        const flushed = events.findLastIndex(({ event }) => event.do === 'flush') + 1;
        expect(cut.onDisk.slice(0, flushed)).toEqual(events.slice(0, flushed));
        for (const { event, logBytes } of cut.onDisk) {
          const { event: whole } = events[logBytes]!;
          if (event.do === 'flush' || whole.do === 'flush') continue;
          if (event.bytes.length === whole.bytes.length) continue;
          tornWrites += 1;
          expect(event.bytes.length).toBeGreaterThan(0);
          expect(event.bytes.length).toBeLessThan(whole.bytes.length);
          const end = event.offset + event.bytes.length;
          expect(end % unit).toBe(0);
          expect(end > superblock && end < superblock + 4096).toBe(false);
        }
      }),
      { seed: 1, numRuns: 300 },
    );
    expect(tornWrites).toBeGreaterThan(0);
  });
});
