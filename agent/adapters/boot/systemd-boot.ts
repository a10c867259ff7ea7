/**
 * systemd-boot with two slots: boot counting by the names of entries. The good entry has no counter and is never renamed or
 * rewritten; whatever is written comes under a new name. docs/specs/partitions.md, section 3.
 */
import { Problem } from '#/protocol/errors.ts';
import {
  type BootBackend,
  type BootRecord,
  type PartitionSlot,
  partitionSlots,
} from './backend.ts';
import { createOnEsp, directoryOnEsp, namesIn, removeIfThere, textIn } from './esp-files.ts';
import { checkedArguments } from './kernel-arguments.ts';
import { chosenEntry, ENTRIES_PATH, KERNELS_PATH } from './loader-entries.ts';
import {
  type Found,
  type FoundEntry,
  loaderPartition,
  type LoaderPartitionOptions,
} from './loader-partition.ts';
import { systemdBootSurvives } from './survives.ts';

/** More would only wear out a host that does not come up. */
const TRIES_MAX = 9;

export interface SystemdBootOptions extends LoaderPartitionOptions {
  /** Where the variables of the firmware are; `/sys/firmware/efi/efivars` when left out. */
  readonly variables?: string;
}

/** Variables that choose an entry over the order of the entries. */
const CHOOSING = ['LoaderEntryDefault', 'LoaderEntryOneShot'].map(
  (name) => `${name}-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f`,
);

/** The backend of a host that systemd-boot starts. */
export function systemdBootBackend(options: SystemdBootOptions): BootBackend {
  const { files, esp } = options;
  const kernels = esp + KERNELS_PATH;
  const { look, remove, write, install, prune } = loaderPartition(options);
  const observe = async (): Promise<Shown> => shown(await look());
  const requireDefault = async (slot: PartitionSlot): Promise<void> => {
    const shown = await observe();
    if (shown.default === slot && shown.trial === null) return;
    const what = `default ${shown.default ?? 'none'}, trial ${shown.trial?.slot ?? 'none'}`;
    throw new Problem('E_BOOT', `systemd-boot does not show slot ${slot} as default: ${what}`);
  };
  const refuseDefault = async (slot: PartitionSlot, what: string): Promise<Found> => {
    const shown = await observe();
    if (shown.default !== slot) return shown.found;
    throw new Problem('E_BOOT', `slot ${slot} is the default and cannot be ${what}`);
  };
  const of = ({ entries: all, broken }: Found, slot: PartitionSlot): readonly FoundEntry[] =>
    [...all, ...broken].filter(({ name }) => name.slot === slot);
  /** The slot is the default by a new entry, if it is not yet; then nothing else of it is left. */
  const promote = async (slot: PartitionSlot): Promise<void> => {
    const { found, default: standard } = await observe();
    const best = found.entries
      .filter(({ name }) => name.slot === slot && name.left === null)
      .toSorted((a, b) => b.name.number - a.name.number)[0];
    const kept = standard === slot && best !== undefined ? best : await write(slot, null);
    await remove(of(found, slot).filter(({ file }) => file !== kept.file));
  };

  return {
    kind: 'systemd-boot',
    survives: systemdBootSurvives,
    triesMax: TRIES_MAX,
    tellsAttempt: true,

    async selfTest() {
      const { found, problems } = await observe();
      const probe = `${kernels}/probe`;
      await directoryOnEsp(files, kernels);
      await createOnEsp(files, probe, Buffer.from('probe\n'));
      const isBack = (await textIn(files, probe)) === 'probe\n';
      await removeIfThere(files, probe);
      const foreign = found.foreign.map(
        (file) => `${ENTRIES_PATH}/${file} may be booted instead of ours`,
      );
      const set = await namesIn(files, options.variables ?? '/sys/firmware/efi/efivars');
      for (const name of CHOOSING.filter((one) => set.includes(one)))
        foreign.push(`the variable ${name} chooses an entry by itself; remove it`);
      return [...problems, ...(isBack ? [] : [`${esp} does not read back`]), ...foreign];
    },

    async observe() {
      const { found: _, ...record } = await observe();
      return record;
    },

    async markBad(slot) {
      await remove(of(await refuseDefault(slot, 'marked bad'), slot));
    },

    async installBootFiles(slot, given) {
      checkedArguments(given.kernelArguments);
      await remove(of(await refuseDefault(slot, 'written to'), slot));
      await install(slot, given);
    },

    async arm(slot, tries) {
      if (tries < 1 || tries > TRIES_MAX) {
        throw new Problem('E_BOOT', `${tries} tries: 1 to ${TRIES_MAX} can be given`);
      }
      const found = await refuseDefault(slot, 'on trial');
      if (found.entries.some(({ name }) => name.slot === slot && name.left !== null)) return;
      await remove(of(found, slot));
      await write(slot, tries);
      const { trial } = await observe();
      if (trial?.slot === slot && trial.triesLeft === tries) return;
      throw new Problem('E_BOOT', `systemd-boot does not show slot ${slot} on trial`);
    },

    async disarm(slot) {
      const { found } = await observe();
      await remove(of(found, slot).filter(({ name }) => name.left !== null));
    },

    async commit(slot) {
      const { found, trial, default: standard } = await observe();
      if (standard !== slot && trial?.slot !== slot) {
        throw new Problem('E_BOOT', `slot ${slot} is neither on trial nor the default`);
      }
      await promote(slot);
      await remove(found.entries.filter(({ name }) => name.left !== null));
      await requireDefault(slot);
    },

    async setDefault(slot, bad) {
      await promote(slot);
      const { found } = await observe();
      const wrong = [...found.entries, ...found.broken].filter(
        ({ name }) => name.slot === bad || name.left !== null,
      );
      await remove(wrong);
      await requireDefault(slot);
    },

    prune,
  };
}

interface Shown extends BootRecord {
  readonly found: Found;
}

/** What the loader does with these entries. */
function shown(found: Found): Shown {
  const good = chosenEntry(found.entries.flatMap(({ name }) => (name.left === null ? [name] : [])));
  const counted = chosenEntry(
    found.entries.flatMap(({ name }) => (name.left === null ? [] : [name])),
  );
  const isTried = counted !== null && counted.number > (good?.number ?? 0);
  return {
    default: good?.slot ?? null,
    trial: isTried ? { slot: counted.slot, triesLeft: counted.left ?? 0 } : null,
    bad: partitionSlots.filter((slot) => found.entries.every(({ name }) => name.slot !== slot)),
    problems: [
      ...found.broken.map(({ file }) => `${ENTRIES_PATH}/${file} is not whole`),
      ...(good === null ? [`no good entry of ours is in ${ENTRIES_PATH}`] : []),
    ],
    found,
  };
}
