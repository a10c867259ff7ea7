/**
 * What the engine knows: plain values, loaded from the store and changed only together with it. All times are
 * milliseconds since 1970 on control's clock.
 */
import type { AttemptPhase } from '#/protocol/documents.ts';
import type { PollPolicy, RolloutPolicy } from '#/protocol/group.ts';
import type { ArtifactId, GroupName, HostId, RolloutId, VersionId } from '#/protocol/ids.ts';
import type { RolloutState, StageState } from '#/protocol/rollout.ts';
import type { Labels } from '#/protocol/selector.ts';

export interface Mark {
  readonly reason: string;
  readonly actor: string;
  readonly atMs: number;
}

export interface Pin {
  readonly group: GroupName;
  readonly host: HostId | null;
  readonly artifactId: VersionId;
  readonly seq: number;
  readonly reason: string;
  readonly ticket: string | null;
  readonly actor: string;
  readonly createdAtMs: number;
  readonly expiresAtMs: number | null;
  /** Epoch of control when it was made: after a restore, only newer pins move hosts backwards (F73). */
  readonly epoch: number;
}

export interface Group {
  readonly name: GroupName;
  readonly selector: string | null;
  readonly priority: number;
  readonly description: string;
  readonly rollout: RolloutPolicy;
  readonly poll: PollPolicy;
  readonly revision: number;
  /** Grows with every change that all hosts of the group should hear of. */
  readonly generation: number;
  readonly createdAtMs: number;
  readonly pin: Pin | null;
  /** Grows with each pin of the group or of one of its hosts. */
  readonly pinSeq: number;
  /** Version of the last completed rollout. */
  readonly current: VersionId | null;
}

export interface Release {
  readonly artifactId: ArtifactId;
  readonly name: string;
  readonly class: string;
  readonly arch: string;
  readonly version: string;
  readonly release: number;
  readonly sizeBytes: number;
  /** Size of the bundle file that control holds; null when it is held elsewhere. */
  readonly bundleBytes: number | null;
  readonly revoked: Mark | null;
  readonly sources: readonly string[];
  readonly signers: readonly string[];
  readonly importedAtMs: number;
  readonly importedBy: string;
}

/**
 * `inconclusive`: ended before the switch for a reason that says nothing about the version (network, space, damage);
 * tried again within the attempt budget. `withdrawn`: control took the offer back.
 */
export type Outcome = 'open' | 'confirmed' | 'failed' | 'inconclusive' | 'withdrawn';

export interface Attempt {
  readonly host: HostId;
  /** Counts the attempts of the host; with the host it is the lease. */
  readonly n: number;
  readonly rolloutId: RolloutId | null;
  readonly stage: number | null;
  readonly artifactId: VersionId;
  readonly retryGeneration: number;
  /** The agent's id of the attempt, from its first report. */
  readonly agentAttempt: string | null;
  readonly phase: AttemptPhase;
  readonly outcome: Outcome;
  readonly code: string | null;
  readonly message: string;
  readonly offeredAtMs: number;
  /** When control first heard of a phase from `arming` on. */
  readonly switchedAtMs: number | null;
  readonly endedAtMs: number | null;
}

export interface Host {
  readonly id: HostId;
  readonly group: GroupName;
  readonly labels: Labels;
  readonly class: string;
  readonly arch: string;
  readonly keyId: string;
  readonly signKey: string;
  readonly sealKey: string;
  /** Host statement, a DSSE envelope as JSON text. */
  readonly statement: string;
  readonly enrolledAtMs: number;
  readonly agentVersion: string;
  readonly facts: Readonly<Record<string, string | number | boolean>>;
  /**
   * Grows with each change of the assignment of this host alone. What a host is told is the sum of the generations of fleet,
   * group and host, so that a halt of 100,000 hosts is one write.
   */
  readonly generation: number;
  readonly rollbackGeneration: number;
  readonly hold: Mark | null;
  readonly quarantine: { readonly reason: string; readonly atMs: number } | null;
  readonly pin: Pin | null;
  /** retryGeneration last offered per version. */
  readonly retries: Readonly<Record<string, number>>;
  /** Attempts up to this n of a version were forgiven by an operator's retry. */
  readonly forgiven: Readonly<Record<string, number>>;
  readonly seq: number;
  readonly bootId: string | null;
  /** Boot ids that were superseded; one of them speaking again means two machines (F62, F75). */
  readonly pastBoots: readonly string[];
  /** Times the report sequence went back. */
  readonly rewinds: number;
  readonly running: VersionId | null;
  readonly previous: VersionId | null;
  readonly state: string;
  readonly healthy: boolean | null;
  readonly why: string;
  readonly denied: readonly { readonly artifactId: VersionId; readonly code: string }[];
  /** Last epoch in which the host reported (F73). */
  readonly observedEpoch: number;
  readonly lastSeenAtMs: number | null;
  /** Attempts, oldest first: the last ATTEMPTS_IN_MEMORY, and always all of the active rollout that still count. */
  readonly attempts: readonly Attempt[];
}

/** Attempts per host that are kept in memory; older ones are in the store only. */
export const ATTEMPTS_IN_MEMORY = 16;
/** Superseded boot ids that are remembered per host. */
export const BOOTS_REMEMBERED = 8;

export interface Stage {
  readonly index: number;
  readonly name: string;
  /** null: the canary stage. */
  readonly percent: number | null;
  readonly state: StageState;
  /** Hosts with a bucket up to this are members; fixed when the stage opens, so membership only grows. */
  readonly threshold: number | null;
  readonly canaries: readonly HostId[];
  readonly openedAtMs: number | null;
  readonly passedAtMs: number | null;
}

export interface Rollout {
  readonly id: RolloutId;
  readonly group: GroupName;
  readonly artifactId: VersionId;
  readonly previous: VersionId | null;
  readonly pinSeq: number;
  readonly state: RolloutState;
  readonly reason: string;
  readonly words: string;
  readonly actor: string;
  /** Snapshot: edits of the group's policy do not change a rollout that runs. */
  readonly policy: RolloutPolicy;
  readonly stages: readonly Stage[];
  /** Failures up to here were accepted by an operator's resume. */
  readonly acceptedAtMs: number;
  readonly isReverting: boolean;
  readonly startedAtMs: number;
  readonly endedAtMs: number | null;
}

export interface Halt extends Mark {
  /** 'fleet' or `group/<name>`. */
  readonly scope: string;
}

/** One group with everything that decides about it, at one moment. */
export interface Scene {
  readonly now: number;
  readonly epoch: number;
  /** True after a restore: hosts must report in this epoch before anything is offered to them. */
  readonly isRestored: boolean;
  readonly fleetHalt: Halt | null;
  readonly groupHalt: Halt | null;
  readonly group: Group;
  /** The rollout that is not over: running, paused or halted; else the last one of the group, or null. */
  readonly rollout: Rollout | null;
  readonly hosts: readonly Host[];
  /** A host not heard of for this long counts as offline. */
  readonly offlineAfterMs: number;
  readonly releases: ReadonlyMap<ArtifactId, Release>;
  /** Place of a host in the order of a rollout, in [0, 1): salted with the rollout, so that no host is always first. */
  readonly bucket: (rollout: RolloutId, host: HostId) => number;
  /** True when the canary selector of the rollout's policy matches the labels of the host. */
  readonly isCanary: (rollout: Rollout, host: Host) => boolean;
}

/** True until a rollout has ended. */
export function isActive(rollout: Rollout | null): rollout is Rollout {
  return (
    rollout !== null &&
    (rollout.state === 'running' || rollout.state === 'paused' || rollout.state === 'halted')
  );
}

/** The attempt that is not over, if any. */
export function openAttempt(host: Host): Attempt | null {
  const last = host.attempts.findLast((attempt) => attempt.outcome === 'open');
  return last ?? null;
}

export function isOnline(host: Host, now: number, offlineAfterMs: number): boolean {
  return host.lastSeenAtMs !== null && now - host.lastSeenAtMs <= offlineAfterMs;
}

const afterSwitch: readonly AttemptPhase[] = [
  'arming',
  'switching',
  'trial',
  'committing',
  'rolling-back',
];
/** True from the phase on in which the host's running version is being changed. */
export function isPastSwitch(phase: AttemptPhase): boolean {
  return afterSwitch.includes(phase);
}
