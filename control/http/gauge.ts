/** Signs of load, and the limits per host: what the poll path looks at before it does anything. */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { type ShedLevel, shedLevelOf } from '#/control/core/poll.ts';
import type { Engine } from '#/control/engine/engine.ts';
import { Problem } from '#/protocol/errors.ts';

export interface Gauge {
  readonly level: ShedLevel;
  readonly pollsPerMinute: number;
  enter(): void;
  leave(): void;
  polled(): void;
  /** Called about once a second. */
  sample(): void;
  stop(): void;
  readonly counters: Map<string, number>;
  count(name: string): void;
  /** Requests that were refused, by route and code: what somebody tries shows here, though nothing of it is kept. */
  readonly refusals: Map<string, number>;
  refused(labels: string): void;
}

const DEFAULT_MAX_IN_FLIGHT = 5000;
const POLL_WINDOW_S = 60;

/** `forced`: a level for tests. */
export function createGauge(engine: Engine, maxInFlight: number = DEFAULT_MAX_IN_FLIGHT): Gauge {
  const delay = monitorEventLoopDelay({ resolution: 20 });
  delay.enable();
  let inFlight = 0;
  let loopDelayMs = 0;
  let polls = 0;
  const perSecond: number[] = [];
  const counters = new Map<string, number>();
  const refusals = new Map<string, number>();
  const gauge: Gauge = {
    get level() {
      const { oldestMs, isStoreDown } = engine.load;
      return shedLevelOf({ loopDelayMs, queueAgeMs: oldestMs, isStoreDown, inFlight, maxInFlight });
    },
    get pollsPerMinute() {
      return perSecond.reduce((sum, count) => sum + count, 0);
    },
    enter: () => {
      inFlight += 1;
    },
    leave: () => {
      inFlight -= 1;
    },
    polled: () => {
      polls += 1;
    },
    sample: () => {
      // The histogram counts its own sampling period in; what is above it is delay.
      loopDelayMs = Math.max(0, delay.percentile(99) / 1e6 - 20);
      delay.reset();
      perSecond.push(polls);
      if (perSecond.length > POLL_WINDOW_S) perSecond.shift();
      polls = 0;
    },
    stop: () => delay.disable(),
    counters,
    count: (name) => {
      counters.set(name, (counters.get(name) ?? 0) + 1);
    },
    refusals,
    refused: (labels) => {
      refusals.set(labels, (refusals.get(labels) ?? 0) + 1);
    },
  };
  return gauge;
}

export interface RateLimit {
  /** @throws E_RATE_LIMITED */
  use(key: string, nowMs: number): void;
  isSpent(key: string, nowMs: number): boolean;
}

/** At most `max` per key and window. Keys of a window are bounded; above that, everybody new is turned away. */
export function createRateLimit(max: number, windowMs: number, maxKeys = 200_000): RateLimit {
  let counts = new Map<string, number>();
  let startMs = 0;
  const turn = (nowMs: number): void => {
    if (nowMs - startMs < windowMs) return;
    counts = new Map();
    startMs = nowMs;
  };
  return {
    use(key, nowMs) {
      turn(nowMs);
      const count = (counts.get(key) ?? 0) + 1;
      if (count > max || (count === 1 && counts.size >= maxKeys))
        throw new Problem('E_RATE_LIMITED', `more than ${max} requests in ${windowMs} ms`, {
          retryAfterSeconds: Math.max(1, Math.ceil((startMs + windowMs - nowMs) / 1000)),
        });
      counts.set(key, count);
    },
    isSpent(key, nowMs) {
      turn(nowMs);
      return (counts.get(key) ?? 0) >= max;
    },
  };
}
