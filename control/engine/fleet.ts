/** The fleet in memory: what the store holds, indexed for the poll path. Only the engine changes it, after a commit. */
import { createHash } from 'node:crypto';
import {
  type Group,
  type Halt,
  type Host,
  isActive,
  type Release,
  type Rollout,
  type Scene,
} from '#/control/core/model.ts';
import { pollIntervalSeconds } from '#/control/core/poll.ts';
import type { ApiToken, FleetRows } from '#/control/store/port.ts';
import type { ArtifactId, GroupName, HostId, RolloutId } from '#/protocol/ids.ts';
import { parseSelector, selects } from '#/protocol/selector.ts';

export interface Fleet {
  epoch: number;
  /** True from the moment an older store was noticed (F73). */
  isRestored: boolean;
  generation: number;
  readonly groups: Map<GroupName, Group>;
  readonly hosts: Map<HostId, Host>;
  readonly hostsOf: Map<GroupName, Set<HostId>>;
  /** The newest rollout of each group. */
  readonly rolloutOf: Map<GroupName, Rollout>;
  readonly releases: Map<ArtifactId, Release>;
  readonly halts: Map<string, Halt>;
  /** By hash. */
  readonly apiTokens: Map<string, ApiToken>;
  /** Published trust files, `metadata/…` and `targets/…`. */
  readonly trust: Map<string, Uint8Array>;
  /** Small values by name. */
  readonly meta: Map<string, string>;
  /** Roots of the audit log by size, as they were computed; they never change. At most LOG_ROOTS_MAX. */
  readonly logRoots: Map<number, string>;
  lastAuditId: number;
}

export const FLEET_SCOPE = 'fleet';
export const scopeOf = (group: GroupName): string => `group/${group}`;

/** The fleet as the store has it. */
export function fleetOf(rows: FleetRows, trust: ReadonlyMap<string, string>): Fleet {
  const fleet: Fleet = {
    epoch: Number(rows.meta.get('epoch') ?? 1),
    isRestored: rows.meta.get('restored') === 'yes',
    generation: Number(rows.meta.get('generation') ?? 0),
    groups: new Map(rows.groups.map((group) => [group.name, group])),
    hosts: new Map(),
    hostsOf: new Map(rows.groups.map((group) => [group.name, new Set()])),
    rolloutOf: new Map(rows.rollouts.map((rollout) => [rollout.group, rollout])),
    releases: new Map(rows.releases.map((release) => [release.artifactId, release])),
    halts: new Map(rows.halts.map((halt) => [halt.scope, halt])),
    apiTokens: new Map(rows.apiTokens.map((token) => [token.hash, token])),
    trust: new Map([...trust].map(([name, text]) => [name, Buffer.from(text, 'utf8')])),
    meta: new Map(rows.meta),
    logRoots: new Map(),
    lastAuditId: rows.lastAuditId,
  };
  for (const host of rows.hosts) setHost(fleet, host);
  return fleet;
}

export function setHost(fleet: Fleet, host: Host): void {
  const before = fleet.hosts.get(host.id);
  if (before !== undefined && before.group !== host.group)
    fleet.hostsOf.get(before.group)?.delete(host.id);
  fleet.hosts.set(host.id, host);
  const members = fleet.hostsOf.get(host.group) ?? new Set();
  members.add(host.id);
  fleet.hostsOf.set(host.group, members);
}

export function dropHost(fleet: Fleet, id: HostId): void {
  const host = fleet.hosts.get(id);
  if (host === undefined) return;
  fleet.hostsOf.get(host.group)?.delete(id);
  fleet.hosts.delete(id);
}

/** Rule 1: the first 52 bits of SHA-256(rollout id, host id), in [0, 1). */
export function bucketOf(rollout: RolloutId, host: HostId): number {
  const digest = createHash('sha256').update(rollout).update('\0').update(host).digest();
  return (digest.readUIntBE(0, 6) * 16 + ((digest[6] ?? 0) >> 4)) / 2 ** 52;
}

/** Buckets are pure but cost a hash; a planner asks for all of a group again and again. */
export function createBuckets(): (rollout: RolloutId, host: HostId) => number {
  const known = new Map<RolloutId, Map<HostId, number>>();
  return (rollout, host) => {
    let of = known.get(rollout);
    if (of === undefined) {
      if (known.size >= 64) known.clear();
      of = new Map();
      known.set(rollout, of);
    }
    const bucket = of.get(host) ?? bucketOf(rollout, host);
    of.set(host, bucket);
    return bucket;
  };
}

/** Three intervals and a minute without a poll: offline. */
export function offlineAfterMs(fleet: Fleet, group: Group): number {
  return 3 * 1000 * pollIntervalSeconds(fleet.hosts.size, group.poll) + 60_000;
}

/** One group with all that decides about it. Hosts are gathered only when they are asked for. */
export function sceneOf(fleet: Fleet, group: Group, now: number, bucket: Scene['bucket']): Scene {
  let hosts: readonly Host[] | null = null;
  return {
    now,
    epoch: fleet.epoch,
    isRestored: fleet.isRestored,
    fleetHalt: fleet.halts.get(FLEET_SCOPE) ?? null,
    groupHalt: fleet.halts.get(scopeOf(group.name)) ?? null,
    group,
    rollout: fleet.rolloutOf.get(group.name) ?? null,
    get hosts() {
      hosts ??= [...(fleet.hostsOf.get(group.name) ?? [])]
        .sort()
        .flatMap((id) => fleet.hosts.get(id) ?? []);
      return hosts;
    },
    offlineAfterMs: offlineAfterMs(fleet, group),
    releases: fleet.releases,
    bucket,
    isCanary: (rollout, host) => selects(parseSelector(rollout.policy.canarySelector), host.labels),
  };
}

/** What the host is told: the sum of three numbers that only grow. */
export function generationOf(fleet: Fleet, group: Group, host: Host): number {
  return fleet.generation + group.generation + host.generation;
}

export function activeRollouts(fleet: Fleet): readonly Rollout[] {
  return [...fleet.rolloutOf.values()].filter(isActive);
}
