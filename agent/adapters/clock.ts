/** The clock of the host. */
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import type { Clock } from '#/agent/ports.ts';

const BOOT_ID_PATH = '/proc/sys/kernel/random/boot_id';
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/**
 * Wall time, CLOCK_MONOTONIC and the boot id of Linux. The monotonic time has its origin at boot, not at process start,
 * so that deadlines in the journal stay comparable across restarts of the agent within one boot.
 */
export function systemClock(): Clock {
  const bootId = readFileSync(BOOT_ID_PATH, 'latin1').trim();
  return {
    wallMs: () => Date.now(),
    monotonicMs: () => Number(process.hrtime.bigint() / 1_000_000n),
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
