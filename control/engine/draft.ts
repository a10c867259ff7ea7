/**
 * One change under way: writes go into the transaction and into an overlay; the memory takes the overlay only after the commit.
 * Whoever reads through the draft sees the change.
 */
import { assignmentOf } from '#/control/core/assignment.ts';
import type {
  Attempt,
  Group,
  Halt,
  Host,
  Pin,
  Release,
  Rollout,
  Scene,
} from '#/control/core/model.ts';
import type { ApiToken, StoreWriter } from '#/control/store/port.ts';
import { replacedBy } from '#/control/trust/repository.ts';
import { type JsonObject, Problem } from '#/protocol/errors.ts';
import type { ArtifactId, GroupName, HostId } from '#/protocol/ids.ts';
import type { AuditEntry } from '#/protocol/operator-plane.ts';
import { dropHost, type Fleet, sceneOf, setHost } from './fleet.ts';

export interface TrustFile {
  readonly name: string;
  readonly bytes: Uint8Array;
}

export interface Draft {
  readonly now: number;
  /** The fleet with this change in it. Never write to it. */
  readonly fleet: Fleet;
  readonly writer: StoreWriter;
  group(name: GroupName): Group;
  host(id: HostId): Host;
  release(id: ArtifactId): Release;
  scene(group: Group): Scene;
  /** `isNews`: all its hosts should be told something. */
  putGroup(group: Group, isNews: boolean): Promise<void>;
  deleteGroup(name: GroupName): Promise<void>;
  putHost(host: Host): Promise<void>;
  deleteHost(id: HostId): Promise<void>;
  putAttempt(attempt: Attempt): Promise<void>;
  putRollout(rollout: Rollout): Promise<void>;
  putRelease(release: Release): Promise<void>;
  addPin(pin: Pin): Promise<void>;
  putHalt(halt: Halt): Promise<void>;
  deleteHalt(scope: string): Promise<void>;
  putApiToken(token: ApiToken): Promise<void>;
  raiseFleetGeneration(): Promise<void>;
  raiseEpoch(epoch: number): Promise<void>;
  /** Old versions of the same roles leave the repository: VERSIONS_KEPT. */
  publish(files: readonly TrustFile[]): Promise<void>;
  /** A published trust file, those of this change included. */
  trustFile(name: string): Uint8Array | null;
  audit(actor: string, type: string, subject: string, details: JsonObject): Promise<AuditEntry>;
  /** A small value of the store by name, with those of this change; null when there is none. */
  meta(name: string): string | null;
  setMeta(name: string, value: string): Promise<void>;
  /** Groups to plan after the commit. */
  readonly dirty: Set<GroupName>;
}

/** A copy that shares the values; maps of hosts are copied only when they are written to. */
function overlayOf(fleet: Fleet): Fleet {
  return {
    ...fleet,
    groups: new Map(fleet.groups),
    hosts: layered(fleet.hosts),
    hostsOf: new Map(fleet.hostsOf),
    rolloutOf: new Map(fleet.rolloutOf),
    releases: fleet.releases,
    halts: new Map(fleet.halts),
    apiTokens: fleet.apiTokens,
    trust: fleet.trust,
  };
}

/** A map over another: reads fall through, writes stay above. Iteration and size are of the lower one. */
function layered<K, V>(below: Map<K, V>): Map<K, V> {
  const above = new Map<K, V>();
  const gone = new Set<K>();
  const map = Object.create(below) as Map<K, V>;
  return Object.defineProperties(map, {
    get: { value: (key: K) => (gone.has(key) ? undefined : (above.get(key) ?? below.get(key))) },
    has: { value: (key: K) => !gone.has(key) && (above.has(key) || below.has(key)) },
    set: {
      value: (key: K, value: V) => {
        gone.delete(key);
        above.set(key, value);
        return map;
      },
    },
    delete: {
      value: (key: K) => {
        gone.add(key);
        return true;
      },
    },
    size: { get: () => below.size },
  });
}

/** Makes the memory what the draft was. */
export function takeOver(fleet: Fleet, draft: Draft, log: DraftLog): void {
  const from = draft.fleet;
  fleet.epoch = from.epoch;
  fleet.isRestored = from.isRestored;
  fleet.generation = from.generation;
  for (const name of log.groups) {
    const group = from.groups.get(name);
    if (group === undefined) {
      fleet.groups.delete(name);
      fleet.hostsOf.delete(name);
      fleet.rolloutOf.delete(name);
    } else {
      fleet.groups.set(name, group);
      if (!fleet.hostsOf.has(name)) fleet.hostsOf.set(name, new Set());
    }
  }
  for (const rollout of log.rollouts) fleet.rolloutOf.set(rollout.group, rollout);
  for (const release of log.releases) fleet.releases.set(release.artifactId, release);
  for (const token of log.apiTokens) fleet.apiTokens.set(token.hash, token);
  for (const [name, bytes] of log.trust) {
    if (bytes === null) fleet.trust.delete(name);
    else fleet.trust.set(name, bytes);
  }
  for (const [name, value] of log.meta) fleet.meta.set(name, value);
  for (const scope of [...fleet.halts.keys()])
    if (!from.halts.has(scope)) fleet.halts.delete(scope);
  for (const [scope, halt] of from.halts) fleet.halts.set(scope, halt);
  for (const id of log.hosts) {
    const host = from.hosts.get(id);
    const lastSeenAtMs = Math.max(host?.lastSeenAtMs ?? 0, fleet.hosts.get(id)?.lastSeenAtMs ?? 0);
    if (host === undefined) dropHost(fleet, id);
    else setHost(fleet, { ...host, lastSeenAtMs: lastSeenAtMs === 0 ? null : lastSeenAtMs });
  }
}

export interface DraftLog {
  readonly groups: Set<GroupName>;
  readonly hosts: Set<HostId>;
  readonly rollouts: Rollout[];
  readonly releases: Release[];
  readonly apiTokens: ApiToken[];
  /** Null: it has left the repository. */
  readonly trust: Map<string, Uint8Array | null>;
  readonly entries: AuditEntry[];
  readonly meta: Map<string, string>;
}

function missing(what: string, name: string): Problem {
  return new Problem('E_NOT_FOUND', `there is no ${what} ${name}`);
}

async function publish(
  files: readonly TrustFile[],
  log: DraftLog,
  writer: StoreWriter,
): Promise<void> {
  for (const { name, bytes } of files) {
    log.trust.set(name, bytes);
    await writer.putTrustFile(name, Buffer.from(bytes).toString('utf8'));
    const old = replacedBy(name);
    if (old === null) continue;
    log.trust.set(old, null);
    await writer.deleteTrustFile(old);
  }
}

/** A draft over `fleet`, writing through `writer`. */
export function openDraft(
  base: Fleet,
  writer: StoreWriter,
  now: number,
  bucket: Scene['bucket'],
): { draft: Draft; log: DraftLog; settle: () => Promise<void> } {
  const fleet = overlayOf(base);
  const log: DraftLog = {
    groups: new Set(),
    hosts: new Set(),
    rollouts: [],
    releases: [],
    apiTokens: [],
    trust: new Map(),
    entries: [],
    meta: new Map(),
  };
  const dirty = new Set<GroupName>();
  const scene = (group: Group): Scene => sceneOf(fleet, group, now, bucket);
  const ownMembers = (name: GroupName): void => {
    const members = fleet.hostsOf.get(name);
    if (members === base.hostsOf.get(name)) fleet.hostsOf.set(name, new Set(members));
  };
  const draft: Draft = {
    now,
    fleet,
    writer,
    dirty,
    scene,
    group: (name) => {
      const group = fleet.groups.get(name);
      if (group === undefined) throw missing('group', name);
      return group;
    },
    host: (id) => {
      const host = fleet.hosts.get(id);
      if (host === undefined) throw missing('host', id);
      return host;
    },
    release: (id) => {
      const release = log.releases.find((r) => r.artifactId === id) ?? fleet.releases.get(id);
      if (release === undefined) throw missing('release', id);
      return release;
    },
    async putGroup(group, isNews) {
      const next = isNews ? { ...group, generation: group.generation + 1 } : group;
      fleet.groups.set(next.name, next);
      log.groups.add(next.name);
      dirty.add(next.name);
      await writer.putGroup(next);
    },
    async deleteGroup(name) {
      fleet.groups.delete(name);
      log.groups.add(name);
      await writer.deleteGroup(name);
    },
    async putHost(host) {
      ownMembers(host.group);
      const before = fleet.hosts.get(host.id);
      if (before !== undefined) ownMembers(before.group);
      setHost(fleet, host);
      log.hosts.add(host.id);
      dirty.add(host.group);
      await writer.putHost(host);
    },
    async deleteHost(id) {
      const before = fleet.hosts.get(id);
      if (before !== undefined) {
        ownMembers(before.group);
        dirty.add(before.group);
      }
      dropHost(fleet, id);
      log.hosts.add(id);
      await writer.deleteHost(id);
    },
    putAttempt: (attempt) => writer.putAttempt(attempt),
    async putRollout(rollout) {
      fleet.rolloutOf.set(rollout.group, rollout);
      log.rollouts.push(rollout);
      dirty.add(rollout.group);
      await writer.putRollout(rollout);
    },
    async putRelease(release) {
      log.releases.push(release);
      await writer.putRelease(release);
    },
    addPin: (pin) => writer.addPin(pin),
    async putHalt(halt) {
      fleet.halts.set(halt.scope, halt);
      await writer.putHalt(halt);
    },
    async deleteHalt(scope) {
      fleet.halts.delete(scope);
      await writer.deleteHalt(scope);
    },
    async putApiToken(token) {
      log.apiTokens.push(token);
      await writer.putApiToken(token);
    },
    async raiseFleetGeneration() {
      fleet.generation += 1;
      for (const name of fleet.groups.keys()) dirty.add(name);
      await writer.setMeta('generation', String(fleet.generation));
    },
    async raiseEpoch(epoch) {
      fleet.epoch = epoch;
      fleet.isRestored = true;
      await writer.setMeta('epoch', String(epoch));
      await writer.setMeta('restored', 'yes');
    },
    publish: (files) => publish(files, log, writer),
    trustFile(name) {
      const changed = log.trust.get(name);
      return changed === undefined ? (base.trust.get(name) ?? null) : changed;
    },
    async audit(actor, type, subject, details) {
      const entry = { atMs: now, actor, type, subject, details: details as AuditEntry['details'] };
      const stored = await writer.audit(entry);
      log.entries.push(stored);
      return stored;
    },
    meta: (name) => log.meta.get(name) ?? base.meta.get(name) ?? null,
    async setMeta(name, value) {
      log.meta.set(name, value);
      await writer.setMeta(name, value);
    },
  };
  /** Hosts that were written and whose assignment reads differently now are told. */
  const settle = async (): Promise<void> => {
    for (const id of log.hosts) {
      const host = fleet.hosts.get(id);
      const before = base.hosts.get(id);
      if (host === undefined || before === undefined) continue;
      const group = fleet.groups.get(host.group);
      const groupBefore = base.groups.get(before.group);
      if (group === undefined || groupBefore === undefined) continue;
      const told = JSON.stringify(assignmentOf(sceneOf(base, groupBefore, now, bucket), before));
      const tells = JSON.stringify(assignmentOf(scene(group), host));
      if (told === tells) continue;
      // Never below what the host was told in its old group.
      const carried = host.group === before.group ? 0 : groupBefore.generation;
      const next = { ...host, generation: host.generation + 1 + carried };
      fleet.hosts.set(id, next);
      await writer.putHost(next);
    }
  };
  return { draft, log, settle };
}
