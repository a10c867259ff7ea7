/** The trial and its good end: trial (started, checks, soak), committing, committed. */
import type { Reason } from './effect.ts';
import type { Failed, Moment, Succeeded } from './event.ts';
import { beginRollback, toIdle, verifyRollback } from './exits.ts';
import { freshHealth, judge, nextProbeRunMs } from './health.ts';
import { limits } from './limits.ts';
import type { At, Base, State } from './state.ts';
import { at, move, reasonOf, retryLater, sleepUntil, stay, type Turn, withDenied } from './turn.ts';

function trialPhase(state: At<'trial'>): Omit<At<'trial'>, keyof Base> {
  const { at: name, attempt, target, ticket, step, health } = state;
  return { at: name, attempt, target, ticket, step, health };
}

export function trialSucceeded(state: At<'trial'>, event: Succeeded): Turn {
  const { now } = event;
  if (event.do === 'write-ticket' && state.step === 'count') {
    return move(state, { ...trialPhase(state), step: 'started' }, now, true);
  }
  if (event.do === 'activate' && state.step === 'activate') return beginChecks(state, now);
  if (event.do === 'observe' && state.step === 'started') {
    const { facts } = event.result;
    const { ticket } = state;
    if (facts.live === ticket.targetSlot) {
      // A version without processes of its own runs by being live.
      if (facts.active === ticket.artifactId) return beginChecks(state, now);
      return move(state, { ...trialPhase(state), step: 'activate' }, now, true);
    }
    const reason: Reason = {
      code: 'E_FELL_BACK',
      message: `slot ${facts.live ?? 'none'} is live, not ${ticket.targetSlot}`,
    };
    return facts.live === ticket.rollbackSlot
      ? verifyRollback(state, state, reason, { now, settled: true, rounds: 1 })
      : beginRollback(state, state, reason, { now, settled: true });
  }
  if (event.do === 'probe' && (state.step === 'checks' || state.step === 'soak')) {
    return probed(state, event.result, now);
  }
  return stay(state);
}

/** Control is asked at once: its answer may be part of the verdict (F46). */
function beginChecks(state: At<'trial'>, now: Moment): Turn {
  const later = at(state, now);
  const health = freshHealth(state.ticket.plan, later.run.runMs);
  const polling: State = { ...later, poll: { ...later.poll, dueRunMs: later.run.runMs } };
  return move(polling, { ...trialPhase(state), step: 'checks', health }, now, true);
}

function probed(
  state: At<'trial'>,
  result: Extract<Succeeded, { readonly do: 'probe' }>['result'],
  now: Moment,
): Turn {
  const later = at(state, now);
  const { ticket } = state;
  const [health, verdict] = judge(state.health, {
    plan: ticket.plan,
    baselinePassed: ticket.baselinePassed,
    results: result.results,
    runMs: later.run.runMs,
    ...(result.restarts === undefined ? {} : { restarts: result.restarts }),
  });
  switch (verdict.is) {
    case 'failed': {
      const message = `check ${verdict.check}: ${verdict.detail}`.slice(0, 1024);
      const { attempt } = state;
      const evidence = { ...attempt.evidence, failedCheck: verdict.check };
      const told = { ...state, attempt: { ...attempt, evidence } };
      return beginRollback(later, told, { code: 'E_UNHEALTHY', message }, { now, settled: true });
    }
    case 'passed': {
      const { attempt, target } = state;
      const phase = { at: 'committing', attempt, target, ticket, step: 'commit', health } as const;
      return move(state, phase, now, true);
    }
    case 'checking':
    case 'soaking': {
      const step = verdict.is === 'soaking' ? 'soak' : 'checks';
      const next: State = { ...later, ...trialPhase(state), step, health };
      return sleepUntil(next, Math.max(nextProbeRunMs(health), later.run.runMs + 1), 0);
    }
  }
}

export function trialFailed(state: At<'trial'>, event: Failed): Turn {
  const { failure, now } = event;
  if (state.step === 'activate') {
    return beginRollback(state, state, reasonOf(failure), { now, settled: true });
  }
  // Anything else is no verdict on the version: tried again until the deadline decides.
  const later = at(state, now);
  const again = retryLater(state, failure, now, Number.MAX_SAFE_INTEGER);
  return again ?? sleepUntil(later, later.run.runMs + limits.trialTickMs, 0);
}

export function committingSucceeded(state: At<'committing'>, event: Succeeded): Turn {
  const { now } = event;
  const { attempt, target, ticket, health } = state;
  if (event.do === 'commit' && state.step === 'commit') {
    const phase = { at: 'committing', attempt, target, ticket, step: 'ticket', health } as const;
    return move(state, phase, now, true);
  }
  if (event.do === 'write-ticket' && state.step === 'ticket')
    return confirm(state, state, now, true);
  return stay(state);
}

/** Past the commit point: from here on a way back is a new attempt (I4). */
export function confirm(
  state: State,
  { attempt, target, ticket }: Pick<At<'committing'>, 'attempt' | 'target' | 'ticket'>,
  now: Moment,
  settled: boolean,
): Turn {
  const known = {
    live: target.slot,
    artifactId: attempt.offer.artifactId,
    previous: attempt.from?.artifactId ?? null,
    retryGeneration: attempt.offer.retryGeneration,
  };
  const left = attempt.kind === 'rollback' ? (attempt.from?.artifactId ?? null) : null;
  const { retryGeneration } = state.known;
  const message = 'a rollback from it was ordered';
  // The pin may still ask for what was left: it is not taken up again on its own (promise 4).
  const denied =
    left === null
      ? state
      : withDenied(
          state,
          { artifactId: left, retryGeneration },
          { code: 'E_RECALLED', message },
          now,
        );
  const committed: State = { ...denied, known, retry: null };
  return move(
    committed,
    {
      at: 'committed',
      attempt,
      target,
      ticket: { ...ticket, state: 'committed' },
      step: 'mark-good',
    },
    now,
    settled,
  );
}

export function committingFailed(state: At<'committing'>, event: Failed): Turn {
  const again = retryLater(state, event.failure, event.now);
  if (again !== null) return again;
  return beginRollback(state, state, reasonOf(event.failure), { now: event.now, settled: true });
}

type CommittedStep = At<'committed'>['step'];
const afterCommitted: Readonly<Record<CommittedStep, CommittedStep | null>> = {
  'mark-good': 'deny',
  deny: 'raise-floor',
  'raise-floor': 'prune',
  prune: 'remove-ticket',
  'remove-ticket': 'undrain',
  undrain: null,
};

export function committedSucceeded(state: At<'committed'>, event: Succeeded): Turn {
  return nextCleanup(state, event.now);
}

/** Cleanup that keeps failing is given up: the version is good and final, and nothing of this is needed for that. */
export function committedFailed(state: At<'committed'>, event: Failed): Turn {
  return retryLater(state, event.failure, event.now) ?? nextCleanup(state, event.now);
}

function nextCleanup(state: At<'committed'>, now: Moment): Turn {
  const { attempt, target, ticket } = state;
  const isRollback = attempt.kind === 'rollback';
  const deniesLeft = isRollback && (attempt.from?.artifactId ?? null) !== null;
  let step = afterCommitted[state.step];
  // Only a rollback that was ordered denies what it left, and does not raise the floor.
  if (!deniesLeft && step === 'deny') step = afterCommitted[step];
  if (isRollback && step === 'raise-floor') step = afterCommitted[step];
  if (step === null) return toIdle(state, { now, settled: true });
  return move(state, { at: 'committed', attempt, target, ticket, step }, now, true);
}
