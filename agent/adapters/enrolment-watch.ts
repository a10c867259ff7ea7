/** An agent that started without an identity ends when the host gets one; its supervisor starts it with it. */
import { statSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '#/agent/ports.ts';

const LOOK_EVERY_MS = 2_000;

/** Resolves when the record of the enrolment appears or is replaced, or the signal fires. */
export async function untilEnrolled(
  stateDirectory: string,
  clock: Clock,
  signal: AbortSignal,
): Promise<void> {
  const path = join(stateDirectory, 'identity', 'host');
  const look = (): string => {
    const found = statSync(path, { throwIfNoEntry: false });
    return found === undefined ? '' : `${found.ino} ${found.mtimeMs}`;
  };
  const before = look();
  while (await clock.sleep(LOOK_EVERY_MS, signal)) if (look() !== before) return;
}
