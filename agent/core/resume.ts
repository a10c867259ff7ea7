/** Whether the agent may start what is live before its machine has been asked, as after a power cut. */
import type { StartFacts } from './effect.ts';
import type { Facts, SlotId } from './facts.ts';
import type { State } from './state.ts';

/** Anything that is live should run, but a target on trial: its start is counted first, or it goes back. `state` null: lost. */
export function mayResume(
  ticket: StartFacts['ticket'],
  state: State | null,
  { live }: Facts,
): boolean {
  if (live === null) return false;
  if (state?.at === 'committed') return true;
  if (ticket === 'damaged') return state !== null && live !== targetOf(state);
  return ticket === null || ticket.state === 'committed' || live !== ticket.targetSlot;
}

/** What is on its way by the journal: what a ticket that cannot be read would have said. */
function targetOf(state: State): SlotId | null {
  return 'target' in state ? state.target.slot : null;
}
