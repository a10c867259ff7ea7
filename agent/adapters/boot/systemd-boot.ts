/**
 * systemd-boot with two slots: boot counting by the names of entries. The good entry has no counter and is never renamed or
 * rewritten; whatever is written comes under a new name. docs/specs/partitions.md, section 3.
 */
import type { FilePort } from '#/agent/ports.ts';
import { Problem } from '#/protocol/errors.ts';
import {
  type BootBackend,
  type BootRecord,
  type PartitionSlot,
  partitionSlots,
} from './backend.ts';
import {
  copyToEsp,
  createOnEsp,
  directoryOnEsp,
  namesIn,
  removeDirectory,
  removeIfThere,
  textIn,
} from './esp-files.ts';
import { checkedArguments } from './kernel-arguments.ts';
import {
  type BootSet,
  chosenEntry,
  ENTRIES_PATH,
  type EntryName,
  entryName,
  entryText,
  isEntry,
  KERNELS_PATH,
  parseEntryName,
  parseSet,
  setName,
  setText,
} from './loader-entries.ts';
import { systemdBootSurvives } from './survives.ts';

/** More would only wear out a host that does not come up. */
const TRIES_MAX = 9;
const SET_FILE = 'set';

export interface SystemdBootOptions {
  readonly files: FilePort;
  /** Where the ESP is mounted. */
  readonly esp: string;
  readonly partUuid: Readonly<Record<PartitionSlot, string>>;
  /** Where the variables of the firmware are; `/sys/firmware/efi/efivars` when left out. */
  readonly variables?: string;
}

/** Variables that choose an entry over the order of the entries. */
const CHOOSING = ['LoaderEntryDefault', 'LoaderEntryOneShot'].map(
  (name) => `${name}-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f`,
);

interface FoundEntry {
  readonly file: string;
  readonly name: EntryName;
}

interface Found {
  /** What the loader can boot of ours. */
  readonly entries: readonly FoundEntry[];
  /** Ours by name and none by content: a write that was cut. */
  readonly broken: readonly FoundEntry[];
  readonly foreign: readonly string[];
}

/** The backend of a host that systemd-boot starts. */
export function systemdBootBackend(options: SystemdBootOptions): BootBackend {
  const { files, esp, partUuid } = options;
  const entries = esp + ENTRIES_PATH;
  const kernels = esp + KERNELS_PATH;

  const look = async (): Promise<Found> => {
    const found = {
      entries: [] as FoundEntry[],
      broken: [] as FoundEntry[],
      foreign: [] as string[],
    };
    for (const file of await namesIn(files, entries)) {
      const name = parseEntryName(file);
      if (name === null) found.foreign.push(file);
      else if (isEntry(await textIn(files, `${entries}/${file}`), name))
        found.entries.push({ file, name });
      else found.broken.push({ file, name });
    }
    return found;
  };

  const remove = async (which: readonly FoundEntry[]): Promise<void> => {
    for (const { file } of which) await removeIfThere(files, `${entries}/${file}`);
  };

  /** All sets of a slot that are complete. */
  const sets = async (slot: PartitionSlot): Promise<readonly BootSet[]> => {
    const found: BootSet[] = [];
    for (const name of await namesIn(files, kernels)) {
      if (!name.startsWith(`${slot}-`)) continue;
      const set = parseSet(name, await textIn(files, `${kernels}/${name}/${SET_FILE}`));
      if (set !== null) found.push(set);
    }
    return found;
  };

  /** Writes an entry above all others for what is installed in the slot, and reads it back. */
  const write = async (slot: PartitionSlot, left: number | null): Promise<FoundEntry> => {
    const found = await look();
    await remove(found.broken);
    const all = [...found.entries, ...found.broken];
    const installed = await sets(slot);
    const newest = all
      .filter(({ name }) => name.slot === slot)
      .toSorted((x, y) => y.name.number - x.name.number)[0];
    const set =
      installed.find(({ digest }) => digest === newest?.name.digest) ??
      (installed.length === 1 ? installed[0] : undefined);
    if (set === undefined) {
      throw new Problem('E_BOOT', `slot ${slot} has ${installed.length} sets of boot files`);
    }
    const number = Math.max(0, ...all.map(({ name }) => name.number)) + 1;
    const name: EntryName = { slot, digest: set.digest, number, left };
    const file = entryName(name);
    await createOnEsp(
      files,
      `${entries}/${file}`,
      Buffer.from(entryText(set, number, partUuid[slot])),
    );
    return { file, name };
  };

  const observe = async (): Promise<BootRecord & { readonly found: Found }> => {
    const found = await look();
    const good = chosenEntry(
      found.entries.flatMap(({ name }) => (name.left === null ? [name] : [])),
    );
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
  };

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
      const probe = `${esp}${KERNELS_PATH}/probe`;
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
      const args = checkedArguments(given.kernelArguments);
      await remove(of(await refuseDefault(slot, 'written to'), slot));
      await directoryOnEsp(files, kernels);
      const digest = given.artifactId.slice(0, 12);
      const { source } = given;
      const kind =
        source.kind === 'uki' ? 'uki' : source.initrd === null ? 'linux' : 'linux-initrd';
      const set: BootSet = {
        slot,
        digest,
        version: given.version.replaceAll(/[^\w.+~-]/g, '_'),
        kind,
        arguments: args,
      };
      // Nothing names them any more: the room is needed for the new ones (F19).
      for (const name of await namesIn(files, kernels))
        if (name.startsWith(`${slot}-`)) await removeDirectory(files, `${kernels}/${name}`);
      const directory = `${kernels}/${setName(set)}`;
      await directoryOnEsp(files, directory);
      if (source.kind === 'uki') await copyToEsp(files, source.image, `${directory}/uki.efi`);
      else {
        await copyToEsp(files, source.kernel, `${directory}/linux`);
        if (source.initrd !== null) await copyToEsp(files, source.initrd, `${directory}/initrd`);
      }
      await createOnEsp(files, `${directory}/${SET_FILE}`, Buffer.from(setText(set)));
      if ((await sets(slot)).length !== 1) {
        throw new Problem('E_BOOT', `the boot files of slot ${slot} do not read back`);
      }
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

    async prune() {
      await remove((await look()).broken);
      for (const name of await namesIn(files, kernels)) {
        const directory = `${kernels}/${name}`;
        if (!/^[ab]-[0-9a-f]{12}$/.test(name)) continue;
        if (parseSet(name, await textIn(files, `${directory}/${SET_FILE}`)) === null)
          await removeDirectory(files, directory);
      }
    },
  };
}
