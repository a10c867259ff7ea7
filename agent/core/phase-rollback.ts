/** The way back: rolling-back, rollback-verify, rolled-back. Needs no network (I12). */
import type { Reason } from './effect.ts';
import type { Failed, Moment, Succeeded } from './event.ts';
import { needAttention, toIdle } from './exits.ts';
import { freshHealth, judge, nextProbeRunMs } from './health.ts';
import { lookedAt } from './known.ts';
import { limits } from './limits.ts';
import type { At, Base, State } from './state.ts';
import { at, move, refOf, retryLater, sleepUntil, stay, type Turn } from './turn.ts';

function phase(state: At<'rolling-back'>): Omit<At<'rolling-back'>, keyof Base> {
  const { at: name, attempt, target, ticket, reason, step, rounds, reboots, rebootByRunMs } = state;
  return { at: name, attempt, target, ticket, reason, step, rounds, reboots, rebootByRunMs };
}

export function rollingBackSucceeded(state: At<'rolling-back'>, event: Succeeded): Turn {
  const { now } = event;
  if (event.do === 'deny' && state.step === 'deny') return toStep(state, 'ticket', now);
  if (event.do === 'write-ticket' && state.step === 'ticket') return toStep(state, 'boot', now);
  if (event.do === 'activate' && state.step === 'activate') return verify(state, now);
  if (event.do !== 'roll-back' || state.step !== 'boot') return stay(state);
  if (event.result.outcome === 'switched') return toStep(state, 'activate', now);
  const later = at(state, now);
  const rebootByRunMs = later.run.runMs + limits.rebootWaitMs;
  const reboots = state.reboots + 1;
  const [next, effects] = move(
    later,
    { ...phase(state), step: 'reboot', reboots, rebootByRunMs },
    now,
    true,
  );
  const [sleeping] = sleepUntil(next, rebootByRunMs, 0);
  return [sleeping, effects];
}

function toStep(state: At<'rolling-back'>, step: At<'rolling-back'>['step'], now: Moment): Turn {
  return move(state, { ...phase(state), step }, now, true);
}

function verify(state: At<'rolling-back'>, now: Moment): Turn {
  const { attempt, target, ticket, reason, rounds } = state;
  const health = freshHealth(ticket.plan, at(state, now).run.runMs);
  return move(
    state,
    { at: 'rollback-verify', attempt, target, ticket, reason, step: 'observe', rounds, health },
    now,
    true,
  );
}

/** The host does not reboot into the old version: ask again, then ask an operator. */
export function rollbackRebootOverdue(state: At<'rolling-back'>, now: Moment): Turn {
  if (state.reboots < limits.reboots) return toStep(state, 'boot', now);
  const message = `the host did not reboot into the previous version, ${state.reboots} times`;
  const reason: Reason = { code: 'E_REBOOT', message };
  return needAttention(state, refOf(state.attempt), reason, { now, settled: true });
}

export function rollingBackFailed(state: At<'rolling-back'>, event: Failed): Turn {
  const { failure, now } = event;
  switch (state.step) {
    case 'deny':
    case 'ticket': {
      // Going back is the safe direction: it does not wait for what cannot be written down. The journal has both.
      const later = retryLater(state, failure, now, 3);
      return later ?? toStep(state, state.step === 'deny' ? 'ticket' : 'boot', now);
    }
    case 'boot':
    case 'reboot':
    case 'activate': {
      const later = retryLater(state, failure, now, 3);
      return later ?? anotherRound(state, `${failure.code}: ${failure.message}`, now);
    }
  }
}

/** Once more from the top, at most three times in all (F51). */
function anotherRound(
  state: At<'rolling-back'> | At<'rollback-verify'>,
  what: string,
  now: Moment,
): Turn {
  const { attempt, target, ticket, reason, rounds } = state;
  if (rounds >= limits.rollbackRounds) {
    const message = `after ${rounds} rounds: ${what}`.slice(0, 1024);
    return needAttention(
      state,
      refOf(attempt),
      { code: 'E_ROLLBACK_FAILED', message },
      { now, settled: true },
    );
  }
  return move(
    state,
    {
      at: 'rolling-back',
      attempt,
      target,
      ticket,
      reason,
      step: 'boot',
      rounds: rounds + 1,
      reboots: 0,
      rebootByRunMs: 0,
    },
    now,
    true,
  );
}

function verifyPhase(state: At<'rollback-verify'>): Omit<At<'rollback-verify'>, keyof Base> {
  const { at: name, attempt, target, ticket, reason, step, rounds, health } = state;
  return { at: name, attempt, target, ticket, reason, step, rounds, health };
}

export function rollbackVerifySucceeded(state: At<'rollback-verify'>, event: Succeeded): Turn {
  const { now } = event;
  const { ticket } = state;
  const toVerifyStep = (step: At<'rollback-verify'>['step']): Turn =>
    move(state, { ...verifyPhase(state), step }, now, true);
  if (event.do === 'deny' && state.step === 'deny') return toVerifyStep('ticket');
  if (event.do === 'write-ticket' && state.step === 'ticket') return toVerifyStep('observe');
  if (event.do === 'activate' && state.step === 'activate') return beginChecks(state, now);
  if (event.do === 'observe' && state.step === 'observe') {
    const { facts } = event.result;
    // The exact slot and digest that the ticket pins, not just any older one (F54).
    if (facts.live !== ticket.rollbackSlot || facts.liveArtifact !== ticket.rollbackArtifact) {
      return anotherRound(state, `slot ${facts.live ?? 'none'} is live`, now);
    }
    const seen = { ...state, known: lookedAt(state.known, facts) };
    return facts.active === ticket.rollbackArtifact
      ? beginChecks(seen, now)
      : move(seen, { ...verifyPhase(state), step: 'activate' }, now, true);
  }
  if (event.do === 'probe' && state.step === 'checks')
    return probed(state, event.result.results, now);
  return stay(state);
}

function beginChecks(state: At<'rollback-verify'>, now: Moment): Turn {
  if (state.ticket.rollbackSlot === null) return rolledBack(state, now);
  const health = freshHealth(state.ticket.plan, at(state, now).run.runMs);
  return move(state, { ...verifyPhase(state), step: 'checks', health }, now, true);
}

/** What passed before the attempt has to pass again (P15); what failed then is not asked for. */
function probed(
  state: At<'rollback-verify'>,
  results: Extract<Succeeded, { readonly do: 'probe' }>['result']['results'],
  now: Moment,
): Turn {
  const later = at(state, now);
  const { ticket } = state;
  const plan = {
    ...ticket.plan,
    soakMs: 0,
    control: 'offline-ok' as const,
    checks: ticket.plan.checks.map((check) => ({ ...check, baseline: 'not-worse' as const })),
  };
  const [health, verdict] = judge(state.health, {
    plan,
    baselinePassed: ticket.baselinePassed,
    results,
    runMs: later.run.runMs,
  });
  const ageMs = later.run.runMs - state.health.sinceRunMs;
  switch (verdict.is) {
    case 'failed':
      return anotherRound(state, `check ${verdict.check}: ${verdict.detail}`, now);
    case 'passed':
    case 'soaking':
      return rolledBack(state, now);
    case 'checking': {
      if (ageMs > limits.rollbackVerifyMs) {
        return anotherRound(state, `checks did not pass within ${limits.rollbackVerifyMs} ms`, now);
      }
      const next: State = { ...later, ...verifyPhase(state), health };
      return sleepUntil(next, Math.max(nextProbeRunMs(health), later.run.runMs + 1), 0);
    }
  }
}

function rolledBack(state: At<'rollback-verify'>, now: Moment): Turn {
  const { attempt, target, ticket, reason } = state;
  const { rollbackSlot: live, rollbackArtifact } = ticket;
  const known = { ...state.known, live, artifactId: rollbackArtifact };
  return move(
    { ...state, known, retry: null },
    { at: 'rolled-back', attempt, target, ticket, reason, step: 'mark-bad' },
    now,
    true,
  );
}

export function rollbackVerifyFailed(state: At<'rollback-verify'>, event: Failed): Turn {
  const { failure, now } = event;
  const what = `${failure.code}: ${failure.message}`;
  switch (state.step) {
    case 'deny':
    case 'ticket': {
      const step = state.step === 'deny' ? 'ticket' : 'observe';
      const later = retryLater(state, failure, now, 3);
      return later ?? move(state, { ...verifyPhase(state), step }, now, true);
    }
    case 'observe':
    case 'activate':
    case 'checks':
      return retryLater(state, failure, now, 3) ?? anotherRound(state, what, now);
  }
}

type RolledBackStep = At<'rolled-back'>['step'];
const afterRolledBack: Readonly<Record<RolledBackStep, RolledBackStep | null>> = {
  'mark-bad': 'remove-ticket',
  'remove-ticket': 'undrain',
  undrain: null,
};

export function rolledBackSucceeded(state: At<'rolled-back'>, event: Succeeded): Turn {
  return nextCleanup(state, event.now);
}

/** A ticket that stays is harmless: it says `rolling-back`, and that is where the host is. */
export function rolledBackFailed(state: At<'rolled-back'>, event: Failed): Turn {
  return retryLater(state, event.failure, event.now) ?? nextCleanup(state, event.now);
}

function nextCleanup(state: At<'rolled-back'>, now: Moment): Turn {
  const { attempt, target, ticket, reason } = state;
  const step = afterRolledBack[state.step];
  if (step === null) return toIdle(state, { now, settled: true });
  return move(state, { at: 'rolled-back', attempt, target, ticket, reason, step }, now, true);
}
