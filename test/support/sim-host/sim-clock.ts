/** Virtual time: nothing waits, the next sleeper is simply the next thing that happens. */
import type { Clock } from '#/agent/ports.ts';

interface Sleeper {
  readonly dueMs: number;
  readonly order: number;
  readonly wake: (slept: boolean) => void;
}

export interface SimClock extends Clock {
  /** Lets everything that can happen now happen, then moves to the next sleeper. False: there is none. */
  advance(): Promise<boolean>;
  /** Lets everything that can happen now happen. */
  settle(): Promise<void>;
  /** Virtual milliseconds since this clock was made. */
  elapsedMs(): number;
  /** The wall clock is set; the monotonic one goes on as it was. */
  jumpWall(byMs: number): void;
}

/** A clock of the boot `bootId` that has run for `monotonicMs`. */
export function simClock(start: {
  readonly wallMs: number;
  readonly monotonicMs: number;
  readonly bootId: string;
  /** Ends when no real call is under way, which the event loop alone does not wait for; null: none is. */
  readonly pending?: () => Promise<void> | null;
}): SimClock {
  let elapsed = 0;
  let wallJump = 0;
  let order = 0;
  let sleepers: Sleeper[] = [];
  // Everything simulated is promises without I/O: when the event loop comes round, all of it has run.
  const settle = async (): Promise<void> => {
    for (;;) {
      await new Promise((resolve) => setImmediate(resolve));
      const pending = start.pending?.() ?? null;
      if (pending === null) return;
      await pending;
    }
  };
  return {
    wallMs: () => start.wallMs + elapsed + wallJump,
    monotonicMs: () => start.monotonicMs + elapsed,
    bootId: () => start.bootId,
    elapsedMs: () => elapsed,
    jumpWall: (byMs) => {
      wallJump += byMs;
    },
    sleep(ms, signal) {
      if (signal?.aborted === true) return Promise.resolve(false);
      return new Promise((resolve) => {
        const sleeper: Sleeper = { dueMs: elapsed + Math.max(ms, 0), order, wake: resolve };
        order += 1;
        sleepers.push(sleeper);
        signal?.addEventListener('abort', () => {
          sleepers = sleepers.filter((other) => other !== sleeper);
          resolve(false);
        });
      });
    },
    settle,
    async advance() {
      await settle();
      let next: Sleeper | null = null;
      for (const sleeper of sleepers) {
        const isEarlier =
          next === null ||
          sleeper.dueMs < next.dueMs ||
          (sleeper.dueMs === next.dueMs && sleeper.order < next.order);
        if (isEarlier) next = sleeper;
      }
      if (next === null) return false;
      sleepers = sleepers.filter((other) => other !== next);
      elapsed = Math.max(elapsed, next.dueMs);
      next.wake(true);
      return true;
    },
  };
}

/** Reproducible randomness (xorshift32): the same seed, the same numbers. */
export function simRandom(seed: number): { hex(bytes: number): string; unit(): number } {
  let state = (seed * 2_654_435_761) >>> 0 || 1;
  const next = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
  return {
    unit: () => next() / 2 ** 32,
    hex: (bytes) =>
      Array.from({ length: bytes }, () => (next() % 256).toString(16).padStart(2, '0')).join(''),
  };
}
