/** The files of the repository, as the house rules read them: whether or not they are committed yet. */
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { SourceFile } from './source.ts';

const skipped = new Set(['node_modules', '.git', 'dist', '.work', 'coverage']);
const read =
  /\.(ts|tsx|mjs|json|md|sh|toml|txt|service|timer|conf|css|html|sql|ya?ml)$|^(\.ci\/run|LICENSE)$/;
/** Generated or downloaded: theirs are not our words. */
const notOurs = ['package-lock.json', 'LICENSE'];
const FILE_MAX_BYTES = 4 * 1024 * 1024;

/** Every text file below `root`, sorted by path. Hostile samples are not read: they break rules on purpose. */
export async function readTree(root: string): Promise<readonly SourceFile[]> {
  const paths = await listTree(root);
  const files: SourceFile[] = [];
  for (const path of paths) {
    if (!read.test(path) || notOurs.includes(path) || path.startsWith('test/samples/')) continue;
    if ((await stat(join(root, path))).size > FILE_MAX_BYTES) continue;
    files.push({ path, text: await readFile(join(root, path), 'utf8') });
  }
  return files;
}

/** Paths of all files below `root`, sorted. */
export async function listTree(root: string): Promise<readonly string[]> {
  const paths: string[] = [];
  const open = [''];
  for (let folder = open.pop(); folder !== undefined; folder = open.pop()) {
    for (const entry of await readdir(join(root, folder), { withFileTypes: true })) {
      const path = folder === '' ? entry.name : `${folder}/${entry.name}`;
      if (entry.isDirectory() && !skipped.has(entry.name)) open.push(path);
      // Hidden files of the root are settings of tools (`.ci/` is a folder).
      const isHidden = folder === '' && entry.name.startsWith('.');
      if (entry.isFile() && !isHidden) paths.push(path);
    }
  }
  return paths.toSorted();
}
