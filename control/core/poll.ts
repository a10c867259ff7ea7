/** How long a host waits before its next poll, and how much load is shed. control.md: Poll-After, load shedding. */
import type { PollPolicy } from '#/protocol/group.ts';

export interface PollLoad {
  /** Hosts that poll. */
  readonly hosts: number;
  readonly policy: PollPolicy;
  /** In an open stage without a result yet, or in an attempt. */
  readonly isActive: boolean;
  readonly shedLevel: ShedLevel;
  /** A number in [0, 1), for the jitter. */
  readonly unit: number;
}

/** 0 normal; 1 slow down; 2 polls from memory and reports only; 3 turn away before the credential is looked at. */
export type ShedLevel = 0 | 1 | 2 | 3;

const JITTER = 0.1;

/** Seconds before jitter: the interval at which the fleet stays below its target rate. */
export function pollIntervalSeconds(hosts: number, policy: PollPolicy): number {
  const wanted = hosts / policy.targetPollsPerSecond;
  return Math.min(policy.maxSeconds, Math.max(policy.minSeconds, wanted));
}

/** Poll-After in whole seconds, jittered by a tenth, at least 1. Under load everybody waits longer, active hosts too. */
export function pollAfterSeconds(load: PollLoad): number {
  const normal = pollIntervalSeconds(load.hosts, load.policy);
  const base = load.isActive ? Math.min(normal, load.policy.activeSeconds) : normal;
  const loaded = load.shedLevel === 0 ? base : base * 2 ** load.shedLevel;
  const jittered = loaded * (1 - JITTER + 2 * JITTER * load.unit);
  return Math.max(1, Math.round(jittered));
}

/** Retry-After for a host that is turned away: anywhere in one interval, so that an outage does not end in a herd (F76). */
export function retryAfterSeconds(intervalSeconds: number, unit: number): number {
  return Math.max(1, Math.ceil(intervalSeconds * unit));
}

export interface LoadSigns {
  /** 99th percentile of the delay of the event loop. */
  readonly loopDelayMs: number;
  /** Age of the oldest write that waits. */
  readonly queueAgeMs: number;
  readonly isStoreDown: boolean;
  /** Requests being answered. */
  readonly inFlight: number;
  readonly maxInFlight: number;
}

/** Level of load shedding for these signs. */
export function shedLevelOf(signs: LoadSigns): ShedLevel {
  if (signs.inFlight >= signs.maxInFlight) return 3;
  if (signs.isStoreDown || signs.loopDelayMs > 200) return 2;
  if (signs.loopDelayMs > 50 || signs.queueAgeMs > 5000) return 1;
  return 0;
}
