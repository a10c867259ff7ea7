/** The whole agent on two root partitions through installs, reboots, commits and ways back. */
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { buildReleases, type Releases } from '#/test/support/lone-host/releases.ts';
import { scratch } from '#/test/support/install/payloads.ts';
import { whyNoMounts } from '#/test/support/install/small-file-system.ts';
import { type HostDisk, makeDisk } from '#/test/support/partitions/disk.ts';
import { Machine, mountPoints } from '#/test/support/partitions/machine.ts';
import { makeRootImage } from '#/test/support/partitions/root-image.ts';

const IMAGE_BYTES = 8 * 1024 * 1024;
const SLOT_BYTES = 10 * 1024 * 1024;
const impossible = whyNoMounts();
let work: AsyncDisposable & { readonly path: string };
let releases: Releases;
let first: string;
let machines = 0;

beforeAll(async () => {
  if (impossible !== null) return;
  work = await scratch();
  const image = async (name: string, version: string): Promise<string> => {
    const out = join(work.path, `${name}.img`);
    const links = { bin: 'usr/bin', lib: 'usr/lib', lib64: 'usr/lib64', sbin: 'usr/sbin' };
    await makeRootImage({
      out,
      version,
      sizeBytes: IMAGE_BYTES,
      directories: mountPoints,
      links,
    });
    return out;
  };
  first = await image('first', '0.0.1');
  releases = await buildReleases(work.path, {
    input: (_directory, number, version) => image(`v${number}`, version),
    definition: {
      activation: { kind: 'none' },
      trial: { soakMs: 20, deadlineMs: 60_000, maxBoots: 2 },
    },
  });
});
afterAll(async () => {
  if (impossible === null) await work[Symbol.asyncDispose]();
});

interface Bench extends AsyncDisposable {
  readonly machine: Machine;
  readonly disk: HostDisk;
}

/** A machine that was set up by hand: slot `a` runs an image that nobody signed. */
async function bench(): Promise<Bench> {
  machines += 1;
  const directory = join(work.path, `machine-${machines}`);
  const data = join(directory, 'data');
  mkdirSync(data, { recursive: true });
  const disk = await makeDisk(data, SLOT_BYTES, 'a');
  writeFileSync(disk.roots.a.path, readFileSync(first));
  writeFileSync(join(data, 'machine-id'), `${'5'.repeat(32)}\n`);
  cpSync(releases.anchorDirectory, join(data, 'anchor'), { recursive: true });
  for (const { file, version } of [releases.v1, releases.v2, releases.bad, releases.next]) {
    cpSync(file, join(data, `${version}.bundle`));
  }
  const machine = new Machine({ directory, disk, anchorDirectory: '/data/anchor' });
  return {
    machine,
    disk,
    async [Symbol.asyncDispose]() {
      await machine[Symbol.asyncDispose]();
      await disk[Symbol.asyncDispose]();
    },
  };
}

const install = (version: string) =>
  ({ kind: 'install-file', path: `/data/${version}.bundle` }) as const;

describe.skipIf(impossible !== null)('the agent on two partitions', () => {
  it('a good version is committed after its reboot, a bad one is taken back by a second one', async () => {
    await using made = await bench();
    const { machine } = made;
    expect(await machine.boot()).toBe('a');
    await machine.tell(install(releases.v1.version));
    await machine.rebootAsked();
    expect(machine.rebootOrders()).toEqual(['--no-block reboot']);
    expect(await machine.boot()).toBe('b');
    const good = await machine.rest();
    expect(good.live).toMatchObject({ slot: 'b', artifactId: releases.v1.artifactId });
    expect(good.lastEnd).toMatchObject({ phase: 'confirmed' });

    await machine.tell(install(releases.bad.version));
    await machine.rebootAsked();
    expect(await machine.boot()).toBe('a');
    await machine.rebootAsked();
    expect(await machine.boot()).toBe('b');
    const back = await machine.rest();
    expect(back.live).toMatchObject({ slot: 'b', artifactId: releases.v1.artifactId });
    expect(back.lastEnd).toMatchObject({ phase: 'rolled-back', code: 'E_UNHEALTHY' });
    expect(back.denied).toMatchObject([{ artifactId: releases.bad.artifactId }]);
  });

  it('F36 F38 F41 a version that dies in its kernel: tried more often than it may, or tried again later', async () => {
    await using made = await bench();
    const { machine } = made;
    await machine.boot();
    await machine.tell(install(releases.v1.version));
    await machine.rebootAsked();
    expect(await machine.boot('die')).toBe('b');
    expect(await machine.boot('die')).toBe('b');
    expect(await machine.boot()).toBe('a');
    const back = await machine.rest();
    expect(back.live).toBe(null);
    expect(back.lastEnd).toMatchObject({ phase: 'rolled-back', code: 'E_FELL_BACK' });
    expect(back.denied).toMatchObject([{ artifactId: releases.v1.artifactId }]);
    const { slots, boot } = await machine.status();
    expect(slots).toMatchObject([{ slot: 'a' }, { slot: 'b', status: 'bad' }]);
    expect(boot).toMatchObject({ loader: 'grub', default: 'a', trial: null, bad: ['b'] });
    // The host goes on with what is good.
    await machine.tell(install(releases.next.version));
    await machine.rebootAsked();
    await machine.boot();
    expect((await machine.rest()).lastEnd).toMatchObject({ phase: 'confirmed' });
  });

  it('F33 F34 a reboot that is refused, then one that does not reach the boot loader: the version is blamed', async () => {
    await using made = await bench();
    const { machine } = made;
    await machine.boot();
    machine.rebootsAre('refused');
    await machine.tell(install(releases.v1.version));
    // Both ways of asking, and then once more.
    await machine.rebootAsked(4);
    machine.rebootsAre('taken');
    await machine.rebootAsked(5);
    // Somebody chose the old slot in the menu: nothing was counted.
    await machine.bootInto('a');
    // It is armed once more, by a ticket of its own.
    await machine.rebootAsked();
    expect((await machine.status()).denied).toEqual([]);
    expect(await machine.boot()).toBe('b');
    expect((await machine.rest()).lastEnd).toMatchObject({ phase: 'confirmed' });
  });
});
