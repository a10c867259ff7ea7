/** Slots and the link of a directory host in every crash state of every model: what is live is whole, and a repeat ends right. */
import { describe, expect, it } from 'vitest';
import { createDirectoryBootControl } from '#/agent/adapters/boot-directory.ts';
import { makeDirectory, replaceFile } from '#/agent/adapters/durable.ts';
import { createDirectorySlots } from '#/agent/adapters/slots-directory.ts';
import { directoryLayout } from '#/agent/install/layout.ts';
import type { FilePort, Offer, Slots } from '#/agent/ports.ts';
import type { ArtifactId } from '#/protocol/ids.ts';
import { crashStates, persistenceModels } from '#/test/support/sim-fs/crash-states.ts';
import { emptyImage, type Image } from '#/test/support/sim-fs/image.ts';
import { simFs, type SimFs } from '#/test/support/sim-fs/sim-fs.ts';

const root = '/app';
const layout = directoryLayout(root);
const older = '0'.repeat(64);
const old = 'a'.repeat(64);
const next = 'b'.repeat(64);

const boot = (files: FilePort) => createDirectoryBootControl({ root, files });
const slotsOn = (files: FilePort): Slots =>
  createDirectorySlots({
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
const offerOf = (id: string): Offer => ({
  artifactId: id as ArtifactId,
  manifest: { version: '1', release: 1 } as Offer['manifest'],
  manifestBytes: new Uint8Array(),
  sources: [],
  rolloutId: null,
  seq: 1,
  retryGeneration: 0,
});

/** Writes a version and makes it verified, as the installer does. */
async function put(files: FilePort, id: string): Promise<void> {
  const slots = slotsOn(files);
  await slots.begin(offerOf(id), id);
  await replaceFile(files, `${layout.staging(id)}/content`, Buffer.from(id));
  await makeDirectory(files, layout.meta(id));
  await files.rename(layout.staging(id), layout.release(id));
  await makeDirectory(files, layout.release(id));
  await slots.mark(id, 'verified', null);
}

/** A host on which `old` is live, `older` is previous and `next` is verified. */
async function host(): Promise<Image> {
  const sim = simFs(emptyImage());
  await makeDirectory(sim.files, root);
  for (const id of [older, old]) {
    await put(sim.files, id);
    await boot(sim.files).switchTo(id);
    await boot(sim.files).commit(id);
    await slotsOn(sim.files).mark(id, 'good', null);
  }
  await put(sim.files, next);
  return sim.image();
}

/** Runs `act`, then `check` in every crash state; `done` says that `act` had returned. Gives the number of states. */
async function explore(
  start: Image,
  act: (sim: SimFs) => Promise<void>,
  check: (files: FilePort, done: boolean) => Promise<void>,
): Promise<number> {
  let states = 0;
  for (const model of persistenceModels) {
    const sim = simFs(start);
    await act(sim);
    sim.mark('done');
    for (const state of crashStates({ base: start, log: sim.log }, model, { seed: 7 })) {
      await check(simFs(state.image).files, state.world === 'done');
      states += 1;
    }
  }
  return states;
}

async function liveOf(files: FilePort): Promise<string | null> {
  const { live, liveArtifact } = await slotsOn(files).observe();
  // What is named is there, whole.
  expect(liveArtifact).toBe(live);
  return live;
}

describe('a power cut', () => {
  it('F31 in the switch: old or new, whole; a repeat and the commit end on new with old as previous', async () => {
    const states = await explore(
      await host(),
      async ({ files }) => void (await boot(files).switchTo(next)),
      async (files, done) => {
        expect(done ? [next] : [old, next]).toContain(await liveOf(files));
        await boot(files).switchTo(next);
        await boot(files).commit(next);
        expect(await liveOf(files)).toBe(next);
        expect(await files.readlink(layout.previous)).toBe(`releases/${old}`);
      },
    );
    expect(states).toBeGreaterThan(30);
  });

  it('F31 F54 in the switch, then a rollback: old, with its own previous', async () => {
    await explore(
      await host(),
      async ({ files }) => void (await boot(files).switchTo(next)),
      async (files) => {
        await boot(files).rollBackTo(old, next);
        expect(await liveOf(files)).toBe(old);
        expect(await files.readlink(layout.previous)).toBe(`releases/${older}`);
      },
    );
  });

  it('F31 in the rollback: old or new; a repeat ends on old', async () => {
    const switched = simFs(await host());
    await boot(switched.files).switchTo(next);
    await explore(
      switched.image(),
      async ({ files }) => void (await boot(files).rollBackTo(old, next)),
      async (files, done) => {
        expect(done ? [old] : [old, next]).toContain(await liveOf(files));
        await boot(files).rollBackTo(old, next);
        expect(await liveOf(files)).toBe(old);
      },
    );
  });

  it('F31 in the commit: new stays live; a repeat leaves old as previous', async () => {
    const switched = simFs(await host());
    await boot(switched.files).switchTo(next);
    await explore(
      switched.image(),
      async ({ files }) => boot(files).commit(next),
      async (files) => {
        expect(await liveOf(files)).toBe(next);
        const previous = await files.readlink(layout.previous);
        expect([`releases/${old}`, `releases/${older}`]).toContain(previous);
        await boot(files).commit(next);
        expect(await files.readlink(layout.previous)).toBe(`releases/${old}`);
      },
    );
  });

  it('F21 in begin: the slot is never selectable; a repeat begins it', async () => {
    const fresh = 'c'.repeat(64);
    const states = await explore(
      await host(),
      async ({ files }) => slotsOn(files).begin(offerOf(fresh), fresh),
      async (files, done) => {
        const statuses = (await slotsOn(files).observe()).slots.filter(
          ({ slot }) => slot === fresh,
        );
        expect(statuses.every(({ status }) => status === 'writing')).toBe(true);
        if (done) expect(statuses).toHaveLength(1);
        await expect(boot(files).switchTo(fresh)).rejects.toMatchObject({ code: 'E_SLOT' });
        await slotsOn(files).begin(offerOf(fresh), fresh);
        expect((await files.stat(layout.staging(fresh)))?.kind).toBe('directory');
      },
    );
    expect(states).toBeGreaterThan(30);
  });

  it('H02 in discard and prune: what is in use stays whole; a repeat leaves nothing of the rest', async () => {
    await explore(
      await host(),
      async ({ files }) => slotsOn(files).prune([]),
      async (files) => {
        expect(await liveOf(files)).toBe(old);
        await slotsOn(files).prune([]);
        const left = (await files.list(layout.releases)).map(({ name }) => name);
        expect(left).toEqual([`.meta-${older}`, `.meta-${old}`, older, old].sort());
      },
    );
  });

  it('F23 a verified mark is there once acknowledged, and is old or new before', async () => {
    const sim = simFs(await host());
    await slotsOn(sim.files).mark(next, 'written', null);
    await explore(
      sim.image(),
      async ({ files }) => slotsOn(files).mark(next, 'verified', null),
      async (files, done) => {
        const record = (await slotsOn(files).observe()).slots.find(({ slot }) => slot === next);
        expect(done ? ['verified'] : ['written', 'verified']).toContain(record?.status);
      },
    );
  });
});

describe('a failing operation', () => {
  it('F29 H02 every operation of a switch fails once: old or new is live, and a repeat ends on new', async () => {
    const start = await host();
    for (const errno of ['EIO', 'ENOSPC', 'EROFS']) {
      for (let strike = 0; strike < 40; strike += 1) {
        const sim = simFs(start, ({ index }) => (index === strike ? errno : null));
        const outcome = await boot(sim.files)
          .switchTo(next)
          .then(
            () => 'done',
            (error: { code?: string }) => error.code,
          );
        expect(['done', 'E_IO', 'E_SPACE', 'E_READ_ONLY']).toContain(outcome);
        const after = simFs(sim.image()).files;
        expect([old, next]).toContain(await liveOf(after));
        await boot(after).switchTo(next);
        expect(await liveOf(after)).toBe(next);
      }
    }
  });
});
