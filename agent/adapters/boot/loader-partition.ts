/**
 * What systemd-boot reads on the ESP: entries, and the sets of boot files that they name. Nothing is ever written over or renamed
 * here. docs/specs/partitions.md, section 3.
 */
import type { FilePort } from '#/agent/ports.ts';
import { Problem } from '#/protocol/errors.ts';
import type { BootFiles, PartitionSlot } from './backend.ts';
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

const SET_FILE = 'set';

export interface FoundEntry {
  readonly file: string;
  readonly name: EntryName;
}

export interface Found {
  /** What the loader can boot of ours. */
  readonly entries: readonly FoundEntry[];
  /** Ours by name and none by content: a write that was cut. */
  readonly broken: readonly FoundEntry[];
  readonly foreign: readonly string[];
}

export interface LoaderPartition {
  look(): Promise<Found>;
  remove(which: readonly FoundEntry[]): Promise<void>;
  /** Writes an entry above all others for what is installed in the slot. E_BOOT when nothing is. */
  write(slot: PartitionSlot, left: number | null): Promise<FoundEntry>;
  /** Copies the boot files of a slot that no entry names; those that it had before go first. */
  install(slot: PartitionSlot, given: BootFiles): Promise<void>;
  /** Removes what a cut installation left. */
  prune(): Promise<void>;
}

export interface LoaderPartitionOptions {
  readonly files: FilePort;
  /** Where the ESP is mounted. */
  readonly esp: string;
  /** What the kernel finds the root of a slot by. */
  readonly partUuid: (slot: PartitionSlot) => Promise<string>;
}

/** The ESP of a host that systemd-boot starts. */
export function loaderPartition({ files, esp, partUuid }: LoaderPartitionOptions): LoaderPartition {
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
      Buffer.from(entryText(set, number, await partUuid(slot))),
    );
    return { file, name };
  };

  return {
    look,
    remove,
    write,
    async install(slot, given) {
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
        arguments: checkedArguments(given.kernelArguments),
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
