/**
 * Writes on the EFI system partition. FAT has no journal and a rename on it is not atomic, so only two things are done
 * (durability recipe G): a file is created under a new name, synced, and then its directory; and one that nothing needs is removed.
 */
import type { FilePort } from '#/agent/ports.ts';
import {
  readFile,
  syncDirectory,
  writeAll,
  parentOf,
  removeFile,
} from '#/agent/adapters/durable.ts';
import { errnoOf } from '#/agent/adapters/file-port.ts';
import { Problem } from '#/protocol/errors.ts';

const COPY_BYTES = 1024 * 1024;
/** Of a kernel, an initrd or a unified image. */
const BOOT_FILE_MAX_BYTES = 1024 * 1024 * 1024;
const TEXT_MAX_BYTES = 64 * 1024;

/** Makes a file that was not there, durable on return. What an earlier call left half is removed first. */
export async function createOnEsp(files: FilePort, path: string, bytes: Uint8Array): Promise<void> {
  await create(files, path, async (file) => await writeAll(file, bytes, 0));
}

/** Copies a file to a name that was not there, durable on return; `change` sees each piece. */
export async function copyToEsp(files: FilePort, from: string, to: string): Promise<void> {
  const source = await files.open(from, 'read');
  try {
    await create(files, to, async (file) => {
      const buffer = new Uint8Array(COPY_BYTES);
      for (let at = 0; ; ) {
        const count = await source.read(buffer, at);
        if (count === 0) return;
        await writeAll(file, buffer.subarray(0, count), at);
        at += count;
        if (at > BOOT_FILE_MAX_BYTES) {
          throw new Problem('E_BOOT', `${from} has more than ${BOOT_FILE_MAX_BYTES} bytes`);
        }
      }
    });
  } finally {
    await source.close();
  }
}

async function create(
  files: FilePort,
  path: string,
  fill: (file: Awaited<ReturnType<FilePort['open']>>) => Promise<void>,
): Promise<void> {
  await removeIfThere(files, path);
  const file = await files.open(path, 'create');
  try {
    try {
      await fill(file);
      await file.sync();
    } finally {
      await file.close();
    }
  } catch (error) {
    // A full ESP wants its bytes back now (F19).
    await files.unlink(path).catch(() => undefined);
    throw error;
  }
  await syncDirectory(files, parentOf(path));
}

/** Makes a directory, durable in its parent; one that is there is fine. */
export async function directoryOnEsp(files: FilePort, path: string): Promise<void> {
  try {
    await files.mkdir(path, 0o700);
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw error;
  }
  await syncDirectory(files, parentOf(path));
}

/** Removes a file, durably; nothing there is fine. */
export async function removeIfThere(files: FilePort, path: string): Promise<void> {
  if ((await files.stat(path)) === null) return;
  await removeFile(files, path);
}

/** Removes a directory of files. */
export async function removeDirectory(files: FilePort, path: string): Promise<void> {
  for (const { name } of await files.list(path)) await files.unlink(`${path}/${name}`);
  await files.rmdir(path);
  await syncDirectory(files, parentOf(path));
}

/** Names in a directory; none when it is not there. */
export async function namesIn(files: FilePort, path: string): Promise<readonly string[]> {
  if ((await files.stat(path)) === null) return [];
  return (await files.list(path)).map(({ name }) => name);
}

/** The text of a small file; empty when it is not there or too large. */
export async function textIn(files: FilePort, path: string): Promise<string> {
  const found = await files.stat(path);
  if (found?.kind !== 'file' || found.sizeBytes > TEXT_MAX_BYTES) return '';
  return Buffer.from((await readFile(files, path, TEXT_MAX_BYTES)) ?? []).toString('latin1');
}
