/**
 * The start of an agent, also after a crash or a power cut: reality first (what is live), then the ticket, then the
 * journal (docs/specs/agent-machine.md, "Truth rule"; agent.md D1-D15, P1-P15).
 */
import type { Effect, StartFacts } from './effect.ts';
import type { Moment } from './event.ts';
import { leaveIfReported, toIdle } from './exits.ts';
import { type Facts, slotRecordOf } from './facts.ts';
import { lookedAt } from './known.ts';
import { limits } from './limits.ts';
import { resumeTicket } from './reconcile-ticket.ts';
import { type At, type AttemptRef, MAX_DENIED, type State } from './state.ts';
import type { RunClock, Ticket } from './ticket.ts';
import { advance, issue, move, refOf, sleepUntil, type Turn } from './turn.ts';

/** The state after a start, with what is due in it. Pending reports come first, again. */
export function reconcile(state: State, start: StartFacts, now: Moment): Turn {
  const { facts, writable } = start;
  const ticket = start.ticket === 'damaged' ? null : start.ticket;
  const base: State = {
    ...forgetRewrites(state, now),
    run: latest(advance(state.run, now), ticket === null ? null : advance(ticket.clock, now)),
    denied: mergeDenied(state, start),
    op: null,
    modes: { ...state.modes, observeOnly: !writable || facts === null },
  };
  if (base.modes.observeOnly || facts === null) {
    return sleepUntil(base, base.run.runMs + limits.storeRecheckMs, 0);
  }
  const atWallMs = Math.max(0, Math.round(now.wallMs));
  const lost = { code: 'E_STATE', message: 'the journal could not be read' } as const;
  const seen: State = {
    ...base,
    known: lookedAt(state.known, facts),
    // Polling starts anew: what control said before is not known any more.
    poll: { ...base.poll, dueRunMs: Math.min(base.poll.dueRunMs, base.run.runMs) },
    ...(start.journal === 'lost'
      ? { lastEnd: { ref: null, phase: 'aborted' as const, ...lost, atWallMs } }
      : {}),
  };
  const [next, effects] = resume(seen, state.known.live, facts, ticket, now);
  const pending = seen.unreported.map((report): Effect => ({ do: 'report', report }));
  return [next, [...pending, ...effects]];
}

/** What reads back differently after a power cut may be what the cut took: writing it anew is a first try again (F21, F24). */
function forgetRewrites(state: State, now: Moment): State {
  return 'rewrites' in state && state.run.bootId !== now.bootId ? { ...state, rewrites: 0 } : state;
}

/** Run time never goes back, and never stands still for a crash: the guard's reading counts too (I10). */
function latest(own: RunClock, guard: RunClock | null): RunClock {
  return guard !== null && guard.runMs > own.runMs ? guard : own;
}

function mergeDenied(state: State, start: StartFacts): State['denied'] {
  const own = new Set(state.denied.map((entry) => entry.artifactId));
  const others = start.denied.filter((entry) => !own.has(entry.artifactId));
  return [...others, ...state.denied].slice(-MAX_DENIED);
}

function resume(
  state: State,
  liveBefore: string | null,
  facts: Facts,
  file: Ticket | null,
  now: Moment,
): Turn {
  const own = openAttempt(state);
  if (file !== null && file.attempt !== own?.id) {
    const endedAs = 'ref' in state ? state.ref?.id : null;
    const isOver = file.attempt === state.lastEnd?.ref?.id || file.attempt === endedAs;
    if (!isOver) return adoptTicket(state, own, facts, file, now);
    // Its attempt has ended, only its removal did not come about.
    if (state.at === 'idle' || state.at === 'checking') {
      const message = `a ticket of the ended attempt ${file.attempt} was left over`;
      return drift(state, null, { code: 'E_STATE', message }, facts, file.attempt, now);
    }
    return resumePlain(state, liveBefore, facts, now);
  }
  const ticket = file ?? ('ticket' in state ? state.ticket : null);
  return ticket === null
    ? resumePlain(state, liveBefore, facts, now)
    : resumeTicket(state, { ticket, isMissing: file === null, facts, now });
}

/** A ticket of an attempt that the journal does not know: the journal was lost, or is older (F30, F63). */
function adoptTicket(
  state: State,
  own: AttemptRef | null,
  facts: Facts,
  ticket: Ticket,
  now: Moment,
): Turn {
  if (own === null) return resumeTicket(state, { ticket, isMissing: false, facts, now });
  const reason = { code: 'E_REWOUND', message: 'a newer attempt was found on the host' } as const;
  const ended = { at: 'aborted', ref: own, reason, step: 'end', discard: null } as const;
  const [closed, effects] = move(state, ended, now, true);
  const [next, more] = resumeTicket(closed, { ticket, isMissing: false, facts, now });
  return [next, [...effects, ...more]];
}

function openAttempt(state: State): AttemptRef | null {
  return 'attempt' in state ? refOf(state.attempt) : null;
}

function drift(
  state: State,
  ref: AttemptRef | null,
  reason: At<'adrift'>['reason'],
  facts: Facts,
  ticketAttempt: string | null,
  now: Moment,
): Turn {
  const trialSlot = facts.boot.trial?.slot ?? null;
  const rest = ticketAttempt === null ? 'observe' : 'remove-ticket';
  const step = trialSlot === null ? rest : 'disarm';
  return move(state, { at: 'adrift', ref, reason, step, trialSlot, ticketAttempt }, now, true);
}

/** No ticket: nothing was switched, or all is over. The journal says where to go on; reality may object. */
function resumePlain(state: State, liveBefore: string | null, facts: Facts, now: Moment): Turn {
  const live = facts.live ?? 'none';
  switch (state.at) {
    case 'idle':
    case 'checking':
      return resumeIdle(state, liveBefore, facts, now);
    case 'preflight':
    case 'downloading':
    case 'verifying':
    case 'staged':
    case 'waiting':
    case 'arming': {
      const { attempt } = state;
      const from = attempt.from?.slot ?? null;
      if (facts.live !== from) {
        const message = `slot ${live} is live, not ${from ?? 'none'}`;
        return drift(state, refOf(attempt), { code: 'E_ADRIFT', message }, facts, null, now);
      }
      const isBeforeSwitch =
        state.at === 'waiting' || (state.at === 'arming' && state.unwind === null);
      if (!isBeforeSwitch) return issue(state);
      return move(state, { at: 'staged', attempt, target: state.target }, now, true);
    }
    case 'refused':
      return leaveIfReported(state, { now, settled: true });
    case 'aborted':
      return state.step === 'end' ? leaveIfReported(state, { now, settled: true }) : issue(state);
    case 'offered':
    case 'adrift':
    case 'needs-attention':
    // These five always have a ticket of their own and do not come here.
    case 'switching':
    case 'trial':
    case 'committing':
    case 'committed':
    case 'rolling-back':
    case 'rollback-verify':
    case 'rolled-back':
      return issue(state);
  }
}

function resumeIdle(
  state: At<'idle'> | At<'checking'>,
  liveBefore: string | null,
  facts: Facts,
  now: Moment,
): Turn {
  const { live, liveArtifact, active, boot } = facts;
  const status = slotRecordOf(facts, live)?.status ?? 'empty';
  const isElsewhere = liveBefore !== null && live !== liveBefore;
  // A host without memory, on a version that nobody found good: its trial was lost with the journal.
  const isUnproven = liveBefore === null && status !== 'good' && status !== 'empty';
  if (boot.trial !== null || isElsewhere || isUnproven) {
    const found = `slot ${live ?? 'none'} is live and ${status}, it was ${liveBefore ?? 'not known'}`;
    const message =
      boot.trial === null ? found : `slot ${boot.trial.slot} is armed without a ticket`;
    return drift(state, null, { code: 'E_ADRIFT', message }, facts, null, now);
  }
  const isOrder = state.at === 'checking' && ['file', 'held'].includes(state.want.kind);
  if (isOrder) return issue(state);
  if (live !== null && liveArtifact !== null && active !== liveArtifact) {
    return move(state, { at: 'idle', step: 'activate', allow: null }, now, true);
  }
  if (state.at === 'idle' && state.step === 'allow') return issue(state);
  return toIdle(state, { now, settled: true });
}
