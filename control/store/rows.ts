/** Rows of the store and values of the core, both ways. */
import type { Attempt, Group, Host, Mark, Pin, Release, Rollout } from '#/control/core/model.ts';
import {
  artifactOf,
  type ArtifactId,
  type ConfigId,
  configOf,
  versionIdOf,
} from '#/protocol/ids.ts';
import type { Insertable, Selectable } from 'kysely';
import type { JoinToken, StoredEvent } from './port.ts';
import type { Tables } from './schema.ts';

type Row<T extends keyof Tables> = Selectable<Tables[T]>;
type NewRow<T extends keyof Tables> = Insertable<Tables[T]>;

/** Text that this program wrote: its shape is what the column's type says. */
function json<T>(text: string): T {
  return JSON.parse(text) as T;
}
const text = (value: unknown): string => JSON.stringify(value);
const orNull = (value: unknown): string | null => (value === null ? null : JSON.stringify(value));

export function pinOf(row: Row<'pins'>): Pin {
  return {
    group: row.group_name as Pin['group'],
    host: row.host_id as Pin['host'],
    artifactId: versionIdOf(row.artifact_id as ArtifactId, row.config_id as ConfigId | null),
    seq: row.seq,
    reason: row.reason,
    ticket: row.ticket,
    actor: row.actor,
    createdAtMs: row.created_at_ms,
    expiresAtMs: row.expires_at_ms,
    epoch: row.epoch,
  };
}
export function pinRow(pin: Pin): NewRow<'pins'> {
  return {
    group_name: pin.group,
    seq: pin.seq,
    host_id: pin.host,
    artifact_id: artifactOf(pin.artifactId),
    config_id: configOf(pin.artifactId),
    reason: pin.reason,
    ticket: pin.ticket,
    actor: pin.actor,
    created_at_ms: pin.createdAtMs,
    expires_at_ms: pin.expiresAtMs,
    epoch: pin.epoch,
    removed_at_ms: null,
  };
}

export function groupOf(row: Row<'fleet_groups'>, pin: Pin | null): Group {
  return {
    name: row.name as Group['name'],
    selector: row.selector,
    priority: row.priority,
    description: row.description,
    rollout: json<Group['rollout']>(row.rollout_policy),
    poll: json<Group['poll']>(row.poll_policy),
    revision: row.revision,
    generation: row.generation,
    createdAtMs: row.created_at_ms,
    pin,
    pinSeq: row.pin_seq,
    current: row.current_artifact as Group['current'],
  };
}
export function groupRow(group: Group): NewRow<'fleet_groups'> {
  return {
    name: group.name,
    selector: group.selector,
    priority: group.priority,
    description: group.description,
    rollout_policy: text(group.rollout),
    poll_policy: text(group.poll),
    revision: group.revision,
    generation: group.generation,
    created_at_ms: group.createdAtMs,
    pin_seq: group.pinSeq,
    current_artifact: group.current,
  };
}

export function releaseOf(row: Row<'releases'>): Release {
  return {
    artifactId: row.artifact_id as Release['artifactId'],
    name: row.name,
    class: row.class,
    arch: row.arch,
    version: row.version,
    release: row.release,
    sizeBytes: row.size_bytes,
    bundleBytes: row.bundle_bytes,
    revoked: row.revoked === null ? null : json<Mark>(row.revoked),
    sources: json<string[]>(row.sources),
    signers: json<string[]>(row.signers),
    importedAtMs: row.imported_at_ms,
    importedBy: row.imported_by,
  };
}
export function releaseRow(release: Release): NewRow<'releases'> {
  return {
    artifact_id: release.artifactId,
    name: release.name,
    class: release.class,
    arch: release.arch,
    version: release.version,
    release: release.release,
    size_bytes: release.sizeBytes,
    bundle_bytes: release.bundleBytes,
    revoked: orNull(release.revoked),
    sources: text(release.sources),
    signers: text(release.signers),
    imported_at_ms: release.importedAtMs,
    imported_by: release.importedBy,
  };
}

export function attemptOf(row: Row<'attempts'>): Attempt {
  return {
    host: row.host_id as Attempt['host'],
    n: row.n,
    rolloutId: row.rollout_id as Attempt['rolloutId'],
    stage: row.stage,
    artifactId: row.artifact_id as Attempt['artifactId'],
    retryGeneration: row.retry_generation,
    agentAttempt: row.agent_attempt,
    phase: row.phase as Attempt['phase'],
    outcome: row.outcome as Attempt['outcome'],
    code: row.code,
    message: row.message,
    offeredAtMs: row.offered_at_ms,
    switchedAtMs: row.switched_at_ms,
    endedAtMs: row.ended_at_ms,
  };
}
export function attemptRow(attempt: Attempt): NewRow<'attempts'> {
  return {
    host_id: attempt.host,
    n: attempt.n,
    rollout_id: attempt.rolloutId,
    stage: attempt.stage,
    artifact_id: attempt.artifactId,
    retry_generation: attempt.retryGeneration,
    agent_attempt: attempt.agentAttempt,
    phase: attempt.phase,
    outcome: attempt.outcome,
    code: attempt.code,
    message: attempt.message,
    offered_at_ms: attempt.offeredAtMs,
    switched_at_ms: attempt.switchedAtMs,
    ended_at_ms: attempt.endedAtMs,
  };
}

export function hostOf(
  row: Row<'hosts'>,
  more: Pick<Host, 'pin' | 'lastSeenAtMs' | 'attempts'>,
): Host {
  return {
    id: row.id as Host['id'],
    group: row.group_name as Host['group'],
    labels: json<Host['labels']>(row.labels),
    class: row.class,
    arch: row.arch,
    keyId: row.key_id,
    signKey: row.sign_key,
    sealKey: row.seal_key,
    statement: row.statement,
    enrolledAtMs: row.enrolled_at_ms,
    agentVersion: row.agent_version,
    facts: json<Host['facts']>(row.facts),
    generation: row.generation,
    rollbackGeneration: row.rollback_generation,
    hold: row.hold === null ? null : json<Mark>(row.hold),
    quarantine: row.quarantine === null ? null : json<Host['quarantine']>(row.quarantine),
    retries: json<Host['retries']>(row.retries),
    forgiven: json<Host['forgiven']>(row.forgiven),
    seq: row.seq,
    bootId: row.boot_id,
    pastBoots: json<string[]>(row.past_boots),
    rewinds: row.rewinds,
    running: row.running as Host['running'],
    previous: row.previous as Host['previous'],
    state: row.state,
    healthy: row.healthy === null ? null : row.healthy === 'yes',
    why: row.why,
    denied: json<Host['denied']>(row.denied),
    observedEpoch: row.observed_epoch,
    ...more,
  };
}
export function hostRow(host: Host): NewRow<'hosts'> {
  return {
    id: host.id,
    group_name: host.group,
    labels: text(host.labels),
    class: host.class,
    arch: host.arch,
    key_id: host.keyId,
    sign_key: host.signKey,
    seal_key: host.sealKey,
    statement: host.statement,
    enrolled_at_ms: host.enrolledAtMs,
    agent_version: host.agentVersion,
    facts: text(host.facts),
    generation: host.generation,
    rollback_generation: host.rollbackGeneration,
    hold: orNull(host.hold),
    quarantine: orNull(host.quarantine),
    retries: text(host.retries),
    forgiven: text(host.forgiven),
    seq: host.seq,
    boot_id: host.bootId,
    past_boots: text(host.pastBoots),
    rewinds: host.rewinds,
    running: host.running,
    previous: host.previous,
    state: host.state,
    healthy: host.healthy === null ? null : host.healthy ? 'yes' : 'no',
    why: host.why,
    denied: text(host.denied),
    observed_epoch: host.observedEpoch,
  };
}

export function rolloutOf(row: Row<'rollouts'>): Rollout {
  return {
    id: row.id as Rollout['id'],
    group: row.group_name as Rollout['group'],
    artifactId: row.artifact_id as Rollout['artifactId'],
    previous: row.previous as Rollout['previous'],
    pinSeq: row.pin_seq,
    state: row.state as Rollout['state'],
    reason: row.reason,
    words: row.words,
    actor: row.actor,
    policy: json<Rollout['policy']>(row.policy),
    stages: json<Rollout['stages']>(row.stages),
    acceptedAtMs: row.accepted_at_ms,
    isReverting: row.is_reverting === 1,
    startedAtMs: row.started_at_ms,
    endedAtMs: row.ended_at_ms,
  };
}
export function rolloutRow(rollout: Rollout): NewRow<'rollouts'> {
  return {
    id: rollout.id,
    group_name: rollout.group,
    artifact_id: rollout.artifactId,
    previous: rollout.previous,
    pin_seq: rollout.pinSeq,
    state: rollout.state,
    reason: rollout.reason,
    words: rollout.words,
    actor: rollout.actor,
    policy: text(rollout.policy),
    stages: text(rollout.stages),
    accepted_at_ms: rollout.acceptedAtMs,
    is_reverting: rollout.isReverting ? 1 : 0,
    started_at_ms: rollout.startedAtMs,
    ended_at_ms: rollout.endedAtMs,
  };
}

export function joinTokenOf(row: Row<'join_tokens'>): JoinToken {
  return {
    id: row.id,
    hash: row.hash,
    group: row.group_name as JoinToken['group'],
    labels: json<JoinToken['labels']>(row.labels),
    description: row.description,
    replacesHost: row.replaces_host as JoinToken['replacesHost'],
    createdAtMs: row.created_at_ms,
    expiresAtMs: row.expires_at_ms,
    usedAtMs: row.used_at_ms,
    usedBy: row.used_by as JoinToken['usedBy'],
    actor: row.actor,
  };
}

export function eventOf(row: Row<'report_events'>): StoredEvent {
  return {
    id: row.event_id,
    attempt: row.attempt,
    rolloutId: row.rollout_id as StoredEvent['rolloutId'],
    artifactId: row.artifact_id as StoredEvent['artifactId'],
    phase: row.phase as StoredEvent['phase'],
    code: row.code,
    message: row.message,
    at: row.host_at_ms,
    evidence: json<StoredEvent['evidence']>(row.evidence),
    seq: row.seq,
    ordinal: row.ordinal,
    receivedAtMs: row.received_at_ms,
  };
}
