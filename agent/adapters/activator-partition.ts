/** What runs on a partition host is what it was booted from: nothing is started or stopped beside the reboot. */
import type { Slots } from '#/agent/ports.ts';
import { Problem } from '#/protocol/errors.ts';
import type { HostActivator } from './activator.ts';

/** The activator of a partition host. */
export function createPartitionActivator(slots: Pick<Slots, 'observe'>): HostActivator {
  return {
    observe: async () => (await slots.observe()).liveArtifact,
    async activate(slot) {
      const { live } = await slots.observe();
      if (live === slot) return;
      throw new Problem(
        'E_ACTIVATION',
        `slot ${slot} does not run, ${live ?? 'another root'} does`,
      );
    },
    async deactivate() {
      throw new Problem('E_NOT_ALLOWED_NOW', 'the root of a running host cannot be stopped');
    },
    resume: () => Promise.resolve(),
    close: () => Promise.resolve(),
    restarts: () => 0,
  };
}
