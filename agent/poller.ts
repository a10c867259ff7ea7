/** Asks control and remembers the answer that is in force: control says `unchanged` most of the time (F59, F68). */
import { createHash } from 'node:crypto';
import type { Assignment } from '#/protocol/documents.ts';
import { Problem } from '#/protocol/errors.ts';
import { firstPollDelayMs } from './adapters/control-link.ts';
import type { Settings } from './config.ts';
import type { State } from './core/state.ts';
import type { Clock, ControlLink } from './ports.ts';

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

/** The first poll is spread only when the whole fleet may have come back at once, which is at boot. */
const JUST_BOOTED_MS = 15 * 60_000;

/** After a boot the first poll waits its share of the spread (F59); an order to check does not. */
export function spreadFirst(
  poll: ReturnType<typeof createPoller>,
  settings: Settings,
  host: string,
  clock: Clock,
  spread: AbortController,
  once: boolean,
): ReturnType<typeof createPoller> {
  const hash = createHash('sha256').update(host).update(clock.bootId()).digest('hex');
  const isBoot = !once && clock.monotonicMs() < JUST_BOOTED_MS;
  let delayMs = isBoot ? firstPollDelayMs(hash, settings.poll) : 0;
  return async (state) => {
    const waitMs = delayMs;
    delayMs = 0;
    if (waitMs > 0) await clock.sleep(waitMs, spread.signal);
    return await poll(state);
  };
}
