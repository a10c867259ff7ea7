/**
 * The agent's machine: `step(state, event)` decides, the runner journals the new state durably, then runs the effects,
 * then feeds their results back as events. Specification: docs/specs/agent-machine.md.
 */
import type { Effect } from './effect.ts';
import type { Command, Event, Failure, Moment } from './event.ts';
import type { State } from './state.ts';

/** One transition. The same state, by reference, means: nothing to journal, nothing to do. */
export function step(state: State, event: Event): readonly [State, readonly Effect[]] {
  return [state, event.type === 'ticked' ? [] : []];
}

/** Why the command is not possible in this state; null when it is. The runner asks before it sends `commanded`. */
export function refusal(_state: State, _command: Command): Failure | null {
  return null;
}

/** Milliseconds until the machine wants a `ticked` event; null when it waits for something else only. */
export function wakeInMs(_state: State, _now: Moment): number | null {
  return null;
}

/** Does the new state have to be durable before its effects run? False for what a restart rebuilds anyway (polling). */
export function mustJournal(before: State, after: State): boolean {
  return before !== after;
}
