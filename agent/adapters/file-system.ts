/** What slots-directory.ts asks about file systems: room, use, mounts. */
import { chmod, lstat, readdir, readFile, statfs } from 'node:fs/promises';
import { errnoOf, fileProblem } from './file-port.ts';

/** Mounts of this process; longer tables are cut, which only hides mounts that no slot has. */
const MOUNT_TABLE = '/proc/self/mountinfo';
const SECTOR_BYTES = 512;

/** Room for an unprivileged writer on the file system of `path`. */
export async function spaceOf(
  path: string,
): Promise<{ readonly freeBytes: number; readonly freeInodes: number | null }> {
  const found = await mapped('statfs', path, () => statfs(path));
  const freeInodes = found.files === 0 ? null : found.ffree;
  return { freeBytes: found.bavail * found.bsize, freeInodes };
}

/** Bytes on the disk of everything at and below `path`, holes not counted; 0 when nothing is there. */
export async function usedBytesOf(path: string): Promise<number> {
  let used = 0;
  const todo = [path];
  for (let next = todo.pop(); next !== undefined; next = todo.pop()) {
    const at = next;
    const found = await mapped('stat', at, () => lstat(at)).catch(missing);
    if (found === null) continue;
    used += found.blocks * SECTOR_BYTES;
    if (!found.isDirectory()) continue;
    for (const name of await mapped('list', at, () => readdir(at))) todo.push(`${at}/${name}`);
  }
  return used;
}

/** Gives the owner of a directory all rights in it. */
export async function openUp(path: string): Promise<void> {
  await mapped('chmod', path, () => chmod(path, 0o700));
}

/** Mount points at or below `path`. */
export async function mountsBelow(path: string): Promise<readonly string[]> {
  const table = await mapped('read', MOUNT_TABLE, () => readFile(MOUNT_TABLE, 'utf8'));
  return mountPoints(table).filter((point) => point === path || point.startsWith(`${path}/`));
}

/** Mount points of a mountinfo table: the fifth field, with its octal escapes read. */
export function mountPoints(table: string): string[] {
  return table
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((point) => point !== '')
    .map((point) =>
      point.replaceAll(/\\([0-7]{3})/g, (_, octal: string) =>
        String.fromCharCode(Number.parseInt(octal, 8)),
      ),
    );
}

async function mapped<T>(operation: string, path: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    if (error instanceof Error && 'code' in error && typeof error.code === 'string') {
      throw fileProblem(operation, path, error.code, error);
    }
    throw error;
  }
}

/** Gone while it was counted, or never there. */
function missing(error: unknown): null {
  if (errnoOf(error) === 'ENOENT') return null;
  throw error;
}
