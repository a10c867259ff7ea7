/**
 * The TUF client workflow over two ports: where files come from, and where trusted ones are kept. The order of fetching,
 * verifying and keeping is here; what is trusted is decided by trusted-set.ts. docs/specs/trust.md, section 5.
 */
import { isProblem, Problem } from '#/protocol/errors.ts';
import { sha256 } from '../keys.ts';
import { METADATA_MAX_BYTES, type TargetEntry } from './metadata.ts';
import { type MetadataRules } from './role.ts';
import { isDelegated } from './delegation.ts';
import {
  hasListedSnapshot,
  listedRole,
  loadRoleAlone,
  loadSnapshot,
  loadTimestamp,
  requireFreshRole,
  requireFreshRoot,
  requireFreshSnapshot,
  type RoleName,
  roleOf,
  TARGETS,
  trustRoot,
  type TrustedSet,
  updateRole,
  updateRoot,
  updateSnapshot,
  updateTimestamp,
} from './trusted-set.ts';

/** Where metadata and targets come from. Integrity never depends on it. */
export interface TrustFetch {
  /** A metadata file by its name, `7.grp-web.json`; null when the repository has none (403, 404). More bytes: E_TOOBIG. */
  metadata(name: string, maxBytes: number): Promise<Uint8Array | null>;
  /** A target by its name, `groups/web/<sha256>.desired.json`; null when the repository has none. */
  target(name: string, maxBytes: number): Promise<Uint8Array | null>;
  /** A file of the audit log, `tile/0/000.p/3`; null when there is none. Clients that look at no pins have none. */
  log?(path: string, maxBytes: number): Promise<Uint8Array | null>;
}

/** Where trusted metadata is kept. `replace` is durable on return. Names are plain file names. */
export interface TrustStore {
  read(name: string): Promise<Uint8Array | null>;
  replace(name: string, bytes: Uint8Array): Promise<void>;
}

/** How the files of the cache are named; the agent keeps each root, so that its chain from the anchor can be checked. */
export interface CacheNames {
  readonly root: (version: number) => string;
  readonly role: (role: string) => string;
}

export interface Session {
  readonly fetch: TrustFetch;
  readonly store: TrustStore;
  readonly names: CacheNames;
  /** Seconds since 1970; fixed for the whole refresh (5.1). */
  readonly now: number;
  readonly onEquivocation: (role: string) => void;
}

/** Root rotations in one refresh, and in one chain from the anchor. */
export const ROOT_ROTATIONS_MAX = 256;
/** Roles that are visited for one target. */
export const ROLES_VISITED_MAX = 32;

/**
 * The set of the anchor and of the chain of roots that the cache holds after it. The anchor is never in the writable cache.
 * A link that does not verify ends the chain: what follows is fetched again.
 */
export async function loadRootChain(
  anchor: Uint8Array,
  rules: MetadataRules,
  store: TrustStore,
  names: CacheNames,
): Promise<TrustedSet> {
  let set = trustRoot(anchor, rules);
  for (let links = 0; links < ROOT_ROTATIONS_MAX; links += 1) {
    const bytes = await store.read(names.root(set.root.signed.version + 1));
    const next = bytes === null ? null : attempt(() => updateRoot(set, bytes));
    if (next === null) break;
    set = next;
  }
  return set;
}

/**
 * Brings the top-level metadata up to date (5.3 to 5.6). Each file is kept as soon as it is trusted; a refusal leaves the
 * files that were trusted before.
 */
export async function refresh(set: TrustedSet, session: Session): Promise<TrustedSet> {
  const rooted = await refreshRoot(set, session);
  requireFreshRoot(rooted, session.now);
  const stamped = await refreshTimestamp(rooted, session);
  const snapped = await refreshSnapshot(stamped, session);
  return loadRole(snapped, TARGETS, session);
}

async function refreshRoot(set: TrustedSet, session: Session): Promise<TrustedSet> {
  let current = set;
  for (let rotations = 0; ; rotations += 1) {
    const version = current.root.signed.version + 1;
    const bytes = await session.fetch.metadata(`${version}.root.json`, METADATA_MAX_BYTES.root);
    if (bytes === null) return current;
    if (rotations >= ROOT_ROTATIONS_MAX) {
      throw new Problem(
        'E_ROOTS',
        `more than ${ROOT_ROTATIONS_MAX} root rotations in one refresh`,
        {
          version,
        },
      );
    }
    current = updateRoot(current, bytes);
    await session.store.replace(session.names.root(version), bytes);
  }
}

async function refreshTimestamp(set: TrustedSet, session: Session): Promise<TrustedSet> {
  // What the cache holds counts only if the keys of the current root signed it: a rotation frees from its versions (A19).
  const cached =
    set.timestamp === null ? await session.store.read(session.names.role('timestamp')) : null;
  const base = (cached === null ? null : attempt(() => loadTimestamp(set, cached))) ?? set;
  const bytes = await session.fetch.metadata('timestamp.json', METADATA_MAX_BYTES.timestamp);
  if (bytes === null) throw new Problem('E_HTTP', 'the repository has no timestamp.json');
  const { set: next, outcome } = updateTimestamp(base, bytes, session.now);
  if (outcome === 'equivocation') session.onEquivocation('timestamp');
  if (outcome === 'updated') await session.store.replace(session.names.role('timestamp'), bytes);
  return next;
}

async function refreshSnapshot(set: TrustedSet, session: Session): Promise<TrustedSet> {
  const name = session.names.role('snapshot');
  const cached = set.snapshot === null ? await session.store.read(name) : null;
  const base = (cached === null ? null : attempt(() => loadSnapshot(set, cached))) ?? set;
  const listed = base.timestamp?.signed.snapshot;
  if (hasListedSnapshot(base)) {
    const digest = listed?.hashes.get('sha256');
    const held = base.snapshot?.bytes;
    if (held !== undefined && digest !== undefined && sha256(held) !== digest) {
      session.onEquivocation('snapshot');
    }
    requireFreshSnapshot(base, session.now);
    return base;
  }
  const fileName = base.root.signed.consistentSnapshot
    ? `${listed?.version}.snapshot.json`
    : 'snapshot.json';
  const bytes = await session.fetch.metadata(
    fileName,
    Math.min(listed?.length ?? METADATA_MAX_BYTES.snapshot, METADATA_MAX_BYTES.snapshot),
  );
  if (bytes === null) throw new Problem('E_HTTP', `the repository has no ${fileName}`);
  const next = updateSnapshot(base, bytes, session.now);
  await session.store.replace(name, bytes);
  return next;
}

/** A targets role from the set, the cache or the repository, verified under its delegator. */
export async function loadRole(
  set: TrustedSet,
  name: RoleName,
  session: Session,
): Promise<TrustedSet> {
  if (roleOf(set, name) !== null) {
    requireFreshRole(set, name, session.now);
    return set;
  }
  const cacheName = session.names.role(name.role);
  const cached = await session.store.read(cacheName);
  if (cached !== null) {
    const loaded = attempt(() => updateRole(set, name, cached, session.now));
    if (loaded !== null) return loaded;
  }
  const listed = listedRole(set, name.role);
  const fileName = set.root.signed.consistentSnapshot
    ? `${listed.version}.${encodeURIComponent(name.role)}.json`
    : `${encodeURIComponent(name.role)}.json`;
  const bytes = await session.fetch.metadata(
    fileName,
    Math.min(listed.length ?? METADATA_MAX_BYTES.targets, METADATA_MAX_BYTES.targets),
  );
  if (bytes === null) throw new Problem('E_HTTP', `the repository has no ${fileName}`);
  const next = updateRole(set, name, bytes, session.now);
  if (cached !== null && isOtherContent(set, name, cached, next)) {
    session.onEquivocation(name.role);
  }
  await session.store.replace(cacheName, bytes);
  return next;
}

/** True when the cache held the same version of the role, validly signed, with other content. */
function isOtherContent(
  set: TrustedSet,
  name: RoleName,
  cached: Uint8Array,
  next: TrustedSet,
): boolean {
  const old = attempt(() => loadRoleAlone(set, name, cached, 0));
  const before = old === null ? null : roleOf(old, name);
  const after = roleOf(next, name);
  return (
    before !== null &&
    after !== null &&
    before.signed.version === after.signed.version &&
    sha256(before.signedBytes) !== sha256(after.signedBytes)
  );
}

export interface FoundTarget {
  readonly set: TrustedSet;
  /** The role that vouches for the target. */
  readonly role: string;
  readonly target: TargetEntry;
}

/**
 * The target of a path and the role that vouches for it: preorder, depth first, a terminating delegation ends the search,
 * no role is visited twice (5.6.7). @throws Problem E_NOTARGET
 */
export async function findTarget(
  set: TrustedSet,
  path: string,
  session: Session,
): Promise<FoundTarget> {
  let current = set;
  const visited = new Set<string>();
  let toVisit: readonly RoleName[] = [TARGETS];
  for (;;) {
    const [name, ...rest] = toVisit;
    if (name === undefined) break;
    toVisit = rest;
    if (visited.has(name.role)) continue;
    if (visited.size > ROLES_VISITED_MAX) break;
    visited.add(name.role);
    current = await loadRole(current, name, session);
    const role = roleOf(current, name);
    const target = role?.signed.targets.get(path);
    if (target !== undefined) return { set: current, role: name.role, target };
    const covering = (role?.signed.delegations.roles ?? []).filter((entry) =>
      isDelegated(entry, path),
    );
    const end = covering.findIndex((entry) => entry.terminating);
    const children = (end < 0 ? covering : covering.slice(0, end + 1)).map((entry) => ({
      role: entry.name,
      delegator: name.role,
    }));
    toVisit = end < 0 ? [...children, ...toVisit] : children;
  }
  throw new Problem('E_NOTARGET', `no trusted role vouches for ${path}`, { path });
}

/** The name under which the repository serves a target: with its digest in consistent snapshots. */
export function targetFileName(set: TrustedSet, target: TargetEntry): string {
  const digest = target.hashes.get('sha256') ?? target.hashes.get('sha512');
  if (!set.root.signed.consistentSnapshot || digest === undefined) return target.path;
  const slash = target.path.lastIndexOf('/') + 1;
  return `${target.path.slice(0, slash)}${digest}.${target.path.slice(slash)}`;
}

/** The result, or null when the metadata was refused. Anything but a refusal is a bug and goes on. */
function attempt<T>(use: () => T): T | null {
  try {
    return use();
  } catch (error) {
    if (isProblem(error)) return null;
    throw error;
  }
}
