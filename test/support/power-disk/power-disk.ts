/**
 * A real file system on a disk that logs, and what such a disk may hold after a power cut. Needs root, /dev/fuse and loop
 * devices, and has to run in a mount namespace of its own (`unshare -m --propagation private`): another one would keep clones
 * of the mounts, and an unmount would release nothing.
 *
 * Never `mount -o loop`: it takes a loop device that is still attached to the same file, with a stale cache. Never a lazy unmount
 * of the inner file system: see server.ts.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import {
  closeSync,
  ftruncateSync,
  openSync,
  readFileSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { type LoggedEvent, parseLog } from './log.ts';

export type FileSystem = 'ext4' | 'xfs' | 'btrfs';

const MIB = 1024 * 1024;
/** The smallest that their tools make. */
const sizes: Readonly<Record<FileSystem, number>> = {
  ext4: 48 * MIB,
  xfs: 320 * MIB,
  btrfs: 128 * MIB,
};
const makers: Readonly<Record<FileSystem, readonly string[]>> = {
  ext4: ['mkfs.ext4', '-q', '-E', 'nodiscard,lazy_itable_init=0,lazy_journal_init=0'],
  xfs: ['mkfs.xfs', '-q', '-K'],
  btrfs: ['mkfs.btrfs', '-q', '-K', '-M'],
};

function run(program: string, ...args: readonly string[]): string {
  return execFileSync(program, args, {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  }).trim();
}

/** A file system on a file, by a loop device of its own. */
export class MountedImage {
  readonly #device: string;
  readonly #at: string;

  private constructor(device: string, at: string) {
    this.#device = device;
    this.#at = at;
  }

  static attach(file: string): string {
    const device = run('losetup', '--show', '-f', file);
    run('blockdev', '--flushbufs', device);
    return device;
  }

  /** Mounts `file` at the existing directory `at`; its journal is recovered by the kernel. Throws what mount says. */
  static mount(file: string, fileSystem: FileSystem, at: string): MountedImage {
    const device = MountedImage.attach(file);
    try {
      // Images of one disk have one id: XFS refuses a second one that it still remembers.
      const options = fileSystem === 'xfs' ? 'nouuid,nodiscard' : 'nodiscard';
      run('mount', '-t', fileSystem, '-o', options, device, at);
    } catch (error) {
      run('losetup', '-d', device);
      throw error;
    }
    return new MountedImage(device, at);
  }

  unmount(): void {
    run('umount', this.#at);
    run('losetup', '-d', this.#device);
  }
}

const MAX_UNMOUNT_TRIES = 400;
const UNMOUNT_PAUSE_MS = 50;

export interface Recording {
  readonly fileSystem: FileSystem;
  readonly sizeBytes: number;
  readonly events: readonly LoggedEvent[];
}

/** Records what `story` does on a new file system at `<directory>/mount`. */
export async function record(
  directory: string,
  fileSystem: FileSystem,
  story: (at: string, position: () => number) => Promise<void>,
): Promise<Recording> {
  const sizeBytes = sizes[fileSystem];
  const disk = join(directory, 'disk');
  const logPath = join(directory, 'disk.log');
  const at = join(directory, 'mount');
  writeFileSync(disk, '');
  const server = spawn(
    process.execPath,
    [join(import.meta.dirname, 'server.ts'), disk, String(sizeBytes), logPath],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const ended = new Promise<void>((resolve) => server.once('exit', () => resolve()));
  await isMounted(server);
  try {
    const device = MountedImage.attach(disk);
    const [maker = '', ...args] = makers[fileSystem];
    run(maker, ...args, device);
    run('losetup', '-d', device);
    const image = MountedImage.mount(disk, fileSystem, at);
    try {
      await story(at, () => statSync(logPath).size);
    } catch (error) {
      // The mounts end with the namespace; the disk under them ends now, whoever still holds on to it.
      server.kill('SIGKILL');
      throw error;
    }
    image.unmount();
    const events = parseLog(readFileSync(logPath));
    checkRecording(directory, disk, sizeBytes, events);
    return { fileSystem, sizeBytes, events };
  } finally {
    if (!server.killed) await unmountServed(disk);
    await ended;
  }
}

/** A loop device lets go of its file a little after it was detached. */
async function unmountServed(disk: string): Promise<void> {
  for (let tries = 1; ; tries += 1) {
    try {
      run('umount', disk);
      return;
    } catch (error) {
      if (tries === MAX_UNMOUNT_TRIES) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, UNMOUNT_PAUSE_MS));
  }
}

function isMounted(server: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    server.stdout?.once('data', () => resolve());
    server.once('exit', (code) => reject(new Error(`the logging disk ended with ${code}`)));
  });
}

/** All entries of the log have to give the disk byte for byte; otherwise no verdict would mean anything. */
function checkRecording(
  directory: string,
  disk: string,
  sizeBytes: number,
  events: readonly LoggedEvent[],
): void {
  const replayed = join(directory, 'replayed');
  writeImage(replayed, sizeBytes, events);
  run('cmp', disk, replayed);
}

/** An image file that holds the writes among `events`, on top of `base`; what was never written is a hole. */
export function writeImage(
  path: string,
  sizeBytes: number,
  events: readonly LoggedEvent[],
  base: string | null = null,
): void {
  if (base === null) writeFileSync(path, '');
  else run('cp', '--sparse=always', base, path);
  const file = openSync(path, 'r+');
  try {
    ftruncateSync(file, sizeBytes);
    for (const { event } of events) {
      if (event.do === 'write') writeSync(file, event.bytes, 0, event.bytes.length, event.offset);
    }
  } finally {
    closeSync(file);
  }
}

export interface Cut {
  /** Number of events before the power went. */
  readonly at: number;
  /** Events that are on the disk: all up to the last flush, and some of those after it, the last maybe torn. */
  readonly onDisk: readonly LoggedEvent[];
  readonly name: string;
}

/**
 * What the disk writes as a whole, or not at all: a unit, and the block of 4 KiB with the superblock. Less than this, and file
 * systems cannot be mounted, whatever ran on them (decision 0098).
 */
const wholes: Readonly<Record<FileSystem, { unit: number; superblock: number }>> = {
  ext4: { unit: 512, superblock: 0 },
  xfs: { unit: 4096, superblock: 0 },
  btrfs: { unit: 512, superblock: 65_536 },
};
const BLOCK_BYTES = 4096;
const ways = ['all', 'none', 'prefix', 'any', 'any torn'] as const;

/** One legal disk after a power cut right after the event number `at`, drawn by `random` (0 to 1). */
export function cutAt(
  { events, fileSystem }: Pick<Recording, 'events' | 'fileSystem'>,
  at: number,
  random: () => number,
): Cut {
  const before = events.slice(0, at);
  const flushed = before.findLastIndex(({ event }) => event.do === 'flush') + 1;
  const pending = before.slice(flushed);
  const way = ways[Math.floor(random() * ways.length)] ?? 'all';
  const kept = pending.filter((_, index) => {
    if (way === 'all') return true;
    if (way === 'none') return false;
    if (way === 'prefix') return index < pending.length >> 1;
    return random() < 0.5;
  });
  const survived = way === 'any torn' ? kept.map((one) => torn(one, fileSystem, random)) : kept;
  const name = `cut after event ${at} of ${events.length}, ${pending.length} writes pending: ${way}`;
  return { at, onDisk: [...before.slice(0, flushed), ...survived], name };
}

/** The first units of a write only, for one write in three. */
function torn(one: LoggedEvent, fileSystem: FileSystem, random: () => number): LoggedEvent {
  const { event } = one;
  if (event.do === 'flush' || random() > 1 / 3) return one;
  const { unit, superblock } = wholes[fileSystem];
  const first = Math.floor(event.offset / unit);
  const units = Math.ceil((event.offset + event.bytes.length) / unit) - first;
  if (units === 1) return one;
  const drawn = (first + 1 + Math.floor(random() * (units - 1))) * unit;
  const isInSuperblock = drawn > superblock && drawn < superblock + BLOCK_BYTES;
  const end = isInSuperblock ? superblock + BLOCK_BYTES : drawn;
  return { ...one, event: { ...event, bytes: event.bytes.subarray(0, end - event.offset) } };
}
