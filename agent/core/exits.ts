/** The ways out of an attempt that several phases share. */
import { fullJitterMs } from './backoff.ts';
import type { Reason } from './effect.ts';
import type { Moment } from './event.ts';
import type { SlotId } from './facts.ts';
import { freshHealth } from './health.ts';
import { limits } from './limits.ts';
import type { At, Attempt, AttemptRef, State, Target } from './state.ts';
import type { Ticket } from './ticket.ts';
import { at, move, refOf, stay, terminalKey, type Turn, withDenied } from './turn.ts';

export interface Leaving {
  readonly now: Moment;
  /** The operation of the state has answered; otherwise it is cancelled. */
  readonly settled: boolean;
}

/** To idle, to rest. */
export function toIdle(state: State, { now, settled }: Leaving): Turn {
  return move(state, { at: 'idle', step: 'settled', allow: null }, now, settled);
}

/** The offer is not taken up; nothing was written. */
export function refuse(
  state: State,
  ref: AttemptRef,
  reason: Reason,
  retryGeneration: number,
  leaving: Leaving,
): Turn {
  const capMs = limits.refusedBackoffCapMs;
  const held = withRetry(state, ref, reason, retryGeneration, capMs, leaving.now);
  return move(held, { at: 'refused', ref, reason }, leaving.now, leaving.settled);
}

export interface Abort {
  readonly attempt: Attempt;
  readonly reason: Reason;
  readonly discard?: SlotId;
  readonly deny?: boolean;
}

/** The attempt ends before any switch; what was live stays live. */
export function abort(state: State, of: Abort, leaving: Leaving): Turn {
  const { attempt, reason, discard = null, deny = false } = of;
  const { now } = leaving;
  const ref = refOf(attempt);
  const { retryGeneration } = attempt.offer;
  const capMs = limits.attemptBackoffCapMs;
  const withdrawn = reason.code === 'E_RECALLED' || reason.code === 'E_REWOUND';
  const noted = withdrawn
    ? { ...at(state, now), retry: null }
    : withRetry(state, ref, reason, retryGeneration, capMs, now);
  const denied = deny ? withDenied(noted, attempt.offer, reason, now) : noted;
  const step = deny ? 'deny' : discard === null ? 'end' : 'discard';
  return move(denied, { at: 'aborted', ref, reason, step, discard }, now, leaving.settled);
}

/** Automatic actions stop until an operator has looked. */
export function needAttention(
  state: State,
  ref: AttemptRef | null,
  reason: Reason,
  leaving: Leaving,
): Turn {
  const step = ref === null ? 'rest' : 'remove-ticket';
  return move(state, { at: 'needs-attention', ref, reason, step }, leaving.now, leaving.settled);
}

/** Takes back what was prepared for the switch; the host is as before arming afterwards. */
export function unwind(
  state: State,
  of: { readonly attempt: Attempt; readonly target: Target; readonly ticket: Ticket | null },
  back: { readonly to: 'staged' | 'aborted'; readonly reason: Reason },
  leaving: Leaving,
): Turn {
  const { attempt, target, ticket } = of;
  const step = ticket === null ? 'undrain' : 'disarm';
  return move(
    state,
    { at: 'arming', attempt, target, step, ticket, unwind: back },
    leaving.now,
    leaving.settled,
  );
}

export interface Trial {
  readonly attempt: Attempt;
  readonly target: Target;
  readonly ticket: Ticket;
}

/** The target is or may be live and must not stay: deny, decide durably, then go back (D13, P14). */
export function beginRollback(
  state: State,
  { attempt, target, ticket }: Trial,
  reason: Reason,
  leaving: Leaving,
): Turn {
  const { now, settled } = leaving;
  if (ticket.plan.oneWay) {
    const message = `${reason.code}: ${reason.message}`.slice(0, 1024);
    return needAttention(state, refOf(attempt), { code: 'E_ONE_WAY', message }, leaving);
  }
  const decided: Ticket = { ...ticket, state: 'rolling-back', reason };
  return move(
    withDenied(at(state, now), attempt.offer, reason, now),
    {
      at: 'rolling-back',
      attempt,
      target,
      ticket: decided,
      reason,
      step: 'deny',
      rounds: 1,
      reboots: 0,
      rebootByRunMs: 0,
    },
    now,
    settled,
  );
}

/** The old version is live again without our doing (boot loader, guard): write the reason down, then verify it. */
export function verifyRollback(
  state: State,
  { attempt, target, ticket }: Trial,
  reason: Reason,
  leaving: Leaving & { readonly rounds: number },
): Turn {
  const { now, settled, rounds } = leaving;
  const denied = withDenied(at(state, now), attempt.offer, reason, now);
  return move(
    denied,
    {
      at: 'rollback-verify',
      attempt,
      target,
      ticket: { ...ticket, state: 'rolling-back', reason },
      reason,
      step: 'deny',
      rounds,
      health: freshHealth(ticket.plan, denied.run.runMs),
    },
    now,
    settled,
  );
}

/** Leaves a terminal state once its record is in the outbox. */
export function leaveIfReported(state: At<'refused'> | At<'aborted'>, leaving: Leaving): Turn {
  const key = terminalKey(state.ref.id);
  const open = state.unreported.some((report) => report.key === key);
  return open ? stay(state) : toIdle(state, leaving);
}

function withRetry(
  state: State,
  ref: AttemptRef,
  reason: Reason,
  retryGeneration: number,
  capMs: number,
  now: Moment,
): State {
  const later = at(state, now);
  const before = later.retry;
  const again =
    before !== null &&
    before.artifactId === ref.artifactId &&
    before.retryGeneration === retryGeneration;
  const failures = (again ? before.failures : 0) + 1;
  const waitMs = fullJitterMs(limits.attemptBackoffBaseMs, capMs, failures, now.random);
  return {
    ...later,
    retry: {
      artifactId: ref.artifactId,
      retryGeneration,
      failures,
      notBeforeRunMs: later.run.runMs + waitMs,
      code: reason.code,
    },
  };
}
