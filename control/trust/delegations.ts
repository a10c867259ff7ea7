/** Roles of the repository: its creation, groups, classes, and who signs for them. docs/specs/trust.md, section 8. */
import { canonicalDocument } from '#/bundle/canonical.ts';
import { bytesOfHex, hexOf, type PublicKey, publicKeyOf, tufKeyOf } from '#/bundle/keys.ts';
import {
  BUILDERS_PATH,
  type BuildersDocument,
  configRole,
  FLOORS_PATH,
  groupRole,
  imageRole,
  LOG_PATH,
  type LogDocument,
  POLICY_ROLE,
  REVOKED_PATH,
} from '#/bundle/trust/documents.ts';
import { Problem } from '#/protocol/errors.ts';
import {
  canSign,
  emptyTargets,
  expiry,
  type HeldKey,
  isDue,
  keysOfUse,
  metaOf,
  publish,
  publishOnline,
  publishTimestamp,
  putTarget,
  readCurrent,
  type Repository,
  type RepositoryFile,
  rootFiles,
  type RootDocument,
  roleDocumentIn,
  roleKeysOf,
  signDocument,
  SPEC_VERSION,
  type TargetsDocument,
} from './repository.ts';

/** Who signs for a role. */
export interface RoleKeys {
  readonly keys: readonly PublicKey[];
  readonly threshold: number;
}

/**
 * The first files of a repository: root, targets with the policy role, empty floors and revocations, builders, snapshot,
 * timestamp. With `log`, every pin must be in that audit log. `keys` must hold at least one key of each use but `operator` and `config`; all keys of a use sign with threshold 1.
 */
export function createRepository(
  keys: readonly HeldKey[],
  nowMs: number,
  log: LogDocument | null = null,
): readonly RepositoryFile[] {
  const repository: Repository = { store: { read: () => null }, keys, nowMs };
  const root = firstRoot(repository);
  const policy = { ...emptyTargets(repository), version: 1 };
  const builders: BuildersDocument = {
    schema: 'switchback.builders/1',
    classes: [
      { class: '*', threshold: 1, keys: keysOfUse(keys, 'release').map((key) => hexOf(key.bytes)) },
    ],
  };
  const targetFiles = [
    putTarget(
      policy,
      FLOORS_PATH,
      canonicalDocument({ schema: 'switchback.floors/1', floors: [] }),
    ),
    putTarget(
      policy,
      REVOKED_PATH,
      canonicalDocument({ schema: 'switchback.revoked/1', artifacts: [], keyIds: [] }),
    ),
    putTarget(policy, BUILDERS_PATH, canonicalDocument(builders)),
    ...(log === null ? [] : [putTarget(policy, LOG_PATH, canonicalDocument(log))]),
  ];
  const targets = {
    ...emptyTargets(repository),
    version: 1,
    expires: expiry(repository, 'targets'),
  };
  delegate(targets, POLICY_ROLE, ['policy/*'], starterKeys(keys, 'policy'));
  const policyBytes = signDocument(policy, roleKeysOf(root, targets, POLICY_ROLE), keys);
  const targetsBytes = signDocument(targets, roleKeysOf(root, targets, 'targets'), keys);
  const meta = {
    'targets.json': metaOf(1, targetsBytes),
    [`${POLICY_ROLE}.json`]: metaOf(1, policyBytes),
  };
  return [
    ...rootFiles(repository, root, null),
    ...targetFiles,
    { name: 'metadata/1.targets.json', bytes: targetsBytes },
    { name: `metadata/1.${POLICY_ROLE}.json`, bytes: policyBytes },
    ...publishOnline(repository, { root, timestamp: null, snapshot: null, targets }, meta),
  ];
}

function firstRoot(repository: Repository): RootDocument {
  const root: RootDocument = {
    _type: 'root',
    spec_version: SPEC_VERSION,
    version: 1,
    expires: expiry(repository, 'root'),
    consistent_snapshot: true,
    keys: {},
    roles: {},
  };
  for (const role of ['root', 'targets', 'snapshot', 'timestamp'] as const) {
    const { keys, threshold } = starterKeys(repository.keys, role);
    for (const key of keys) root.keys[key.keyId] = tufKeyOf(key.bytes);
    root.roles[role] = { keyids: keys.map((key) => key.keyId), threshold };
  }
  return root;
}

function starterKeys(keys: readonly HeldKey[], use: HeldKey['use']): RoleKeys {
  const found = keysOfUse(keys, use);
  if (found.length === 0) throw new Problem('E_SIGS', `no ${use} key is at hand`, { use });
  return { keys: found, threshold: 1 };
}

/** Adds or replaces the delegation of a role, and drops keys that no role uses any more. */
export function delegate(
  targets: TargetsDocument,
  role: string,
  paths: readonly string[],
  roleKeys: RoleKeys,
): void {
  const distinct = new Set(roleKeys.keys.map((key) => hexOf(key.bytes)));
  if (roleKeys.threshold < 1 || distinct.size < roleKeys.threshold) {
    throw new Problem(
      'E_USAGE',
      `role ${role}: threshold ${roleKeys.threshold} with ${distinct.size} distinct keys`,
    );
  }
  const delegations = targets.delegations ?? { keys: {}, roles: [] };
  const entry = {
    name: role,
    keyids: roleKeys.keys.map((key) => key.keyId),
    threshold: roleKeys.threshold,
    terminating: true,
    paths: [...paths],
  };
  const index = delegations.roles.findIndex((existing) => existing.name === role);
  if (index < 0) delegations.roles.push(entry);
  else delegations.roles[index] = entry;
  const used = new Set(delegations.roles.flatMap((existing) => existing.keyids));
  const keys = { ...delegations.keys };
  for (const key of roleKeys.keys) keys[key.keyId] = tufKeyOf(key.bytes);
  targets.delegations = {
    keys: Object.fromEntries(Object.entries(keys).filter(([keyId]) => used.has(keyId))),
    roles: delegations.roles,
  };
}

/** True when the repository delegates to the role. */
export function hasRole(repository: Repository, role: string): boolean {
  const roles = readCurrent(repository).targets.delegations?.roles ?? [];
  return roles.some((entry) => entry.name === role);
}

/** A group and who may pin it; without `by`, the operator keys at hand, one signature. Needs the targets keys. */
export function addGroup(
  repository: Repository,
  group: string,
  by: RoleKeys = starterKeys(repository.keys, 'operator'),
): readonly RepositoryFile[] {
  return addRole(repository, groupRole(group), [`groups/${group}/*`], by);
}

/** A class of hosts and who may release for it; without `by`, the release keys at hand, one signature. */
export function addClass(
  repository: Repository,
  imageClass: string,
  by: RoleKeys = starterKeys(repository.keys, 'release'),
): readonly RepositoryFile[] {
  return addRole(repository, imageRole(imageClass), [`images/${imageClass}/*/*`], by);
}

/** A scope of config sets and who may sign them; without `by`, the config keys at hand, one signature. */
export function addScope(
  repository: Repository,
  scope: string,
  by: RoleKeys = starterKeys(repository.keys, 'config'),
): readonly RepositoryFile[] {
  return addRole(repository, configRole(scope), [`config/${scope}/*/*`], by);
}

/** Public keys and threshold of a role that targets delegates. @throws Problem E_NOT_FOUND */
export function keysOfRole(repository: Repository, role: string): RoleKeys {
  const { root, targets } = readCurrent(repository);
  const { keyIds, threshold } = roleKeysOf(root, targets, role);
  const keys = keyIds.flatMap((keyId) => {
    const bytes = bytesOfHex(targets.delegations?.keys[keyId]?.keyval.public ?? '', 32);
    return bytes === null ? [] : [publicKeyOf(bytes)];
  });
  return { keys, threshold };
}

/** Who may list statements about artifacts of the class: those who release it. */
export function addAttestRole(
  repository: Repository,
  imageClass: string,
): readonly RepositoryFile[] {
  const { targets } = readCurrent(repository);
  const { delegations } = targets;
  const released = delegations?.roles.find((each) => each.name === imageRole(imageClass));
  const keys = (released?.keyids ?? []).flatMap((keyId) => {
    const bytes = bytesOfHex(delegations?.keys[keyId]?.keyval.public ?? '', 32);
    return bytes === null ? [] : [publicKeyOf(bytes)];
  });
  const by = { keys, threshold: released?.threshold ?? 1 };
  return addRole(repository, `attest-${imageClass}`, [`attest/${imageClass}/*/*`], by);
}

/** True when the keys at hand reach the threshold of the role. */
export function canSignRole(repository: Repository, role: string): boolean {
  const { root, targets } = readCurrent(repository);
  return canSign(repository, roleKeysOf(root, targets, role));
}

function addRole(
  repository: Repository,
  role: string,
  paths: readonly string[],
  by: RoleKeys,
): readonly RepositoryFile[] {
  if (hasRole(repository, role)) {
    throw new Problem('E_CONFLICT', `role ${role} exists already`, { role });
  }
  const { targets } = readCurrent(repository);
  delegate(targets, role, paths, by);
  const changed = new Map([['targets', targets]]);
  // Where others hold the keys, the role begins with their first signature.
  const roleKeys = { keyIds: by.keys.map((key) => key.keyId), threshold: by.threshold };
  if (canSign(repository, roleKeys)) changed.set(role, emptyTargets(repository));
  return publish(repository, changed, []);
}

/**
 * Signs again what is due: the timestamp when half of its day is over, and snapshot and delegated roles at half of their
 * lives where the keys are at hand. Empty when nothing is due.
 */
export function refreshTimestamp(repository: Repository): readonly RepositoryFile[] {
  const current = readCurrent(repository);
  const { snapshot, timestamp, targets } = current;
  if (snapshot === null || timestamp === null) return [];
  const due = new Map<string, TargetsDocument>();
  for (const role of [
    'targets',
    ...(targets.delegations?.roles ?? []).map((entry) => entry.name),
  ]) {
    const document = role === 'targets' ? targets : roleDocumentIn(repository, current, role);
    const mine = canSign(repository, roleKeysOf(current.root, targets, role));
    const life = role === 'targets' ? 'targets' : 'delegated';
    if (mine && isDue(repository, document, life)) due.set(role, document);
  }
  if (due.size > 0) return publish(repository, due, []);
  if (isDue(repository, snapshot, 'snapshot')) {
    return publishOnline(repository, current, snapshot.meta);
  }
  if (isDue(repository, timestamp, 'timestamp')) {
    return [publishTimestamp(repository, current, timestamp.meta['snapshot.json'])];
  }
  return [];
}
