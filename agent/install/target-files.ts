/** Open files of one worker thread: the slot's, created as needed and never through a link, and the seed's, read only. */
import { closeSync, constants, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { fileProblem } from '#/agent/adapters/file-port.ts';
import { Problem } from '#/protocol/errors.ts';
import { type FileTable, pathOf } from './file-table.ts';

/** Open descriptors per thread and kind. */
const MAX_OPEN = 64;
const MAX_SHORT_WRITES = 64;
const NOT_THERE = 0;
const BEING_CREATED = 1;
const THERE = 2;

const { O_RDWR, O_RDONLY, O_CREAT, O_EXCL, O_NOFOLLOW, O_NONBLOCK } = constants;

/** Descriptors by file number; the one used longest ago is closed first. */
class OpenFiles {
  readonly #open = new Map<number, number>();

  get(file: number, open: () => number): number {
    const known = this.#open.get(file);
    if (known !== undefined) {
      this.#open.delete(file);
      this.#open.set(file, known);
      return known;
    }
    if (this.#open.size >= MAX_OPEN) {
      for (const [oldest, descriptor] of this.#open) {
        this.#open.delete(oldest);
        closeSync(descriptor);
        break;
      }
    }
    const descriptor = open();
    this.#open.set(file, descriptor);
    return descriptor;
  }

  close(file: number): void {
    const known = this.#open.get(file);
    if (known === undefined) return;
    this.#open.delete(file);
    closeSync(known);
  }

  closeAll(): void {
    for (const descriptor of this.#open.values()) closeSync(descriptor);
    this.#open.clear();
  }
}

export interface TargetFiles {
  /** Writes all of `bytes`; the file is created when it is not there. */
  write(file: number, bytes: Uint8Array, position: number): void;
  /** Bytes read; fewer at the end of the file, 0 when there is no file. */
  read(file: number, into: Uint8Array, position: number): number;
  /** The descriptor, open for reading and writing. */
  descriptor(file: number): number;
  /** This thread has no more to do with the file. */
  close(file: number): void;
  closeAll(): void;
}

/**
 * Files of the slot. `created` is shared by all threads: the one that wins creates with O_EXCL, so a planted entry is
 * refused; the others wait for it.
 */
export function targetFiles(
  files: FileTable,
  shared: readonly number[],
  created: Int32Array,
): TargetFiles {
  const open = new OpenFiles();
  const create = (file: number): number => {
    const path = pathOf(files, file);
    try {
      const descriptor = attempt('create', path, () =>
        openSync(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600),
      );
      Atomics.store(created, file, THERE);
      return descriptor;
    } catch (error) {
      Atomics.store(created, file, NOT_THERE);
      throw error;
    } finally {
      Atomics.notify(created, file);
    }
  };
  const openOrCreate = (file: number): number => {
    for (;;) {
      const before = Atomics.compareExchange(created, file, NOT_THERE, BEING_CREATED);
      if (before === NOT_THERE) return create(file);
      if (before === THERE) {
        const path = pathOf(files, file);
        return attempt('open', path, () => openSync(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK));
      }
      Atomics.wait(created, file, BEING_CREATED);
    }
  };
  const descriptor = (file: number): number => {
    const known = shared[file] ?? -1;
    return known >= 0 ? known : open.get(file, () => openOrCreate(file));
  };
  return {
    descriptor,
    write(file, bytes, position) {
      writeAllSync(descriptor(file), bytes, position, pathOf(files, file));
    },
    read(file, into, position) {
      if ((shared[file] ?? -1) < 0 && Atomics.load(created, file) !== THERE) return 0;
      return readFully(descriptor(file), into, position, pathOf(files, file));
    },
    close: (file) => open.close(file),
    closeAll: () => open.closeAll(),
  };
}

export interface SeedFiles {
  /** Bytes read; 0 when the file is gone, no regular file, or cannot be read. */
  read(file: number, into: Uint8Array, position: number): number;
  closeAll(): void;
}

/** Files of the live slot. Whatever is wrong with one is no error: the chunk then comes from a source. */
export function seedFiles(files: FileTable): SeedFiles {
  const open = new OpenFiles();
  const unreadable = new Set<number>();
  return {
    read(file, into, position) {
      if (unreadable.has(file)) return 0;
      const path = pathOf(files, file);
      try {
        const descriptor = open.get(file, () => openRegular(path));
        return readFully(descriptor, into, position, path);
      } catch (error) {
        if (!(error instanceof Problem)) throw error;
        unreadable.add(file);
        return 0;
      }
    },
    closeAll: () => open.closeAll(),
  };
}

function openRegular(path: string): number {
  const descriptor = attempt('open', path, () =>
    openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK),
  );
  const found = fstatSync(descriptor);
  if (found.isFile() || found.isBlockDevice()) return descriptor;
  closeSync(descriptor);
  throw new Problem('E_IO', `${path} is no regular file`);
}

/** Runs a file operation; its errno becomes a Problem. */
export function attempt<T>(operation: string, path: string, run: () => T): T {
  try {
    return run();
  } catch (error) {
    if (error instanceof Error && 'code' in error && typeof error.code === 'string') {
      throw fileProblem(operation, path, error.code, error);
    }
    throw error;
  }
}

export function readFully(
  descriptor: number,
  into: Uint8Array,
  position: number,
  path: string,
): number {
  let done = 0;
  while (done < into.byteLength) {
    const count = attempt('read', path, () =>
      readSync(descriptor, into, done, into.byteLength - done, position + done),
    );
    if (count === 0) break;
    done += count;
  }
  return done;
}

export function writeAllSync(
  descriptor: number,
  bytes: Uint8Array,
  position: number,
  path: string,
): void {
  let done = 0;
  for (let writes = 0; done < bytes.byteLength; writes += 1) {
    if (writes > MAX_SHORT_WRITES) throw new Problem('E_IO', `writes to ${path} stay short`);
    done += attempt('write', path, () =>
      writeSync(descriptor, bytes, done, bytes.byteLength - done, position + done),
    );
  }
}
