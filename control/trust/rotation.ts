/** Other keys for a role, and the end of a key. Hosts follow by themselves. docs/specs/trust.md, section 8. */
import { hexOf, tufKeyOf } from '#/bundle/keys.ts';
import { topLevelRoles } from '#/bundle/trust/role.ts';
import { Problem } from '#/protocol/errors.ts';
import { delegate, type RoleKeys } from './delegations.ts';
import {
  expiry,
  publish,
  publishOnline,
  readCurrent,
  readRoleDocument,
  type Repository,
  type RepositoryFile,
  rootFiles,
  type RootDocument,
  roleKeysOf,
  withFiles,
} from './repository.ts';
import { revoke } from './targets.ts';

/**
 * Gives a role other keys. A top-level role needs the root keys, a delegated one the targets keys; the role itself is signed
 * anew with its new keys, where they are at hand.
 * @throws Problem E_SIGS (keys are not at hand: make a proposal), E_USAGE (threshold above the number of keys)
 */
export function rotateRole(
  repository: Repository,
  role: string,
  to: RoleKeys,
): readonly RepositoryFile[] {
  if ((topLevelRoles as readonly string[]).includes(role)) {
    return rotateTopLevel(repository, role, to);
  }
  const { targets } = readCurrent(repository);
  const entry = targets.delegations?.roles.find((each) => each.name === role);
  if (entry === undefined) {
    throw new Problem('E_NOT_FOUND', `the repository has no role ${role}`, { role });
  }
  const document = readRoleDocument(repository, role);
  delegate(targets, role, entry.paths, to);
  const changed = new Map([['targets', targets]]);
  if (document.version > 0) changed.set(role, document);
  return publish(repository, changed, []);
}

function rotateTopLevel(
  repository: Repository,
  role: string,
  to: RoleKeys,
): readonly RepositoryFile[] {
  const distinct = new Set(to.keys.map((key) => hexOf(key.bytes))).size;
  if (to.threshold < 1 || distinct < to.threshold) {
    throw new Problem('E_USAGE', `role ${role}: threshold ${to.threshold} of ${distinct} keys`);
  }
  const current = readCurrent(repository);
  const roles = {
    ...current.root.roles,
    [role]: { keyids: to.keys.map((key) => key.keyId), threshold: to.threshold },
  };
  const used = new Set(Object.values(roles).flatMap((each) => each.keyids));
  const keys = {
    ...current.root.keys,
    ...Object.fromEntries(to.keys.map((key) => [key.keyId, tufKeyOf(key.bytes)])),
  };
  const root: RootDocument = {
    ...current.root,
    version: current.root.version + 1,
    expires: expiry(repository, 'root'),
    keys: Object.fromEntries(Object.entries(keys).filter(([keyId]) => used.has(keyId))),
    roles,
  };
  const files = rootFiles(repository, root, current.root);
  const next = { ...repository, store: withFiles(repository.store, files) };
  if (role === 'root') return files;
  if (role === 'targets') {
    return [...files, ...publish(next, new Map([['targets', current.targets]]), [])];
  }
  return [...files, ...publishOnline(next, { ...current, root }, { ...current.snapshot?.meta })];
}

/** Signs the root again, unchanged, for another year. Needs the root keys. */
export function renewRoot(repository: Repository): readonly RepositoryFile[] {
  const { root } = readCurrent(repository);
  const next = { ...root, version: root.version + 1, expires: expiry(repository, 'root') };
  return rootFiles(repository, next, root);
}

/**
 * Ends a key: its id is revoked for ever, which hosts learn from the policy at once. A role that still names it must get
 * other keys first.
 * @throws Problem E_CONFLICT when a role would be left with fewer keys than its threshold
 */
export function revokeKey(repository: Repository, keyId: string): readonly RepositoryFile[] {
  const { root, targets } = readCurrent(repository);
  const delegated = (targets.delegations?.roles ?? []).map((entry) => entry.name);
  for (const role of [...topLevelRoles, ...delegated]) {
    const { keyIds, threshold } = roleKeysOf(root, targets, role);
    if (keyIds.includes(keyId) && keyIds.length - 1 < threshold) {
      throw new Problem('E_CONFLICT', `role ${role} needs this key: rotate it first`, { role });
    }
  }
  return revoke(repository, { keyIds: [keyId] });
}
