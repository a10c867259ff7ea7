/** The switch: arming, and its taking back; switching. The ticket is durable before anything is armed (D7, P6). */
import type { Reason } from './effect.ts';
import type { Failed, Moment, Succeeded } from './event.ts';
import { abort, beginRollback, needAttention, unwind } from './exits.ts';
import { baselineOf, freshHealth } from './health.ts';
import { limits } from './limits.ts';
import type { At, State } from './state.ts';
import { isStale, TICKET_SCHEMA, type Ticket } from './ticket.ts';
import { at, move, reasonOf, refOf, retryLater, sleepUntil, stay, type Turn } from './turn.ts';

/** The contract of the trial that is about to begin. Its deadline is fixed here, once (I10). */
function ticketFor(state: At<'arming'>, baselinePassed: readonly string[], now: Moment): Ticket {
  const { attempt, target } = state;
  const { offer, from } = attempt;
  const { run } = at(state, now);
  return {
    schema: TICKET_SCHEMA,
    attempt: attempt.id,
    kind: attempt.kind,
    rolloutId: offer.rolloutId,
    artifactId: offer.artifactId,
    version: offer.version,
    class: offer.class,
    release: offer.release,
    retryGeneration: offer.retryGeneration,
    targetSlot: target.slot,
    targetIdentity: target.identity,
    rollbackSlot: from?.slot ?? null,
    rollbackArtifact: from?.artifactId ?? null,
    state: 'open',
    reason: null,
    maxBoots: offer.plan.maxBoots,
    bootsUsed: 0,
    armBootId: now.bootId,
    lastBootId: now.bootId,
    deadlineRunMs: run.runMs + offer.plan.deadlineMs,
    clock: run,
    plan: offer.plan,
    baselinePassed,
  };
}

export function armingSucceeded(state: At<'arming'>, event: Succeeded): Turn {
  const { now } = event;
  const leaving = { now, settled: true };
  const { attempt, target, ticket } = state;
  const toStep = (step: At<'arming'>['step']): Turn =>
    move(state, { ...phaseOf(state), step }, now, true);
  if (event.do === 'probe' && state.step === 'baseline') {
    if (attempt.arms >= limits.arms) return giveUpArming(state, now);
    // Where nothing ran before, nothing is forgiven because it failed before (F45).
    const isFirst = attempt.from === null;
    const all = attempt.offer.plan.checks.map((check) => check.name);
    const passed = isFirst ? all : baselineOf(event.result.results);
    const written = ticketFor(state, passed, now);
    const armed = { ...attempt, arms: attempt.arms + 1 };
    const phase = { ...phaseOf(state), attempt: armed, step: 'ticket', ticket: written } as const;
    return move(state, phase, now, true);
  }
  if (event.do === 'write-ticket' && state.step === 'ticket') return toStep('arm');
  if (event.do === 'arm' && state.step === 'arm' && ticket !== null) {
    if (isStale(ticket, at(state, now).run.runMs)) return armAnew(state, now);
    const phase = { at: 'switching', attempt, target, ticket, step: 'switch' } as const;
    return move(state, { ...phase, reboots: 0, rebootByRunMs: 0 }, now, true);
  }
  if (event.do === 'disarm' && state.step === 'disarm') return toStep('remove-ticket');
  if (event.do === 'remove-ticket' && state.step === 'remove-ticket') {
    return move(state, { ...phaseOf(state), step: 'undrain', ticket: null }, now, true);
  }
  return event.do === 'undrain' && state.step === 'undrain' ? unwound(state, leaving) : stay(state);
}

function phaseOf(
  state: At<'arming'>,
): Pick<At<'arming'>, 'at' | 'attempt' | 'target' | 'step' | 'ticket' | 'unwind'> {
  const { at: name, attempt, target, step, ticket, unwind: back } = state;
  return { at: name, attempt, target, step, ticket, unwind: back };
}

/** Time was lost while arming: the version must not pay for it. Bounded by the number of tickets. */
function armAnew(state: At<'arming'>, now: Moment): Turn {
  const reason: Reason = { code: 'E_DEADLINE', message: 'arming took too long' };
  return unwind(state, state, { to: 'staged', reason }, { now, settled: true });
}

/** The host came to the switch and never through it, more than once: not bootable here (F34). */
function giveUpArming(state: At<'arming'>, now: Moment): Turn {
  const message = `${state.attempt.arms} times armed, and the host did not come to a trial`;
  const reason: Reason = { code: 'E_NOT_ATTEMPTED', message };
  return unwind(state, state, { to: 'aborted', reason }, { now, settled: true });
}

function unwound(
  state: At<'arming'>,
  leaving: { readonly now: Moment; readonly settled: boolean },
): Turn {
  const { attempt, target } = state;
  const reason: Reason = state.unwind?.reason ?? { code: 'E_STATE', message: 'arming was undone' };
  if (state.unwind?.to === 'staged') {
    return move(state, { at: 'staged', attempt, target }, leaving.now, leaving.settled);
  }
  // A directory is switched by us alone: power cuts before that say nothing about the version.
  const isDirectory = target.slot === attempt.offer.artifactId;
  const deny = reason.code === 'E_NOT_ATTEMPTED' && !isDirectory;
  return abort(state, { attempt, reason, deny }, leaving);
}

export function armingFailed(state: At<'arming'>, event: Failed): Turn {
  const { failure, now } = event;
  const leaving = { now, settled: true };
  const { attempt } = state;
  switch (state.step) {
    case 'baseline':
    case 'ticket':
    case 'arm': {
      const later = failure.kind === 'unavailable' ? retryLater(state, failure, now) : null;
      const reason = reasonOf(failure);
      return later ?? unwind(state, state, { to: 'aborted', reason }, leaving);
    }
    case 'disarm':
    case 'remove-ticket': {
      const later = retryLater(state, failure, now);
      return later ?? needAttention(state, refOf(attempt), reasonOf(failure), leaving);
    }
    case 'undrain':
      return retryLater(state, failure, now) ?? unwound(state, leaving);
  }
}

export function switchingSucceeded(state: At<'switching'>, event: Succeeded): Turn {
  const { now } = event;
  const { attempt, target, ticket } = state;
  if (event.do === 'switch' && state.step === 'switch') {
    if (event.result.outcome === 'switched') {
      return move(state, { ...switchPhase(state), step: 'activate' }, now, true);
    }
    const later = at(state, now);
    const rebootByRunMs = later.run.runMs + limits.rebootWaitMs;
    const reboots = state.reboots + 1;
    const [next, effects] = move(
      later,
      { ...switchPhase(state), step: 'reboot', reboots, rebootByRunMs },
      now,
      true,
    );
    const [sleeping] = sleepUntil(next, rebootByRunMs, 0);
    return [sleeping, effects];
  }
  if (event.do !== 'activate' || state.step !== 'activate') return stay(state);
  const health = freshHealth(ticket.plan, at(state, now).run.runMs);
  return move(state, { at: 'trial', attempt, target, ticket, step: 'started', health }, now, true);
}

function switchPhase(
  state: At<'switching'>,
): Pick<
  At<'switching'>,
  'at' | 'attempt' | 'target' | 'ticket' | 'step' | 'reboots' | 'rebootByRunMs'
> {
  const { at: name, attempt, target, ticket, step, reboots, rebootByRunMs } = state;
  return { at: name, attempt, target, ticket, step, reboots, rebootByRunMs };
}

/** The reboot did not come in its time: ask again with force, a bounded number of times, then take all back (F33). */
export function rebootOverdue(state: At<'switching'>, now: Moment): Turn {
  const isLate = isStale(state.ticket, at(state, now).run.runMs);
  if (state.reboots < limits.reboots && !isLate) {
    return move(state, { ...switchPhase(state), step: 'switch' }, now, true);
  }
  const message = `the host did not reboot within ${limits.rebootWaitMs} ms, ${state.reboots} times`;
  const reason: Reason = { code: 'E_REBOOT', message };
  return unwind(state, state, { to: 'aborted', reason }, { now, settled: true });
}

export function switchingFailed(state: At<'switching'>, event: Failed): Turn {
  const { failure, now } = event;
  if (failure.kind === 'unavailable' && state.step === 'switch') {
    const later = retryLater(state, failure, now);
    if (later !== null) return later;
  }
  // Whether the switch was carried out is not known any more: going back is right in both cases.
  return beginRollback(state, state, reasonOf(failure), { now, settled: true });
}

/** The trial is over by its deadline, wherever in it the host is. */
export function deadlineReason(state: State & { readonly ticket: Ticket }): Reason {
  const { deadlineMs } = state.ticket.plan;
  return { code: 'E_DEADLINE', message: `not passed within ${deadlineMs} ms of run time` };
}
