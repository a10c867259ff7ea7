/**
 * The one operation that is due in a state. Because it follows from the durable state alone, a crash after the journal
 * and before the effect loses nothing: the next start issues it again.
 */
import type { Operations, OperationName } from './effect.ts';
import { dueChecks } from './health.ts';
import type { At, State } from './state.ts';

/** An operation without its number. */
export type Operation = {
  [D in OperationName]: { readonly do: D } & Operations[D];
}[OperationName];

/** States in which a pause or a halt stops the work at once: nothing was switched yet. */
export function isHeld(state: State): boolean {
  if (!state.modes.paused && !state.modes.halted) return false;
  switch (state.at) {
    case 'checking':
      return state.want.kind === 'assignment';
    case 'offered':
    case 'preflight':
    case 'downloading':
    case 'verifying':
    case 'staged':
      return !(state.modes.halted && !state.modes.paused && isLocal(state.attempt.cause));
    case 'idle':
    case 'waiting':
    case 'arming':
    case 'switching':
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
      return false;
  }
}

/** An order given at the host is not held by a halt of the fleet. */
export function isLocal(cause: 'control' | 'file' | 'operator'): boolean {
  return cause !== 'control';
}

/** What has to be done in this state; null when it waits for an event or for time. */
export function operationOf(state: State): Operation | null {
  if (state.modes.observeOnly) return { do: 'check-store' };
  if (isHeld(state)) return null;
  switch (state.at) {
    case 'idle':
      return ofIdle(state);
    case 'checking':
      return ofChecking(state);
    case 'offered':
    case 'staged':
      return { do: 'observe' };
    case 'preflight':
      return { do: 'preflight', artifactId: state.attempt.offer.artifactId, held: state.held };
    case 'downloading':
      return ofDownloading(state);
    case 'verifying':
      return {
        do: 'verify',
        artifactId: state.attempt.offer.artifactId,
        slot: state.target.slot,
      };
    case 'waiting':
      return state.step === 'window' ? { do: 'window' } : { do: 'drain' };
    case 'arming':
      return ofArming(state);
    case 'switching':
      return ofSwitching(state);
    case 'trial':
      return ofTrial(state);
    case 'committing':
      return state.step === 'commit'
        ? { do: 'commit', slot: state.target.slot }
        : { do: 'write-ticket', ticket: { ...state.ticket, state: 'committed' } };
    case 'committed':
      return ofCommitted(state);
    case 'rolling-back':
      return ofRollingBack(state);
    case 'rollback-verify':
      return ofRollbackVerify(state);
    case 'rolled-back':
      return ofRolledBack(state);
    case 'refused':
      return null;
    case 'aborted':
      return ofAborted(state);
    case 'adrift':
      return ofAdrift(state);
    case 'needs-attention':
      return ofNeedsAttention(state);
  }
}

function ofIdle(state: At<'idle'>): Operation | null {
  switch (state.step) {
    case 'settled':
      return null;
    case 'activate':
      return { do: 'activate', slot: state.known.live, artifactId: state.known.artifactId };
    case 'allow':
      return state.allow === null ? null : { do: 'allow', artifactId: state.allow };
  }
}

function ofChecking(state: At<'checking'>): Operation | null {
  const { want } = state;
  switch (want.kind) {
    case 'poll':
      return null;
    case 'assignment':
      return { do: 'resolve', assignment: want.assignment };
    case 'file':
      return { do: 'resolve-file', path: want.path };
    case 'held':
      return { do: 'resolve-held', artifactId: want.artifactId };
  }
}

function ofDownloading(state: At<'downloading'>): Operation {
  const { artifactId, sources } = state.attempt.offer;
  const { slot } = state.target;
  return state.step === 'begin'
    ? { do: 'begin-slot', artifactId, slot }
    : { do: 'download', artifactId, slot, sources };
}

function ofArming(state: At<'arming'>): Operation | null {
  const { offer } = state.attempt;
  switch (state.step) {
    case 'baseline':
      return {
        do: 'probe',
        artifactId: offer.artifactId,
        checks: offer.plan.checks.map((check) => check.name),
      };
    case 'ticket':
      return state.ticket === null ? null : { do: 'write-ticket', ticket: state.ticket };
    case 'arm':
      return { do: 'arm', slot: state.target.slot, tries: offer.plan.maxBoots };
    case 'disarm':
      return { do: 'disarm', slot: state.target.slot };
    case 'remove-ticket':
      return { do: 'remove-ticket', attempt: state.attempt.id };
    case 'undrain':
      return { do: 'undrain' };
  }
}

function ofSwitching(state: At<'switching'>): Operation | null {
  const { slot } = state.target;
  switch (state.step) {
    case 'switch':
      return { do: 'switch', slot, force: state.reboots > 0 };
    case 'reboot':
      return null;
    case 'activate':
      return { do: 'activate', slot, artifactId: state.attempt.offer.artifactId };
  }
}

function ofTrial(state: At<'trial'>): Operation {
  const { offer } = state.attempt;
  switch (state.step) {
    case 'count':
      return { do: 'write-ticket', ticket: state.ticket };
    case 'started':
      return { do: 'observe' };
    case 'activate':
      return { do: 'activate', slot: state.target.slot, artifactId: offer.artifactId };
    case 'checks':
    case 'soak':
      return {
        do: 'probe',
        artifactId: offer.artifactId,
        checks: dueChecks(state.health, state.run.runMs),
      };
  }
}

function ofCommitted(state: At<'committed'>): Operation | null {
  const { offer, from, id } = state.attempt;
  switch (state.step) {
    case 'mark-good':
      return { do: 'mark-slot', slot: state.target.slot, status: 'good', reason: null };
    case 'deny': {
      const entry = state.denied.find((denied) => denied.artifactId === from?.artifactId);
      return entry === undefined ? null : { do: 'deny', entry };
    }
    case 'raise-floor':
      return { do: 'raise-floor', class: offer.class, release: offer.release };
    case 'prune':
      return {
        do: 'prune',
        keep: from === null ? [state.target.slot] : [state.target.slot, from.slot],
      };
    case 'remove-ticket':
      return { do: 'remove-ticket', attempt: id };
    case 'undrain':
      return { do: 'undrain' };
  }
}

function ofRollingBack(state: At<'rolling-back'>): Operation | null {
  const { ticket } = state;
  switch (state.step) {
    case 'deny':
      return denyOf(state);
    case 'ticket':
      return { do: 'write-ticket', ticket };
    case 'boot':
      return {
        do: 'roll-back',
        slot: ticket.rollbackSlot,
        bad: state.target.slot,
        force: state.reboots > 0,
      };
    case 'reboot':
      return null;
    case 'activate':
      return { do: 'activate', slot: ticket.rollbackSlot, artifactId: ticket.rollbackArtifact };
  }
}

function ofRollbackVerify(state: At<'rollback-verify'>): Operation | null {
  const { ticket } = state;
  switch (state.step) {
    case 'deny':
      return denyOf(state);
    case 'ticket':
      return { do: 'write-ticket', ticket };
    case 'observe':
      return { do: 'observe' };
    case 'activate':
      return { do: 'activate', slot: ticket.rollbackSlot, artifactId: ticket.rollbackArtifact };
    case 'checks':
      return {
        do: 'probe',
        artifactId: state.attempt.offer.artifactId,
        checks: dueChecks(state.health, state.run.runMs),
      };
  }
}

function ofRolledBack(state: At<'rolled-back'>): Operation {
  switch (state.step) {
    case 'mark-bad':
      return {
        do: 'mark-slot',
        slot: state.target.slot,
        status: 'bad',
        reason: `${state.reason.code}: ${state.reason.message}`.slice(0, 1024),
      };
    case 'remove-ticket':
      return { do: 'remove-ticket', attempt: state.attempt.id };
    case 'undrain':
      return { do: 'undrain' };
  }
}

function ofAborted(state: At<'aborted'>): Operation | null {
  switch (state.step) {
    case 'deny': {
      const entry = state.denied.find((denied) => denied.artifactId === state.ref.artifactId);
      return entry === undefined ? null : { do: 'deny', entry };
    }
    case 'discard':
      return state.discard === null ? null : { do: 'discard-slot', slot: state.discard };
    case 'end':
      return null;
  }
}

function ofAdrift(state: At<'adrift'>): Operation | null {
  switch (state.step) {
    case 'disarm':
      return state.trialSlot === null ? null : { do: 'disarm', slot: state.trialSlot };
    case 'remove-ticket':
      return { do: 'remove-ticket', attempt: state.ticketAttempt ?? '' };
    case 'observe':
      return { do: 'observe' };
  }
}

function ofNeedsAttention(state: At<'needs-attention'>): Operation | null {
  switch (state.step) {
    case 'remove-ticket':
      return { do: 'remove-ticket', attempt: state.ref?.id ?? '' };
    case 'rest':
      return null;
    case 'observe':
      return { do: 'observe' };
    case 'adopt': {
      const { live } = state.known;
      return live === null ? null : { do: 'mark-slot', slot: live, status: 'good', reason: null };
    }
  }
}

function denyOf(state: At<'rolling-back'> | At<'rollback-verify'>): Operation | null {
  const { artifactId } = state.attempt.offer;
  const entry = state.denied.find((denied) => denied.artifactId === artifactId);
  return entry === undefined ? null : { do: 'deny', entry };
}
