/**
 * Partitions of this machine as the kernel shows them: found by PARTUUID or PARTLABEL, never by the name of a disk, which
 * changes with the order in which disks answer (F37). Reads only.
 */
import { readdir, readFile, readlink, realpath, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { Problem } from '#/protocol/errors.ts';
import { readPartUuid } from './gpt.ts';
import { mountTable, type MountEntry } from './mount-table.ts';

/** How a setting names a partition. */
export type PartitionName =
  | { readonly by: 'partuuid' | 'partlabel'; readonly value: string }
  /** A path is taken as it is: for hosts without udev, and only with the PARTUUID that it has to have. */
  | { readonly by: 'path'; readonly path: string; readonly partUuid: string | null };

export interface BlockDevice {
  /** Path of the device node itself, no link. */
  readonly path: string;
  /** `major:minor`: what the kernel knows it by until the next boot. */
  readonly number: string;
  /** Lower case; what this partition is known by for ever. */
  readonly partUuid: string;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
}

export interface RootDevice {
  /** The device of the mounted root, and all that lie below it (dm-verity, md). */
  readonly numbers: readonly string[];
  /** `root=PARTUUID=…` of the kernel command line. */
  readonly commandLine: string | null;
}

export interface BlockDevices {
  /** @throws Problem E_DISK: not there, no partition, several of that name, or another than it has to be. */
  find(name: PartitionName): Promise<BlockDevice>;
  /** What uses the device now, in words; empty when nothing does. */
  usesOf(device: BlockDevice): Promise<readonly string[]>;
  root(): Promise<RootDevice>;
}

/** Where the kernel shows itself; other directories are for tests of this file. */
export interface KernelPlaces {
  readonly proc: string;
  readonly sys: string;
  readonly dev: string;
}
const SECTOR_BYTES = 512;
/** dm on dm on md on a partition. */
const MAX_DEPTH = 8;

/** The devices of the running kernel. */
export function kernelBlockDevices(
  places: KernelPlaces = { proc: '/proc', sys: '/sys', dev: '/dev' },
): BlockDevices {
  return new KernelDevices(places);
}

class KernelDevices implements BlockDevices {
  readonly #places: KernelPlaces;

  constructor(places: KernelPlaces) {
    this.#places = places;
  }

  async find(name: PartitionName): Promise<BlockDevice> {
    const path = await this.#pathOf(name);
    const number = await deviceNumberOf(path);
    const what = nameText(name);
    if (number === null) throw noDisk(`${what}: ${path} is no block device`, { path });
    const partUuid = await this.#partUuidOf(number, path);
    const wanted = name.by === 'partuuid' ? name.value : name.by === 'path' ? name.partUuid : null;
    if (partUuid !== null && wanted !== null && partUuid !== wanted.toLowerCase()) {
      throw noDisk(`${what}: ${path} is partition ${partUuid}, not ${wanted}`, { path });
    }
    const known = partUuid ?? wanted?.toLowerCase() ?? null;
    if (known === null) throw noDisk(`${what}: nothing says which partition ${path} is`, { path });
    const shown = this.#sys(number);
    const sizeBytes = Number(await textOf(join(shown, 'size'))) * SECTOR_BYTES;
    if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0) {
      throw noDisk(`${what}: ${path} has no size`, { path });
    }
    const readOnly = (await textOf(join(shown, 'ro'))) === '1';
    return { path, number, partUuid: known, sizeBytes, readOnly };
  }

  async usesOf({ path, number }: BlockDevice): Promise<readonly string[]> {
    const { proc, sys } = this.#places;
    const uses: string[] = [];
    for (const entry of await this.#mounts()) {
      const isSame = entry.deviceNumber === number || (await this.#isSource(entry, number));
      if (isSame) uses.push(`is mounted on ${entry.mountPoint}`);
    }
    for (const line of ((await textOf(join(proc, 'swaps'))) ?? '').split('\n').slice(1)) {
      const [file = ''] = line.split(/\s/, 1);
      if (file.startsWith('/') && (await deviceNumberOf(file)) === number) uses.push('is swap');
    }
    for (const holder of await namesIn(join(this.#sys(number), 'holders'))) {
      uses.push(`is held by ${holder}`);
    }
    for (const name of await namesIn(join(sys, 'class/block'))) {
      if (!name.startsWith('loop')) continue;
      const backing = await textOf(join(sys, 'class/block', name, 'loop/backing_file'));
      if (backing !== null && backing === path) uses.push(`is what ${name} reads and writes`);
    }
    return uses;
  }

  async root(): Promise<RootDevice> {
    const mounted = (await this.#mounts()).findLast(({ mountPoint }) => mountPoint === '/');
    const own =
      mounted === undefined || !mounted.deviceNumber.startsWith('0:')
        ? (mounted?.deviceNumber ?? null)
        : await deviceNumberOf(mounted.source);
    const line = (await textOf(join(this.#places.proc, 'cmdline'))) ?? '';
    const named = /(?:^| )root=PARTUUID=([0-9a-fA-F-]+)(?= |$)/.exec(line)?.[1] ?? null;
    return {
      numbers: own === null ? [] : await this.#withSlaves(own, MAX_DEPTH),
      commandLine: named === null ? null : named.toLowerCase(),
    };
  }

  #sys(number: string): string {
    return join(this.#places.sys, 'dev/block', number);
  }

  async #mounts(): Promise<readonly MountEntry[]> {
    const path = join(this.#places.proc, 'self/mountinfo');
    const table = await textOf(path);
    // Without it nobody could say what is in use.
    if (table === null) throw new Problem('E_IO', `${path} cannot be read`, { path });
    return mountTable(table);
  }

  /** btrfs and others mount a device under a number of their own. */
  async #isSource(entry: MountEntry, number: string): Promise<boolean> {
    if (!entry.deviceNumber.startsWith('0:') || !entry.source.startsWith('/')) return false;
    return (await deviceNumberOf(entry.source)) === number;
  }

  async #withSlaves(number: string, depth: number): Promise<string[]> {
    const all = [number];
    if (depth === 0) return all;
    const slaves = join(this.#sys(number), 'slaves');
    for (const name of await namesIn(slaves)) {
      const below = await textOf(join(slaves, name, 'dev'));
      if (below !== null) all.push(...(await this.#withSlaves(below, depth - 1)));
    }
    return all;
  }

  async #pathOf(name: PartitionName): Promise<string> {
    if (name.by === 'path') return await pathThere(name.path, nameText(name));
    if (name.by === 'partlabel') {
      const named = await this.#labelled(name.value);
      if (named !== null) return named;
    }
    const value = name.by === 'partuuid' ? name.value.toLowerCase() : name.value;
    const link = join(this.#places.dev, 'disk', `by-${name.by}`, value);
    return await pathThere(link, nameText(name));
  }

  /**
   * The partition of that label, asked of the kernel: udev links only one of several. A second disk may be a copy of this
   * one; then the one beside the root counts. Null when the kernel shows none.
   */
  async #labelled(label: string): Promise<string | null> {
    const { sys, dev } = this.#places;
    const found: { readonly path: string; readonly disk: string }[] = [];
    for (const name of await namesIn(join(sys, 'class/block'))) {
      const uevent = await textOf(join(sys, 'class/block', name, 'uevent'));
      if (valueIn(uevent, 'PARTNAME') !== label) continue;
      const path = join(dev, valueIn(uevent, 'DEVNAME') ?? name);
      found.push({ path, disk: (await this.#diskOf(name)) ?? '' });
    }
    if (found.length <= 1) return found[0]?.path ?? null;
    const { numbers } = await this.root();
    const ours = new Set<string>();
    for (const number of numbers) {
      const name = valueIn(await textOf(join(this.#sys(number), 'uevent')), 'DEVNAME');
      const disk = name === null ? null : await this.#diskOf(basename(name));
      if (disk !== null) ours.add(disk);
    }
    const beside = found.filter(({ disk }) => ours.has(disk));
    const [only] = beside;
    if (beside.length === 1 && only !== undefined) return only.path;
    const paths = found.map(({ path }) => path).join(', ');
    throw noDisk(`${paths} are all labelled ${label}: name the partition by its PARTUUID`, {});
  }

  /** Name of the disk that a partition is on; null for what is no partition. */
  async #diskOf(name: string): Promise<string | null> {
    try {
      const shown = await realpath(join(this.#places.sys, 'class/block', name));
      const isPartition = (await textOf(join(shown, 'partition'))) !== null;
      return isPartition ? basename(dirname(shown)) : null;
    } catch {
      return null;
    }
  }

  /** From the kernel, else from udev's links, else from the partition table itself. */
  async #partUuidOf(number: string, path: string): Promise<string | null> {
    const shown = this.#sys(number);
    const told = valueIn(await textOf(join(shown, 'uevent')), 'PARTUUID');
    if (told !== null) return told.toLowerCase();
    const links = join(this.#places.dev, 'disk/by-partuuid');
    for (const name of await namesIn(links)) {
      const target = await readlink(join(links, name)).catch(() => null);
      if (target !== null && join(links, target) === path) return name.toLowerCase();
    }
    const partition = Number((await textOf(join(shown, 'partition'))) ?? 'NaN');
    const disk = Number.isInteger(partition) ? await realpath(shown).then(dirname) : null;
    if (disk === null) return null;
    return await readPartUuid(join(this.#places.dev, basename(disk)), partition);
  }
}

/** `major:minor` of a block device; null for anything else. */
export async function deviceNumberOf(path: string): Promise<string | null> {
  try {
    const found = await stat(path, { bigint: true });
    return found.isBlockDevice() ? numberText(found.rdev) : null;
  } catch {
    return null;
  }
}

/** The kernel's `dev_t` as glibc hands it out, as `major:minor`. */
export function numberText(rdev: bigint): string {
  const major = ((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & 0xfffff000n);
  const minor = (rdev & 0xffn) | ((rdev >> 12n) & 0xffffff00n);
  return `${major}:${minor}`;
}

/** As the settings write it. */
export function nameText(name: PartitionName): string {
  return name.by === 'path' ? name.path : `${name.by.toUpperCase()}=${name.value}`;
}

async function pathThere(path: string, what: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (cause) {
    throw new Problem('E_DISK', `${what} is not there`, { path }, { cause });
  }
}

function noDisk(message: string, details: { readonly path?: string }): Problem {
  return new Problem('E_DISK', message, details);
}

/** Text of a file of the kernel, without the newline at its end; null when it is not there. */
async function textOf(path: string): Promise<string | null> {
  try {
    return (await readFile(path, 'utf8')).trimEnd();
  } catch {
    return null;
  }
}

async function namesIn(directory: string): Promise<readonly string[]> {
  return await readdir(directory).catch(() => []);
}

function valueIn(text: string | null, key: string): string | null {
  const line = text?.split('\n').find((one) => one.startsWith(`${key}=`));
  return line === undefined ? null : line.slice(key.length + 1);
}
