/**
 * What a report changes: counted once, ordered by the host's own sequence, never back to an older state (F57, F77). Clones and
 * rewinds are seen here too (F62, F63, F75, E11).
 */
import {
  attemptPhases,
  type AttemptPhase,
  type ReportDocument,
  type ReportEvent,
  terminalPhases,
} from '#/protocol/documents.ts';
import { type ErrorCode, errors, Problem } from '#/protocol/errors.ts';
import { withAttempt } from './apply.ts';
import {
  type Attempt,
  BOOTS_REMEMBERED,
  type Host,
  isPastSwitch,
  openAttempt,
  type Outcome,
} from './model.ts';

/** Sequence conflicts that are taken for a restored snapshot before they are taken for a clone. */
export const REWINDS_ALLOWED = 3;

export interface ReportChange {
  readonly host: Host;
  /** Attempts that changed or were added. */
  readonly attempts: readonly Attempt[];
  /** Attempts that ended now: exactly once each. */
  readonly ended: readonly Attempt[];
}

/** Codes of a withdrawal that the host obeyed: no verdict on the version. */
const withdrawnCodes: readonly string[] = ['E_RECALLED', 'E_HALTED'];

function kindOf(code: string | null): string | null {
  return code !== null && Object.hasOwn(errors, code) ? errors[code as ErrorCode].kind : null;
}

/** What a terminal phase means. `confirmed` alone is success; null: not terminal. */
export function outcomeOf(
  phase: AttemptPhase,
  code: string | null,
): Exclude<Outcome, 'open'> | null {
  if (!(terminalPhases as readonly AttemptPhase[]).includes(phase)) return null;
  if (phase === 'confirmed') return 'confirmed';
  if (phase !== 'aborted') return 'failed';
  if (code !== null && withdrawnCodes.includes(code)) return 'withdrawn';
  // Before the switch, only a refusal speaks of the version: a broken line, a full or a failing disk do not.
  return kindOf(code) === 'refused' || kindOf(code) === null ? 'failed' : 'inconclusive';
}

export type SequenceVerdict = 'new' | 'late' | 'repeated' | 'rewound' | 'forked';

/**
 * How a report stands to what was received. `stored` is the digest under which this sequence number was received before,
 * null if it was not.
 */
export function sequenceVerdict(
  host: Host,
  report: Pick<ReportDocument, 'seq' | 'bootId'>,
  digest: string,
  stored: string | null,
): SequenceVerdict {
  if (stored !== null && stored === digest) return 'repeated';
  if (report.seq > host.seq) return host.pastBoots.includes(report.bootId) ? 'forked' : 'new';
  // A number that was never received is a report that came late, unless it speaks of a boot that we never heard of.
  const isKnownBoot = report.bootId === host.bootId || host.pastBoots.includes(report.bootId);
  if (stored === null && isKnownBoot) return 'late';
  return host.rewinds >= REWINDS_ALLOWED ? 'forked' : 'rewound';
}

/** The host after it was heard with a boot id; a superseded id that speaks again means two machines on one identity. */
export function bootVerdict(host: Host, bootId: string): 'same' | 'rebooted' | 'forked' {
  if (host.bootId === null || host.bootId === bootId) return 'same';
  return host.pastBoots.includes(bootId) ? 'forked' : 'rebooted';
}

export function withBoot(host: Host, bootId: string): Host {
  if (host.bootId === bootId) return host;
  const past = host.bootId === null ? host.pastBoots : [...host.pastBoots, host.bootId];
  return { ...host, bootId, pastBoots: past.slice(-BOOTS_REMEMBERED) };
}

function attemptFor(host: Host, event: ReportEvent): Attempt | null {
  const byId = host.attempts.findLast((attempt) => attempt.agentAttempt === event.attempt);
  if (byId !== undefined) return byId;
  const open = openAttempt(host);
  const isBindable =
    open !== null && open.agentAttempt === null && open.artifactId === event.artifactId;
  return isBindable ? open : null;
}

function advanced(attempt: Attempt, event: ReportEvent, now: number): Attempt {
  if (attempt.outcome !== 'open') return attempt;
  const outcome = outcomeOf(event.phase, event.code);
  const isForward = attemptPhases.indexOf(event.phase) >= attemptPhases.indexOf(attempt.phase);
  // waiting and staged, trial and committing may alternate; only the furthest one is kept, unless this ends it.
  const phase = outcome !== null || isForward ? event.phase : attempt.phase;
  const isNews = outcome !== null || isForward;
  return {
    ...attempt,
    agentAttempt: event.attempt,
    phase,
    code: isNews ? event.code : attempt.code,
    message: isNews ? event.message : attempt.message,
    switchedAtMs: attempt.switchedAtMs ?? (isPastSwitch(event.phase) ? now : null),
    outcome: outcome ?? 'open',
    endedAtMs: outcome === null ? null : now,
  };
}

/** An attempt that control did not offer: an install by hand, or one whose offer was taken back. It counts in no rollout. */
function foreignAttempt(host: Host, event: ReportEvent, now: number): Attempt | null {
  const outcome = outcomeOf(event.phase, event.code);
  if (outcome === null) return null;
  return {
    host: host.id,
    n: (host.attempts.at(-1)?.n ?? 0) + 1,
    rolloutId: null,
    stage: null,
    artifactId: event.artifactId,
    retryGeneration: host.retries[event.artifactId] ?? 0,
    agentAttempt: event.attempt,
    phase: event.phase,
    outcome,
    code: event.code,
    message: event.message,
    offeredAtMs: now,
    switchedAtMs: null,
    endedAtMs: now,
  };
}

/**
 * The first report after a restore: the end of an attempt may have been heard, and forgotten with the newer store. A host
 * that rests is in none, so what it runs and refuses says how it went (F73). Null: the attempt may still be ahead.
 */
function settledUnheard(host: Host, report: ReportDocument, now: number): Attempt | null {
  const open = openAttempt(host);
  if (open === null || (report.state !== 'idle' && report.state !== 'needs-attention')) return null;
  const message = 'its end was reported before control was restored';
  const end = { phase: open.phase, code: null, message, endedAtMs: now };
  if (report.running === open.artifactId)
    return { ...open, ...end, phase: 'confirmed', outcome: 'confirmed' };
  const denied = report.denied.find((entry) => entry.artifactId === open.artifactId);
  if (denied !== undefined)
    return { ...open, ...end, phase: 'rolled-back', code: denied.code, outcome: 'failed' };
  return open.agentAttempt === null ? null : { ...open, ...end, outcome: 'inconclusive' };
}

/**
 * A host is in one attempt at a time: word of another one says that the open one has ended, and nobody will hear how: its end was
 * acknowledged, and forgotten with the newer store, before the host began the next (F73). Null: none is open that the host took up.
 */
function leftUnheard(host: Host, event: ReportEvent, now: number): Attempt | null {
  const open = openAttempt(host);
  if (open === null || open.agentAttempt === null || open.agentAttempt === event.attempt)
    return null;
  const message = 'its end was never heard: the host is in another attempt';
  return { ...open, code: null, message, outcome: 'inconclusive', endedAtMs: now };
}

/**
 * The host and its attempts after a report. `fresh` are the events of it that were never received before, in their order.
 * A late report ends attempts and fills the timeline, but does not change what the host is known to run.
 */
export function applyReport(
  host: Host,
  report: ReportDocument,
  fresh: readonly ReportEvent[],
  verdict: 'new' | 'late',
  epoch: number,
  now: number,
): ReportChange {
  let next: Host = { ...host, lastSeenAtMs: now };
  const touched = new Map<number, Attempt>();
  const ended: Attempt[] = [];
  for (const event of fresh) {
    const known = attemptFor(next, event);
    const left = known === null && verdict === 'new' ? leftUnheard(next, event, now) : null;
    if (left !== null) {
      next = withAttempt(next, left);
      touched.set(left.n, left);
      ended.push(left);
    }
    const changed = known === null ? foreignAttempt(next, event, now) : advanced(known, event, now);
    if (changed === null || changed === known) continue;
    next = withAttempt(next, changed);
    touched.set(changed.n, changed);
    if (changed.outcome !== 'open') ended.push(changed);
  }
  if (verdict === 'new') {
    const isFirstAgain = host.observedEpoch > 0 && host.observedEpoch < epoch;
    const settled = isFirstAgain ? settledUnheard(next, report, now) : null;
    if (settled !== null) {
      next = withAttempt(next, settled);
      touched.set(settled.n, settled);
      ended.push(settled);
    }
    next = {
      ...withBoot(next, report.bootId),
      seq: report.seq,
      running: report.running,
      previous: report.previous,
      state: report.state,
      healthy: report.healthy,
      why: report.why,
      denied: report.denied,
      agentVersion: report.agentVersion,
      facts: report.facts ?? next.facts,
      observedEpoch: epoch,
    };
  }
  return { host: next, attempts: [...touched.values()], ended };
}

/** Throws what the host is told when its report cannot be taken. */
export function refuseSequence(
  host: Host,
  report: Pick<ReportDocument, 'seq'>,
  verdict: 'rewound' | 'forked',
): never {
  if (verdict === 'forked')
    throw new Problem('E_FORKED', `two machines report as ${host.id}; enrol the clone anew`);
  throw new Problem(
    'E_REPORT_SEQUENCE',
    `report ${report.seq} of ${host.id} does not follow ${host.seq}`,
    { lastSeq: host.seq, seq: report.seq },
  );
}
