/** Asking the host for a reboot; the machine asks again, with force, when the boot id did not change in time (F33). */
import { Problem } from '#/protocol/errors.ts';
import { describeExit, type Exec } from './exec.ts';

const ASK_TIMEOUT_MS = 30_000;

/**
 * Asks for a reboot and returns once somebody has taken the order; this process then ends with the host. Without force
 * services are stopped in order. With force they are killed and file systems synced, which a blocked unit cannot hold up.
 * @throws Problem E_ACTIVATION when nobody takes the order.
 */
export async function requestReboot(
  exec: Exec,
  options: { readonly force: boolean; readonly systemctl?: string; readonly reboot?: string },
): Promise<void> {
  const systemctl = options.systemctl ?? 'systemctl';
  const reboot = options.reboot ?? 'reboot';
  const orders = options.force
    ? [
        [systemctl, 'reboot', '--force'],
        [reboot, '-f'],
      ]
    : [[systemctl, '--no-block', 'reboot'], [reboot]];
  const failed: string[] = [];
  for (const argv of orders) {
    // What a reboot starts on its way must not be ended with the command that asked for it.
    const result = await exec.run({ argv, timeoutMs: ASK_TIMEOUT_MS, leftovers: 'keep' });
    if (result.ended === 'exit' && result.code === 0) return;
    failed.push(`${argv.join(' ')}: ${describeExit(result)}`);
  }
  throw new Problem('E_ACTIVATION', `reboot: ${failed.join('; ')}`, { force: options.force });
}
