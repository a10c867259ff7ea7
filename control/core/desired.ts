/**
 * What one host should run, and whether it can be offered now. The order of the rules is the precedence; each leaves a line in
 * the trace, so that `why` and the planner can never disagree. docs/specs/rollout.md, precedence.
 */
import { artifactOf, configOf, type RolloutId, type VersionId } from '#/protocol/ids.ts';
import {
  type Attempt,
  type Host,
  isActive,
  isOnline,
  openAttempt,
  type Pin,
  type Scene,
} from './model.ts';
import { openStageOf } from './stage.ts';

export interface Step {
  readonly rule: string;
  readonly applies: boolean;
  readonly words: string;
}

export interface Target {
  readonly artifactId: VersionId;
  readonly rolloutId: RolloutId | null;
  readonly stage: number | null;
  /** The pin that stands behind it. */
  readonly pin: Pin | null;
  readonly source: 'host-pin' | 'rollout' | 'current' | 'revert';
}

export interface Desired {
  readonly target: Target | null;
  /** What keeps it from being offered; null: it can be offered, or the host runs it. */
  readonly blocked: string | null;
  readonly isReached: boolean;
  readonly steps: readonly Step[];
}

const short = (id: string): string => id.slice(0, 12);

/** "1.2.3" for people, with the id when the release is unknown. */
export function versionOf(scene: Pick<Scene, 'releases'>, id: VersionId | null): string {
  if (id === null) return 'nothing';
  const config = configOf(id);
  const version = scene.releases.get(artifactOf(id))?.version ?? short(id);
  return config === null ? version : `${version} with config ${short(config)}`;
}

export function isExpired(pin: Pin, now: number): boolean {
  return pin.expiresAtMs !== null && now >= pin.expiresAtMs;
}

/** Stops that apply whatever the target is. */
function stopOf(scene: Scene, host: Host): Step {
  const rule = 'stop';
  const { fleetHalt, groupHalt } = scene;
  if (host.quarantine !== null)
    return { rule, applies: true, words: `quarantined: ${host.quarantine.reason}` };
  if (fleetHalt !== null)
    return {
      rule,
      applies: true,
      words: `the fleet is halted by ${fleetHalt.actor}: ${fleetHalt.reason}`,
    };
  if (groupHalt !== null)
    return {
      rule,
      applies: true,
      words: `the group is halted by ${groupHalt.actor}: ${groupHalt.reason}`,
    };
  // F73: what an old store believes of a host is not acted on before the host has spoken.
  if (scene.isRestored && host.observedEpoch < scene.epoch)
    return {
      rule,
      applies: true,
      words: 'control was restored from a backup and waits for a report of this host',
    };
  if (host.hold !== null)
    return { rule, applies: true, words: `held by ${host.hold.actor}: ${host.hold.reason}` };
  return { rule, applies: false, words: 'no halt, no hold, no quarantine' };
}

function targetOf(scene: Scene, host: Host, steps: Step[]): Target | null {
  const { group, rollout, now } = scene;
  const pin = host.pin;
  if (pin !== null && !isExpired(pin, now)) {
    steps.push({
      rule: 'host-pin',
      applies: true,
      words: `pinned alone to ${versionOf(scene, pin.artifactId)} by ${pin.actor}: ${pin.reason}`,
    });
    return { artifactId: pin.artifactId, rolloutId: null, stage: null, pin, source: 'host-pin' };
  }
  steps.push({
    rule: 'host-pin',
    applies: false,
    words: pin === null ? 'no pin of its own' : 'its own pin has expired',
  });
  const active = isActive(rollout) ? rollout : null;
  if (active !== null) {
    const stage = openStageOf(scene, active, host);
    const to = versionOf(scene, active.artifactId);
    if (stage !== null) {
      steps.push({
        rule: 'rollout',
        applies: true,
        words: `in stage ${stage.name} of rollout ${active.id} to ${to}`,
      });
      const at = { rolloutId: active.id, stage: stage.index, pin: group.pin };
      return { artifactId: active.artifactId, ...at, source: 'rollout' };
    }
    steps.push({
      rule: 'rollout',
      applies: false,
      words: `not yet in an open stage of rollout ${active.id} to ${to}`,
    });
  } else {
    steps.push({ rule: 'rollout', applies: false, words: 'no rollout of its group is running' });
  }
  if (active === null && rollout?.isReverting === true && rollout.previous !== null) {
    const words = `rollout ${rollout.id} was aborted with revert: back to ${versionOf(scene, rollout.previous)}`;
    steps.push({ rule: 'revert', applies: true, words });
    const at = { rolloutId: null, stage: null, pin: null };
    return { artifactId: rollout.previous, ...at, source: 'revert' };
  }
  if (group.pin === null) {
    steps.push({ rule: 'current', applies: false, words: 'its group is not pinned' });
    return null;
  }
  if (group.current === null) {
    steps.push({
      rule: 'current',
      applies: false,
      words: 'no rollout of its group has completed yet',
    });
    return null;
  }
  // After an abort without revert hosts stay where they are: only hosts that run nothing are brought to the current version.
  const isLeftBehind =
    rollout !== null && rollout.state === 'aborted' && host.running === rollout.artifactId;
  if (isLeftBehind) {
    steps.push({
      rule: 'current',
      applies: false,
      words: `stays on the version of the aborted rollout ${rollout.id}`,
    });
    return null;
  }
  const version = versionOf(scene, group.current);
  steps.push({
    rule: 'current',
    applies: true,
    words: `the group's current version is ${version}`,
  });
  return {
    artifactId: group.current,
    rolloutId: null,
    stage: null,
    pin: group.pin,
    source: 'current',
  };
}

/** The last attempts of a version that still count against it. */
function attemptsOf(host: Host, artifactId: VersionId): readonly Attempt[] {
  const forgiven = host.forgiven[artifactId] ?? 0;
  return host.attempts.filter((a) => a.artifactId === artifactId && a.n > forgiven);
}

function historyBlock(scene: Scene, host: Host, target: Target): string | null {
  const version = versionOf(scene, target.artifactId);
  const attempts = attemptsOf(host, target.artifactId);
  const failed = attempts.findLast((a) => a.outcome === 'failed');
  const confirmedSince = attempts.findLast((a) => a.outcome === 'confirmed');
  if (failed !== undefined && (confirmedSince === undefined || confirmedSince.n < failed.n))
    return `${version} failed here before (${failed.code ?? failed.phase}); it is not tried again by itself`;
  // An operator's retry also stands above the list of the host: the offer clears it there.
  const isForgiven = (host.forgiven[target.artifactId] ?? 0) > 0 && attempts.length === 0;
  const denied = host.denied.find((entry) => entry.artifactId === target.artifactId);
  if (denied !== undefined && !isForgiven)
    return `the host refuses ${version} (${denied.code}); it is not tried again by itself`;
  const inconclusive = attempts.filter((a) => a.outcome === 'inconclusive').length;
  const budget = scene.group.rollout.attemptBudget;
  if (inconclusive >= budget)
    return `${inconclusive} attempts of ${version} ended without a result; the budget is ${budget}`;
  return null;
}

function releaseBlock(scene: Scene, host: Host, target: Target): string | null {
  const release = scene.releases.get(artifactOf(target.artifactId));
  if (release === undefined) return `release ${short(target.artifactId)} is not known here`;
  if (release.revoked !== null) return `${release.version} was revoked: ${release.revoked.reason}`;
  if (release.class !== host.class)
    return `${release.version} is of class ${release.class}, the host of class ${host.class}`;
  if (release.arch !== 'any' && release.arch !== host.arch)
    return `${release.version} is for ${release.arch}, the host is ${host.arch}`;
  return null;
}

/** F73: after a restore nothing moves backwards by an order from before. */
function restoreBlock(scene: Scene, host: Host, target: Target): string | null {
  if (!scene.isRestored) return null;
  const orderEpoch = target.pin?.epoch ?? 0;
  if (orderEpoch >= scene.epoch || host.running === null) return null;
  const running = scene.releases.get(artifactOf(host.running));
  const wanted = scene.releases.get(artifactOf(target.artifactId));
  if (running === undefined)
    return 'the host runs a version that this control does not know since it was restored; pin anew';
  if (wanted === undefined || wanted.release < running.release)
    return 'the order is from before control was restored and would move the host backwards; pin anew';
  return null;
}

function blockOf(scene: Scene, host: Host, target: Target): string | null {
  if (target.pin !== null && isExpired(target.pin, scene.now))
    return `the pin expired; pin anew with a later expiry`;
  if (target.source === 'rollout' && scene.rollout !== null && scene.rollout.state !== 'running')
    return `the rollout is ${scene.rollout.state}: ${scene.rollout.words}`;
  return (
    releaseBlock(scene, host, target) ??
    restoreBlock(scene, host, target) ??
    historyBlock(scene, host, target)
  );
}

/** What `host` should run by the precedence rules, and what, if anything, keeps it from being offered. */
export function desiredOf(scene: Scene, host: Host): Desired {
  const steps: Step[] = [stopOf(scene, host)];
  const stop = steps[0];
  const target = targetOf(scene, host, steps);
  const isReached = target !== null && host.running === target.artifactId;
  if (stop?.applies === true) return { target, blocked: stop.words, isReached, steps };
  if (target === null) return { target, blocked: null, isReached: false, steps };
  if (isReached && openAttempt(host) === null) {
    steps.push({ rule: 'offer', applies: false, words: 'it runs this version already' });
    return { target, blocked: null, isReached, steps };
  }
  const blocked = blockOf(scene, host, target);
  steps.push({
    rule: 'offer',
    applies: blocked === null,
    words:
      blocked ??
      (isOnline(host, scene.now, scene.offlineAfterMs)
        ? 'nothing stands against it'
        : 'nothing stands against it, but the host was not heard of lately'),
  });
  return { target, blocked, isReached, steps };
}
