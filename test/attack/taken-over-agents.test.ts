/**
 * A control plane that was taken over, against agents as they run on hosts: the shipped program, its process, its disk. The
 * attacker has the database, every key that control ever held, and the answers to every request. Roles were moved away before.
 */
import { cpSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { rootKeyPath } from '#/control/data-dir.ts';
import {
  metaOf,
  publishOnline,
  readCurrent,
  readRoleDocument,
  type Repository,
  signDocument,
} from '#/control/trust/repository.ts';
import type { Assignment, ReportDocument } from '#/protocol/documents.ts';
import type { ArtifactId, GroupName } from '#/protocol/ids.ts';
import {
  type HostState,
  memoryOf,
  movedForward,
  stateOf,
} from '#/test/support/attack/host-state.ts';
import { Intruder } from '#/test/support/attack/intruder.ts';
import {
  enrolAgent,
  type EnrolledAgent,
  releaseBundle,
} from '#/test/support/attack/real-agents.ts';
import { agentBuilder } from '#/test/prove/shipped-agent.ts';
import { startWorld, type World } from '#/test/support/control/world.ts';
import { Operator } from '#/test/support/trust/operator.ts';

const builder = agentBuilder(process.env['SWITCHBACK_AGENT'] ?? null);
let world: World;
let intruder: Intruder;
let op: Operator;
let dir = '';
const agents: EnrolledAgent[] = [];
const versions = new Map<number, ArtifactId>();
const artifact = (release: number): ArtifactId => versions.get(release)!;
const history = new Map<string, Uint8Array>();
let stolen: Repository['keys'] = [];
let generation = 1000;

const remember = (): void => {
  for (const [name, bytes] of world.control.engine.fleet.trust) history.set(name, bytes);
};
const thief = (): Repository => ({
  store: { read: (name) => world.control.engine.fleet.trust.get(name) ?? null },
  keys: stolen,
  nowMs: Date.now(),
});
type Planted = Readonly<Record<string, { version: number; bytes: Uint8Array }>>;
/** Puts files into the database past every rule of control, with a fresh snapshot that lists them. */
async function plant(roles: Planted): Promise<void> {
  const current = readCurrent(thief());
  const meta = { ...current.snapshot?.meta };
  const files = Object.entries(roles).map(([role, { version, bytes }]) => {
    meta[`${role}.json`] = metaOf(version, bytes);
    return { name: `metadata/${version}.${role}.json`, bytes };
  });
  const online = publishOnline(thief(), current, meta);
  await world.control.engine.change((draft) => draft.publish([...files, ...online]));
}
/** A role as it stands, with a change, signed by everything that was stolen. */
function forged(role: string, change: (document: ReturnType<typeof readRoleDocument>) => void) {
  const document = readRoleDocument(thief(), role);
  change(document);
  const version = document.version + 1;
  const keyIds = stolen.map((key) => key.signer.key.keyId);
  const bytes = signDocument({ ...document, version }, { keyIds, threshold: 1 }, stolen);
  return { [role]: { version, bytes } };
}
const played = (role: string, version: number): Planted => ({
  [role]: { version, bytes: history.get(`metadata/${version}.${role}.json`)! },
});

/** Everybody is told to install this, now. */
function offer(artifactId: ArtifactId, changes: Partial<Assignment> = {}): void {
  generation += 1;
  for (const { id } of agents)
    intruder.offers.set(id, {
      generation,
      group: 'web' as GroupName,
      offer: {
        artifactId,
        rolloutId: null,
        sources: [`${intruder.url}/bundle/${artifactId}`],
        retryGeneration: generation,
      },
      halted: false,
      rollbackGeneration: 0,
      why: '',
      ...changes,
    });
}
const events = (id: string): ReportDocument['events'] =>
  intruder.reports.filter(({ host }) => host === id).flatMap((report) => report.events);
const ended = (id: string, artifactId: ArtifactId) =>
  events(id).find(
    (event) =>
      event.artifactId === artifactId &&
      ['refused', 'aborted', 'confirmed', 'rolled-back'].includes(event.phase),
  ) ?? null;
const fact = (id: string, name: string): unknown =>
  intruder.reports
    .filter(({ host }) => host === id)
    .map(({ facts }) => facts?.[name])
    .findLast((value) => value !== undefined && value !== '');

async function onAll(isDone: (id: string) => boolean): Promise<void> {
  for (const { agent, id } of agents)
    await agent.until(() => (isDone(id) ? true : null), {
      told: () => JSON.stringify(intruder.reports.slice(-3)),
    });
}
const statesOf = (): Promise<HostState[]> =>
  Promise.all(agents.map(({ agent, id }) => stateOf(agent, id)));

/** On each host: refused with this code and reported so, what runs still runs, and nothing remembered went back. */
async function refused(attack: () => Promise<void>, code: string, artifactId: ArtifactId) {
  for (const { agent } of agents) {
    await agent.stop();
    cpSync(agent.disk, `${agent.disk}.before`, { recursive: true, verbatimSymlinks: true });
    agent.start();
  }
  const before = await statesOf();
  const truth = { ...readCurrent(thief()).snapshot?.meta };
  intruder.reports.length = 0;
  await attack();
  offer(artifactId);
  await onAll((id) => ended(id, artifactId) !== null);
  const after = await statesOf();
  for (const [at, { id }] of agents.entries()) {
    const { phase, code: got, message } = ended(id, artifactId) ?? {};
    expect([phase, got], message).toEqual(['refused', code]);
    expect(after[at]).toMatchObject({ link: before[at]?.link, digest: before[at]?.digest });
    expect(intruder.reports.findLast(({ host }) => host === id)?.running).toBe(artifact(2));
    movedForward(before[at]!, after[at]!);
  }
  // A host that is put back would take the offer up anew, and be heard in the middle of the next attack.
  intruder.offers.clear();
  // The next attack begins as this one did: what a forged snapshot left behind would refuse everything after it.
  for (const { agent } of agents) {
    await agent.stop();
    // Reports are counted on: a count that goes back within one boot is that of a clone, and shuts the host out.
    cpSync(`${agent.disk}/state/outbox`, `${agent.disk}.before/state/outbox`, { recursive: true });
    rmSync(agent.disk, { recursive: true });
    renameSync(`${agent.disk}.before`, agent.disk);
    agent.start();
  }
  const online = publishOnline(thief(), readCurrent(thief()), truth);
  await world.control.engine.change((draft) => draft.publish(online));
}

const signers = (role: string): string[] => ['--key', `${role}-a.json`, `${role}-b.json`];

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'sb-operator-'));
  // Hosts sign for the address that they know, which is his.
  intruder = await Intruder.start(() => world.control.url);
  world = await startWorld({ publicUrl: intruder.url });
  await world.group('web');
  op = new Operator(dir, () => world.control.url, world.adminToken);
  for (const number of [1, 2, 3])
    versions.set(number, await releaseBundle(world, intruder, dir, number));
  const body = { artifactId: artifact(1), reason: 'first' };
  await world.admin.call('groupPin', { params: { group: 'web' }, body });
  remember();
  stolen = world.control.desk.keys;
  const roles = {
    'grp-web': 'operator',
    'img-web': 'release',
    policy: 'policy',
    targets: 'targets',
  };
  for (const [role, use] of Object.entries(roles)) {
    for (const half of ['a', 'b']) op.key(`${role}-${half}.json`, use as 'operator');
    const to = [`${role}-a.json`, `${role}-b.json`];
    const root = role === 'targets' ? [rootKeyPath(world.dir)] : [];
    await op.ok(
      ...['trust', 'harden', role, '--to', ...to, '--threshold', '2'],
      ...[...signers(role), ...root, '--reason', 'x'],
    );
    remember();
  }
  const often = '[trust]\nrefresh_ms = 1000\n';
  for (let count = 0; count < 2; count += 1)
    agents.push(await enrolAgent(world, intruder, await builder.program(), 'web', often));
  await onAll((id) => ended(id, artifact(1))?.phase === 'confirmed');
  await op.ok('trust', 'pin', 'web', '1.2.0', ...signers('grp-web'), '--reason', 'second');
  remember();
  await onAll((id) => ended(id, artifact(2))?.phase === 'confirmed');
  await op.ok('trust', 'withdraw', '1.1.0', ...signers('policy'), '--reason', 'hole');
  await op.ok('trust', 'floor', 'web', '2', ...signers('policy'), '--reason', 'hole');
  remember();
  for (const { agent, id } of agents)
    await agent.until(async () => ((await memoryOf(agent, id)).floors['web'] === 2 ? true : null));
}, 900_000);
afterAll(async () => {
  for (const { agent } of agents) {
    await agent.stop();
    rmSync(agent.directory, { recursive: true, force: true });
  }
  await intruder?.stop();
  await world[Symbol.asyncDispose]();
  rmSync(dir, { recursive: true, force: true });
  builder.remove();
}, 120_000);

describe('whoever holds control, against hosts that run', () => {
  it('X01 offers what no pin names', () => refused(async () => {}, 'E_PIN', artifact(3)));

  it('X01 re-pins the group with the keys that control had', () =>
    refused(() => plant(forged('grp-web', () => undefined)), 'E_SIGS', artifact(3)));

  it.each(['targets', 'policy'])('X01 signs %s, which names all other keys', (role) =>
    refused(() => plant(forged(role, () => undefined)), 'E_SIGS', artifact(3)),
  );

  it('X02 serves the pin of before', async () => {
    const { version } = readRoleDocument(thief(), 'grp-web');
    await refused(() => plant(played('grp-web', version - 1)), 'E_ROLLBACK', artifact(1));
  });

  it('X08 removes a revocation and lowers a floor', async () => {
    const { version } = readRoleDocument(thief(), 'policy');
    await refused(() => plant(played('policy', version - 1)), 'E_ROLLBACK', artifact(3));
    for (const { memory } of await statesOf())
      expect(memory).toMatchObject({ floors: { web: 2 }, revokedArtifacts: [artifact(1)] });
  });

  it('X04 starts all waves at once: the hosts wait for the signed time, and say so', async () => {
    await op.ok(
      ...['trust', 'pin', 'web', '1.3.0', ...signers('grp-web')],
      ...['--wave', '100@2h', '--reason', 'third, from tonight on'],
    );
    remember();
    const before = await statesOf();
    intruder.reports.length = 0;
    offer(artifact(3));
    await onAll((id) => fact(id, 'trustWaits') !== undefined);
    const after = await statesOf();
    for (const [at, { id }] of agents.entries()) {
      expect(fact(id, 'trustWaits')).toMatch(/wave/);
      expect(ended(id, artifact(3))).toBeNull();
      expect(after[at]).toMatchObject({ link: before[at]?.link, digest: before[at]?.digest });
      movedForward(before[at]!, after[at]!);
    }
  });

  it('X06 edits an entry of the log under the hosts: the export that they witness does not verify', async () => {
    const before = await statesOf();
    await world.control.stop();
    const db = new DatabaseSync(join(world.dir, 'control.db'));
    db.prepare("UPDATE audit SET actor = 'nobody' WHERE type = 'trust.publish'").run();
    db.close();
    await world.restart();
    await op.ok('audit', 'export', '--out', 'export');
    const verified = await op.run('audit', 'verify', '--export', 'export');
    expect(verified.exitCode).toBe(20);
    expect(verified.stderr).toContain('E_LOG');
    const after = await statesOf();
    for (const at of agents.keys()) {
      expect(after[at]).toMatchObject({ link: before[at]?.link, digest: before[at]?.digest });
      movedForward(before[at]!, after[at]!);
    }
  });

  it('X09 shows a host on a version that it refused: what the host signed says otherwise', async () => {
    const [{ id }] = agents as [EnrolledAgent];
    const { running } = intruder.reports.findLast(({ host }) => host === id)!;
    expect(running).toBe(artifact(2));
    await world.control.stop();
    const db = new DatabaseSync(join(world.dir, 'control.db'));
    db.prepare("UPDATE audit SET type = 'attempt.confirmed' WHERE type = 'attempt.refused'").run();
    db.prepare('DELETE FROM log_hashes').run();
    db.close();
    await world.restart();
    await op.ok('audit', 'export', '--out', 'forged');
    const verified = await op.run('audit', 'verify', '--export', 'forged');
    expect([verified.exitCode, verified.stderr]).toEqual([20, expect.stringContaining('E_LOG')]);
    for (const state of await statesOf()) expect(state.link).toBe(`releases/${artifact(2)}`);
  });

  it('X03 freezes the fleet: the hosts say that they are stale, a day later, and stay as they are', async () => {
    const before = await statesOf();
    for (const { agent } of agents) await agent.stop();
    intruder.reports.length = 0;
    offer(artifact(3), { offer: null });
    for (const { agent } of agents) agent.start({ clockOffMs: 26 * 3_600_000 });
    await onAll((id) => fact(id, 'trustStale') === true);
    const after = await statesOf();
    for (const [at, { id }] of agents.entries()) {
      expect(fact(id, 'trustCode')).toBe('E_EXPIRED');
      expect(after[at]).toMatchObject({ link: before[at]?.link, digest: before[at]?.digest });
      movedForward(before[at]!, after[at]!);
    }
  });
});
