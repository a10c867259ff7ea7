/**
 * Durable writes: the one place where the order of write, fsync, rename and directory fsync is decided. The recipes are
 * the ones proven by test/fault (every crash state) and by block-level power cuts; docs/specs/durable-state.md, section 2.
 *
 * A function that returned is durable. A function that threw may have happened or not; nothing is half there. No fsync
 * is retried on its descriptor.
 */
import { must, Problem } from '#/protocol/errors.ts';
import type { FileHandlePort, FilePort } from '#/agent/ports.ts';
import { errnoOf } from './file-port.ts';

const DIRECTORY_MODE = 0o700;
/** Short writes in a row before a write counts as failed: a disk that takes one byte at a time is broken. */
const MAX_SHORT_WRITES = 64;

/** The directory part of an absolute path. */
export function parentOf(path: string): string {
  const slash = path.lastIndexOf('/');
  must(path.startsWith('/') && slash < path.length - 1, `an absolute path to an entry: ${path}`);
  return slash === 0 ? '/' : path.slice(0, slash);
}

/** Name of the temporary entry of `path`; one per target, so that leftovers are found and bounded. */
export function temporaryOf(path: string): string {
  return `${parentOf(path) === '/' ? '' : parentOf(path)}/.${path.slice(path.lastIndexOf('/') + 1)}.tmp`;
}

/** True for names that `temporaryOf` makes. */
export function isTemporaryName(name: string): boolean {
  return name.startsWith('.') && name.endsWith('.tmp');
}

/** Writes all bytes at `position`, looping on short writes. Not durable before a sync. */
export async function writeAll(
  file: FileHandlePort,
  bytes: Uint8Array,
  position: number,
): Promise<void> {
  let done = 0;
  let shortWrites = 0;
  while (done < bytes.byteLength) {
    const written = await file.write(bytes.subarray(done), position + done);
    if (written < bytes.byteLength - done) shortWrites += 1;
    if (written === 0 || shortWrites > MAX_SHORT_WRITES) {
      throw new Problem('E_IO', `write stopped after ${done} of ${bytes.byteLength} bytes`);
    }
    done += written;
  }
}

/** Runs `use` and closes the handle whatever happens; an error of `use` goes before one of close. */
async function withHandle<T>(
  file: FileHandlePort,
  use: (file: FileHandlePort) => Promise<T>,
): Promise<T> {
  let result: T;
  try {
    result = await use(file);
  } catch (error) {
    await file.close().catch(() => undefined);
    throw error;
  }
  await file.close();
  return result;
}

/** Makes the entries of a directory durable: what was created, renamed and removed in it before. */
export async function syncDirectory(files: FilePort, path: string): Promise<void> {
  await withHandle(await files.open(path, 'directory'), (directory) => directory.sync());
}

/** Removes an entry if it is there. Not durable by itself. */
async function unlinkIfPresent(files: FilePort, path: string): Promise<void> {
  try {
    await files.unlink(path);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
  }
}

/** Opens a fresh temporary file; a leftover or planted entry of that name is removed, never written through (H01). */
async function createFresh(files: FilePort, path: string): Promise<FileHandlePort> {
  try {
    return await files.open(path, 'create');
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw error;
    await unlinkIfPresent(files, path);
    return await files.open(path, 'create');
  }
}

/** Recipe 1: the file holds exactly `bytes` after a crash at any later moment; before, old or new. */
export async function replaceFile(files: FilePort, path: string, bytes: Uint8Array): Promise<void> {
  const temporary = temporaryOf(path);
  try {
    await withHandle(await createFresh(files, temporary), async (file) => {
      await writeAll(file, bytes, 0);
      await file.sync();
    });
    await files.rename(temporary, path);
  } catch (error) {
    // Best effort: a leftover is removed at the next start too, and a full disk wants its bytes back now.
    await files.unlink(temporary).catch(() => undefined);
    throw error;
  }
  await syncDirectory(files, parentOf(path));
}

/** Recipe 3, the write: one record at the end of an open file, durable on return. `position` is the file's size. */
export async function appendRecord(
  file: FileHandlePort,
  record: Uint8Array,
  position: number,
): Promise<void> {
  await writeAll(file, record, position);
  await file.sync();
}

/** Recipe 2: `link` points to `target` (relative) when this returns; before, to the old or the new target, never to none. */
export async function switchLink(files: FilePort, target: string, link: string): Promise<void> {
  must(!target.startsWith('/'), `a relative link target: ${target}`);
  const temporary = temporaryOf(link);
  await unlinkIfPresent(files, temporary);
  await files.symlink(target, temporary);
  await files.rename(temporary, link);
  await syncDirectory(files, parentOf(link));
}

/** Makes one directory (0700), durably in its parent. An existing real directory is fine; a link or a file is E_IO. */
export async function makeDirectory(files: FilePort, path: string): Promise<void> {
  try {
    await files.mkdir(path, DIRECTORY_MODE);
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw error;
    const found = await files.stat(path);
    if (found?.kind !== 'directory') {
      throw new Problem(
        'E_IO',
        `make directory ${path}: a ${found?.kind ?? 'changing entry'} is there`,
      );
    }
  }
  // Also when it existed: an earlier run may have been killed between mkdir and this sync.
  await syncDirectory(files, parentOf(path));
}

/** Removes one file or link, durably. Nothing there is fine. */
export async function removeFile(files: FilePort, path: string): Promise<void> {
  await unlinkIfPresent(files, path);
  await syncDirectory(files, parentOf(path));
}

/** Removes what a crashed `replaceFile` or `switchLink` left in a directory. Returns the names. */
export async function removeTemporaries(
  files: FilePort,
  directory: string,
): Promise<readonly string[]> {
  const stale = (await files.list(directory))
    .filter((entry) => entry.kind !== 'directory' && isTemporaryName(entry.name))
    .map((entry) => entry.name);
  for (const name of stale) await unlinkIfPresent(files, `${directory}/${name}`);
  return stale;
}

/**
 * Before the first read of a directory of state: makes it, removes leftovers, and makes durable what is visible in it. An
 * agent that was killed between a rename and its directory sync leaves entries that a power cut would still take back;
 * nothing may be decided by them before this.
 */
export async function openDirectory(files: FilePort, path: string): Promise<void> {
  await makeDirectory(files, path);
  await removeTemporaries(files, path);
  await syncDirectory(files, path);
}

/** Whole content of a file of at most `limitBytes`; null when nothing is there, E_STATE when it is larger or no file. */
export async function readFile(
  files: FilePort,
  path: string,
  limitBytes: number,
): Promise<Uint8Array | null> {
  const found = await files.stat(path);
  if (found === null) return null;
  if (found.kind !== 'file' || found.sizeBytes > limitBytes) {
    throw new Problem('E_STATE', `read ${path}: ${found.kind} of ${found.sizeBytes} bytes`, {
      path,
      limitBytes,
    });
  }
  return await withHandle(await files.open(path, 'read'), (file) =>
    // One byte more, so that the end is seen without a second buffer.
    readAll(file, path, limitBytes, found.sizeBytes + 1),
  );
}

/** Reads an open file from its start to its end; E_STATE when more than `limitBytes` come. */
export async function readAll(
  file: FileHandlePort,
  path: string,
  limitBytes: number,
  firstReadBytes = 64 * 1024,
): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let size = 0;
  let wantBytes = firstReadBytes;
  for (;;) {
    const buffer = new Uint8Array(wantBytes);
    const count = await file.read(buffer, size);
    if (count === 0) break;
    parts.push(buffer.subarray(0, count));
    size += count;
    // Less than asked for is the end, which one more read confirms.
    wantBytes = count < wantBytes ? 1 : 64 * 1024;
    if (size > limitBytes) {
      throw new Problem('E_STATE', `read ${path}: more than ${limitBytes} bytes`, { path });
    }
  }
  const whole = new Uint8Array(size);
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.byteLength;
  }
  return whole;
}
