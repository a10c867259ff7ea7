/** Stages of a rollout: who belongs to one, what its results say. docs/specs/rollout.md, rules 1 to 4. */
import type { Counts } from '#/protocol/rollout.ts';
import { lowerBound, sampleNeeded, upperBound } from './bounds.ts';
import {
  type Attempt,
  type Host,
  isOnline,
  isPastSwitch,
  openAttempt,
  type Rollout,
  type Scene,
  type Stage,
} from './model.ts';

export function isMember(scene: Scene, rollout: Rollout, stage: Stage, host: Host): boolean {
  if (stage.openedAtMs === null) return false;
  if (stage.canaries.includes(host.id)) return true;
  return stage.threshold !== null && scene.bucket(rollout.id, host.id) <= stage.threshold;
}

/** The first opened stage that a host belongs to, or null. Stages stay open for their members after they passed. */
export function openStageOf(scene: Scene, rollout: Rollout, host: Host): Stage | null {
  return rollout.stages.find((stage) => isMember(scene, rollout, stage, host)) ?? null;
}

/** Past the switch and past the deadline without a result: counts as failed until a result arrives (rule 2). */
export function isOverdue(
  attempt: Attempt,
  rollout: Pick<Rollout, 'policy'>,
  now: number,
): boolean {
  return (
    attempt.outcome === 'open' &&
    attempt.switchedAtMs !== null &&
    isPastSwitch(attempt.phase) &&
    now - attempt.switchedAtMs > rollout.policy.healthyDeadlineSeconds * 1000
  );
}

export interface Tally {
  /** Attempts with a result, overdue ones included: the denominator. Never the number of targets. */
  readonly results: number;
  readonly failures: number;
  readonly overdue: number;
  readonly confirmed: number;
  readonly lastConfirmMs: number | null;
  /** Failure flags in the order of the results. */
  readonly order: readonly boolean[];
}

/** Results of a rollout, of one stage or of all. Failures before `acceptedAtMs` were accepted by an operator. */
export function tally(scene: Scene, rollout: Rollout, stage: number | null): Tally {
  const ended: { atMs: number; isFailure: boolean }[] = [];
  let overdue = 0;
  let lastConfirmMs: number | null = null;
  for (const host of scene.hosts)
    for (const attempt of host.attempts) {
      if (attempt.rolloutId !== rollout.id) continue;
      if (stage !== null && attempt.stage !== stage) continue;
      if (attempt.outcome === 'confirmed' && attempt.endedAtMs !== null) {
        ended.push({ atMs: attempt.endedAtMs, isFailure: false });
        lastConfirmMs = Math.max(lastConfirmMs ?? 0, attempt.endedAtMs);
      } else if (attempt.outcome === 'failed' && attempt.endedAtMs !== null) {
        if (attempt.endedAtMs > rollout.acceptedAtMs)
          ended.push({ atMs: attempt.endedAtMs, isFailure: true });
      } else if (isOverdue(attempt, rollout, scene.now)) {
        const dueMs = (attempt.switchedAtMs ?? 0) + rollout.policy.healthyDeadlineSeconds * 1000;
        if (dueMs > rollout.acceptedAtMs) {
          overdue += 1;
          ended.push({ atMs: dueMs, isFailure: true });
        }
      }
    }
  ended.sort((a, b) => a.atMs - b.atMs);
  const failures = ended.filter((result) => result.isFailure).length;
  return {
    results: ended.length,
    failures,
    overdue,
    confirmed: ended.length - failures,
    lastConfirmMs,
    order: ended.map((result) => result.isFailure),
  };
}

/** Members of a stage that is open, by what is known of them. */
export interface Roll {
  readonly members: readonly Host[];
  /** Reachable, allowed, not on the version, without an attempt: they are still to be offered. */
  readonly waiting: readonly Host[];
  /** In an attempt that can still end soon. */
  readonly busy: readonly Host[];
  readonly onTarget: readonly Host[];
  readonly offline: readonly Host[];
}

/** `isOfferable` says whether rules of the host itself (hold, history, class …) allow an offer. */
export function callTheRoll(
  scene: Scene,
  rollout: Rollout,
  stage: Stage,
  isOfferable: (host: Host) => boolean,
): Roll {
  const members = scene.hosts.filter((host) => isMember(scene, rollout, stage, host));
  const waiting: Host[] = [];
  const busy: Host[] = [];
  const onTarget: Host[] = [];
  const offline: Host[] = [];
  for (const host of members) {
    const attempt = openAttempt(host);
    const online = isOnline(host, scene.now, scene.offlineAfterMs);
    if (attempt !== null && attempt.rolloutId === rollout.id) {
      // A host that went silent before its switch is a straggler; after it, it must be waited for until it is overdue.
      const mustWait = online || isPastSwitch(attempt.phase);
      if (mustWait && !isOverdue(attempt, rollout, scene.now)) busy.push(host);
      else if (!online) offline.push(host);
    } else if (host.running === rollout.artifactId) onTarget.push(host);
    else if (attempt !== null) {
      // In an attempt of something else, a pin of its own for example: it holds us up only if we are next.
      if (isOfferable(host)) busy.push(host);
    } else if (!online) offline.push(host);
    else if (isOfferable(host)) waiting.push(host);
  }
  return { members, waiting, busy, onTarget, offline };
}

export function countsOf(scene: Scene, rollout: Rollout, stage: Stage | null): Counts {
  const members = scene.hosts.filter(
    (host) => stage === null || isMember(scene, rollout, stage, host),
  );
  const mine = members.flatMap((host) => host.attempts.filter((a) => a.rolloutId === rollout.id));
  const overdue = mine.filter((attempt) => isOverdue(attempt, rollout, scene.now)).length;
  return {
    members: members.length,
    inFlight: mine.filter((attempt) => attempt.outcome === 'open').length,
    confirmed: mine.filter((attempt) => attempt.outcome === 'confirmed').length,
    failed: mine.filter((attempt) => attempt.outcome === 'failed').length,
    overdue,
    offline: members.filter((host) => !isOnline(host, scene.now, scene.offlineAfterMs)).length,
    onTarget: members.filter((host) => host.running === rollout.artifactId).length,
  };
}

export type Verdict =
  | { readonly kind: 'stop'; readonly words: string }
  | { readonly kind: 'pass'; readonly words: string }
  | { readonly kind: 'soak'; readonly untilMs: number; readonly words: string }
  | { readonly kind: 'wait'; readonly words: string };

const asPercent = (share: number): string => `${(share * 100).toFixed(1)} %`;

/** Rule 4: k failures among the first m results, or a lower bound above the limit. Null: go on. */
export function stopWords(rollout: Rollout, all: Tally, stage: Tally): string | null {
  const { stopFailures, stopWithin, maxFailurePercent } = rollout.policy;
  const early = all.order.slice(0, stopWithin).filter(Boolean).length;
  if (early >= stopFailures)
    return `${early} failures among the first ${Math.min(all.results, stopWithin)} results; ${stopFailures} of ${stopWithin} are too many`;
  for (const [name, t] of [
    ['rollout', all],
    ['stage', stage],
  ] as const) {
    const low = lowerBound(t.failures, t.results);
    if (low > maxFailurePercent / 100)
      return `${t.failures} of ${t.results} attempts of the ${name} failed: the rate is surely above ${asPercent(low)}, the limit is ${maxFailurePercent} %`;
  }
  return null;
}

/** Rules 3 and 4 for the newest open stage. Overdue results make this depend on `scene.now`. */
export function judge(
  scene: Scene,
  rollout: Rollout,
  stage: Stage,
  roll: Roll,
  isLast: boolean,
): Verdict {
  const { policy } = rollout;
  const all = tally(scene, rollout, null);
  const own = tally(scene, rollout, stage.index);
  const stop = stopWords(rollout, all, own);
  if (stop !== null) return { kind: 'stop', words: stop };
  const limit = policy.maxFailurePercent / 100;
  const isQuiet = roll.waiting.length === 0 && roll.busy.length === 0;
  const reachable = roll.members.length - roll.offline.length;
  const isBounded = upperBound(all.failures, all.results) <= limit;
  const enough = all.results >= Math.min(policy.minSample, Math.max(1, reachable));
  const byBound = all.results >= policy.minSample && isBounded && (!isLast || isQuiet);
  // Too few hosts to ever show the limit: the plain count decides, and the words say so. After the last stage nothing opens, so
  // there the plain count is enough too.
  const isSmall = roll.members.length < sampleNeeded(limit);
  const byCount =
    (isSmall || isLast) &&
    isQuiet &&
    (enough || roll.onTarget.length > 0) &&
    all.results + roll.onTarget.length > 0 &&
    all.failures <= limit * Math.max(1, all.results);
  if (!byBound && !byCount)
    return { kind: 'wait', words: waitWords(roll, all, policy.minSample, isQuiet) };
  const soakUntilMs =
    all.lastConfirmMs === null ? scene.now : all.lastConfirmMs + policy.soakSeconds * 1000;
  const count = `${all.failures} of ${all.results} failed`;
  const proof = isBounded
    ? `${count}: the rate is surely below ${policy.maxFailurePercent} %`
    : `${count} (this does not prove ${policy.maxFailurePercent} %: that takes ${sampleNeeded(limit)} without a failure)`;
  if (scene.now < soakUntilMs)
    return { kind: 'soak', untilMs: soakUntilMs, words: `${proof}; quiet time runs` };
  return { kind: 'pass', words: proof };
}

function waitWords(roll: Roll, all: Tally, minSample: number, isQuiet: boolean): string {
  if (roll.members.length === 0) return 'waits for the first host';
  if (!isQuiet)
    return `waits for ${roll.busy.length} hosts in an attempt and ${roll.waiting.length} to be offered`;
  if (all.failures > 0)
    return `${all.failures} of ${all.results} failed: neither surely below the limit nor surely above; needs a decision (resume, promote or abort)`;
  if (roll.offline.length === 0)
    return `has ${all.results} of ${minSample} results, and no host of the stage can give another; promote or abort`;
  return `has ${all.results} of ${minSample} results and ${roll.offline.length} offline hosts; waits for them`;
}
