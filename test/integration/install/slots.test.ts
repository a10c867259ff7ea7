/** Directory slots and their link on a real file system. */
import { mkdir, readlink, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Offer } from '#/agent/ports.ts';
import { bundleOf, makeHost, offerOf } from '#/test/support/install/host.ts';
import { makeTree, scratch } from '#/test/support/install/payloads.ts';

let work: AsyncDisposable & { readonly path: string };
let offers: readonly [Offer, Offer, Offer];
let hosts = 0;

beforeAll(async () => {
  work = await scratch();
  const built: Offer[] = [];
  for (const release of [1, 2, 3]) {
    const input = join(work.path, `v${release}`);
    await mkdir(input);
    await makeTree(input, { version: `${release}` });
    built.push(
      offerOf(await bundleOf({ input, out: `${input}.bundle`, version: `${release}`, release })),
    );
  }
  const [one, two, three] = built;
  if (!one || !two || !three) throw new Error('three bundles');
  offers = [one, two, three];
});
afterAll(async () => {
  await work[Symbol.asyncDispose]();
});

async function freshHost(options: Parameters<typeof makeHost>[1] = {}) {
  hosts += 1;
  const root = join(work.path, `host-${hosts}`);
  await mkdir(root);
  return await makeHost(root, options);
}

const statuses = (host: Awaited<ReturnType<typeof freshHost>>) =>
  host.slots
    .observe()
    .then(({ slots }) => Object.fromEntries(slots.map(({ slot, status }) => [slot, status])));

describe('preflight', () => {
  it('F18 too little room: E_SPACE says how much is missing and where', async () => {
    const space = async () => ({ freeBytes: 1_000_000, freeInodes: null });
    const host = await freshHost({ slots: { space, reserveBytes: 500_000 } });
    const preflight = host.slots.preflight(offers[0], offers[0].artifactId);
    await expect(preflight).rejects.toMatchObject({
      code: 'E_SPACE',
      details: { path: host.root, freeBytes: 1_000_000 },
    });
    await expect(preflight).rejects.toThrow(
      /^\d+\.\d [KM]iB are missing on .*: .* needed, 488\.3 KiB of it a reserve, 976\.6 KiB free$/,
    );
  });

  it('F20 too few inodes: E_SPACE', async () => {
    const space = async () => ({ freeBytes: 1e12, freeInodes: 10 });
    const host = await freshHost({ slots: { space } });
    const preflight = host.slots.preflight(offers[0], offers[0].artifactId);
    await expect(preflight).rejects.toMatchObject({ code: 'E_SPACE' });
  });

  it('F18 what an interrupted download holds already counts as room', async () => {
    let freeBytes = 1e12;
    const host = await freshHost({
      slots: { space: async () => ({ freeBytes, freeInodes: null }) },
    });
    await host.download(offers[0]);
    freeBytes = 1_000_000;
    await host.slots.preflight(offers[0], offers[0].artifactId);
    await rm(host.layout.staging(offers[0].artifactId), { recursive: true });
    const again = host.slots.preflight(offers[0], offers[0].artifactId);
    await expect(again).rejects.toMatchObject({ code: 'E_SPACE' });
  });

  it('F26 the target is live: refused, not begun', async () => {
    const host = await freshHost();
    await host.install(offers[0]);
    const slot = offers[0].artifactId;
    const refused = { code: 'E_NOT_ALLOWED_NOW' };
    await expect(host.slots.preflight(offers[0], slot)).rejects.toMatchObject(refused);
    await expect(host.slots.begin(offers[0], slot)).rejects.toMatchObject(refused);
    expect(await statuses(host)).toEqual({ [slot]: 'good' });
  });

  it('F26 something is mounted in the target: refused', async () => {
    const host = await freshHost({ slots: { mountsBelow: async (path) => [`${path}/proc`] } });
    const preflight = host.slots.preflight(offers[0], offers[0].artifactId);
    await expect(preflight).rejects.toMatchObject({ code: 'E_NOT_ALLOWED_NOW' });
  });

  it('F15 a slot name that is a path is refused everywhere', async () => {
    const host = await freshHost();
    for (const slot of ['../../etc', '', '.', 'a'.repeat(63), `${'a'.repeat(64)}/x`]) {
      await expect(host.slots.discard(slot)).rejects.toMatchObject({ code: 'E_USAGE' });
      await expect(host.slots.mark(slot, 'good', null)).rejects.toMatchObject({ code: 'E_USAGE' });
      await expect(host.boot.switchTo(slot)).rejects.toMatchObject({ code: 'E_SLOT' });
    }
  });
});

describe('what is really there decides', () => {
  it('a record whose directory is gone is empty', async () => {
    const host = await freshHost();
    await host.install(offers[0]);
    await host.install(offers[1]);
    await rm(host.layout.release(offers[0].artifactId), { recursive: true });
    expect(await statuses(host)).toMatchObject({ [offers[0].artifactId]: 'empty' });
  });

  it('F30 records are gone: the live slot is good, others must be verified again', async () => {
    const host = await freshHost();
    await host.install(offers[0]);
    await host.install(offers[1]);
    await rm(join(host.root, 'state/slots'), { recursive: true });
    const { live, liveArtifact, slots } = await host.slots.observe();
    expect(live).toBe(offers[1].artifactId);
    expect(liveArtifact).toBe(offers[1].artifactId);
    expect(slots).toMatchObject(
      [
        { slot: offers[0].artifactId, status: 'written', version: '1', release: 1 },
        { slot: offers[1].artifactId, status: 'good', version: '2', release: 2 },
      ].sort((a, b) => (a.slot < b.slot ? -1 : 1)),
    );
  });

  it('F30 a damaged record counts as none', async () => {
    const host = await freshHost();
    await host.install(offers[0]);
    await writeFile(join(host.root, `state/slots/${offers[0].artifactId}.json`), '{"schema":');
    expect(await statuses(host)).toEqual({ [offers[0].artifactId]: 'good' });
  });

  it('a verified record whose content is still in staging is not verified', async () => {
    const host = await freshHost();
    await host.download(offers[0]);
    await host.slots.mark(offers[0].artifactId, 'verified', null);
    expect(await statuses(host)).toEqual({ [offers[0].artifactId]: 'written' });
  });

  it('F35 current points out of releases: nothing of ours is live', async () => {
    const host = await freshHost();
    await symlink('/usr', host.layout.current);
    expect(await host.slots.observe()).toMatchObject({ live: null, liveArtifact: null });
  });

  it('current points to a version that is gone: live is named, its artifact is not there', async () => {
    const host = await freshHost();
    await host.install(offers[0]);
    await rm(host.layout.release(offers[0].artifactId), { recursive: true });
    expect(await host.slots.observe()).toMatchObject({
      live: offers[0].artifactId,
      liveArtifact: null,
    });
  });
});

describe('the link', () => {
  it('F31 a stray temporary link is removed and never followed', async () => {
    const host = await freshHost();
    await host.install(offers[0]);
    await symlink('releases/nowhere', join(host.root, '.current.tmp'));
    await host.install(offers[1]);
    expect(await readlink(host.layout.current)).toBe(`releases/${offers[1].artifactId}`);
    await symlink('releases/nowhere', join(host.root, '.current.tmp'));
    await host.slots.prune([]);
    expect(await readdir(host.root)).not.toContain('.current.tmp');
  });

  it('F54 a rollback goes to the slot that is named, not to previous', async () => {
    const host = await freshHost();
    await host.install(offers[0]);
    await host.install(offers[1]);
    await host.download(offers[2]);
    await host.verify(offers[2]);
    await host.boot.switchTo(offers[2].artifactId);
    await host.boot.rollBackTo(offers[1].artifactId, offers[2].artifactId);
    expect((await host.slots.observe()).live).toBe(offers[1].artifactId);
    expect(await readlink(host.layout.previous)).toBe(`releases/${offers[0].artifactId}`);
  });

  it('previous changes at the commit, also when the switch was repeated after a crash', async () => {
    const host = await freshHost();
    await host.install(offers[0]);
    await host.download(offers[1]);
    await host.verify(offers[1]);
    await host.boot.switchTo(offers[1].artifactId);
    await host.boot.switchTo(offers[1].artifactId);
    await expect(readlink(host.layout.previous)).rejects.toThrow('ENOENT');
    await host.boot.commit(offers[1].artifactId);
    await host.boot.commit(offers[1].artifactId);
    expect(await readlink(host.layout.previous)).toBe(`releases/${offers[0].artifactId}`);
  });

  it('a rollback of the first install leaves nothing live', async () => {
    const host = await freshHost();
    await host.download(offers[0]);
    await host.verify(offers[0]);
    await host.boot.switchTo(offers[0].artifactId);
    await host.boot.rollBackTo(null, offers[0].artifactId);
    await host.boot.rollBackTo(null, offers[0].artifactId);
    expect((await host.slots.observe()).live).toBeNull();
  });

  it('a switch to a version that is not there is refused and changes nothing', async () => {
    const host = await freshHost();
    await host.install(offers[0]);
    const missing = host.boot.switchTo(offers[1].artifactId);
    await expect(missing).rejects.toMatchObject({ code: 'E_SLOT' });
    expect((await host.slots.observe()).live).toBe(offers[0].artifactId);
  });

  it('a commit of a version that is not live is refused', async () => {
    const host = await freshHost();
    await host.install(offers[0]);
    const wrong = host.boot.commit(offers[1].artifactId);
    await expect(wrong).rejects.toMatchObject({ code: 'E_NOT_ALLOWED_NOW' });
  });
});

describe('removal', () => {
  it('prune removes old versions and strays, never live, previous or what is kept, and nothing foreign', async () => {
    const host = await freshHost();
    for (const offer of offers) await host.install(offer);
    const stray = 'f'.repeat(64);
    for (const name of [`.tmp-${stray}`, `.old-${stray}`, `.meta-${stray}`, 'notes']) {
      await mkdir(join(host.layout.releases, name, 'deep/er'), { recursive: true });
    }
    await host.slots.prune([]);
    const left = (await readdir(host.layout.releases)).sort();
    const [, two, three] = offers.map(({ artifactId }) => artifactId);
    expect(left).toEqual([`.meta-${three}`, `.meta-${two}`, `${two}`, `${three}`, 'notes'].sort());
  });

  it('prune keeps what it is told to keep', async () => {
    const host = await freshHost();
    for (const offer of offers) await host.install(offer);
    await host.slots.prune([offers[0].artifactId]);
    expect(Object.keys(await statuses(host))).toHaveLength(3);
  });

  it('discard refuses a slot in use and forgets any other', async () => {
    const host = await freshHost();
    for (const offer of offers) await host.install(offer);
    for (const used of [offers[1], offers[2]]) {
      const discard = host.slots.discard(used.artifactId);
      await expect(discard).rejects.toMatchObject({ code: 'E_NOT_ALLOWED_NOW' });
    }
    await host.slots.discard(offers[0].artifactId);
    await host.slots.discard(offers[0].artifactId);
    expect(Object.keys(await statuses(host))).toHaveLength(2);
  });

  it('F15 removal follows no link out of a slot', async () => {
    const host = await freshHost();
    const outside = join(work.path, `outside-${hosts}`);
    await mkdir(outside);
    await writeFile(join(outside, 'precious'), 'x');
    await host.download(offers[0]);
    await symlink(outside, join(host.layout.staging(offers[0].artifactId), 'escape'));
    await host.slots.discard(offers[0].artifactId);
    expect(await readdir(outside)).toEqual(['precious']);
  });
});
