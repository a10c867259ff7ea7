/** What programs can see of a tree: by it two disks are the same to an agent that starts on them, whatever lies beside the files. */
import { createHash } from 'node:crypto';
import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';

/**
 * One digest over paths, kinds, modes, owners, link targets and contents of all below `root`; times are left out.
 * @throws what the file system says where something cannot be read.
 */
export function treeState(root: string): string {
  const hash = createHash('sha256');
  const paths = readdirSync(root, { recursive: true, encoding: 'utf8' }).toSorted();
  for (const path of paths) {
    const full = join(root, path);
    const stats = lstatSync(full);
    hash.update(`${path}\0${stats.mode} ${stats.uid} ${stats.gid} ${stats.nlink}\0`);
    if (stats.isSymbolicLink()) hash.update(`${readlinkSync(full)}\0`);
    if (stats.isFile()) hash.update(`${stats.size}\0`).update(readFileSync(full));
  }
  return hash.digest('hex');
}
