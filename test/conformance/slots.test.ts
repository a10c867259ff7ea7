/** The slots of each kind of host against what the machine relies on. */
import { describe } from 'vitest';
import { createDirectoryBootControl } from '#/agent/adapters/boot-directory.ts';
import { makeDirectory, replaceFile } from '#/agent/adapters/durable.ts';
import { createDirectorySlots } from '#/agent/adapters/slots-directory.ts';
import { directoryLayout } from '#/agent/install/layout.ts';
import type { Offer } from '#/agent/ports.ts';
import type { ArtifactId } from '#/protocol/ids.ts';
import { emptyImage } from '#/test/support/sim-fs/image.ts';
import { simFs } from '#/test/support/sim-fs/sim-fs.ts';
import { manifestFor } from '#/test/support/trust-world.ts';
import { type SlotsHost, slotsConform } from './slots.ts';

const root = '/app';
const layout = directoryLayout(root);
const offerOf = (id: string, release: number): Offer => ({
  artifactId: id.repeat(64) as ArtifactId,
  manifest: manifestFor(release),
  manifestBytes: new Uint8Array(),
  sources: [],
  rolloutId: null,
  seq: 1,
  retryGeneration: 0,
});

async function directories(): Promise<SlotsHost> {
  const { files } = simFs(emptyImage());
  await makeDirectory(files, root);
  const slots = createDirectorySlots({
    root,
    stateDirectory: '/state',
    files,
    space: async () => ({ freeBytes: 1e12, freeInodes: null }),
    usedBytes: async () => 0,
    mountsBelow: async () => [],
    reserveBytes: 0,
    reserveInodes: 0,
    newRootId: () => 'ab'.repeat(16),
  });
  return {
    slots,
    boot: createDirectoryBootControl({ root, files }),
    offers: [offerOf('a', 1), offerOf('b', 2)],
    async put(offer) {
      const slot = await slots.targetFor(offer.artifactId);
      await slots.begin(offer, slot);
      await replaceFile(files, `${layout.staging(slot)}/content`, Buffer.from(slot));
      await makeDirectory(files, layout.meta(slot));
      await files.rename(layout.staging(slot), layout.release(slot));
      await makeDirectory(files, layout.release(slot));
      await slots.mark(slot, 'verified', null);
    },
    reboot: async () => undefined,
    [Symbol.asyncDispose]: async () => undefined,
  };
}

describe('directories', () => slotsConform(directories));
