/**
 * The heartbeat: the sign by which the guard sees that the agent lives and its event loop turns. A file in the run directory:
 * `<boot id> <uptime ms> <monotonic ms>\n`, replaced whole; the difference is the time asleep. Format: docs/specs/guard.md.
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '#/agent/ports.ts';

export const HEARTBEAT_FILE = 'heartbeat';

/** Beats until the signal fires. A beat that cannot be written is left out: the guard draws its own conclusion. */
export async function beat(options: {
  readonly runDirectory: string;
  readonly clock: Clock;
  readonly intervalMs: number;
  readonly signal: AbortSignal;
  readonly onFailure: (error: unknown) => void;
}): Promise<void> {
  const path = join(options.runDirectory, HEARTBEAT_FILE);
  do {
    try {
      writeFileSync(
        `${path}.tmp`,
        `${options.clock.bootId()} ${uptimeMs()} ${Math.floor(options.clock.monotonicMs())}\n`,
        { mode: 0o600 },
      );
      renameSync(`${path}.tmp`, path);
    } catch (error) {
      options.onFailure(error);
    }
  } while (await options.clock.sleep(options.intervalMs, options.signal));
}

/** The clock of the guard: a shell can read only /proc/uptime. */
export function uptimeMs(): number {
  return Math.round(Number(readFileSync('/proc/uptime', 'latin1').split(' ', 1)[0]) * 1000);
}
