/** What a tree may hold (docs/specs/bundle-format.md, section 4.2); attacks C11, C12, C15, fault F15. */
import { Problem } from '#/protocol/errors.ts';
import { comparePaths, type TreeEntry } from '#/bundle/tree-entry.ts';
import { checkLinkText, checkTreePath, collisionKey, quote } from '#/bundle/tree-path.ts';

/** Exceptions that the signed manifest grants; the tree payload of a manifest is one. */
export interface TreeRules {
  readonly allowSetuid?: boolean | undefined;
  readonly allowCaseCollisions?: boolean | undefined;
  readonly allowAbsoluteLinks?: boolean | undefined;
}

const LINK_MAX_HOPS = 40;
/** Beyond these an owner cannot be told apart from "none" (-1) on any kernel. */
const OWNER_MAX = 0xffff_fffe;

/** Throws E_PATH or E_MODE unless the entries, in order, describe a tree that stays inside its slot. */
export function checkTree(entries: readonly TreeEntry[], rules: TreeRules): void {
  const byPath = new Map<string, TreeEntry>();
  const folded = new Map<string, string>();
  let before: string | null = null;
  for (const entry of entries) {
    checkTreePath(entry.path);
    const order = before === null ? -1 : comparePaths(before, entry.path);
    if (order === 0) throw new Problem('E_PATH', `path ${quote(entry.path)} stands twice`);
    if (order > 0) throw new Problem('E_PATH', `path ${quote(entry.path)} is out of order`);
    before = entry.path;
    checkParent(entry.path, byPath);
    if (rules.allowCaseCollisions !== true) {
      const key = collisionKey(entry.path);
      const other = folded.get(key);
      if (other !== undefined) {
        throw new Problem(
          'E_PATH',
          `paths ${quote(other)} and ${quote(entry.path)} differ only in case`,
        );
      }
      folded.set(key, entry.path);
    }
    checkEntry(entry, byPath, rules);
    byPath.set(entry.path, entry);
  }
  checkLinks(entries, byPath, rules);
}

/** Every parent is listed, as a directory: nothing is ever written through a link or a file. */
function checkParent(path: string, byPath: ReadonlyMap<string, TreeEntry>): void {
  const slash = path.lastIndexOf('/');
  if (slash < 0) return;
  const parent = byPath.get(path.slice(0, slash));
  if (parent?.kind !== 'directory') {
    const what = parent === undefined ? 'is not listed before it' : `is a ${parent.kind}`;
    throw new Problem('E_PATH', `parent of ${quote(path)} ${what}`);
  }
}

function checkEntry(
  entry: TreeEntry,
  byPath: ReadonlyMap<string, TreeEntry>,
  rules: TreeRules,
): void {
  if (entry.uid > OWNER_MAX || entry.gid > OWNER_MAX) {
    throw new Problem('E_MODE', `${quote(entry.path)} has owner ${entry.uid}:${entry.gid}`);
  }
  switch (entry.kind) {
    case 'directory':
    case 'file': {
      const allowed = rules.allowSetuid === true ? 0o7777 : 0o777;
      if ((entry.mode & ~allowed) !== 0) {
        throw new Problem(
          'E_MODE',
          `${quote(entry.path)} has mode ${entry.mode.toString(8)}, which the manifest does not allow`,
        );
      }
      return;
    }
    case 'symlink':
      checkLinkText(entry.path, entry.target);
      checkLinkMode(entry);
      return;
    case 'hardlink':
      if (byPath.get(entry.target)?.kind !== 'file') {
        throw new Problem('E_PATH', `hard link ${quote(entry.path)} does not name an earlier file`);
      }
      checkLinkMode(entry);
  }
}

function checkLinkMode(entry: TreeEntry): void {
  if (entry.mode !== 0o777 || entry.uid !== 0 || entry.gid !== 0) {
    throw new Problem('E_MODE', `link ${quote(entry.path)} has a mode or owner of its own`);
  }
}

/** Every symbolic link, followed as the kernel would, ends inside the tree (it may dangle there). */
function checkLinks(
  entries: readonly TreeEntry[],
  byPath: ReadonlyMap<string, TreeEntry>,
  rules: TreeRules,
): void {
  for (const entry of entries) {
    if (entry.kind === 'symlink') checkLink(entry.path, entry.target, byPath, rules);
  }
}

function checkLink(
  path: string,
  target: string,
  byPath: ReadonlyMap<string, TreeEntry>,
  rules: TreeRules,
): void {
  const at = path.split('/').slice(0, -1);
  // Components still to walk, the next one last.
  const todo = target.split('/').reverse();
  let hops = 0;
  if (target.startsWith('/')) enterRoot(path, at, rules);
  while (todo.length > 0) {
    const component = todo.pop();
    if (component === undefined || component === '' || component === '.') continue;
    if (component === '..') {
      if (at.pop() === undefined)
        throw new Problem('E_PATH', `link ${quote(path)} leads out of the slot: ${quote(target)}`);
      continue;
    }
    at.push(component);
    const reached = byPath.get(at.join('/'));
    if (reached?.kind !== 'symlink') continue;
    hops += 1;
    // A loop leads nowhere, and opening it fails the same way on every kernel.
    if (hops > LINK_MAX_HOPS) return;
    if (reached.target.startsWith('/')) enterRoot(path, at, rules);
    else at.pop();
    todo.push(...reached.target.split('/').reverse());
  }
}

function enterRoot(path: string, at: string[], rules: TreeRules): void {
  if (rules.allowAbsoluteLinks !== true) {
    throw new Problem(
      'E_PATH',
      `link ${quote(path)} is or passes an absolute link, which the manifest does not allow`,
    );
  }
  at.length = 0;
}
