/** Versions that are started by a reboot of the host: all of it runs from what `current` named at boot. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Problem } from '#/protocol/errors.ts';
import type { ActivatorOptions, Starter } from './activator-contract.ts';
import { requestReboot } from './reboot.ts';

/** How long an ordered reboot may take before it is forced, and a forced one before it counts as failed (F33). */
const REBOOT_WAIT_MS = 5 * 60_000;

/** The starter of kind `reboot`. A start does not return: this process ends with the boot, the next one finds the version. */
export function rebootStarter(options: ActivatorOptions, waitMs = REBOOT_WAIT_MS): Starter {
  const { exec, systemctl } = options;
  return {
    recipe: () => ({ kind: 'none' }),
    async start(version, before) {
      // Nothing was started in this boot before: it came up from this version.
      if (before === null || before.artifactId === version.artifactId) return {};
      for (const force of [false, true]) {
        await requestReboot(exec, { force, ...(systemctl === undefined ? {} : { systemctl }) });
        await sleep(waitMs);
      }
      throw new Problem(
        'E_ACTIVATION',
        `the host did not reboot within ${2 * waitMs} ms, also when forced`,
      );
    },
    stop: () => Promise.resolve(),
    running: (live, before) => Promise.resolve(before?.artifactId ?? live?.artifactId ?? null),
  };
}
