/** Drain and undrain hooks: programs of the operator with a deadline (F60). */
import { Problem } from '#/protocol/errors.ts';
import type { Settings } from '#/agent/config.ts';
import type { Hooks } from '#/agent/ports.ts';
import { describeExit, type Exec } from './exec.ts';

/** A hook that is told to stop may clean up for so long. */
const KILL_GRACE_MS = 5_000;

/** The hooks of the settings; a hook that is not set has nothing to do and succeeds. */
export function createHooks(
  settings: Settings['hooks'],
  exec: Exec,
  environment: Readonly<Record<string, string>> = {},
): Hooks {
  const run = async (
    hook: 'drain' | 'undrain',
    argv: readonly string[] | undefined,
    timeoutMs: number,
    signal: AbortSignal | null,
  ): Promise<void> => {
    if (argv === undefined) return;
    const result = await exec.run({
      argv,
      timeoutMs,
      killGraceMs: KILL_GRACE_MS,
      environment: { ...environment, SWITCHBACK_HOOK: hook },
      ...(signal === null ? {} : { signal }),
    });
    if (result.ended === 'exit' && result.code === 0) return;
    throw new Problem('E_HOOK', `${hook} hook ${argv[0]}: ${describeExit(result)}`, {
      hook,
      code: result.code,
      ended: result.ended,
    });
  };
  return {
    drain: (signal) => run('drain', settings.drain, settings.drainTimeoutMs, signal),
    undrain: () => run('undrain', settings.undrain, settings.undrainTimeoutMs, null),
  };
}
