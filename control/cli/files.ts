/** Reading and checking the files that operators name. */
import { open, readFile, stat } from 'node:fs/promises';
import { Problem } from '#/protocol/errors.ts';

/** Text of a file of at most `maxBytes`. Throws E_USAGE with the path and the cause. */
export async function readText(path: string, maxBytes: number): Promise<string> {
  const sizeBytes = await fileSize(path);
  if (sizeBytes > maxBytes) {
    throw new Problem('E_USAGE', `${path} has ${sizeBytes} bytes, at most ${maxBytes} are read`);
  }
  return readFile(path, 'utf8');
}

/** Size of a regular file. Throws E_USAGE when it is not one. */
export async function fileSize(path: string): Promise<number> {
  let found;
  try {
    found = await stat(path);
  } catch (cause) {
    throw new Problem('E_USAGE', `read ${path}`, { path }, { cause });
  }
  if (!found.isFile()) throw new Problem('E_USAGE', `${path} is not a file`, { path });
  return found.size;
}

/** Writes a file that must not exist yet. Throws E_CONFLICT when it does. */
export async function writeNew(path: string, bytes: Uint8Array, mode: number): Promise<void> {
  let file;
  try {
    file = await open(path, 'wx', mode);
  } catch (cause) {
    const isThere = cause instanceof Error && 'code' in cause && cause.code === 'EEXIST';
    const what = isThere ? `${path} exists already` : `cannot create ${path}`;
    throw new Problem(isThere ? 'E_CONFLICT' : 'E_IO', what, { path }, { cause });
  }
  try {
    await file.writeFile(bytes);
    await file.sync();
  } finally {
    await file.close();
  }
}
