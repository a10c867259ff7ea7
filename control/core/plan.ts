/**
 * The rollout engine: a pure function from what is known to what is decided. docs/specs/rollout.md has the rules by number.
 * Decisions are applied in order, in one transaction; each has words for the operator.
 */
import { artifactOf, type HostId, type RolloutId, type VersionId } from '#/protocol/ids.ts';
import { desiredOf, type Target, versionOf } from './desired.ts';
import {
  type Attempt,
  type Host,
  isActive,
  isOnline,
  isPastSwitch,
  openAttempt,
  type Rollout,
  type Scene,
  type Stage,
} from './model.ts';
import { callTheRoll, judge } from './stage.ts';

export type Decision =
  | {
      readonly kind: 'open-stage';
      readonly rolloutId: RolloutId;
      readonly stage: number;
      readonly threshold: number | null;
      readonly canaries: readonly HostId[];
      readonly words: string;
    }
  | {
      readonly kind: 'soak';
      readonly rolloutId: RolloutId;
      readonly stage: number;
      readonly words: string;
    }
  | {
      readonly kind: 'pass-stage';
      readonly rolloutId: RolloutId;
      readonly stage: number;
      readonly words: string;
    }
  | { readonly kind: 'complete'; readonly rolloutId: RolloutId; readonly words: string }
  | { readonly kind: 'halt-rollout'; readonly rolloutId: RolloutId; readonly words: string }
  | { readonly kind: 'pause-rollout'; readonly rolloutId: RolloutId; readonly words: string }
  | {
      readonly kind: 'offer';
      readonly host: HostId;
      readonly n: number;
      readonly artifactId: VersionId;
      readonly rolloutId: RolloutId | null;
      readonly stage: number | null;
      readonly retryGeneration: number;
      readonly words: string;
    }
  | {
      readonly kind: 'withdraw';
      readonly host: HostId;
      readonly n: number;
      readonly words: string;
    };

/** Offers that one call makes at most; the rest follows at the next call. */
const MAX_OFFERS = 500;

/** What to do now. Deterministic; calling it again on the applied result ends in no decisions. */
export function plan(scene: Scene): readonly Decision[] {
  const decisions: Decision[] = [...withdrawals(scene)];
  const { rollout } = scene;
  if (rollout !== null && rollout.state === 'running') {
    const steps = advance(scene, rollout);
    decisions.push(...steps);
    // Offers wait for the next call, on the scene in which these steps were applied.
    if (steps.some((step) => step.kind !== 'soak')) return decisions;
  }
  if (decisions.length > 0) return decisions;
  return offers(scene);
}

/** Offers whose ground is gone and that the host has not acted on yet: the lease ends (rule of recall, F58). */
function withdrawals(scene: Scene): Decision[] {
  const result: Decision[] = [];
  for (const host of scene.hosts) {
    const attempt = openAttempt(host);
    if (attempt === null || isPastSwitch(attempt.phase)) continue;
    const { target } = desiredOf(scene, host);
    const still = target !== null && target.artifactId === attempt.artifactId;
    const isOurs = still && (target.rolloutId === attempt.rolloutId || attempt.rolloutId === null);
    // The rollout may have completed while its last offers were out: they stand, the target is the same version.
    const isDone =
      still && scene.rollout?.id === attempt.rolloutId && scene.rollout?.state === 'done';
    const words =
      host.quarantine !== null
        ? `quarantined: ${host.quarantine.reason}`
        : host.hold !== null
          ? `held: ${host.hold.reason}`
          : isRevoked(scene, attempt.artifactId)
            ? 'the release was revoked'
            : runsItAlready(host, attempt)
              ? 'the host runs it already'
              : isOurs || isDone
                ? null
                : 'it is no longer what the host should run';
    if (words !== null)
      result.push({
        kind: 'withdraw',
        host: host.id,
        n: attempt.n,
        words: `offer of ${versionOf(scene, attempt.artifactId)} taken back: ${words}`,
      });
  }
  return result;
}

/** A host that was offered its own version before it had told what it runs: it takes no such offer, nothing would end it. */
function runsItAlready(host: Host, attempt: Attempt): boolean {
  return attempt.agentAttempt === null && host.running === attempt.artifactId;
}

function isRevoked(scene: Scene, id: VersionId): boolean {
  return scene.releases.get(artifactOf(id))?.revoked != null;
}

/** Stage by stage: open, soak, pass, complete, halt, pause. At most one of these per call and stage. */
function advance(scene: Scene, rollout: Rollout): Decision[] {
  const rolloutId = rollout.id;
  if (isRevoked(scene, rollout.artifactId))
    return [
      {
        kind: 'halt-rollout',
        rolloutId,
        words: `${versionOf(scene, rollout.artifactId)} was revoked`,
      },
    ];
  const pin = scene.group.pin;
  if (pin?.expiresAtMs != null && scene.now >= pin.expiresAtMs)
    return [
      {
        kind: 'pause-rollout',
        rolloutId,
        words: 'the pin has expired; pin anew with a later expiry',
      },
    ];
  const stage = rollout.stages.findLast((s) => s.openedAtMs !== null) ?? null;
  if (stage === null || stage.state === 'passed')
    return openNext(scene, rollout, (stage?.index ?? -1) + 1);
  const isLast = stage.index === rollout.stages.length - 1;
  const verdict = judge(scene, rollout, stage, rollOf(scene, rollout, stage), isLast);
  switch (verdict.kind) {
    case 'stop':
      return [{ kind: 'halt-rollout', rolloutId, words: `stage ${stage.name}: ${verdict.words}` }];
    case 'soak':
      return stage.state === 'soaking'
        ? []
        : [
            {
              kind: 'soak',
              rolloutId,
              stage: stage.index,
              words: `stage ${stage.name}: ${verdict.words}`,
            },
          ];
    case 'wait':
      return inconclusive(scene, rollout, stage, verdict.words);
    case 'pass': {
      // A halt of the group or the fleet never lets a stage go on.
      if (scene.fleetHalt !== null || scene.groupHalt !== null) return [];
      const passed: Decision = {
        kind: 'pass-stage',
        rolloutId,
        stage: stage.index,
        words: `stage ${stage.name} passed: ${verdict.words}`,
      };
      if (!isLast) return [passed];
      const words = `${versionOf(scene, rollout.artifactId)} is now the version of ${rollout.group}`;
      return [passed, { kind: 'complete', rolloutId, words }];
    }
  }
}

function inconclusive(scene: Scene, rollout: Rollout, stage: Stage, words: string): Decision[] {
  const limitMs = rollout.policy.stageDeadlineSeconds * 1000;
  if (limitMs === 0 || stage.openedAtMs === null || scene.now - stage.openedAtMs < limitMs)
    return [];
  // An operator who resumed has decided to go on waiting: the deadline counts anew from there.
  if (scene.now - rollout.acceptedAtMs < limitMs) return [];
  const text = `stage ${stage.name} is inconclusive after its deadline: ${words}`;
  return [{ kind: 'pause-rollout', rolloutId: rollout.id, words: text }];
}

/** What the stage still waits for. Hosts that rules keep from being offered do not hold it up. */
export function rollOf(
  scene: Scene,
  rollout: Rollout,
  stage: Stage,
): ReturnType<typeof callTheRoll> {
  return callTheRoll(scene, rollout, stage, (host) => {
    const desired = desiredOf(scene, host);
    return desired.target?.rolloutId === rollout.id && desired.blocked === null;
  });
}

function openNext(scene: Scene, rollout: Rollout, index: number): Decision[] {
  const stage = rollout.stages[index];
  if (stage === undefined || scene.fleetHalt !== null || scene.groupHalt !== null) return [];
  if (scene.hosts.length === 0) return [];
  const order = [...scene.hosts].sort(
    (a, b) => scene.bucket(rollout.id, a.id) - scene.bucket(rollout.id, b.id),
  );
  if (stage.percent === null) {
    const canaries = pickCanaries(scene, rollout, order);
    if (canaries.length === 0) return [];
    const words = `stage ${stage.name} opened with ${canaries.length} of ${order.length} hosts`;
    return [
      { kind: 'open-stage', rolloutId: rollout.id, stage: index, threshold: null, canaries, words },
    ];
  }
  const size = Math.ceil((order.length * stage.percent) / 100);
  const last = order[size - 1];
  // 1 for the whole group, so that hosts that join later belong to it too.
  const threshold =
    stage.percent >= 100 || last === undefined ? 1 : scene.bucket(rollout.id, last.id);
  const words = `stage ${stage.name} opened with ${size} of ${order.length} hosts`;
  return [
    { kind: 'open-stage', rolloutId: rollout.id, stage: index, threshold, canaries: [], words },
  ];
}

/** Canary labels first, then hosts that can take part now, then by bucket. */
function pickCanaries(scene: Scene, rollout: Rollout, order: readonly Host[]): HostId[] {
  const rank = (host: Host): number => {
    const isLabelled = rollout.policy.canarySelector !== '' && scene.isCanary(rollout, host);
    const isAble =
      isOnline(host, scene.now, scene.offlineAfterMs) &&
      host.hold === null &&
      host.quarantine === null;
    return (isLabelled ? 0 : 2) + (isAble ? 0 : 1);
  };
  return [...order]
    .sort((a, b) => rank(a) - rank(b))
    .slice(0, rollout.policy.canaryCount)
    .map((host) => host.id);
}

/** New leases, within the in-flight bound (rule 5). */
function offers(scene: Scene): Decision[] {
  if (scene.fleetHalt !== null || scene.groupHalt !== null) return [];
  const policy = isActive(scene.rollout) ? scene.rollout.policy : scene.group.rollout;
  let free = policy.maxInFlight - scene.hosts.filter((host) => openAttempt(host) !== null).length;
  const result: Decision[] = [];
  for (const host of scene.hosts) {
    if (free <= 0 || result.length >= MAX_OFFERS) break;
    if (openAttempt(host) !== null || !isOnline(host, scene.now, scene.offlineAfterMs)) continue;
    const { target, blocked, isReached } = desiredOf(scene, host);
    if (target === null || blocked !== null || isReached) continue;
    result.push(offerTo(scene, host, target));
    free -= 1;
  }
  return result;
}

function offerTo(scene: Scene, host: Host, target: Target): Decision {
  const { artifactId } = target;
  const before = host.attempts.findLast((attempt) => attempt.artifactId === artifactId);
  const isAgain =
    before !== undefined && before.outcome !== 'confirmed' && before.outcome !== 'withdrawn';
  const last = host.retries[artifactId] ?? 0;
  return {
    kind: 'offer',
    host: host.id,
    n: (host.attempts.at(-1)?.n ?? 0) + 1,
    artifactId,
    rolloutId: target.rolloutId,
    stage: target.stage,
    retryGeneration: isAgain ? last + 1 : last,
    words: `offered ${versionOf(scene, artifactId)} to ${host.id}${isAgain ? ' once more' : ''}`,
  };
}
