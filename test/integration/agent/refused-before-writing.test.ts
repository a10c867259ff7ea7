/** Versions and disks that are not for this host: refused at the preflight, before the first byte (F16, F17, F53, F65). */
import { cp, mkdir, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { nodeFiles } from '#/agent/adapters/file-port.ts';
import { requireSameRoot } from '#/agent/adapters/root-identity.ts';
import { openStateStore } from '#/agent/adapters/state-store.ts';
import { systemClock } from '#/agent/adapters/clock.ts';
import { createExecutors, type HostPorts, planOf } from '#/agent/executors.ts';
import type { Offer } from '#/agent/ports.ts';
import { bundleOf, makeHost, offerOf } from '#/test/support/install/host.ts';
import { scratch } from '#/test/support/install/payloads.ts';

let work: AsyncDisposable & { readonly path: string };
let host: Awaited<ReturnType<typeof makeHost>>;
let first: Offer;
const opened: { close(): Promise<void> }[] = [];

beforeEach(async () => {
  work = await scratch();
  await mkdir(join(work.path, 'content'));
  await writeFile(join(work.path, 'content/version'), 'one');
  await mkdir(join(work.path, 'root'));
  host = await makeHost(join(work.path, 'root'));
  first = await version(3, {});
  await host.install(first);
});
afterEach(async () => {
  for (const one of opened.splice(0)) await one.close();
  await work[Symbol.asyncDispose]();
});

async function version(release: number, definition: Record<string, unknown>): Promise<Offer> {
  const out = join(work.path, `${release}.bundle`);
  const input = join(work.path, 'content');
  return offerOf(await bundleOf({ input, out, version: `1.0.${release}`, release, definition }));
}

/** The preflight as the agent runs it: over its own store, slots and traits. */
async function executors(
  offer: Offer,
  changes: Partial<HostPorts> = {},
): Promise<ReturnType<typeof createExecutors>> {
  const store = openStateStore({
    files: nodeFiles(),
    directory: join(work.path, 'root/state'),
    reserveBytes: 0,
  });
  expect((await store.load()).writable).toBe(true);
  opened.push(store);
  await store.keepManifest(offer.artifactId, offer.manifestBytes);
  const ports = {
    clock: systemClock(),
    store,
    slots: host.slots,
    host: { id: 'h', group: 'web', class: 'web' },
    traits: { arch: 'amd64', agent: 1_000 },
    localChecks: [],
    acceptOneWay: false,
    identityOf: (slot: string) => host.layout.release(slot),
    ...changes,
  } as unknown as HostPorts;
  return createExecutors(ports);
}

async function preflight(offer: Offer, changes: Partial<HostPorts> = {}): Promise<unknown> {
  const run = await executors(offer, changes);
  return run.preflight(
    { artifactId: offer.artifactId, held: false } as never,
    new AbortController().signal,
  );
}

/** Everything below the slot root, by name. */
const everything = async (): Promise<readonly string[]> =>
  (await readdir(join(work.path, 'root'), { recursive: true })).filter(
    (name) => !name.startsWith('state'),
  );

it('a version for this host passes', async () => {
  const next = await version(4, {});
  expect(await preflight(next)).toMatchObject({ slot: next.artifactId });
});

it.each([
  ['another class', { class: 'db' }, 'E_CLASS', /class db, this host is of class web/],
  ['another architecture', { arch: 'arm64' }, 'E_CLASS', /for arm64, this host is amd64/],
  ['a newer agent', { minAgent: '0.2.0' }, 'E_AGENT_TOO_OLD', /needs agent 2000, this is 1000/],
])(
  'F16 a version for %s is refused before anything is written',
  async (_name, definition, code, message) => {
    const before = await everything();
    const other = await version(4, definition);
    await expect(preflight(other)).rejects.toMatchObject({ code });
    await expect(preflight(other)).rejects.toThrow(message);
    expect(await everything()).toEqual(before);
    expect(await host.read('version')).toBe('one');
  },
);

it('F17 a version that needs a stepping stone is refused with the release that it needs', async () => {
  const before = await everything();
  const far = await version(9, { minFrom: 7 });
  await expect(preflight(far)).rejects.toMatchObject({
    code: 'E_STEPPING_STONE',
    details: { minFrom: 7, running: 3 },
  });
  await expect(preflight(far)).rejects.toThrow('from release 7, this host runs 3');
  expect(await everything()).toEqual(before);
  // Over the stone it goes.
  const stone = await version(7, {});
  await preflight(stone);
  await host.install(stone);
  expect(await preflight(far)).toMatchObject({ slot: far.artifactId });
});

it('F53 a version that cannot be taken back needs the consent of the host, and its plan says so', async () => {
  const before = await everything();
  const trial = { oneWay: true };
  const oneWay = await version(4, { trial });
  expect(oneWay.manifest.trial.oneWay).toBe(true);
  await expect(preflight(oneWay)).rejects.toMatchObject({ code: 'E_NOT_ALLOWED_NOW' });
  await expect(preflight(oneWay)).rejects.toThrow('slots.accept_one_way');
  expect(await everything()).toEqual(before);
  expect(await preflight(oneWay, { acceptOneWay: true })).toMatchObject({
    slot: oneWay.artifactId,
  });
  expect(planOf(oneWay.manifest, []).oneWay).toBe(true);
  expect(planOf(first.manifest, []).oneWay).toBe(false);
});

it('F47 a version without any check that is due crashes all the time: its restarts are told', async () => {
  const run = await executors(first, { restarts: () => 4 });
  const effect = { artifactId: first.artifactId, checks: [] };
  const told = await run.probe(effect as never, new AbortController().signal);
  expect(told).toEqual({ results: [], restarts: 4 });
});

describe('the disk below the slots was replaced', () => {
  const root = (): string => join(work.path, 'root');
  /** Takes the disk away; what the agent keeps of its own stays, on another disk. */
  async function withoutDisk(): Promise<void> {
    await cp(root(), join(work.path, 'away'), { recursive: true, verbatimSymlinks: true });
    for (const name of ['releases', 'current', 'previous', '.former', '.slots.json']) {
      await rm(join(root(), name), { recursive: true, force: true });
    }
  }

  it('F65 by an empty one, as when it is not mounted: nothing is written to it', async () => {
    const next = await version(4, {});
    await withoutDisk();
    const before = await everything();
    const refused = { code: 'E_DISK', details: { found: null } };
    await expect(preflight(next)).rejects.toMatchObject(refused);
    await expect(host.slots.begin(next, next.artifactId)).rejects.toMatchObject(refused);
    await expect(host.slots.discard(next.artifactId)).rejects.toMatchObject(refused);
    expect(await everything()).toEqual(before);
  });

  it('F65 by the disk of another host: nothing of it is pruned', async () => {
    const next = await version(4, {});
    await withoutDisk();
    const foreign = 'f'.repeat(64);
    await mkdir(join(root(), 'releases', foreign), { recursive: true });
    await symlink(`releases/${foreign}`, join(root(), 'current'));
    const elsewhere = join(work.path, 'other-state');
    await requireSameRoot(nodeFiles(), root(), elsewhere, () => '9'.repeat(32));
    const before = await everything();
    const refused = { code: 'E_DISK', details: { found: '9'.repeat(32) } };
    await expect(preflight(next)).rejects.toMatchObject(refused);
    await expect(host.slots.prune([])).rejects.toMatchObject({ code: 'E_DISK' });
    expect(await everything()).toEqual(before);
  });

  it('F65 and comes back: the host goes on; replaced on purpose, it goes on once its record is removed', async () => {
    const next = await version(4, {});
    await withoutDisk();
    await expect(preflight(next)).rejects.toMatchObject({ code: 'E_DISK' });
    await cp(join(work.path, 'away'), root(), { recursive: true, verbatimSymlinks: true });
    expect(await preflight(next)).toMatchObject({ slot: next.artifactId });
    await rm(join(root(), '.slots.json'));
    await expect(preflight(next)).rejects.toMatchObject({ code: 'E_DISK' });
    await rm(join(root(), 'state/slots-root.json'));
    expect(await preflight(next)).toMatchObject({ slot: next.artifactId });
    await host.install(next);
  });
});
