/** From an accepted offer to a drained host: downloading, verifying, staged, waiting. Nothing live is touched. */
import type { Failed, Failure, Succeeded } from './event.ts';
import { slotRecordOf } from './facts.ts';
import { abort, needAttention, unwind } from './exits.ts';
import { limits } from './limits.ts';
import { isLocal } from './operation.ts';
import type { At, Attempt } from './state.ts';
import { at, move, reasonOf, refOf, retryLater, sleepUntil, stay, type Turn } from './turn.ts';

/** The device itself failed: no storm of further writes, someone has to look (F24, F25, F29). */
function isDeviceFailure(failure: Failure): boolean {
  return failure.code === 'E_IO' || failure.code === 'E_READ_ONLY';
}

export function downloadingSucceeded(state: At<'downloading'>, event: Succeeded): Turn {
  const { attempt, target, rewrites } = state;
  if (event.do === 'begin-slot' && state.step === 'begin') {
    return move(
      state,
      { at: 'downloading', attempt, target, step: 'fetch', rewrites },
      event.now,
      true,
    );
  }
  if (event.do !== 'download' || state.step !== 'fetch') return stay(state);
  const { fetchedBytes, reusedBytes, durationMs, rottenSeedChunks, failedSources } = event.result;
  const { way, whyNoPatch, unpatchedChunks, savedBytes } = event.result;
  const evidence = {
    ...attempt.evidence,
    fetchedBytes: fetchedBytes + Number(attempt.evidence['fetchedBytes'] ?? 0),
    reusedBytes,
    savedBytes,
    downloadMs: durationMs,
    way,
    ...(whyNoPatch === null ? {} : { whyNoPatch }),
    ...(unpatchedChunks > 0 ? { unpatchedChunks } : {}),
    ...(rottenSeedChunks > 0 ? { rottenSeedChunks } : {}),
    ...(failedSources > 0 ? { failedSources } : {}),
  };
  const told: Attempt = { ...attempt, evidence };
  return move(state, { at: 'verifying', attempt: told, target, rewrites }, event.now, true);
}

export function downloadingFailed(state: At<'downloading'>, event: Failed): Turn {
  const { failure, now } = event;
  const { attempt, target } = state;
  const reason = reasonOf(failure);
  const leaving = { now, settled: true };
  if (isDeviceFailure(failure)) return needAttention(state, refOf(attempt), reason, leaving);
  switch (failure.kind) {
    case 'unavailable':
    case 'damaged': {
      // The same file gives the same bytes, and an operator waits for the answer.
      const isHopeless = failure.kind === 'damaged' && attempt.cause === 'file';
      // What was fetched so far is kept: the next attempt resumes it (F1).
      const later = isHopeless ? null : retryLater(state, failure, now);
      return later ?? abort(state, { attempt, reason }, leaving);
    }
    case 'exhausted':
    case 'refused':
      return abort(state, { attempt, reason, discard: target.slot }, leaving);
  }
}

export function verifyingSucceeded(state: At<'verifying'>, event: Succeeded): Turn {
  if (event.do !== 'verify') return stay(state);
  const { attempt, target } = state;
  return move(state, { at: 'staged', attempt, target }, event.now, true);
}

export function verifyingFailed(state: At<'verifying'>, event: Failed): Turn {
  const { failure, now } = event;
  const { attempt, target, rewrites } = state;
  const reason = reasonOf(failure);
  const leaving = { now, settled: true };
  if (isDeviceFailure(failure)) return needAttention(state, refOf(attempt), reason, leaving);
  switch (failure.kind) {
    case 'unavailable': {
      const later = retryLater(state, failure, now);
      return later ?? abort(state, { attempt, reason }, leaving);
    }
    case 'damaged':
      if (attempt.kind === 'rollback') return abort(state, { attempt, reason }, leaving);
      if (rewrites >= limits.rewrites) return needAttention(state, refOf(attempt), reason, leaving);
      return move(
        state,
        { at: 'downloading', attempt, target, step: 'begin', rewrites: rewrites + 1 },
        now,
        true,
      );
    case 'exhausted':
    case 'refused':
      return abort(state, { attempt, reason, discard: target.slot }, leaving);
  }
}

/** Reality once more before anything is prepared: the same version is live, the target is verified. */
export function stagedSucceeded(state: At<'staged'>, event: Succeeded): Turn {
  if (event.do !== 'observe') return stay(state);
  const { attempt, target } = state;
  const { facts } = event.result;
  const { now } = event;
  if (facts.live !== (attempt.from?.slot ?? null)) {
    const message = `slot ${facts.live ?? 'none'} is live, not ${attempt.from?.slot ?? 'none'}`;
    return move(
      state,
      {
        at: 'adrift',
        ref: refOf(attempt),
        reason: { code: 'E_ADRIFT', message },
        step: 'observe',
        trialSlot: null,
        ticketAttempt: null,
      },
      now,
      true,
    );
  }
  const record = slotRecordOf(facts, target.slot);
  const ready =
    record?.artifactId === attempt.offer.artifactId &&
    (record.status === 'verified' || record.status === 'good');
  if (!ready) {
    const message = `slot ${target.slot} is ${record?.status ?? 'empty'}, not verified`;
    return abort(state, { attempt, reason: { code: 'E_SLOT', message } }, { now, settled: true });
  }
  // An order given at the host, or to go back, does not wait for a window.
  const urgent = isLocal(attempt.cause) || attempt.kind === 'rollback';
  const step = urgent ? 'drain' : 'window';
  return move(state, { at: 'waiting', attempt, target, step, opensAt: null }, now, true);
}

export function stagedFailed(state: At<'staged'>, event: Failed): Turn {
  const { attempt } = state;
  const later = retryLater(state, event.failure, event.now);
  const reason = reasonOf(event.failure);
  return later ?? abort(state, { attempt, reason }, { now: event.now, settled: true });
}

export function waitingSucceeded(state: At<'waiting'>, event: Succeeded): Turn {
  const { attempt, target } = state;
  const { now } = event;
  if (event.do === 'window' && state.step === 'window') {
    const { open, opensAt } = event.result;
    if (open) {
      return move(
        state,
        { at: 'waiting', attempt, target, step: 'drain', opensAt: null },
        now,
        true,
      );
    }
    // Asked again after a while even if the window is far away: the wall clock may jump.
    const later = at({ ...state, opensAt }, now);
    const untilMs = opensAt === null ? limits.windowRecheckMs : opensAt - now.wallMs;
    const waitMs = Math.min(Math.max(Math.round(untilMs), 1000), limits.windowRecheckMs);
    return sleepUntil(later, later.run.runMs + waitMs, 0);
  }
  if (event.do !== 'drain' || state.step !== 'drain') return stay(state);
  return move(
    state,
    { at: 'arming', attempt, target, step: 'baseline', ticket: null, unwind: null },
    now,
    true,
  );
}

export function waitingFailed(state: At<'waiting'>, event: Failed): Turn {
  const later = retryLater(state, event.failure, event.now);
  if (later !== null) return later;
  const { attempt, target } = state;
  const back = { to: 'aborted', reason: reasonOf(event.failure) } as const;
  return unwind(state, { attempt, target, ticket: null }, back, { now: event.now, settled: true });
}
