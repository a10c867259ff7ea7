/**
 * BootControl of a partition host: the boot loader's record behind the port (P7, P8, P12, P14). What the loader will do is
 * read from the loader; which slot runs, from the mounted root.
 */
import type { Ticket } from '#/agent/core/ticket.ts';
import type { BootControl, Facts, SlotRecord } from '#/agent/ports.ts';
import { requirePartitionSlot } from '#/agent/install/partition-layout.ts';
import { Problem } from '#/protocol/errors.ts';
import { type BootBackend, otherSlot, type PartitionSlot } from './boot/backend.ts';
import type { BootPhases } from './boot-phase.ts';
import type { SlotDisk } from './slots-disk.ts';

export interface PartitionBootOptions {
  readonly backend: BootBackend;
  readonly disk: SlotDisk;
  /** What is known of a slot's content. */
  readonly record: (slot: PartitionSlot) => Promise<SlotRecord | null>;
  /** The ticket of the trial that is under way. */
  readonly ticket: () => Promise<Ticket | 'damaged' | null>;
  /** How far the boots of this host came. */
  readonly phases: BootPhases;
  /** Asks for a reboot; returns when somebody has taken the order. E_ACTIVATION when nobody does. */
  readonly reboot: (options: { readonly force: boolean }) => Promise<void>;
}

/** Every method can be repeated after a crash at any point. */
export function createPartitionBootControl(options: PartitionBootOptions): BootControl {
  const { backend, disk } = options;

  /** I3: only what was read back is ever armed or switched to. */
  const requireVersion = async (slot: PartitionSlot): Promise<void> => {
    const status = (await options.record(slot))?.status ?? 'empty';
    if (status === 'verified' || status === 'trial' || status === 'good') return;
    throw new Problem(
      'E_SLOT',
      `slot ${slot} holds no version that was read back: it is ${status}`,
    );
  };
  const rebootInto = async (
    slot: PartitionSlot,
    force: boolean,
  ): Promise<'switched' | 'reboot-requested'> => {
    if ((await disk.live()) === slot) return 'switched';
    await options.reboot({ force });
    return 'reboot-requested';
  };

  return {
    async observe(): Promise<Facts['boot']> {
      const { default: defaultSlot, trial } = await backend.observe();
      const reached = await reachedBy(options);
      return { defaultSlot, trial: trial ?? (await notAttempted(options)), reached };
    },
    async arm(slot, tries) {
      const target = requirePartitionSlot(slot);
      await requireVersion(target);
      await backend.arm(target, Math.min(tries, backend.triesMax));
    },
    async disarm(slot) {
      await backend.disarm(requirePartitionSlot(slot));
    },
    async switchTo(slot, { force } = { force: false }) {
      const target = requirePartitionSlot(slot);
      await requireVersion(target);
      if ((await disk.live()) === target) return 'switched';
      const { trial, default: defaultSlot } = await backend.observe();
      if (trial?.slot !== target || trial.triesLeft === 0) {
        const next = trial?.triesLeft === 0 || trial === null ? defaultSlot : trial.slot;
        const message = `slot ${slot} is not what the boot loader tries next, but ${next ?? 'nothing known'}`;
        throw new Problem('E_BOOT', message, { slot });
      }
      return await rebootInto(target, force);
    },
    async commit(slot) {
      const target = requirePartitionSlot(slot);
      const live = await disk.live();
      if (live !== target) {
        const what = `slot ${live ?? 'of nothing known'} runs`;
        throw new Problem('E_NOT_ALLOWED_NOW', `cannot commit ${slot}: ${what}`, { slot, live });
      }
      await backend.commit(target);
      await requireShown(backend, target);
    },
    async rollBackTo(slot, bad, { force } = { force: false }) {
      if (slot === null) {
        throw new Problem(
          'E_NOT_ALLOWED_NOW',
          'nothing ran before: there is no slot to go back to',
        );
      }
      const target = requirePartitionSlot(slot);
      await backend.setDefault(target, bad === null ? null : requirePartitionSlot(bad));
      await requireShown(backend, target);
      return await rebootInto(target, force);
    },
  };
}

/** F36: what the boot of the trial's slot left behind, when the host is back on the other one. */
async function reachedBy({
  disk,
  ticket: read,
  phases,
}: PartitionBootOptions): Promise<string | null> {
  const ticket = await read();
  if (ticket === null || ticket === 'damaged') return null;
  const target = requirePartitionSlot(ticket.targetSlot);
  if ((await disk.live()) !== otherSlot(target)) return null;
  return await phases.reachedBefore((await disk.device(target)).partUuid, ticket.armBootId);
}

/** P12, P14: once more what the loader itself will read. @throws Problem E_BOOT */
async function requireShown(backend: BootBackend, slot: PartitionSlot): Promise<void> {
  const { default: defaultSlot, trial } = await backend.observe();
  if (defaultSlot === slot && trial === null) return;
  const shown = `default ${defaultSlot ?? 'unknown'}, trial ${trial?.slot ?? 'none'}`;
  throw new Problem('E_BOOT', `slot ${slot} was made the default, and the loader shows ${shown}`);
}

/**
 * F34: a loader whose record is the same after a trial that died and after one that the firmware dropped. While nothing of
 * the target was ever seen running (the guard counts its boots in the ticket), it was not tried: it is armed once more, and
 * only then not taken any more.
 */
async function notAttempted({
  backend,
  disk,
  ticket: read,
}: PartitionBootOptions): Promise<Facts['boot']['trial']> {
  if (backend.tellsAttempt) return null;
  const ticket = await read();
  if (ticket === null || ticket === 'damaged') return null;
  if (ticket.state !== 'open' || ticket.bootsUsed > 0) return null;
  const target = requirePartitionSlot(ticket.targetSlot);
  if ((await disk.live()) !== otherSlot(target)) return null;
  return { slot: target, triesLeft: ticket.maxBoots };
}
