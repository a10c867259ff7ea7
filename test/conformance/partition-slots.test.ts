/** Partition slots and their boot loader on real block devices, against what the machine relies on. */
import { join } from 'node:path';
import { afterAll, beforeAll, describe } from 'vitest';
import type { Offer } from '#/agent/ports.ts';
import { bundleOf, offerOf } from '#/test/support/install/host.ts';
import { scratch } from '#/test/support/install/payloads.ts';
import { whyNoMounts } from '#/test/support/install/small-file-system.ts';
import { makeDisk } from '#/test/support/partitions/disk.ts';
import { makePartitionHost } from '#/test/support/partitions/host.ts';
import { makeRootImage } from '#/test/support/partitions/root-image.ts';
import { type SlotsHost, slotsConform } from './slots.ts';

const SLOT_BYTES = 24 * 1024 * 1024;
const IMAGE_BYTES = 16 * 1024 * 1024;
const impossible = whyNoMounts();
let work: AsyncDisposable & { readonly path: string };
let offers: readonly [Offer, Offer];
let hosts = 0;

beforeAll(async () => {
  if (impossible !== null) return;
  work = await scratch();
  const made: Offer[] = [];
  for (const release of [1, 2]) {
    const input = join(work.path, `v${release}.img`);
    await makeRootImage({ out: input, version: `${release}`, sizeBytes: IMAGE_BYTES });
    const out = join(work.path, `v${release}.bundle`);
    made.push(offerOf(await bundleOf({ input, out, version: `${release}`, release })));
  }
  const [one, two] = made;
  if (one === undefined || two === undefined) throw new Error('two versions');
  offers = [one, two];
});
afterAll(async () => {
  if (impossible === null) await work[Symbol.asyncDispose]();
});

/** Slot `b` runs a version that nobody knows: a machine is always booted from somewhere. */
async function partitions(): Promise<SlotsHost> {
  hosts += 1;
  const directory = join(work.path, `host-${hosts}`);
  const disk = await makeDisk(directory, SLOT_BYTES, 'b');
  const host = await makePartitionHost({ disk, directory, live: 'b' });
  return {
    slots: host.slots,
    boot: host.boot,
    offers,
    async put(offer) {
      await host.download(offer);
      await host.verify(offer);
    },
    reboot: async () => {
      await host.reboot();
    },
    [Symbol.asyncDispose]: () => disk[Symbol.asyncDispose](),
  };
}

describe.skipIf(impossible !== null)('partitions', () => slotsConform(partitions));
