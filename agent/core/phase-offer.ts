/** From idle to an accepted offer: idle, checking, offered, preflight. */
import type { Assignment } from '#/protocol/documents.ts';
import { versionIdOf } from '#/protocol/ids.ts';
import { fullJitterMs } from './backoff.ts';
import type { OfferRef } from './effect.ts';
import type { Failed, Failure, Moment, Succeeded } from './event.ts';
import type { Facts } from './facts.ts';
import { abort, refuse, toIdle } from './exits.ts';
import { lookedAt } from './known.ts';
import { limits } from './limits.ts';
import type { At, Attempt, State } from './state.ts';
import { at, clip, denialOf, move, reasonOf, refOf, retryLater, stay, type Turn } from './turn.ts';

/** What the assignment in force means for a host at rest. */
export function decide(
  state: At<'idle'> | At<'checking'>,
  assignment: Assignment,
  now: Moment,
): Turn {
  const rest = (from: State): Turn =>
    from.at === 'idle' ? [from, []] : toIdle(from, { now, settled: true });
  if (assignment.rollbackGeneration > state.rollbackGeneration) {
    return decideRollback(state, assignment.rollbackGeneration, now);
  }
  const { offer } = assignment;
  if (offer === null || state.modes.halted || state.modes.paused) return rest(state);
  const offered = versionIdOf(offer.artifactId, offer.configId);
  if (offered === state.known.artifactId) return rest({ ...state, retry: null });
  if (state.unreported.length > limits.unreportedForNewAttempt) return rest(state);
  const same =
    state.retry?.artifactId === offered && state.retry.retryGeneration === offer.retryGeneration;
  const { retryGeneration } = offer;
  const denial = denialOf(state, { artifactId: offered, retryGeneration });
  if (denial !== null) {
    // The server is told once per order, not at every poll (F55).
    if (same && state.retry?.code === 'E_DENIED') return rest(state);
    const ref = { id: now.freshId, rolloutId: offer.rolloutId, artifactId: offered };
    const message = clip(`this host denies it since ${denial.code}: ${denial.message}`);
    return refuse(state, ref, { code: 'E_DENIED', message }, offer.retryGeneration, {
      now,
      settled: true,
    });
  }
  if (same && at(state, now).run.runMs < (state.retry?.notBeforeRunMs ?? 0)) return rest(state);
  const want = { kind: 'assignment', assignment } as const;
  return move(state, { at: 'checking', freshId: now.freshId, want }, now, true);
}

function decideRollback(state: At<'idle'> | At<'checking'>, generation: number, now: Moment): Turn {
  const { previous } = state.known;
  if (previous === null) {
    const message = 'a rollback was ordered, and this host holds no previous version';
    const noted: State = { ...state, rollbackGeneration: generation };
    return toIdle(withEnd(noted, { code: 'E_NOT_ALLOWED_NOW', message }, now), {
      now,
      settled: true,
    });
  }
  const want = { kind: 'held', artifactId: previous, generation } as const;
  return move(state, { at: 'checking', freshId: now.freshId, want }, now, true);
}

/** An order that ended before its artifact was known. */
function withEnd(state: State, reason: Pick<Failure, 'code' | 'message'>, now: Moment): State {
  const atWallMs = Math.max(0, Math.round(now.wallMs));
  const message = clip(reason.message);
  return {
    ...state,
    lastEnd: { ref: null, phase: 'refused', code: reason.code, message, atWallMs },
  };
}

export function idleSucceeded(state: At<'idle'>, event: Succeeded): Turn {
  const leaving = { now: event.now, settled: true };
  return event.do === 'activate' || event.do === 'allow' ? toIdle(state, leaving) : stay(state);
}

export function idleFailed(state: At<'idle'>, event: Failed): Turn {
  const later = retryLater(state, event.failure, event.now);
  if (later !== null) return later;
  return toIdle(withEnd(state, event.failure, event.now), { now: event.now, settled: true });
}

export function checkingSucceeded(state: At<'checking'>, event: Succeeded): Turn {
  const leaving = { now: event.now, settled: true };
  const { want } = state;
  if (event.do === 'resolve') {
    const { offer } = event.result;
    return offer === null ? toIdle(state, leaving) : offered(state, offer, 'control', event.now);
  }
  if (event.do === 'resolve-file') return offered(state, event.result.offer, 'file', event.now);
  if (event.do !== 'resolve-held') return stay(state);
  const generation = want.kind === 'held' ? want.generation : null;
  const taken = { ...state, rollbackGeneration: generation ?? state.rollbackGeneration };
  return offered(taken, event.result.offer, 'operator', event.now);
}

function offered(
  state: At<'checking'>,
  offer: OfferRef,
  cause: Attempt['cause'],
  now: Moment,
): Turn {
  const kind = state.want.kind === 'held' ? 'rollback' : 'install';
  const attempt: Attempt = {
    id: state.freshId,
    kind,
    cause,
    offer,
    from: null,
    arms: 0,
    evidence: { version: offer.version },
  };
  return move(state, { at: 'offered', attempt }, now, true);
}

export function checkingFailed(state: At<'checking'>, event: Failed): Turn {
  const { failure, now } = event;
  const { want } = state;
  const leaving = { now, settled: true };
  if (want.kind === 'assignment' && want.assignment.offer !== null && failure.kind === 'refused') {
    const { offer } = want.assignment;
    const { rolloutId, retryGeneration } = offer;
    const artifactId = versionIdOf(offer.artifactId, offer.configId);
    const same = state.retry?.artifactId === artifactId && state.retry.code === failure.code;
    const ref = { id: state.freshId, rolloutId, artifactId };
    if (!same || state.retry?.retryGeneration !== retryGeneration) {
      return refuse(state, ref, reasonOf(failure), retryGeneration, leaving);
    }
  }
  if (want.kind === 'file' || want.kind === 'held') {
    const generation = want.kind === 'held' ? want.generation : null;
    // An order of control stands until it cannot be carried out: one failure of the disk does not end it.
    const mayPass = failure.kind !== 'refused' && failure.code !== 'E_STATE';
    if (generation !== null && mayPass) return toIdle(pollLater(state, failure, now), leaving);
    const noted = { ...state, rollbackGeneration: generation ?? state.rollbackGeneration };
    return toIdle(withEnd(noted, failure, now), leaving);
  }
  return toIdle(pollLater(state, failure, now), leaving);
}

/** The next poll after a failed one: full jitter, never earlier than the other side asked for. */
export function pollLater(state: State, failure: Failure, now: Moment): State {
  const later = at(state, now);
  const failures = Math.min(later.poll.failures + 1, 1000);
  const { pollBackoffBaseMs, pollBackoffCapMs, pollMaxMs } = limits;
  const jitterMs = fullJitterMs(pollBackoffBaseMs, pollBackoffCapMs, failures, now.random);
  const waitMs = Math.min(Math.max(jitterMs, failure.retryAfterMs ?? 0), pollMaxMs);
  return { ...later, poll: { dueRunMs: later.run.runMs + waitMs, failures } };
}

/** The slot that holds this artifact, verified, so that nothing has to be downloaded (F23). */
function holds(facts: Facts, attempt: Attempt): boolean {
  return facts.slots.some(
    (slot) =>
      slot.artifactId === attempt.offer.artifactId &&
      (slot.status === 'verified' || slot.status === 'good'),
  );
}

export function offeredSucceeded(state: At<'offered'>, event: Succeeded): Turn {
  if (event.do !== 'observe') return stay(state);
  const { now } = event;
  const { facts } = event.result;
  const leaving = { now, settled: true };
  const ref = refOf(state.attempt);
  const { offer, kind } = state.attempt;
  const seen: State = { ...state, known: lookedAt(state.known, facts) };
  const denial = denialOf(state, offer);
  if (denial !== null) {
    const message = clip(`this host denies it since ${denial.code}: ${denial.message}`);
    return refuse(seen, ref, { code: 'E_DENIED', message }, offer.retryGeneration, leaving);
  }
  if (facts.liveArtifact === offer.artifactId) {
    const reason = { code: 'E_CONFLICT', message: 'this version is live already' } as const;
    return refuse(seen, ref, reason, offer.retryGeneration, leaving);
  }
  const held = holds(facts, state.attempt);
  if (kind === 'rollback' && !held) {
    const message = `the previous version ${offer.version} is not held any more`;
    const reason = { code: 'E_NOT_ALLOWED_NOW', message } as const;
    return refuse(seen, ref, reason, offer.retryGeneration, leaving);
  }
  const from = facts.live === null ? null : { slot: facts.live, artifactId: facts.liveArtifact };
  return move(seen, { at: 'preflight', attempt: { ...state.attempt, from }, held }, now, true);
}

export function offeredFailed(state: At<'offered'>, event: Failed): Turn {
  const later = retryLater(state, event.failure, event.now);
  const reason = reasonOf(event.failure);
  const { attempt } = state;
  return later ?? abort(state, { attempt, reason }, { now: event.now, settled: true });
}

export function preflightSucceeded(state: At<'preflight'>, event: Succeeded): Turn {
  if (event.do !== 'preflight') return stay(state);
  const { attempt } = state;
  const target = event.result;
  // I2: the live slot is never written, whatever the slots' adapter says.
  if (target.slot === attempt.from?.slot) {
    const message = `slot ${target.slot} is live and cannot be the target`;
    return refuse(
      state,
      refOf(attempt),
      { code: 'E_NOT_ALLOWED_NOW', message },
      attempt.offer.retryGeneration,
      { now: event.now, settled: true },
    );
  }
  return state.held
    ? move(state, { at: 'verifying', attempt, target, rewrites: 0 }, event.now, true)
    : move(
        state,
        { at: 'downloading', attempt, target, step: 'begin', rewrites: 0 },
        event.now,
        true,
      );
}

export function preflightFailed(state: At<'preflight'>, event: Failed): Turn {
  const { failure, now } = event;
  if (failure.kind === 'unavailable') {
    const later = retryLater(state, failure, now);
    if (later !== null) return later;
  }
  const { attempt } = state;
  return refuse(state, refOf(attempt), reasonOf(failure), attempt.offer.retryGeneration, {
    now,
    settled: true,
  });
}
