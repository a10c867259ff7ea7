/** Asks control and remembers the answer that is in force: control says `unchanged` most of the time (F59, F68). */
import type { Assignment } from '#/protocol/documents.ts';
import { Problem } from '#/protocol/errors.ts';
import type { State } from './core/state.ts';
import type { ControlLink } from './ports.ts';

export interface Polled {
  readonly kind: 'assignment';
  readonly assignment: Assignment;
  readonly etag: string;
  readonly pollAfterMs: number;
}

/** A function for RunnerOptions.poll. After a restart it asks for the whole answer once. */
export function createPoller(control: ControlLink): (state: State) => Promise<Polled> {
  let last: { readonly assignment: Assignment; readonly etag: string } | null = null;
  return async (state) => {
    const answer = await control.poll(last?.etag ?? null, state.at);
    if (answer.kind === 'assignment') {
      last = { assignment: answer.assignment, etag: answer.etag };
    }
    if (last === null) {
      throw new Problem('E_HTTP', 'control says that nothing changed, but was asked for the whole');
    }
    return { kind: 'assignment', ...last, pollAfterMs: answer.pollAfterMs };
  };
}
