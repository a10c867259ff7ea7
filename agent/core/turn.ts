/** Turns: how one state is left for another, with its reports and its operation. Used by every phase of the machine. */
import type { AttemptPhase } from '#/protocol/documents.ts';
import { fullJitterMs } from './backoff.ts';
import type { DenyEntry, Effect, OperationEffect, PendingReport, Reason } from './effect.ts';
import type { Failure, Moment } from './event.ts';
import { limits } from './limits.ts';
import { operationOf } from './operation.ts';
import {
  type At,
  type Attempt,
  type AttemptRef,
  type Base,
  MAX_DENIED,
  MAX_UNREPORTED,
  type State,
  type StateName,
} from './state.ts';
import type { RunClock } from './ticket.ts';

export type Turn = readonly [State, readonly Effect[]];

/** What a state has beside the base. */
export type Phase = { [N in StateName]: Omit<At<N>, keyof Base> & { readonly at: N } }[StateName];

/** The event changes nothing. */
export function stay(state: State): Turn {
  return [state, []];
}

/** The run clock at `now`. Time between the last stored moment and a power cut is not known, and not counted. */
export function advance(run: RunClock, now: Moment): RunClock {
  const sinceMs =
    run.bootId === now.bootId ? Math.max(0, now.monotonicMs - run.monotonicMs) : now.monotonicMs;
  const elapsedMs = run.bootId === '' ? 0 : Math.round(sinceMs);
  return {
    runMs: run.runMs + elapsedMs,
    bootId: now.bootId,
    monotonicMs: Math.max(0, Math.round(now.monotonicMs)),
  };
}

/** The state with its clock at `now`; to be used only by turns that change something else too. */
export function at(state: State, now: Moment): State {
  return { ...state, run: advance(state.run, now) };
}

export function baseOf(state: State): Base {
  const {
    schema,
    modes,
    run,
    poll,
    known,
    opCounter,
    op,
    denied,
    unreported,
    rollbackGeneration,
    retry,
    lastEnd,
  } = state;
  return {
    schema,
    modes,
    run,
    poll,
    known,
    opCounter,
    op,
    denied,
    unreported,
    rollbackGeneration,
    retry,
    lastEnd,
  };
}

/**
 * Leaves `state` for `phase`: the running operation is cancelled unless it has answered (`settled`), the phase is
 * reported if it is a new one, and its operation begins.
 */
export function move(state: State, phase: Phase, now: Moment, settled: boolean): Turn {
  const base = baseOf(at(state, now));
  const before = phaseOf(state);
  const next = { ...base, ...phase } as State;
  const after = phaseOf(next);
  const news =
    after !== null && (before?.phase !== after.phase || before.ref.id !== after.ref.id)
      ? reportOf(next, after, now)
      : null;
  const reported: State = news === null ? next : ended(withReport(next, news), news, after);
  const cancels: readonly Effect[] =
    !settled && state.op?.dueRunMs === null ? [{ do: 'cancel', op: state.op.id }] : [];
  const [issued, effects] = issue(reported);
  const reports: readonly Effect[] = news === null ? [] : [{ do: 'report', report: news }];
  return [issued, [...cancels, ...reports, ...effects]];
}

/** Begins the operation of the state, under a new number. */
export function issue(state: State): Turn {
  const operation = operationOf(state);
  if (operation === null) return [state.op === null ? state : { ...state, op: null }, []];
  const id = state.opCounter + 1;
  const next: State = { ...state, opCounter: id, op: { id, tries: 0, dueRunMs: null } };
  return [next, [{ ...operation, op: id } as OperationEffect]];
}

/** Begins it once more, keeping the count of its failures. */
export function reissue(state: State, now: Moment): Turn {
  const tries = state.op?.tries ?? 0;
  const [next, effects] = issue(at(state, now));
  return [next.op === null ? next : ({ ...next, op: { ...next.op, tries } } as State), effects];
}

/** The operation rests until `dueRunMs`. */
export function sleepUntil(state: State, dueRunMs: number, tries: number): Turn {
  const id = state.opCounter + 1;
  return [{ ...state, opCounter: id, op: { id, tries, dueRunMs } }, []];
}

/** Another try after a pause, or null when all tries are used up. */
export function retryLater(
  state: State,
  failure: Failure,
  now: Moment,
  maxTries: number = limits.tries,
): Turn | null {
  const tries = (state.op?.tries ?? 0) + 1;
  if (tries >= maxTries) return null;
  const later = at(state, now);
  const jitterMs = fullJitterMs(limits.retryBaseMs, limits.retryCapMs, tries, now.random);
  const waitMs = Math.min(Math.max(jitterMs, failure.retryAfterMs ?? 0), limits.pollMaxMs);
  return sleepUntil(later, later.run.runMs + waitMs, tries);
}

export function refOf(attempt: Attempt): AttemptRef {
  const { artifactId, rolloutId } = attempt.offer;
  return { id: attempt.id, rolloutId, artifactId };
}

export function reasonOf(failure: Failure): Reason {
  return { code: failure.code, message: clip(failure.message) };
}

export function clip(text: string): string {
  return text.slice(0, 1024);
}

/** Adds or renews the denial of an artifact (I7). The oldest entry makes room. */
export function withDenied(
  state: State,
  of: { readonly artifactId: DenyEntry['artifactId']; readonly retryGeneration: number },
  reason: Reason,
  now: Moment,
): State {
  const known = state.denied.find((entry) => entry.artifactId === of.artifactId);
  const entry: DenyEntry = {
    artifactId: of.artifactId,
    code: reason.code,
    message: clip(reason.message),
    retryGeneration: Math.max(of.retryGeneration, known?.retryGeneration ?? 0),
    count: (known?.count ?? 0) + 1,
    atWallMs: Math.max(0, Math.round(now.wallMs)),
  };
  const others = state.denied.filter((other) => other !== known);
  return { ...state, denied: [...others, entry].slice(-MAX_DENIED) };
}

/** Is an offer of this artifact, with this retry generation, held back by the deny-list? */
export function denialOf(
  state: State,
  of: { readonly artifactId: DenyEntry['artifactId']; readonly retryGeneration: number },
): DenyEntry | null {
  const entry = state.denied.find((denied) => denied.artifactId === of.artifactId);
  return entry !== undefined && of.retryGeneration <= entry.retryGeneration ? entry : null;
}

interface Reported {
  readonly phase: AttemptPhase;
  readonly ref: AttemptRef;
  readonly reason: Reason | null;
  readonly evidence: PendingReport['evidence'];
}

/** The phase under which a state is reported; null when no attempt is open. */
export function phaseOf(state: State): Reported | null {
  const of = (phase: AttemptPhase, attempt: Attempt, reason: Reason | null = null): Reported => ({
    phase,
    ref: refOf(attempt),
    reason,
    evidence: attempt.evidence,
  });
  switch (state.at) {
    case 'idle':
    case 'checking':
    case 'adrift':
      return null;
    case 'offered':
      return of('offered', state.attempt);
    case 'preflight':
      return of('accepted', state.attempt);
    case 'downloading':
    case 'verifying':
    case 'staged':
    case 'waiting':
    case 'switching':
    case 'trial':
    case 'committing':
      return of(state.at, state.attempt);
    case 'arming':
      return state.unwind === null ? of('arming', state.attempt) : null;
    case 'committed':
      return of('confirmed', state.attempt);
    case 'rolling-back':
    case 'rollback-verify':
      return of('rolling-back', state.attempt, state.reason);
    case 'rolled-back':
      return of('rolled-back', state.attempt, state.reason);
    case 'refused':
    case 'aborted':
    case 'needs-attention':
      return state.ref === null
        ? null
        : { phase: state.at, ref: state.ref, reason: state.reason, evidence: {} };
  }
}

const terminal: ReadonlySet<AttemptPhase> = new Set<AttemptPhase>([
  'confirmed',
  'rolled-back',
  'refused',
  'aborted',
  'needs-attention',
]);

export function isTerminal(phase: AttemptPhase): boolean {
  return terminal.has(phase);
}

/** One key for all terminal phases: an attempt has one end, and control counts it once (I5). */
export function terminalKey(attempt: string): string {
  return `${attempt}.end`;
}

function reportOf(state: State, of: Reported, now: Moment): PendingReport {
  return {
    key: isTerminal(of.phase) ? terminalKey(of.ref.id) : `${of.ref.id}.${of.phase}`,
    attempt: of.ref.id,
    rolloutId: of.ref.rolloutId,
    artifactId: of.ref.artifactId,
    phase: of.phase,
    code: of.reason?.code ?? null,
    message: clip(of.reason?.message ?? ''),
    atWallMs: Math.max(0, Math.round(now.wallMs)),
    evidence: { ...of.evidence, runMs: state.run.runMs },
  };
}

/** A full list loses its oldest progress report, never a terminal one. */
function withReport(state: State, report: PendingReport): State {
  const others = state.unreported.filter((other) => other.key !== report.key);
  const all = [...others, report];
  if (all.length <= MAX_UNREPORTED) return { ...state, unreported: all };
  const oldest = all.findIndex((other) => !isTerminal(other.phase));
  return { ...state, unreported: all.filter((_, index) => index !== Math.max(0, oldest)) };
}

function ended(state: State, report: PendingReport, of: Reported | null): State {
  if (of === null || !isTerminal(of.phase)) return state;
  const { phase, code, message, atWallMs } = report;
  return { ...state, lastEnd: { ref: of.ref, phase, code, message, atWallMs } };
}
