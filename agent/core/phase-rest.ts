/** States in which the host rests or looks at itself: aborted, adrift, needs-attention. */
import type { Failed, Succeeded } from './event.ts';
import { leaveIfReported, needAttention, toIdle } from './exits.ts';
import { slotRecordOf } from './facts.ts';
import { lookedAt } from './known.ts';
import type { At, Base, State } from './state.ts';
import { move, reasonOf, retryLater, stay, type Turn } from './turn.ts';

export function abortedSucceeded(state: At<'aborted'>, event: Succeeded): Turn {
  if (event.do !== 'deny' && event.do !== 'discard-slot') return stay(state);
  return nextCleanup(state, event);
}

/** What could not be discarded is pruned later; what could not be denied is denied by the journal's own list. */
export function abortedFailed(state: At<'aborted'>, event: Failed): Turn {
  return retryLater(state, event.failure, event.now, 3) ?? nextCleanup(state, event);
}

function nextCleanup(state: At<'aborted'>, event: Succeeded | Failed): Turn {
  const { now } = event;
  const { ref, reason, discard } = state;
  const step = state.step === 'deny' && discard !== null ? 'discard' : 'end';
  const [ending, effects] = move(state, { at: 'aborted', ref, reason, step, discard }, now, true);
  if (step !== 'end' || ending.at !== 'aborted') return [ending, effects];
  const [left, more] = leaveIfReported(ending, { now, settled: true });
  return [left, [...effects, ...more]];
}

function adriftPhase(state: At<'adrift'>): Omit<At<'adrift'>, keyof Base> {
  const { at: name, ref, reason, step, trialSlot, ticketAttempt } = state;
  return { at: name, ref, reason, step, trialSlot, ticketAttempt };
}

/** Reality is adopted if what is live is known to be good; otherwise someone has to look (F35). */
export function adriftSucceeded(state: At<'adrift'>, event: Succeeded): Turn {
  const { now } = event;
  const leaving = { now, settled: true };
  if (event.do === 'disarm' && state.step === 'disarm') {
    const step = state.ticketAttempt === null ? 'observe' : 'remove-ticket';
    return move(state, { ...adriftPhase(state), step, trialSlot: null }, now, true);
  }
  if (event.do === 'remove-ticket' && state.step === 'remove-ticket') {
    return move(state, { ...adriftPhase(state), step: 'observe', ticketAttempt: null }, now, true);
  }
  if (event.do !== 'observe' || state.step !== 'observe') return stay(state);
  const { facts } = event.result;
  const { ref, reason } = state;
  const seen: State = { ...state, known: lookedAt(state.known, facts) };
  const record = slotRecordOf(facts, facts.live);
  const isDenied = state.denied.some((entry) => entry.artifactId === facts.liveArtifact);
  const isLost = facts.live === null && ref !== null;
  if (isLost || (facts.live !== null && (record?.status !== 'good' || isDenied))) {
    return needAttention(seen, ref, reason, leaving);
  }
  return ref === null
    ? toIdle(seen, leaving)
    : move(seen, { at: 'aborted', ref, reason, step: 'end', discard: null }, now, true);
}

export function adriftFailed(state: At<'adrift'>, event: Failed): Turn {
  const later = retryLater(state, event.failure, event.now);
  const leaving = { now: event.now, settled: true };
  return later ?? needAttention(state, state.ref, reasonOf(event.failure), leaving);
}

export function needsAttentionSucceeded(state: At<'needs-attention'>, event: Succeeded): Turn {
  const { now } = event;
  const { ref, reason } = state;
  if (event.do === 'remove-ticket' && state.step === 'remove-ticket') {
    return move(state, { at: 'needs-attention', ref, reason, step: 'rest' }, now, true);
  }
  if (event.do === 'mark-slot' && state.step === 'adopt') return startLive(state, event);
  if (event.do !== 'observe' || state.step !== 'observe') return stay(state);
  const { facts } = event.result;
  const known = { ...state.known, live: facts.live, artifactId: facts.liveArtifact };
  const seen: At<'needs-attention'> = { ...state, known, retry: null };
  const isGood = slotRecordOf(facts, facts.live)?.status === 'good';
  if (facts.live === null) return toIdle(seen, { now, settled: true });
  return isGood
    ? startLive(seen, event)
    : move(seen, { at: 'needs-attention', ref, reason, step: 'adopt' }, now, true);
}

function startLive(state: At<'needs-attention'>, { now }: Succeeded): Turn {
  return move(state, { at: 'idle', step: 'activate', allow: null }, now, true);
}

/** A ticket that cannot be removed is tried again for as long as it takes, ever more slowly. */
export function needsAttentionFailed(state: At<'needs-attention'>, event: Failed): Turn {
  const { failure, now } = event;
  const { ref, reason } = state;
  if (state.step === 'observe' || state.step === 'adopt') {
    return move(state, { at: 'needs-attention', ref, reason, step: 'rest' }, now, true);
  }
  return retryLater(state, failure, now, Number.MAX_SAFE_INTEGER) ?? stay(state);
}
