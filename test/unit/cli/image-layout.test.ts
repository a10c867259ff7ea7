import { describe, expect, it } from 'vitest';
import { biosBoot } from '#/control/cli/image/grub-bios.ts';
import {
  diskLayout,
  MIB,
  parseSize,
  partitionsOf,
  sgdiskArguments,
  uuidFrom,
} from '#/control/cli/image/layout.ts';

const options = {
  loader: 'grub' as const,
  seed: 'grub abc',
  espBytes: 64 * MIB,
  slotBytes: 100 * MIB + 1,
  dataBytes: 10 * MIB,
};

describe('layout of a disk with two slots', () => {
  it('partitions neither overlap nor leave the MiB grid, and the end of the disk stays free for the second table', () => {
    const layout = diskLayout(options);
    const partitions = partitionsOf(layout);
    let end = MIB;
    for (const { startBytes, sizeBytes } of partitions) {
      expect(startBytes).toBe(end);
      expect(sizeBytes % MIB).toBe(0);
      end += sizeBytes;
    }
    expect(layout.sizeBytes).toBe(end + MIB);
    expect(layout.rootA.sizeBytes).toBe(101 * MIB);
    expect(layout.rootB.sizeBytes).toBe(layout.rootA.sizeBytes);
  });

  it('numbers are those of docs/specs/partitions.md, with and without the partition for BIOS', () => {
    const numbers = (loader: 'grub' | 'systemd-boot'): readonly string[] =>
      partitionsOf(diskLayout({ ...options, loader })).map(
        ({ number, label }) => `${number} ${label}`,
      );
    const all = [
      '2 switchback-esp',
      '3 switchback-env',
      '4 switchback-root-a',
      '5 switchback-root-b',
      '6 switchback-data',
    ];
    expect(numbers('grub')).toEqual(['1 switchback-bios', ...all]);
    expect(numbers('systemd-boot')).toEqual(all);
  });

  it('ids follow from the seed alone and are all different', () => {
    const ids = (seed: string): readonly string[] => {
      const layout = diskLayout({ ...options, seed });
      return [layout.diskId, ...partitionsOf(layout).map(({ uuid }) => uuid)];
    };
    expect(ids('x')).toEqual(ids('x'));
    expect(new Set([...ids('x'), ...ids('y')]).size).toBe(14);
    expect(uuidFrom('x')).toMatch(
      /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
    );
  });

  it('sgdisk gets first and last sector of each partition', () => {
    expect(sgdiskArguments(diskLayout(options))).toContain('--new=2:4096:135167');
  });

  it('an ESP that cannot hold two kernels is refused', () => {
    expect(() => diskLayout({ ...options, espBytes: MIB })).toThrow(/ESP has 1048576 bytes/);
  });

  it.each(['512', '0M', '1T', '-1M', '1.5G', ''])('size %j is refused', (text) => {
    expect(() => parseSize(text)).toThrow(/is not a size/);
  });
  it('sizes are powers of 1024', () => {
    expect([parseSize('4K'), parseSize('512M'), parseSize('1G')]).toEqual([
      4096,
      512 * MIB,
      1024 * MIB,
    ]);
  });
});

describe('GRUB for BIOS', () => {
  it('the boot sector leads to the core, the core to its second sector, and the table of partitions is left alone', () => {
    const image = Buffer.alloc(512, 0xaa);
    const core = Buffer.alloc(1300, 0x11);
    const boot = biosBoot(image, core, 2048, 1024 * 1024);
    expect(boot.code.length).toBe(440);
    expect(boot.code.readBigUInt64LE(0x5c)).toBe(2048n);
    expect(boot.code.readUInt16LE(0x66)).toBe(0x9090);
    expect(boot.core.length).toBe(1536);
    expect(boot.core.readBigUInt64LE(500)).toBe(2049n);
    expect(boot.core.readUInt16LE(508)).toBe(2);
    expect(boot.core.subarray(512, 1300).equals(core.subarray(512))).toBe(true);
  });

  it('a core larger than its partition is refused', () => {
    expect(() => biosBoot(Buffer.alloc(512), Buffer.alloc(1025), 1, 1024)).toThrow(/1025 bytes/);
  });
});
