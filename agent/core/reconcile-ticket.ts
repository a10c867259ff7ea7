/**
 * A start with a ticket: what is live decides, then the ticket, then the journal. `old` is the rollback slot, `target`
 * the one on trial.
 */
import type { Reason } from './effect.ts';
import type { Moment } from './event.ts';
import { beginRollback, needAttention, type Trial, unwind, verifyRollback } from './exits.ts';
import type { Facts } from './facts.ts';
import { freshHealth } from './health.ts';
import { limits } from './limits.ts';
import { confirm } from './phase-trial.ts';
import type { At, Attempt, State } from './state.ts';
import { isStale, type Ticket } from './ticket.ts';
import { issue, move, refOf, sleepUntil, type Turn, withDenied } from './turn.ts';

export interface Found {
  readonly ticket: Ticket;
  /** The file is gone; this is the journal's copy. */
  readonly isMissing: boolean;
  readonly facts: Facts;
  readonly now: Moment;
}

/** In directories the link alone decides which version is live, so a reboot by itself does not switch. */
function isDirectory(ticket: Ticket): boolean {
  return ticket.targetSlot === ticket.artifactId;
}

/** The attempt as the ticket tells it, for a host that lost its journal. */
function attemptOf(ticket: Ticket): Attempt {
  const { artifactId, class: name, version, release, rolloutId, retryGeneration, plan } = ticket;
  return {
    id: ticket.attempt,
    kind: ticket.kind,
    cause: rolloutId === null ? 'file' : 'control',
    offer: {
      artifactId,
      class: name,
      version,
      release,
      rolloutId,
      seq: 0,
      retryGeneration,
      sources: [],
      plan,
    },
    from:
      ticket.rollbackSlot === null
        ? null
        : { slot: ticket.rollbackSlot, artifactId: ticket.rollbackArtifact },
    arms: limits.arms,
    evidence: { fromTicket: true },
  };
}

export function resumeTicket(state: State, found: Found): Turn {
  const { ticket, facts, now } = found;
  const own = 'attempt' in state && state.attempt.id === ticket.attempt ? state : null;
  const trial: Trial = {
    attempt: own?.attempt ?? attemptOf(ticket),
    target: { slot: ticket.targetSlot, identity: ticket.targetIdentity },
    ticket,
  };
  const isOnTarget = facts.live === ticket.targetSlot;
  const isOnOld = facts.live === ticket.rollbackSlot;
  if (own?.at === 'committed') return isOnTarget ? issue(own) : adrift(state, trial, found, true);
  if (own?.at === 'rolled-back') return isOnOld ? issue(own) : adrift(state, trial, found, true);
  if (!isOnTarget && !isOnOld) return adrift(state, trial, found, false);
  const isGoingBack =
    own?.at === 'rolling-back' || own?.at === 'rollback-verify' || ticket.state === 'rolling-back';
  if (isGoingBack) return goOnBack(state, own, trial, found, isOnOld);
  if (ticket.state === 'committed') {
    return isOnTarget ? confirm(state, trial, now, true) : adrift(state, trial, found, false);
  }
  return isOnTarget ? openOnTarget(state, own, trial, found) : openOnOld(state, own, trial, found);
}

function adrift(state: State, trial: Trial, { facts, ticket, now }: Found, isOver: boolean): Turn {
  const trialSlot = facts.boot.trial?.slot ?? null;
  const message =
    `slot ${facts.live ?? 'none'} is live, ` +
    `neither ${ticket.targetSlot} nor ${ticket.rollbackSlot ?? 'none'} as it should be`;
  return move(
    state,
    {
      at: 'adrift',
      ref: isOver ? null : refOf(trial.attempt),
      reason: { code: 'E_ADRIFT', message },
      step: trialSlot === null ? 'remove-ticket' : 'disarm',
      trialSlot,
      ticketAttempt: ticket.attempt,
    },
    now,
    true,
  );
}

/** Decided before, by agent or guard: deny, then go back or verify. A reboot that did not help costs a round. */
function goOnBack(
  state: State,
  own: State | null,
  trial: Trial,
  { ticket, facts, now }: Found,
  isOnOld: boolean,
): Turn {
  const before = own?.at === 'rolling-back' || own?.at === 'rollback-verify' ? own : null;
  const unknown: Reason = { code: 'E_DEADLINE', message: 'the guard took the version back' };
  const told = ticket.reason === null ? unknown : (ticket.reason as Reason);
  const reason = before?.reason ?? told;
  const isNewBoot = before !== null && before.ticket.lastBootId !== facts.bootId;
  const didTry =
    before?.at === 'rollback-verify' ||
    (before !== null && before.step !== 'deny' && before.step !== 'ticket');
  const rounds = (before?.rounds ?? 1) + (isNewBoot && didTry && !isOnOld ? 1 : 0);
  const leaving = { now, settled: true };
  const marked: Trial = { ...trial, ticket: { ...ticket, lastBootId: facts.bootId } };
  if (rounds > limits.rollbackRounds) {
    const message = `still not back after ${limits.rollbackRounds} rounds: ${reason.message}`;
    return needAttention(
      state,
      refOf(trial.attempt),
      { code: 'E_ROLLBACK_FAILED', message },
      leaving,
    );
  }
  if (isOnOld) return verifyRollback(state, marked, reason, { ...leaving, rounds });
  const [next, effects] = beginRollback(state, marked, reason, leaving);
  return next.at === 'rolling-back' ? [{ ...next, rounds }, effects] : [next, effects];
}

/** The target is live and nothing is decided: its trial goes on, within the same deadline and number of boots. */
function openOnTarget(
  state: State,
  own: State | null,
  trial: Trial,
  { ticket, isMissing, facts, now }: Found,
): Turn {
  const leaving = { now, settled: true };
  const isNewBoot = ticket.lastBootId !== now.bootId;
  const counted: Ticket = isNewBoot
    ? { ...ticket, bootsUsed: ticket.bootsUsed + 1, lastBootId: now.bootId, clock: state.run }
    : ticket;
  const going: Trial = { ...trial, ticket: counted };
  if (counted.bootsUsed > counted.maxBoots) {
    const message = `${counted.maxBoots} trial boots are used up`;
    return beginRollback(state, going, { code: 'E_TRIAL_BOOTS', message }, leaving);
  }
  if (state.run.runMs >= counted.deadlineRunMs) {
    const message = `not passed within ${counted.plan.deadlineMs} ms of run time`;
    return beginRollback(state, going, { code: 'E_DEADLINE', message }, leaving);
  }
  const isBlessed = facts.boot.defaultSlot === ticket.targetSlot && facts.boot.trial === null;
  // After a power cut before the commit point nothing may run yet: then it is still a trial.
  const runs = facts.active === ticket.artifactId;
  if (own?.at === 'committing' && !isMissing && runs && (isBlessed || !isNewBoot)) {
    const { health } = own;
    return move(state, { at: 'committing', ...going, step: 'commit', health }, now, true);
  }
  const step = isNewBoot || isMissing ? 'count' : 'started';
  const health = freshHealth(counted.plan, state.run.runMs);
  return move(state, { at: 'trial', ...going, step, health }, now, true);
}

/** The old version is live and nothing is decided: not switched yet, not tried by the boot loader, or fallen back. */
function openOnOld(state: State, own: State | null, trial: Trial, found: Found): Turn {
  const { ticket, facts, now } = found;
  const leaving = { now, settled: true };
  const isSameBoot = ticket.armBootId === now.bootId;
  const wasSwitched =
    own?.at === 'trial' ||
    own?.at === 'committing' ||
    (own?.at === 'switching' && own.step === 'activate');
  if (!wasSwitched && (isDirectory(ticket) || isSameBoot)) {
    return notSwitched(state, own, trial, found);
  }
  const { trial: armed } = facts.boot;
  const isUntouched =
    armed === null
      ? own?.at === 'arming'
      : armed.slot === ticket.targetSlot && armed.triesLeft >= ticket.maxBoots;
  if (!wasSwitched && isUntouched) {
    // The boot loader did not try it (F34): no verdict on the version; armed once more at most.
    const message = `slot ${ticket.targetSlot} was armed and not booted`;
    const reason: Reason = { code: 'E_NOT_ATTEMPTED', message };
    if (own?.at === 'arming' && own.unwind !== null)
      return unwind(state, trial, own.unwind, leaving);
    return unwind(state, trial, { to: 'staged', reason }, leaving);
  }
  const isUsedUp = ticket.bootsUsed > ticket.maxBoots;
  const reason: Reason = isUsedUp
    ? { code: 'E_TRIAL_BOOTS', message: `${ticket.maxBoots} trial boots are used up` }
    : { code: 'E_FELL_BACK', message: fellBack(facts) };
  const marked: Trial = { ...trial, ticket: { ...ticket, lastBootId: now.bootId } };
  return verifyRollback(withDenied(state, trial.attempt.offer, reason, now), marked, reason, {
    ...leaving,
    rounds: 1,
  });
}

function fellBack({ live, boot }: Facts): string {
  const { reached = null } = boot;
  const how = reached === null ? '' : `; the version on trial came as far as: ${reached}`;
  return `the host came back on slot ${live ?? 'none'}${how}`;
}

/** Armed at most: go on in the same boot with the same ticket, otherwise take all back. */
function notSwitched(
  state: State,
  own: State | null,
  trial: Trial,
  { ticket, isMissing, now }: Found,
): Turn {
  const leaving = { now, settled: true };
  // A ticket that lost too much time would cost the version its trial.
  const isSameBoot = ticket.armBootId === now.bootId && !isStale(ticket, state.run.runMs);
  if (own?.at === 'arming' && own.unwind !== null) return issue(own);
  if (own?.at === 'arming' && isSameBoot && own.ticket !== null) {
    const { attempt, target } = trial;
    const phase: Pick<At<'arming'>, 'at' | 'attempt' | 'target' | 'step' | 'ticket' | 'unwind'> = {
      at: 'arming',
      attempt,
      target,
      step: 'ticket',
      ticket,
      unwind: null,
    };
    return move(state, phase, now, true);
  }
  if (own?.at === 'switching' && isSameBoot && !isMissing) {
    return own.step === 'reboot' ? sleepUntil(own, own.rebootByRunMs, 0) : issue(own);
  }
  const reason: Reason = { code: 'E_STATE', message: 'the host restarted before the switch' };
  // A directory is switched by us alone: a power cut before that is not one of the times that the host was armed in vain.
  const { attempt } = trial;
  const arms = ticket.armBootId === now.bootId ? attempt.arms : Math.max(0, attempt.arms - 1);
  const forgiven: Trial = { ...trial, attempt: { ...attempt, arms } };
  // Without the journal there is no offer to go on with.
  return unwind(state, forgiven, { to: own === null ? 'aborted' : 'staged', reason }, leaving);
}
