/** Why the host is where it is, and what happens next, from the state alone (promise 6). Pure text, for reports and people. */
import { PAUSED_WHY } from '#/protocol/documents.ts';
import type { At, State } from './state.ts';

export interface Explanation {
  /** What holds now, and the reason. At most 1024 characters. */
  readonly why: string;
  /** What happens next by itself, or who has to do what. */
  readonly next: string;
}

/** The explanation of this state at this run time (milliseconds of run time, as in `state.run`). */
export function explain(state: State, runMs: number): Explanation {
  const { why, next } = ofState(state, runMs);
  return { why: why.slice(0, 1024), next: next.slice(0, 1024) };
}

function ofState(state: State, runMs: number): Explanation {
  if (state.modes.observeOnly) {
    return {
      why: 'the state directory cannot be written: the host is only observed',
      next: 'goes on by itself once it can be written again',
    };
  }
  switch (state.at) {
    case 'idle':
      return state.step === 'activate'
        ? { why: 'the live version does not run', next: 'it is started' }
        : unlessHeld(state, ofRest(state, runMs));
    case 'checking':
      return unlessHeld(state, ofRest(state, runMs));
    case 'offered':
    case 'preflight':
      return unlessHeld(state, {
        why: `${nameOf(state)} is offered`,
        next: 'it is checked, then downloaded',
      });
    case 'downloading': {
      const again = state.rewrites > 0 ? ', once more: the first read-back failed' : '';
      const why = `${nameOf(state)} is downloaded${again}${retries(state, runMs)}`;
      return unlessHeld(state, { why, next: 'it is read back and verified' });
    }
    case 'verifying':
      return unlessHeld(state, {
        why: `${nameOf(state)} is read back and verified`,
        next: 'it is staged',
      });
    case 'staged':
      return unlessHeld(state, {
        why: `${nameOf(state)} is staged`,
        next: 'the window is looked up',
      });
    case 'waiting':
      return ofWaiting(state, runMs);
    case 'arming':
      return state.unwind === null
        ? { why: `${nameOf(state)} is armed`, next: 'the switch' }
        : {
            why: `the switch is taken back: ${told(state.unwind.reason)}`,
            next: state.unwind.to === 'staged' ? 'it stays staged' : 'the attempt ends',
          };
    case 'switching':
      return state.step === 'reboot'
        ? {
            why: `a reboot into ${nameOf(state)} was asked for, ${state.reboots} times`,
            next: `asked for again in ${seconds(state.rebootByRunMs - runMs)}, or taken back`,
          }
        : { why: `${nameOf(state)} is switched to`, next: 'its trial' };
    case 'trial':
      return ofTrial(state, runMs);
    case 'committing':
      return { why: `${nameOf(state)} passed its trial`, next: 'it is committed' };
    case 'committed':
      return { why: `${nameOf(state)} is committed`, next: 'what is left over is removed' };
    case 'rolling-back':
      return {
        why: `${nameOf(state)} is rolled back: ${told(state.reason)}`,
        next: `the previous version is made live, round ${state.rounds}`,
      };
    case 'rollback-verify':
      return {
        why: `${nameOf(state)} was rolled back: ${told(state.reason)}`,
        next: `the previous version is checked, round ${state.rounds}`,
      };
    case 'rolled-back':
      return {
        why: `${nameOf(state)} was rolled back: ${told(state.reason)}`,
        next: 'it is not tried again until an operator says so',
      };
    case 'refused':
    case 'aborted':
      return {
        why: `${state.at}: ${told(state.reason)}`,
        next: 'the host waits for the next poll',
      };
    case 'adrift':
      return { why: told(state.reason), next: 'what is live is kept if it is known to be good' };
    case 'needs-attention':
      return {
        why: told(state.reason),
        next: 'automatic actions have stopped until an operator runs `switchback-agent retry`',
      };
  }
}

function ofRest(state: At<'idle'> | At<'checking'>, runMs: number): Explanation {
  const { lastEnd, retry } = state;
  const why =
    lastEnd === null
      ? 'nothing is under way'
      : `the last attempt ended ${lastEnd.phase}${lastEnd.code === null ? '' : ` ${lastEnd.code}`}` +
        `${lastEnd.message === '' ? '' : `: ${lastEnd.message}`}`;
  const pollS = seconds(state.poll.dueRunMs - runMs);
  if (retry === null || retry.code === 'E_DENIED')
    return { why, next: `control is asked in ${pollS}` };
  const retryS = seconds(retry.notBeforeRunMs - runMs);
  const next = `tried again in ${retryS} at the earliest (failed ${retry.failures} times)`;
  return { why, next };
}

function ofWaiting(state: At<'waiting'>, runMs: number): Explanation {
  if (state.step === 'drain') {
    const why = `the drain hook runs before ${nameOf(state)}${retries(state, runMs)}`;
    return { why, next: 'the switch' };
  }
  if (state.opensAt === null) {
    return { why: 'no maintenance window is known to open', next: 'looked up again' };
  }
  const opens = new Intl.DateTimeFormat('sv-SE', {
    timeZone: 'UTC',
    dateStyle: 'short',
    timeStyle: 'short',
  }).format(state.opensAt);
  return {
    why: `${nameOf(state)} waits for its maintenance window`,
    next: `it opens at ${opens} UTC`,
  };
}

function ofTrial(state: At<'trial'>, runMs: number): Explanation {
  const left = seconds(state.ticket.deadlineRunMs - runMs);
  const open = state.health.tallies.filter((tally) => !tally.passed).map((tally) => tally.name);
  const control = state.ticket.plan.control === 'must-reach' && !state.health.controlReached;
  const waits = [...open, ...(control ? ['control to be reached'] : [])];
  const { soakUntilRunMs } = state.health;
  if (state.step === 'soak' && soakUntilRunMs !== null) {
    return {
      why: `${nameOf(state)} passed its checks and soaks`,
      next: `it is committed in ${seconds(soakUntilRunMs - runMs)} if they hold`,
    };
  }
  const why =
    state.step === 'checks' && waits.length > 0
      ? `${nameOf(state)} is on trial, not yet passed: ${waits.join(', ')}`
      : `${nameOf(state)} is on trial`;
  return { why, next: `rolled back in ${left} if it does not pass` };
}

function nameOf(state: { readonly attempt: At<'offered'>['attempt'] }): string {
  const { version, artifactId } = state.attempt.offer;
  return `version ${version} (${artifactId.slice(0, 12)})`;
}

/** Past the switch neither a pause nor a halt changes anything. */
function holdOf(state: State): Explanation | null {
  const { paused, halted } = state.modes;
  if (paused) {
    return {
      why: PAUSED_WHY,
      next: 'goes on when `switchback-agent resume` is run',
    };
  }
  return halted ? { why: 'halted by control', next: 'goes on when the halt is lifted' } : null;
}

function unlessHeld(state: State, free: Explanation): Explanation {
  const hold = holdOf(state);
  return hold === null ? free : { why: `${hold.why}: ${free.why}`, next: hold.next };
}

function retries(state: State, runMs: number): string {
  const { op } = state;
  if (op === null || op.tries === 0) return '';
  if (op.dueRunMs === null) return `, try ${op.tries + 1}`;
  return `, ${op.tries} tries failed, the next in ${seconds(op.dueRunMs - runMs)}`;
}

function told(reason: { readonly code: string; readonly message: string }): string {
  return `${reason.code}: ${reason.message}`;
}

function seconds(ms: number): string {
  return `${Math.max(0, Math.ceil(ms / 1000))} s`;
}
