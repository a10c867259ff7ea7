/** What control and the operator say in the middle of things: recall, halt, pause, roll back (F58). */
import type { Assignment } from '#/protocol/documents.ts';
import { versionIdOf } from '#/protocol/ids.ts';
import type { Effect, Reason } from './effect.ts';
import type { Command, Event, Failure, Moment } from './event.ts';
import { abort, beginRollback, unwind } from './exits.ts';
import { limits } from './limits.ts';
import { isHeld, isLocal, operationOf } from './operation.ts';
import { decide } from './phase-offer.ts';
import type { At, State } from './state.ts';
import { at, issue, move, stay, type Turn } from './turn.ts';

type Polled = Extract<Event, { readonly type: 'polled' }>;

/** The answer of control: schedule, modes, then what it means where the host is. */
export function polled(state: State, event: Polled): Turn {
  const { assignment, now } = event;
  const later = at(state, now);
  const waitMs = Math.min(Math.max(event.pollAfterMs, limits.pollMinMs), limits.pollMaxMs);
  const heard: State = {
    ...later,
    poll: { dueRunMs: later.run.runMs + Math.round(waitMs), failures: 0 },
    modes: { ...later.modes, halted: assignment.halted },
  };
  if (heard.modes.observeOnly) return heard.at === 'checking' ? [asIdle(heard), []] : [heard, []];
  if (heard.at === 'trial') {
    const health = { ...heard.health, controlReached: true };
    return ordered({ ...heard, health }, assignment, now);
  }
  if (heard.at === 'idle' || (heard.at === 'checking' && heard.want.kind === 'poll')) {
    return heard.at === 'idle' && heard.step !== 'settled'
      ? [heard, []]
      : decide(heard, assignment, now);
  }
  return ordered(heard, assignment, now);
}

function asIdle(state: State): State {
  const { want: _want, freshId: _freshId, ...rest } = state as At<'checking'>;
  return { ...rest, at: 'idle', step: 'settled', allow: null };
}

function ordered(state: State, assignment: Assignment, now: Moment): Turn {
  if (assignment.rollbackGeneration > state.rollbackGeneration) {
    const noted: State = { ...state, rollbackGeneration: assignment.rollbackGeneration };
    const turn = goBack(noted, now);
    // Committed and resting hosts take the order up as an attempt of its own, later.
    if (turn !== null) return turn;
  }
  const recall = recallOf(state, assignment);
  if (recall !== null) {
    const turn = withdraw(state, recall, now);
    if (turn !== null) return turn;
  }
  return remode(state, now);
}

/** The offer that this attempt follows is not in force any more. A halt is not a recall: it passes. */
function recallOf(state: State, assignment: Assignment): Reason | null {
  if (!('attempt' in state)) return null;
  const { attempt } = state;
  if (attempt.cause !== 'control' || assignment.halted) return null;
  const { offer } = assignment;
  if (offer === null) return { code: 'E_RECALLED', message: 'the offer was taken back' };
  const offered = versionIdOf(offer.artifactId, offer.configId);
  if (offered === attempt.offer.artifactId) return null;
  return { code: 'E_RECALLED', message: 'another version is offered now' };
}

/** Ends an attempt that has not switched yet, at its next safe point. Null: it is past that point. */
export function withdraw(state: State, reason: Reason, now: Moment): Turn | null {
  const leaving = { now, settled: false };
  const back = { to: 'aborted', reason } as const;
  switch (state.at) {
    case 'offered':
    case 'preflight':
    case 'downloading':
    case 'verifying':
    case 'staged':
      return abort(state, { attempt: state.attempt, reason }, leaving);
    case 'waiting':
      return state.step === 'window'
        ? abort(state, { attempt: state.attempt, reason }, leaving)
        : unwind(state, { ...state, ticket: null }, back, leaving);
    case 'arming':
      // An undoing under way is not begun again, it only ends elsewhere.
      return state.unwind === null
        ? unwind(state, state, back, leaving)
        : [{ ...state, unwind: back }, []];
    case 'switching':
      return state.step === 'reboot' ? unwind(state, state, back, leaving) : null;
    case 'idle':
    case 'checking':
    case 'trial':
    case 'committing':
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

/** An order to go back, in the middle of an attempt: it ends, by aborting or by rolling back. */
function goBack(state: State, now: Moment): Turn | null {
  const reason: Reason = { code: 'E_RECALLED', message: 'a rollback was ordered' };
  switch (state.at) {
    case 'trial':
    case 'committing':
      return beginRollback(state, state, reason, { now, settled: false });
    case 'switching':
      return state.step === 'reboot'
        ? withdraw(state, reason, now)
        : beginRollback(state, state, reason, { now, settled: false });
    case 'rolling-back':
    case 'rollback-verify':
    case 'needs-attention':
      return [state, []];
    case 'offered':
    case 'preflight':
    case 'downloading':
    case 'verifying':
    case 'staged':
    case 'waiting':
    case 'arming':
      return withdraw(state, reason, now);
    case 'idle':
    case 'checking':
    case 'committed':
    case 'rolled-back':
    case 'refused':
    case 'aborted':
    case 'adrift':
      return null;
  }
}

/** Brings a state into line with its modes: stops what is held, begins what is not held any more. */
export function remode(state: State, now: Moment): Turn {
  const held = 'attempt' in state && isOnHold(state, state.attempt.cause);
  const reason: Reason = { code: 'E_HALTED', message: 'halted or paused before the switch' };
  const back = { to: 'staged', reason } as const;
  const leaving = { now, settled: false };
  if (held && state.at === 'waiting') {
    const { attempt, target } = state;
    return state.step === 'window'
      ? move(state, { at: 'staged', attempt, target }, now, false)
      : unwind(state, { attempt, target, ticket: null }, back, leaving);
  }
  if (held && state.at === 'arming' && state.unwind === null) {
    return unwind(state, state, back, leaving);
  }
  if (held && state.at === 'switching' && state.step === 'reboot') {
    return unwind(state, state, back, leaving);
  }
  if (isHeld(state)) {
    const cancels: readonly Effect[] =
      state.op?.dueRunMs === null ? [{ do: 'cancel', op: state.op.id }] : [];
    if (state.at === 'checking') return [{ ...asIdle(state), op: null }, cancels];
    return [state.op === null ? state : { ...state, op: null }, cancels];
  }
  return state.op === null && operationOf(state) !== null ? issue(state) : [state, []];
}

function isOnHold(state: State, cause: 'control' | 'file' | 'operator'): boolean {
  return state.modes.paused || (state.modes.halted && !isLocal(cause));
}

/** Why the command is not possible in this state; null when it is. The runner asks before it sends `commanded`. */
export function refusal(state: State, command: Command): Failure | null {
  const no = (message: string): Failure => ({
    code: 'E_NOT_ALLOWED_NOW',
    kind: 'refused',
    message,
  });
  if (state.modes.observeOnly && command.kind !== 'check') {
    return no('the state directory cannot be written, so this host is only observed');
  }
  const isResting = isAtRest(state);
  switch (command.kind) {
    case 'check':
    case 'pause':
    case 'resume':
      return null;
    case 'install-file':
      if (state.modes.paused) return no('the agent is paused; resume it first');
      return isResting ? null : no(`the host is ${state.at}; wait until it is idle`);
    case 'retry': {
      const isKnown = state.denied.some((entry) => entry.artifactId === command.artifactId);
      if (!isKnown) return no('this artifact is not denied on this host');
      return isResting ? null : no(`the host is ${state.at}; wait until it is idle`);
    }
    case 'clear':
      if (state.at !== 'needs-attention') return no(`the host is ${state.at}, not needs-attention`);
      return state.step === 'rest'
        ? null
        : no(
            `the host is busy in needs-attention (${state.step}); give the order again in a moment`,
          );
    case 'rollback':
      return refusalOfRollback(state, no);
  }
}

/** Nothing is under way that a new order would cut off. */
function isAtRest(state: State): boolean {
  if (state.at === 'idle') return state.step === 'settled';
  return (
    state.at === 'checking' && (state.want.kind === 'poll' || state.want.kind === 'assignment')
  );
}

function refusalOfRollback(state: State, no: (message: string) => Failure): Failure | null {
  switch (state.at) {
    case 'idle':
    case 'checking':
      if (!isAtRest(state)) return no('an order is being carried out; wait for it');
      if (state.modes.paused) return no('the agent is paused; resume it first');
      return state.known.previous === null ? no('this host holds no previous version') : null;
    case 'offered':
    case 'preflight':
    case 'downloading':
    case 'verifying':
    case 'staged':
    case 'waiting':
    case 'arming':
    case 'switching':
    case 'trial':
    case 'committing':
      return null;
    case 'rolling-back':
    case 'rollback-verify':
      return no('the host is going back already');
    case 'committed':
    case 'rolled-back':
    case 'refused':
    case 'aborted':
    case 'adrift':
    case 'needs-attention':
      return no(`the host is ${state.at}; wait until it is idle`);
  }
}

/** An order of the operator of this host. One that is refused changes nothing. */
export function commanded(state: State, command: Command, now: Moment): Turn {
  if (refusal(state, command) !== null) return stay(state);
  const later = at(state, now);
  switch (command.kind) {
    case 'check':
      return [{ ...later, poll: { ...later.poll, dueRunMs: later.run.runMs } }, []];
    case 'pause':
      return remode({ ...later, modes: { ...later.modes, paused: true } }, now);
    case 'resume':
      return remode({ ...later, modes: { ...later.modes, paused: false } }, now);
    case 'install-file': {
      const want = { kind: 'file', path: command.path } as const;
      return move(later, { at: 'checking', freshId: now.freshId, want }, now, false);
    }
    case 'retry': {
      const { artifactId } = command;
      const denied = later.denied.filter((entry) => entry.artifactId !== artifactId);
      const allowed: State = { ...later, denied, retry: null };
      return move(allowed, { at: 'idle', step: 'allow', allow: artifactId }, now, false);
    }
    case 'clear':
      if (later.at !== 'needs-attention') return stay(state);
      return move(
        later,
        { at: 'needs-attention', ref: later.ref, reason: later.reason, step: 'observe' },
        now,
        true,
      );
    case 'rollback': {
      const { previous } = later.known;
      if (later.at !== 'idle' && later.at !== 'checking') return goBack(later, now) ?? stay(state);
      if (previous === null) return stay(state);
      const want = { kind: 'held', artifactId: previous, generation: null } as const;
      return move(later, { at: 'checking', freshId: now.freshId, want }, now, false);
    }
  }
}
