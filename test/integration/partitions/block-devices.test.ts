/** Partitions by name, on trees as the kernel and udev show them, with device nodes that are real. */
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { kernelBlockDevices, numberText } from '#/agent/adapters/block-devices.ts';
import { readGpt } from '#/agent/adapters/gpt.ts';
import { mountTable } from '#/agent/adapters/mount-table.ts';
import { slotDisk } from '#/agent/adapters/slots-disk.ts';
import { nodeFiles } from '#/agent/adapters/file-port.ts';
import { whyNoMounts } from '#/test/support/install/small-file-system.ts';

const run = promisify(execFile);
const impossible = whyNoMounts();
let base = '';

beforeEach(async () => {
  base = await mkdtemp(join(tmpdir(), 'devices-'));
  for (const path of ['proc/self', 'sys/class/block', 'sys/dev/block', 'dev/disk/by-partuuid']) {
    await mkdir(join(base, path), { recursive: true });
  }
  await mkdir(join(base, 'dev/disk/by-partlabel'), { recursive: true });
  await mounted('0:1', '/');
  await writeFile(join(base, 'proc/swaps'), 'Filename Type Size Used Priority\n');
  await writeFile(join(base, 'proc/cmdline'), 'quiet\n');
});
afterEach(() => rm(base, { recursive: true, force: true }));

interface Partition {
  readonly name: string;
  readonly minor: number;
  readonly label: string;
  readonly partUuid: string;
  readonly disk: string;
  /** Newer kernels tell the PARTUUID, on others udev does. */
  readonly toldBy?: 'kernel' | 'udev';
}

/** A partition of a major number that nothing here uses (experimental). */
async function partition(of: Partition): Promise<void> {
  const { name, minor, label, partUuid, disk, toldBy = 'udev' } = of;
  const number = `240:${minor}`;
  const shown = join(base, 'sys/devices', disk, name);
  await mkdir(shown, { recursive: true });
  const told = toldBy === 'kernel' ? `PARTUUID=${partUuid}\n` : '';
  await writeFile(join(shown, 'uevent'), `DEVNAME=${name}\nPARTNAME=${label}\n${told}`);
  await writeFile(join(shown, 'partition'), `${minor}\n`);
  await writeFile(join(shown, 'size'), '2048\n');
  await writeFile(join(shown, 'ro'), '0\n');
  await symlink(shown, join(base, 'sys/class/block', name));
  await symlink(shown, join(base, 'sys/dev/block', number));
  await run('mknod', [join(base, 'dev', name), 'b', '240', String(minor)]);
  if (toldBy === 'udev')
    await symlink(`../../${name}`, join(base, 'dev/disk/by-partuuid', partUuid));
}

async function mounted(number: string, at: string, source = '/dev/x'): Promise<void> {
  const line = `1 0 ${number} / ${at} rw - ext4 ${source} rw\n`;
  await writeFile(join(base, 'proc/self/mountinfo'), line);
}

const devices = () =>
  kernelBlockDevices({
    proc: join(base, 'proc'),
    sys: join(base, 'sys'),
    dev: join(base, 'dev'),
  });
const byLabel = (value: string) => ({ by: 'partlabel', value }) as const;

describe.skipIf(impossible !== null)('partitions by name', () => {
  it('F37 the names of the disks have changed: another partition is found', async () => {
    await partition({ name: 'vda3', minor: 3, label: 'root-a', partUuid: 'aa-1', disk: 'vda' });
    const before = await devices().find(byLabel('root-a'));
    expect(before).toMatchObject({ number: '240:3', partUuid: 'aa-1', sizeBytes: 1024 * 1024 });
    expect(await devices().find({ by: 'partuuid', value: 'AA-1' })).toEqual(before);
    for (const path of ['sys', 'dev']) await rm(join(base, path), { recursive: true });
    for (const path of ['sys/class/block', 'sys/dev/block', 'dev/disk/by-partuuid'])
      await mkdir(join(base, path), { recursive: true });
    // Now the first disk is another one.
    const other = { name: 'vda3', minor: 3, label: 'swap', partUuid: 'cc-1', disk: 'vda' };
    await partition(other);
    await partition({ name: 'vdb3', minor: 19, label: 'root-a', partUuid: 'aa-1', disk: 'vdb' });
    const after = await devices().find(byLabel('root-a'));
    expect(after).toMatchObject({ number: '240:19', path: join(base, 'dev/vdb3') });
  });

  it('F62 a copy of the disk is attached beside it: the copy is written', async () => {
    const told = 'kernel';
    for (const [disk, first] of [
      ['vda', 1],
      ['vdb', 17],
    ] as const) {
      const of = { disk, toldBy: told } as const;
      await partition({ ...of, name: `${disk}1`, minor: first, label: 'root-a', partUuid: 'aa' });
      await partition({
        ...of,
        name: `${disk}2`,
        minor: first + 1,
        label: 'root-b',
        partUuid: 'bb',
      });
    }
    await expect(devices().find(byLabel('root-b'))).rejects.toMatchObject({ code: 'E_DISK' });
    await mounted('240:17', '/');
    expect(await devices().find(byLabel('root-b'))).toMatchObject({ number: '240:18' });
  });

  it('a device is taken that is no partition of that PARTUUID, or of none', async () => {
    await partition({ name: 'vda1', minor: 1, label: 'root-a', partUuid: 'aa', disk: 'vda' });
    const path = join(base, 'dev/vda1');
    const wrong = { by: 'path', path, partUuid: 'bb' } as const;
    await expect(devices().find(wrong)).rejects.toMatchObject({ code: 'E_DISK' });
    const file = { by: 'path', path: join(base, 'proc/cmdline'), partUuid: 'aa' } as const;
    await expect(devices().find(file)).rejects.toMatchObject({ code: 'E_DISK' });
    await expect(devices().find(byLabel('root-b'))).rejects.toMatchObject({ code: 'E_DISK' });
    expect(await devices().find({ ...wrong, partUuid: 'AA' })).toMatchObject({ partUuid: 'aa' });
  });

  it('F26 a partition that is swap, held or mounted under another number counts as free', async () => {
    await partition({ name: 'vda1', minor: 1, label: 'root-b', partUuid: 'bb', disk: 'vda' });
    const path = join(base, 'dev/vda1');
    const uses = async () => await devices().usesOf(await devices().find(byLabel('root-b')));
    expect(await uses()).toEqual([]);
    await mounted('0:99', '/mnt/b\\040c', path);
    expect(await uses()).toEqual(['is mounted on /mnt/b c']);
    await mounted('0:1', '/');
    await writeFile(join(base, 'proc/swaps'), `Filename Type\n${path} partition 1 0 -2\n`);
    expect(await uses()).toEqual(['is swap']);
    await writeFile(join(base, 'proc/swaps'), 'Filename Type\n');
    await mkdir(join(base, 'sys/devices/vda/vda1/holders/dm-0'), { recursive: true });
    expect(await uses()).toEqual(['is held by dm-0']);
  });

  it('F35 the root is below dm-verity, none of ours, or not what the kernel was told', async () => {
    await partition({ name: 'vda1', minor: 1, label: 'root-a', partUuid: 'aa', disk: 'vda' });
    await partition({ name: 'vda2', minor: 2, label: 'root-b', partUuid: 'bb', disk: 'vda' });
    const disk = slotDisk({
      files: nodeFiles(),
      stateDirectory: join(base, 'state'),
      devices: devices(),
      names: { a: byLabel('root-a'), b: byLabel('root-b') },
    });
    await mounted('240:1', '/');
    expect(await disk.live()).toBe('a');
    await writeFile(join(base, 'proc/cmdline'), 'root=PARTUUID=BB quiet\n');
    expect(await disk.live()).toBe(null);
    await writeFile(join(base, 'proc/cmdline'), 'root=PARTUUID=AA quiet\n');
    expect(await disk.live()).toBe('a');
    await mounted('240:7', '/');
    expect(await disk.live()).toBe(null);
    await mkdir(join(base, 'sys/dev/block/253:0/slaves/vda2'), { recursive: true });
    await writeFile(join(base, 'sys/dev/block/253:0/slaves/vda2/dev'), '240:2\n');
    await mounted('253:0', '/');
    await writeFile(join(base, 'proc/cmdline'), 'root=PARTUUID=bb roothash=1\n');
    expect(await disk.live()).toBe('b');
    // overlayroot: a root of no device.
    await mounted('0:30', '/', 'overlay');
    expect(await disk.live()).toBe('b');
  });
});

describe('tables', () => {
  it('a partition table is misread, or believed with a wrong checksum', async () => {
    const path = join(base, 'disk.img');
    await writeFile(path, Buffer.alloc(4 * 1024 * 1024));
    const uuid = '12345678-9ABC-4DEF-8123-456789ABCDEF';
    const part = ['-n', '2:2048:4095', '-c', '2:switchback-root-a', '-u', `2:${uuid}`];
    await run('sgdisk', [...part, path]);
    const disk = await readFile(path);
    const read = (bytes: Buffer) => async (at: number, size: number) =>
      bytes.subarray(at, at + size);
    expect(await readGpt(read(disk))).toEqual([
      {
        number: 2,
        partUuid: uuid.toLowerCase(),
        label: 'switchback-root-a',
        firstByte: 2048 * 512,
        sizeBytes: 2048 * 512,
      },
    ]);
    for (const at of [512 + 20, 1024 + 16]) {
      const torn = Buffer.from(disk);
      torn[at] = (torn[at] ?? 0) ^ 1;
      expect(await readGpt(read(torn))).toBe(null);
    }
    expect(await readGpt(read(Buffer.alloc(100)))).toBe(null);
  });

  it('a device number or a mount point with odd characters is misread', () => {
    expect(numberText(0x0701n)).toBe('7:1');
    expect(numberText(0x11_032cn)).toBe('259:300');
    const line = '36 35 98:0 /mnt1 /mnt/a\\040b rw,noatime master:1 - ext3 /dev/root rw\n';
    expect(mountTable(line)).toEqual([
      { deviceNumber: '98:0', mountPoint: '/mnt/a b', kind: 'ext3', source: '/dev/root' },
    ]);
  });
});
