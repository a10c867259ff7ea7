/** The fleet as operators see it: values of the contract made from values of the core. */
import { desiredOf, isExpired, versionOf } from '#/control/core/desired.ts';
import {
  type Attempt,
  type Group,
  type Host,
  isActive,
  isOnline,
  openAttempt,
  type Pin,
  type Release,
  type Rollout,
  type Scene,
} from '#/control/core/model.ts';
import { rollOf } from '#/control/core/plan.ts';
import { countsOf, judge } from '#/control/core/stage.ts';
import type { GroupView } from '#/protocol/group.ts';
import type { HostCondition, HostDetail, HostView, HostWhy } from '#/protocol/host.ts';
import { artifactOf, type VersionId } from '#/protocol/ids.ts';
import type { PinView } from '#/protocol/pin.ts';
import type { ReleaseView } from '#/protocol/release.ts';
import type { AttemptView, RolloutView, StageView } from '#/protocol/rollout.ts';
import type { Engine } from './engine.ts';
import { type Fleet, generationOf, scopeOf } from './fleet.ts';
import { nextOf } from './next-step.ts';

export function pinView(fleet: Fleet, pin: Pin, now: number): PinView {
  const release = fleet.releases.get(artifactOf(pin.artifactId));
  return {
    group: pin.group,
    host: pin.host,
    artifactId: pin.artifactId,
    version: versionOf(fleet, pin.artifactId),
    release: release?.release ?? 1,
    seq: pin.seq,
    reason: pin.reason,
    ticket: pin.ticket,
    actor: pin.actor,
    createdAtMs: pin.createdAtMs,
    expiresAtMs: pin.expiresAtMs,
    isExpired: isExpired(pin, now),
  };
}

export function attemptView(fleet: Fleet, attempt: Attempt): AttemptView {
  const { n, agentAttempt, rolloutId, artifactId, phase, outcome, code, message } = attempt;
  return {
    id: `${attempt.host}/${n}`,
    n,
    agentAttempt,
    rolloutId,
    artifactId,
    version: versionOf(fleet, artifactId),
    phase,
    outcome,
    code,
    message,
    offeredAtMs: attempt.offeredAtMs,
    endedAtMs: attempt.endedAtMs,
  };
}

function conditionOf(
  scene: Scene,
  host: Host,
  isReached: boolean,
  hasTarget: boolean,
): HostCondition {
  if (host.quarantine !== null) return 'quarantined';
  const last = host.attempts.at(-1);
  if (host.state === 'needs-attention' || last?.phase === 'needs-attention')
    return 'needs-attention';
  if (openAttempt(host) !== null)
    return isOnline(host, scene.now, scene.offlineAfterMs) ? 'updating' : 'offline';
  if (!isReached && hasTarget && last?.outcome === 'failed') return 'failed';
  if (!isOnline(host, scene.now, scene.offlineAfterMs)) return 'offline';
  if (host.hold !== null) return 'held';
  const { group, rollout } = scene;
  if (!hasTarget && group.pin === null) return 'unpinned';
  // Before the first rollout of a group has come to it, a host has no target, but may run the version already.
  const runsIt = isActive(rollout) && host.running === rollout.artifactId;
  return isReached || runsIt ? 'current' : 'behind';
}

export function hostView(fleet: Fleet, scene: Scene, host: Host): HostView {
  const desired = desiredOf(scene, host);
  const attempt = openAttempt(host);
  const target = desired.target?.artifactId ?? null;
  const last = desired.steps.at(-1)?.words ?? '';
  return {
    id: host.id,
    group: host.group,
    labels: host.labels,
    class: host.class,
    arch: host.arch,
    condition: conditionOf(scene, host, desired.isReached, target !== null),
    state: host.state,
    healthy: host.healthy,
    running: host.running,
    runningVersion: host.running === null ? null : versionOf(fleet, host.running),
    target,
    targetVersion: target === null ? null : versionOf(fleet, target),
    phase: attempt?.phase ?? null,
    rolloutId: attempt?.rolloutId ?? desired.target?.rolloutId ?? null,
    isOnline: isOnline(host, scene.now, scene.offlineAfterMs),
    lastSeenAtMs: host.lastSeenAtMs,
    hold: host.hold,
    isPinned: host.pin !== null,
    generation: generationOf(fleet, scene.group, host),
    agentVersion: host.agentVersion,
    why: desired.blocked ?? (saysItself(scene, host) ? host.why : null) ?? last,
  };
}

export function hostDetail(
  fleet: Fleet,
  scene: Scene,
  host: Host,
  attempts: readonly Attempt[],
): HostDetail {
  return {
    ...hostView(fleet, scene, host),
    keyId: host.keyId,
    enrolledAtMs: host.enrolledAtMs,
    facts: host.facts,
    previous: host.previous,
    bootId: host.bootId,
    reportSeq: host.seq,
    pin: host.pin === null ? null : pinView(fleet, host.pin, scene.now),
    quarantine: host.quarantine,
    denied: [...host.denied],
    attempts: attempts.map((attempt) => attemptView(fleet, attempt)),
  };
}

/** In an attempt the host knows best what it waits for (its window, a hook, a check); what it said before counts no longer. */
function saysItself(scene: Scene, host: Host): boolean {
  const attempt = openAttempt(host);
  return (
    attempt !== null &&
    host.why !== '' &&
    host.state === attempt.phase &&
    isOnline(host, scene.now, scene.offlineAfterMs)
  );
}

/** The decision trace, and what happens next. */
export function hostWhy(scene: Scene, host: Host, pollSeconds: number): HostWhy {
  const desired = desiredOf(scene, host);
  const attempt = openAttempt(host);
  const version = versionOf(scene, desired.target?.artifactId ?? null);
  const online = isOnline(host, scene.now, scene.offlineAfterMs);
  const nextPollMs = host.lastSeenAtMs === null ? null : host.lastSeenAtMs + pollSeconds * 1000;
  const answer =
    desired.blocked ??
    (attempt !== null
      ? `in an attempt of ${versionOf(scene, attempt.artifactId)}, phase ${attempt.phase}`
      : desired.isReached
        ? `runs ${version}, as it should`
        : desired.target === null
          ? (desired.steps.at(-1)?.words ?? 'nothing is pinned')
          : `should run ${version} and will be offered it`);
  return {
    host: host.id,
    answer,
    target: desired.target?.artifactId ?? null,
    isOffered: attempt !== null,
    says: host.why,
    failed: failureOf(scene, host, desired.target?.artifactId ?? null),
    steps: [...desired.steps],
    next: nextOf(scene, host, {
      blocked: desired.blocked,
      isReached: desired.isReached,
      online,
      nextPollMs,
    }),
  };
}

/** How the last attempt of the version ended, when that was badly. */
function failureOf(scene: Scene, host: Host, artifactId: Host['running']): HostWhy['failed'] {
  const last = host.attempts.findLast((attempt) => attempt.artifactId === artifactId);
  if (last === undefined || last.outcome !== 'failed') return null;
  const { code, phase, message } = last;
  return { version: versionOf(scene, last.artifactId), code: code ?? phase, message };
}

function stageWords(scene: Scene, rollout: Rollout, index: number): string {
  const stage = rollout.stages[index];
  if (stage === undefined || stage.openedAtMs === null) return 'not open yet';
  if (stage.state === 'passed') return 'passed';
  const { words } = rollout;
  if (!isActive(rollout)) return words;
  const isLast = index === rollout.stages.length - 1;
  return judge(scene, rollout, stage, rollOf(scene, rollout, stage), isLast).words;
}

export function rolloutView(fleet: Fleet, scene: Scene, rollout: Rollout): RolloutView {
  const stages: StageView[] = rollout.stages.map((stage) => ({
    index: stage.index,
    name: stage.name,
    percent: stage.percent,
    state: stage.state,
    openedAtMs: stage.openedAtMs,
    passedAtMs: stage.passedAtMs,
    counts: countsOf(scene, rollout, stage),
    words: stageWords(scene, rollout, stage.index),
  }));
  const { previous } = rollout;
  return {
    id: rollout.id,
    group: rollout.group,
    artifactId: rollout.artifactId,
    version: versionOf(fleet, rollout.artifactId),
    previous:
      previous === null ? null : { artifactId: previous, version: versionOf(fleet, previous) },
    state: rollout.state,
    reason: rollout.reason,
    words: rollout.words,
    actor: rollout.actor,
    policy: rollout.policy,
    stages,
    counts: countsOf(scene, rollout, null),
    startedAtMs: rollout.startedAtMs,
    endedAtMs: rollout.endedAtMs,
  };
}

export function groupView(engine: Engine, group: Group): GroupView {
  const { fleet } = engine;
  const scene = engine.scene(group);
  const rollout = scene.rollout;
  // The pin, not what hosts are led to meanwhile: after an aborted rollout those differ, and that must be seen.
  const target = group.pin?.artifactId ?? group.current;
  const views = scene.hosts.map((host) => hostView(fleet, scene, host).condition);
  const { current } = group;
  return {
    name: group.name,
    selector: group.selector,
    priority: group.priority,
    description: group.description,
    rollout: group.rollout,
    poll: group.poll,
    revision: group.revision,
    pin: group.pin === null ? null : pinView(fleet, group.pin, scene.now),
    pinSeq: group.pinSeq,
    current: current === null ? null : { artifactId: current, version: versionOf(fleet, current) },
    activeRollout: isActive(rollout) ? rollout.id : null,
    halt: fleet.halts.get(scopeOf(group.name)) ?? null,
    hosts: {
      total: scene.hosts.length,
      onTarget: scene.hosts.filter((host) => target !== null && host.running === target).length,
      inFlight: scene.hosts.filter((host) => openAttempt(host) !== null).length,
      failed: views.filter((c) => c === 'failed' || c === 'needs-attention').length,
      offline: views.filter((c) => c === 'offline').length,
    },
    createdAtMs: group.createdAtMs,
  };
}

export function releaseView(fleet: Fleet, release: Release): ReleaseView {
  const groups = [...fleet.groups.values()];
  const hosts = [...fleet.hosts.values()];
  const isOf = (version: VersionId | null): boolean =>
    version !== null && artifactOf(version) === release.artifactId;
  return {
    artifactId: release.artifactId,
    name: release.name,
    class: release.class,
    arch: release.arch,
    version: release.version,
    release: release.release,
    sizeBytes: release.sizeBytes,
    bundleBytes: release.bundleBytes,
    state: release.revoked === null ? 'allowed' : 'revoked',
    revokedReason: release.revoked?.reason ?? null,
    sources: [...release.sources],
    signers: [...release.signers],
    importedAtMs: release.importedAtMs,
    importedBy: release.importedBy,
    hostsRunning: hosts.filter((host) => isOf(host.running)).length,
    pinnedBy: groups
      .filter((group) => isOf(group.pin?.artifactId ?? null))
      .map((group) => group.name),
  };
}
