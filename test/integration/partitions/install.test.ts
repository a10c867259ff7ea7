/** Images into partitions: what is refused, what a crash or a bad disk leaves, and what boots it. Real block devices. */
import { execFile } from 'node:child_process';
import { mkdir, open, readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { verityArguments } from '#/agent/adapters/boot-files.ts';
import { ticketFile } from '#/agent/adapters/ticket.ts';
import { nodeFiles } from '#/agent/adapters/file-port.ts';
import type { Offer } from '#/agent/ports.ts';
import { Problem } from '#/protocol/errors.ts';
import { bundleOf, offerOf } from '#/test/support/install/host.ts';
import { makeTree, scratch } from '#/test/support/install/payloads.ts';
import {
  attachExisting,
  mountTmpfs,
  whyNoMounts,
} from '#/test/support/install/small-file-system.ts';
import { makeDisk } from '#/test/support/partitions/disk.ts';
import { makePartitionHost, type PartitionHost } from '#/test/support/partitions/host.ts';
import { makeRootImage } from '#/test/support/partitions/root-image.ts';
import { ticketOf } from '#/test/support/partitions/ticket.ts';

const run = promisify(execFile);
const SLOT_BYTES = 18 * 1024 * 1024;
const IMAGE_BYTES = 16 * 1024 * 1024;
const impossible = whyNoMounts();
let work: AsyncDisposable & { readonly path: string };
let images: readonly [string, string];
let offers: readonly [Offer, Offer];
let hosts = 0;

beforeAll(async () => {
  if (impossible !== null) return;
  work = await scratch();
  const paths: string[] = [];
  const made: Offer[] = [];
  for (const release of [1, 2]) {
    const input = join(work.path, `v${release}.img`);
    await makeRootImage({ out: input, version: `${release}`, sizeBytes: IMAGE_BYTES });
    const out = join(work.path, `v${release}.bundle`);
    made.push(offerOf(await bundleOf({ input, out, version: `${release}`, release })));
    paths.push(input);
  }
  images = [paths[0]!, paths[1]!];
  offers = [made[0]!, made[1]!];
});
afterAll(async () => {
  if (impossible === null) await work[Symbol.asyncDispose]();
});

/** Slot `a` runs; old bytes are everywhere. */
async function bench(options: Partial<Parameters<typeof makePartitionHost>[0]> = {}) {
  hosts += 1;
  const directory = join(work.path, `host-${hosts}`);
  const disk = await makeDisk(directory, SLOT_BYTES, 'a');
  const host = await makePartitionHost({ disk, directory, live: 'a', ...options });
  return {
    disk,
    host,
    directory,
    [Symbol.asyncDispose]: () => disk[Symbol.asyncDispose](),
  };
}

/** Bytes of a device past the cache of this process's reads. */
async function deviceBytes(path: string): Promise<Buffer> {
  await run('blockdev', ['--flushbufs', path]);
  return await readFile(path);
}

const statusOf = async (host: PartitionHost, slot: string): Promise<string | undefined> =>
  (await host.slots.observe()).slots.find((one) => one.slot === slot)?.status;

describe.skipIf(impossible !== null)('an image in its partition', () => {
  it('old bytes stay in a hole or behind the image, or boot files are those of another version', async () => {
    await using made = await bench();
    const { host, disk } = made;
    await host.download(offers[0]);
    await host.verify(offers[0]);
    const bytes = await deviceBytes(disk.roots.b.path);
    expect(Buffer.compare(bytes.subarray(0, IMAGE_BYTES), await readFile(images[0]))).toBe(0);
    // What lies behind the image is nobody's and stays.
    expect(bytes.subarray(IMAGE_BYTES).every((byte) => byte === 0x5a)).toBe(true);
    expect(host.readBacks).toMatchObject([{ differences: [], direct: true }]);
    const order = await readFile(disk.env.path, 'latin1');
    expect(order).toContain('args_b=quiet panic=5\n');
    expect(await run('findmnt', ['-n', '-S', disk.roots.b.path]).catch(() => null)).toBe(null);
  });

  it('F2 F21 killed in the middle: selectable, or everything is fetched again', async () => {
    await using made = await bench({ run: 'child' });
    const { host } = made;
    const slot = await host.slots.targetFor(offers[0].artifactId);
    await host.slots.begin(offers[0], slot);
    const killed = host.installer.download(
      offers[0],
      slot,
      ({ doneBytes }) => {
        if (doneBytes > 1_000_000) process.kill(host.children.at(-1) ?? 0, 'SIGKILL');
      },
      new AbortController().signal,
    );
    await expect(killed).rejects.toMatchObject({ code: 'E_INTERRUPTED' });
    expect((await host.backend.observe()).bad).toEqual(['b']);
    await expect(host.boot.arm('b', 2)).rejects.toMatchObject({ code: 'E_SLOT' });
    const whole = offers[0].manifest.dataBytes;
    const again = await host.download(offers[0]);
    expect(again.reusedBytes).toBeGreaterThan(900_000);
    expect(again.fetchedBytes).toBeLessThan(whole);
    await host.verify(offers[0]);
    expect(await statusOf(host, 'b')).toBe('verified');
  });

  it('F83 what the running slot holds is fetched again, or its rot gets into the new one', async () => {
    await using made = await bench();
    const { host, disk } = made;
    await host.download(offers[0]);
    await host.verify(offers[0]);
    await host.boot.arm('b', 2);
    await host.reboot();
    await host.boot.commit('b');
    {
      await using device = await open(disk.roots.b.path, 'r+');
      const large = (await readFile(images[0])).indexOf(Buffer.alloc(64, 0), 4096) + 200_000;
      await device.write(Buffer.alloc(4096, 0xee), 0, 4096, large - (large % 4096));
      await device.sync();
    }
    const result = await host.download(offers[1]);
    expect(result.reusedBytes).toBeGreaterThan(1_000_000);
    expect(result.fetchedBytes).toBeLessThan(offers[1].manifest.dataBytes / 2);
    await host.verify(offers[1]);
    const bytes = await deviceBytes(disk.roots.a.path);
    expect(Buffer.compare(bytes.subarray(0, IMAGE_BYTES), await readFile(images[1]))).toBe(0);
  });

  it('F24 other bytes are read back than were written: armed, or not written anew', async () => {
    await using made = await bench();
    const { host, disk } = made;
    await host.download(offers[0]);
    {
      await using device = await open(disk.roots.b.path, 'r+');
      await device.write(Buffer.alloc(512, 0xee), 0, 512, 2048);
      await device.sync();
    }
    await host.verify(offers[0]);
    expect(host.readBacks.map(({ differences }) => differences.length)).toEqual([1, 0]);
    expect(await statusOf(host, 'b')).toBe('verified');
  });

  it('F25 the disk refuses writes: taken for written, or tried again on the same descriptor', async () => {
    await using made = await bench();
    const { directory } = made;
    // A disk whose last part cannot be written: its file lies on a file system that is too small for it.
    await using small = await mountTmpfs(join(directory, 'small'), 'size=2m');
    const backing = join(small.path, 'root-b.img');
    await writeFile(backing, '');
    await truncate(backing, SLOT_BYTES);
    await using loop = await attachExisting(backing);
    const disk = { ...made.disk, roots: { a: made.disk.roots.a, b: loop } };
    const host = await makePartitionHost({ disk, directory, live: 'a' });
    await expect(host.download(offers[0])).rejects.toMatchObject({ code: 'E_IO' });
    expect(await statusOf(host, 'b')).toBe('writing');
    expect((await host.backend.observe()).bad).toEqual(['b']);
  });

  it('F19 no room for boot files on the ESP: the slot counts as verified', async () => {
    const full = new Problem('E_SPACE', 'the ESP is full');
    await using made = await bench({
      backend: (real) => ({ ...real, installBootFiles: () => Promise.reject(full) }),
    });
    const { host, disk } = made;
    await host.download(offers[0]);
    await expect(host.verify(offers[0])).rejects.toBe(full);
    expect(await statusOf(host, 'b')).toBe('written');
    expect(await run('findmnt', ['-n', '-S', disk.roots.b.path]).catch(() => null)).toBe(null);
  });

  it('an image without a kernel is armed', async () => {
    await using made = await bench();
    const input = join(made.directory, 'empty.img');
    await makeRootImage({ out: input, version: '3', sizeBytes: 8 * 1024 * 1024, kernel: false });
    const built = await bundleOf({ input, out: `${input}.bundle`, version: '3', release: 3 });
    const offer = offerOf(built);
    await made.host.download(offer);
    await expect(made.host.verify(offer)).rejects.toMatchObject({ code: 'E_SLOT' });
    await expect(made.host.boot.arm('b', 2)).rejects.toMatchObject({ code: 'E_SLOT' });
  });
});

describe.skipIf(impossible !== null)('what is never written', () => {
  it('F26 a partition that is mounted, or is mounted after it was looked at', async () => {
    await using made = await bench();
    const { host, disk, directory } = made;
    await writeFile(disk.roots.b.path, await readFile(images[1]));
    const at = join(directory, 'mounted');
    await mkdir(at);
    await host.slots.begin(offers[0], 'b');
    await run('mount', ['-o', 'ro,noload', disk.roots.b.path, at]);
    try {
      const attempts = [
        () => host.slots.preflight(offers[0], 'b'),
        () => host.slots.begin(offers[0], 'b'),
        () => host.slots.discard('b'),
      ];
      for (const attempt of attempts) {
        await expect(attempt()).rejects.toMatchObject({
          code: 'E_NOT_ALLOWED_NOW',
          message: expect.stringMatching(/is mounted on .*mounted/) as string,
        });
      }
      const never = new AbortController().signal;
      const late = host.installer.download(offers[0], 'b', () => undefined, never);
      await expect(late).rejects.toMatchObject({ code: 'E_IO', details: { errno: 'EBUSY' } });
    } finally {
      await run('umount', [at]);
    }
    const bytes = await deviceBytes(disk.roots.b.path);
    expect(Buffer.compare(bytes.subarray(0, IMAGE_BYTES), await readFile(images[1]))).toBe(0);
  });

  it('F26 a partition that is the disk of another loop device', async () => {
    await using made = await bench();
    await using _loop = await attachExisting(made.disk.roots.b.path);
    await expect(made.host.slots.preflight(offers[0], 'b')).rejects.toMatchObject({
      code: 'E_NOT_ALLOWED_NOW',
    });
  });

  it('F54 the slot that a ticket pins as the way back', async () => {
    await using made = await bench();
    const ticket = ticketOf({ targetSlot: 'a', rollbackSlot: 'b' });
    await ticketFile(nodeFiles(), join(made.host.stateDirectory, 'ticket')).write(ticket);
    await expect(made.host.slots.begin(offers[0], 'b')).rejects.toMatchObject({
      code: 'E_NOT_ALLOWED_NOW',
    });
    expect(await statusOf(made.host, 'b')).toBe('empty');
  });

  it('F65 another partition under the same name', async () => {
    await using made = await bench();
    await made.host.download(offers[0]);
    const other = await makePartitionHost({
      disk: made.disk,
      directory: made.directory,
      live: 'a',
      partUuids: { a: made.host.partUuids.a, b: 'cccccccc-0000-4000-8000-000000000003' },
    });
    const gone = { code: 'E_DISK' };
    await expect(other.slots.preflight(offers[0], 'b')).rejects.toMatchObject(gone);
    await expect(other.slots.begin(offers[0], 'b')).rejects.toMatchObject(gone);
    const { slots, live } = await other.slots.observe();
    expect(live).toBe('a');
    expect(slots[1]).toMatchObject({ slot: 'b', status: 'empty', artifactId: null });
  });

  it('F18 an image that is larger than the slot, or a bundle that is no image', async () => {
    await using made = await bench();
    const input = join(made.directory, 'large.img');
    await makeRootImage({ out: input, version: '3', sizeBytes: SLOT_BYTES + 4096 });
    const large = offerOf(
      await bundleOf({ input, out: `${input}.bundle`, version: '3', release: 3 }),
    );
    await expect(made.host.slots.preflight(large, 'b')).rejects.toMatchObject({
      code: 'E_SPACE',
      details: { missingBytes: 4096 },
    });
    const tree = join(made.directory, 'tree');
    await mkdir(tree);
    await makeTree(tree, { version: '4' });
    const built = await bundleOf({ input: tree, out: `${tree}.bundle`, version: '4', release: 4 });
    await expect(made.host.slots.preflight(offerOf(built), 'b')).rejects.toMatchObject({
      code: 'E_CLASS',
    });
  });
});

describe.skipIf(impossible !== null)('the boot loader behind the port', () => {
  it('F33 a reboot that did not come is asked for again without force', async () => {
    await using made = await bench();
    const { host } = made;
    await host.download(offers[0]);
    await host.verify(offers[0]);
    await host.boot.arm('b', 2);
    expect(await host.boot.switchTo('b', { force: false })).toBe('reboot-requested');
    expect(await host.boot.switchTo('b', { force: true })).toBe('reboot-requested');
    expect(host.reboots).toEqual([{ force: false }, { force: true }]);
    await host.boot.disarm('b');
    await expect(host.boot.switchTo('b', { force: false })).rejects.toMatchObject({
      code: 'E_BOOT',
    });
    expect(await host.boot.rollBackTo('a', 'b', { force: true })).toBe('switched');
    expect(host.reboots).toHaveLength(2);
  });

  it('F34 a loader that cannot tell: not tried counts as failed, or failed as not tried', async () => {
    await using made = await bench({ backend: (real) => ({ ...real, tellsAttempt: false }) });
    const { host } = made;
    const file = ticketFile(nodeFiles(), join(host.stateDirectory, 'ticket'));
    const ticket = ticketOf({ targetSlot: 'b', rollbackSlot: 'a' });
    await file.write(ticket);
    expect((await host.boot.observe()).trial).toEqual({ slot: 'b', triesLeft: ticket.maxBoots });
    // The guard saw it running once: it was tried, and did not stay.
    await file.write({ ...ticket, bootsUsed: 1 });
    expect((await host.boot.observe()).trial).toBe(null);
    await file.remove();
    expect((await host.boot.observe()).trial).toBe(null);
  });

  it('F34 the running slot is not the default when the other one is written', async () => {
    await using made = await bench();
    const { host } = made;
    await host.backend.setDefault('b', null);
    await host.slots.begin(offers[0], 'b');
    expect(await host.backend.observe()).toMatchObject({ default: 'a', trial: null, bad: ['b'] });
  });
});

describe.skipIf(impossible !== null)('dm-verity', () => {
  it('the kernel is told of a tree without its place, of one that is not there, or the loader refuses it', async () => {
    const { manifest } = offers[0];
    const device = { partUuid: '12ab' };
    expect(verityArguments(manifest, device)).toEqual([]);
    const [payload] = manifest.payloads;
    if (payload?.kind !== 'image') throw new Error('an image');
    const verityRootHash = 'd'.repeat(64) as NonNullable<typeof payload.verityRootHash>;
    const tree = { ...payload, verityRootHash, verityHashOffsetBytes: 8192 };
    const words = verityArguments({ ...manifest, payloads: [tree] }, device);
    expect(words.slice(0, 4)).toEqual([
      `roothash=${verityRootHash}`,
      'systemd.verity_root_data=PARTUUID=12ab',
      'systemd.verity_root_hash=PARTUUID=12ab',
      'systemd.verity_root_options=hash-offset=8192',
    ]);
    await using made = await bench();
    const { artifactId } = offers[0];
    const source = { kind: 'linux', kernel: '/boot/vmlinuz', initrd: null } as const;
    const kernelArguments = words.join(' ');
    const files = { artifactId, version: '1', source, kernelArguments };
    await made.host.backend.installBootFiles('b', files);
    const order = await readFile(made.disk.env.path, 'latin1');
    expect(order).toContain(`args_b=${kernelArguments}\n`);
    await expect(
      made.host.backend.installBootFiles('b', { ...files, kernelArguments: 'root=/dev/vda1' }),
    ).rejects.toMatchObject({ code: 'E_BOOT' });
  });
});
