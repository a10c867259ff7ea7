/**
 * The agent's machine: `step(state, event)` decides, the runner journals the new state durably, then runs the effects,
 * then feeds their results back as events. Specification: docs/specs/agent-machine.md.
 */
import type { Effect } from './effect.ts';
import type { Event, Failed, Moment, Succeeded } from './event.ts';
import { beginRollback, leaveIfReported, unwind } from './exits.ts';
import { limits } from './limits.ts';
import { commanded, polled, withdraw } from './orders.ts';
import * as install from './phase-install.ts';
import * as offer from './phase-offer.ts';
import * as rest from './phase-rest.ts';
import * as back from './phase-rollback.ts';
import * as change from './phase-switch.ts';
import * as trial from './phase-trial.ts';
import { reconcile } from './reconcile.ts';
import type { State } from './state.ts';
import { advance, at, move, reissue, sleepUntil, stay, type Turn } from './turn.ts';

/** One transition. The same state, by reference, means: nothing to journal, nothing to do. */
export function step(state: State, event: Event): readonly [State, readonly Effect[]] {
  const { now } = event;
  switch (event.type) {
    case 'started':
      return reconcile(state, event, now);
    case 'ticked':
      return ticked(state, now);
    case 'succeeded':
      return isStray(state, event) ? stay(state) : succeeded(state, event);
    case 'failed':
      return isStray(state, event) ? stay(state) : failed(state, event);
    case 'polled':
      return polled(state, event);
    case 'poll-failed': {
      const later = offer.pollLater(state, event.failure, now);
      if (later.at !== 'checking' || later.want.kind !== 'poll') return [later, []];
      return move(later, { at: 'idle', step: 'settled', allow: null }, now, true);
    }
    case 'reported':
      return reported(state, event.key, now);
    case 'rewound': {
      const message = 'the host was put back to an old snapshot';
      return withdraw(state, { code: 'E_REWOUND', message }, now) ?? stay(state);
    }
    case 'store-failed': {
      // The look at the store that is due stays due: polls bring failed reports more often than it comes round.
      if (state.modes.observeOnly && state.op?.dueRunMs != null) return stay(state);
      const later = at({ ...state, modes: { ...state.modes, observeOnly: true } }, now);
      const [next] = sleepUntil(later, later.run.runMs + limits.storeRecheckMs, 0);
      const { op } = state;
      return [next, op?.dueRunMs === null ? [{ do: 'cancel', op: op.id }] : []];
    }
    case 'commanded':
      return commanded(state, event.command, now);
  }
}

/** The answer of an operation that was cancelled, repeated, or belongs to another life of the agent. */
function isStray(state: State, event: Succeeded | Failed): boolean {
  return state.op === null || state.op.dueRunMs !== null || state.op.id !== event.op;
}

function succeeded(state: State, event: Succeeded): Turn {
  if (state.modes.observeOnly) {
    return event.do === 'check-store' ? reconcile(state, event.result, event.now) : stay(state);
  }
  switch (state.at) {
    case 'idle':
      return offer.idleSucceeded(state, event);
    case 'checking':
      return offer.checkingSucceeded(state, event);
    case 'offered':
      return offer.offeredSucceeded(state, event);
    case 'preflight':
      return offer.preflightSucceeded(state, event);
    case 'downloading':
      return install.downloadingSucceeded(state, event);
    case 'verifying':
      return install.verifyingSucceeded(state, event);
    case 'staged':
      return install.stagedSucceeded(state, event);
    case 'waiting':
      return install.waitingSucceeded(state, event);
    case 'arming':
      return change.armingSucceeded(state, event);
    case 'switching':
      return change.switchingSucceeded(state, event);
    case 'trial':
      return trial.trialSucceeded(state, event);
    case 'committing':
      return trial.committingSucceeded(state, event);
    case 'committed':
      return trial.committedSucceeded(state, event);
    case 'rolling-back':
      return back.rollingBackSucceeded(state, event);
    case 'rollback-verify':
      return back.rollbackVerifySucceeded(state, event);
    case 'rolled-back':
      return back.rolledBackSucceeded(state, event);
    case 'refused':
      return stay(state);
    case 'aborted':
      return rest.abortedSucceeded(state, event);
    case 'adrift':
      return rest.adriftSucceeded(state, event);
    case 'needs-attention':
      return rest.needsAttentionSucceeded(state, event);
  }
}

function failed(state: State, event: Failed): Turn {
  if (state.modes.observeOnly) {
    const later = at(state, event.now);
    return sleepUntil(later, later.run.runMs + limits.storeRecheckMs, 0);
  }
  switch (state.at) {
    case 'idle':
      return offer.idleFailed(state, event);
    case 'checking':
      return offer.checkingFailed(state, event);
    case 'offered':
      return offer.offeredFailed(state, event);
    case 'preflight':
      return offer.preflightFailed(state, event);
    case 'downloading':
      return install.downloadingFailed(state, event);
    case 'verifying':
      return install.verifyingFailed(state, event);
    case 'staged':
      return install.stagedFailed(state, event);
    case 'waiting':
      return install.waitingFailed(state, event);
    case 'arming':
      return change.armingFailed(state, event);
    case 'switching':
      return change.switchingFailed(state, event);
    case 'trial':
      return trial.trialFailed(state, event);
    case 'committing':
      return trial.committingFailed(state, event);
    case 'committed':
      return trial.committedFailed(state, event);
    case 'rolling-back':
      return back.rollingBackFailed(state, event);
    case 'rollback-verify':
      return back.rollbackVerifyFailed(state, event);
    case 'rolled-back':
      return back.rolledBackFailed(state, event);
    case 'refused':
      return stay(state);
    case 'aborted':
      return rest.abortedFailed(state, event);
    case 'adrift':
      return rest.adriftFailed(state, event);
    case 'needs-attention':
      return rest.needsAttentionFailed(state, event);
  }
}

/** What time alone brings: a passed deadline, the end of a pause, the next poll. One of them per tick. */
function ticked(state: State, now: Moment): Turn {
  const { runMs } = advance(state.run, now);
  const { op } = state;
  const deadlined = state.modes.observeOnly ? null : overDeadline(state, runMs, now);
  if (deadlined !== null) return deadlined;
  if (op !== null && op.dueRunMs !== null && op.dueRunMs <= runMs) {
    if (!state.modes.observeOnly) {
      if (state.at === 'switching' && state.step === 'reboot') {
        return change.rebootOverdue(state, now);
      }
      if (state.at === 'rolling-back' && state.step === 'reboot') {
        return back.rollbackRebootOverdue(state, now);
      }
    }
    return reissue(state, now);
  }
  if (state.at === 'refused' || (state.at === 'aborted' && state.step === 'end')) {
    const [left, effects] = leaveIfReported(state, { now, settled: true });
    if (left !== state) return [left, effects];
  }
  return state.poll.dueRunMs <= runMs ? beginPoll(state, now) : stay(state);
}

function beginPoll(state: State, now: Moment): Turn {
  const later = at(state, now);
  const dueRunMs = later.run.runMs + limits.pollAnswerMs;
  const polling: State = { ...later, poll: { ...later.poll, dueRunMs } };
  // Reports that did not reach the outbox are offered to it again with each poll.
  const pending = state.unreported.map((report): Effect => ({ do: 'report', report }));
  const effects: readonly Effect[] = [{ do: 'poll' }, ...pending];
  if (state.at !== 'idle' || state.step !== 'settled' || state.modes.observeOnly) {
    return [polling, effects];
  }
  const want = { kind: 'poll' } as const;
  const [checking] = move(polling, { at: 'checking', freshId: now.freshId, want }, now, true);
  return [checking, effects];
}

/** Run time at which the machine acts by itself on what is on trial; null when nothing is. */
function deadlineOf(state: State): number | null {
  switch (state.at) {
    case 'switching':
    case 'trial':
    case 'committing':
      return state.ticket.deadlineRunMs;
    case 'idle':
    case 'checking':
    case 'offered':
    case 'preflight':
    case 'downloading':
    case 'verifying':
    case 'staged':
    case 'waiting':
    case 'arming':
    case 'committed':
    case 'rolling-back':
    case 'rollback-verify':
    case 'rolled-back':
    case 'refused':
    case 'aborted':
    case 'adrift':
    case 'needs-attention':
      return null;
  }
}

function overDeadline(state: State, runMs: number, now: Moment): Turn | null {
  const deadline = deadlineOf(state);
  if (deadline === null || runMs < deadline || !('ticket' in state)) return null;
  const leaving = { now, settled: false };
  if (state.at === 'switching' && state.step === 'reboot') {
    const message = 'the host did not reboot before the deadline of the trial';
    const reason = { code: 'E_REBOOT', message } as const;
    return unwind(state, state, { to: 'aborted', reason }, leaving);
  }
  if (state.at !== 'switching' && state.at !== 'trial' && state.at !== 'committing') return null;
  return beginRollback(state, state, change.deadlineReason(state), leaving);
}

/** Milliseconds until the machine wants a `ticked` event; null when it waits for something else only. */
export function wakeInMs(state: State, now: Moment): number | null {
  const { runMs } = advance(state.run, now);
  const deadline = state.modes.observeOnly ? null : deadlineOf(state);
  const times = [state.op?.dueRunMs ?? null, state.poll.dueRunMs, deadline];
  const due = times.filter((time) => time !== null);
  return due.length === 0 ? null : Math.max(0, Math.min(...due) - runMs);
}

function reported(state: State, key: string, now: Moment): Turn {
  const unreported = state.unreported.filter((report) => report.key !== key);
  if (unreported.length === state.unreported.length) return stay(state);
  const told: State = { ...at(state, now), unreported };
  const isOver = told.at === 'refused' || (told.at === 'aborted' && told.step === 'end');
  if (!isOver || told.modes.observeOnly) return [told, []];
  const [left, effects] = leaveIfReported(told, { now, settled: true });
  return [left, effects];
}

/**
 * Does the new state have to be durable before its effects run? False for what a restart rebuilds anyway (polling, the
 * clock by itself), and while nothing can be written.
 */
export function mustJournal(before: State, after: State): boolean {
  if (before === after || after.modes.observeOnly) return false;
  return before.modes.observeOnly || !isSame(durablePart(before), durablePart(after));
}

/** What a restart would miss. A check that control began is as good as idle: it begins again by itself. */
function durablePart(state: State): object {
  const { poll: _poll, run: _run, opCounter: _counter, op, ...rest } = state;
  const tries = op?.tries ?? 0;
  const isPolling =
    rest.at === 'checking' && (rest.want.kind === 'poll' || rest.want.kind === 'assignment');
  if (!isPolling) return { ...rest, tries };
  const { want: _want, freshId: _freshId, ...base } = rest;
  return { ...base, at: 'idle', step: 'settled', allow: null, tries: 0 };
}

/** Equal content; most of two neighbouring states is the same object. */
function isSame(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true;
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false;
  const [keysA, keysB] = [Object.keys(a), Object.keys(b)];
  return (
    keysA.length === keysB.length &&
    keysA.every((key) => Object.hasOwn(b, key) && isSame(Reflect.get(a, key), Reflect.get(b, key)))
  );
}
