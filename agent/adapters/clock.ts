/** The clock of the host. */
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import type { Clock } from '#/agent/ports.ts';
import { identify } from './processes.ts';

const BOOT_ID_PATH = '/proc/sys/kernel/random/boot_id';
const LONGEST_TIMER_MS = 2 ** 31 - 1;
/** USER_HZ, in which the kernel tells times to programs on every architecture that Node runs on. */
const TICK_MS = 10;

/**
 * Wall time, CLOCK_MONOTONIC and the boot id of Linux. The monotonic time has its origin at boot, not at process start,
 * so that deadlines in the journal stay comparable across restarts of the agent within one boot.
 */
export function systemClock(): Clock {
  const bootId = readFileSync(BOOT_ID_PATH, 'latin1').trim();
  const sinceOriginMs = (): number => Number(process.hrtime.bigint() / 1_000_000n);
  const bootMs = Math.max(0, Math.floor(sinceOriginMs() - sinceFirstProcessMs()));
  return {
    wallMs: () => Date.now(),
    monotonicMs: () => sinceOriginMs() - bootMs,
    bootId: () => bootId,
    async sleep(ms, signal) {
      try {
        await delay(Math.min(Math.max(ms, 0), LONGEST_TIMER_MS), undefined, signal && { signal });
        return true;
      } catch (error) {
        if (signal?.aborted === true) return false;
        throw error;
      }
    },
  };
}

/**
 * For how long the first process runs: a container has the clocks of its machine, and boots when that process starts. One that is
 * older than the clock, which a time namespace made later, says nothing.
 */
function sinceFirstProcessMs(): number {
  const [uptimeS = ''] = readFileSync('/proc/uptime', 'latin1').split(' ');
  const uptimeMs = Number(uptimeS) * 1000;
  const startMs = (identify(1)?.startTicks ?? 0) * TICK_MS;
  return startMs > uptimeMs ? uptimeMs : uptimeMs - startMs;
}
