/** Reads what a directory holds: the listing without digests, in canonical order, independent of the order of the disk. */
import { lstat, readdir, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { comparePaths } from '#/bundle/tree-entry.ts';
import { TREE_MAX_ENTRIES } from '#/bundle/tree-list.ts';
import { checkLinkText, checkTreePath, quote } from '#/bundle/tree-path.ts';
import { Problem } from '#/protocol/errors.ts';

export interface ScannedEntry {
  readonly path: string;
  readonly kind: 'directory' | 'file' | 'symlink' | 'hardlink';
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Of a file; 0 for others. */
  readonly sizeBytes: number;
  /** Text of a symbolic link; path of the file that a hard link shares; empty for others. */
  readonly target: string;
}

interface Found extends ScannedEntry {
  /** Device and inode when the file has several names. */
  readonly inode: string | null;
}

/**
 * All entries below `root`. Throws E_PATH (names), E_MODE (devices, sockets, pipes), E_SIZE (too many), E_IO.
 * Owners become 0:0 unless `keepOwners`.
 */
export async function scanTree(
  root: string,
  options: { readonly keepOwners: boolean; readonly signal?: AbortSignal | undefined },
): Promise<readonly ScannedEntry[]> {
  const found: Found[] = [];
  const todo: string[] = [''];
  for (let directory = todo.pop(); directory !== undefined; directory = todo.pop()) {
    options.signal?.throwIfAborted();
    for (const name of await namesIn(root, directory)) {
      const path = directory === '' ? name : `${directory}/${name}`;
      const entry = await scanEntry(root, path, options.keepOwners);
      found.push(entry);
      if (found.length > TREE_MAX_ENTRIES) {
        throw new Problem('E_SIZE', `${root} has more than ${TREE_MAX_ENTRIES} entries`);
      }
      if (entry.kind === 'directory') todo.push(path);
    }
  }
  found.sort((a, b) => comparePaths(a.path, b.path));
  return shareInodes(found);
}

/** Names as text; a name that is not UTF-8 would come back as another name. */
async function namesIn(root: string, directory: string): Promise<string[]> {
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  const names = await readdir(join(root, directory), { encoding: 'buffer' });
  return names.map((bytes) => {
    try {
      return decoder.decode(bytes);
    } catch (cause) {
      throw new Problem(
        'E_PATH',
        `directory ${quote(directory)} has a name that is not UTF-8: ${bytes.toString('hex')}`,
        {},
        { cause },
      );
    }
  });
}

async function scanEntry(root: string, path: string, keepOwners: boolean): Promise<Found> {
  checkTreePath(path);
  const full = join(root, path);
  const stat = await lstat(full);
  const owner = keepOwners ? { uid: stat.uid, gid: stat.gid } : { uid: 0, gid: 0 };
  const mode = stat.mode & 0o7777;
  if (stat.isDirectory()) {
    return { path, kind: 'directory', mode, ...owner, sizeBytes: 0, target: '', inode: null };
  }
  if (stat.isFile()) {
    const inode = stat.nlink > 1 ? `${stat.dev}:${stat.ino}` : null;
    return { path, kind: 'file', mode, ...owner, sizeBytes: stat.size, target: '', inode };
  }
  if (stat.isSymbolicLink()) {
    const target = await readlink(full);
    checkLinkText(path, target);
    return {
      path,
      kind: 'symlink',
      mode: 0o777,
      uid: 0,
      gid: 0,
      sizeBytes: 0,
      target,
      inode: null,
    };
  }
  throw new Problem(
    'E_MODE',
    `${quote(path)} is a device, pipe or socket; only directories, files and links are allowed`,
  );
}

/** The first name of an inode is the file, later ones are hard links to it. */
function shareInodes(found: readonly Found[]): ScannedEntry[] {
  const first = new Map<string, string>();
  return found.map(({ inode, ...entry }) => {
    const target = inode === null ? undefined : first.get(inode);
    if (target !== undefined) {
      return { ...entry, kind: 'hardlink', mode: 0o777, uid: 0, gid: 0, sizeBytes: 0, target };
    }
    if (inode !== null) first.set(inode, entry.path);
    return entry;
  });
}
