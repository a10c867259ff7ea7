/**
 * The trusted set: metadata that was verified, as a value, and the functions that move it forward (TUF 1.0.34, section 5).
 * No I/O, no clock: `now` is an argument, in seconds. Each function returns the new set or throws a Problem; the old set
 * stays as it was. docs/specs/trust.md, section 5.
 */
import { createHash } from 'node:crypto';
import { Problem } from '#/protocol/errors.ts';
import type { TufKey } from '../keys.ts';
import { sha256 } from '../keys.ts';
import type { Delegation } from './delegation.ts';
import {
  decodeMetadata,
  type FileDigests,
  type Metadata,
  type MetaEntry,
  type Root,
  type Snapshot,
  type Targets,
  type Timestamp,
} from './metadata.ts';
import { type MetadataRules, type Role } from './role.ts';
import { dateText } from './shape.ts';

export interface TrustedSet {
  readonly rules: MetadataRules;
  readonly root: Metadata<Root>;
  readonly timestamp: Metadata<Timestamp> | null;
  readonly snapshot: Metadata<Snapshot> | null;
  /** Targets roles by `<delegator>/<role>`: who vouches is part of what was verified (A20). */
  readonly roles: ReadonlyMap<string, Metadata<Targets>>;
}

/** The outcome of an update: `kept` when the version was there already; `equivocation` when its content differed (A10). */
export interface Update {
  readonly set: TrustedSet;
  readonly outcome: 'updated' | 'kept' | 'equivocation';
}

/** The set that starts at a root which is trusted from elsewhere. It must be signed by itself; it may have expired. */
export function trustRoot(bytes: Uint8Array, rules: MetadataRules): TrustedSet {
  const root = decodeMetadata('root', bytes, rules);
  requireSignatures(root, 'root', root.signed.roles.root, root.signed.keys, rules);
  return { rules, root, timestamp: null, snapshot: null, roles: new Map() };
}

/** The next root: signed by the old root's keys and by its own, version exactly one higher (5.3). */
export function updateRoot(set: TrustedSet, bytes: Uint8Array): TrustedSet {
  const { rules } = set;
  const root = decodeMetadata('root', bytes, rules);
  const old = set.root.signed;
  requireSignatures(root, 'root', old.roles.root, old.keys, rules);
  if (root.signed.version !== old.version + 1) {
    throw new Problem(
      'E_ROLLBACK',
      `root has version ${root.signed.version}, expected ${old.version + 1}`,
      { version: root.signed.version, expected: old.version + 1 },
    );
  }
  requireSignatures(root, 'root', root.signed.roles.root, root.signed.keys, rules);
  return { rules, root, timestamp: null, snapshot: null, roles: new Map() };
}

/** Refuses to go on with an expired root (5.3.10). */
export function requireFreshRoot(set: TrustedSet, now: number): void {
  requireFresh('root', set.root.signed.expires, now);
}

/** A timestamp from the cache: a base for rollback checks, so it may have expired (5.4). */
export function loadTimestamp(set: TrustedSet, bytes: Uint8Array): TrustedSet {
  return { ...set, timestamp: verifiedTimestamp(set, bytes) };
}

/** A timestamp from the repository (5.4). */
export function updateTimestamp(set: TrustedSet, bytes: Uint8Array, now: number): Update {
  if (set.timestamp !== null && isEqual(set.timestamp.bytes, bytes)) {
    // The very bytes that were verified before: nothing to verify again, but time has passed.
    requireFresh('timestamp', set.timestamp.signed.expires, now);
    return { set, outcome: 'kept' };
  }
  const timestamp = verifiedTimestamp(set, bytes);
  const old = set.timestamp;
  if (old !== null) {
    refuseRollback('timestamp', timestamp.signed.version, old.signed.version);
    if (timestamp.signed.version === old.signed.version) {
      requireFresh('timestamp', old.signed.expires, now);
      return { set, outcome: isSame(timestamp, old) ? 'kept' : 'equivocation' };
    }
    refuseRollback(
      'snapshot, as listed in timestamp,',
      timestamp.signed.snapshot.version,
      old.signed.snapshot.version,
    );
  }
  requireFresh('timestamp', timestamp.signed.expires, now);
  return { set: { ...set, timestamp }, outcome: 'updated' };
}

/** A snapshot from the cache: a base for rollback checks, so it may have expired or be older than the timestamp says. */
export function loadSnapshot(set: TrustedSet, bytes: Uint8Array): TrustedSet {
  return { ...set, snapshot: verifiedSnapshot(set, bytes) };
}

/** True when the snapshot in the set is the one that the timestamp lists, so that none needs to be fetched. */
export function hasListedSnapshot(set: TrustedSet): boolean {
  return (
    set.snapshot !== null && set.snapshot.signed.version === set.timestamp?.signed.snapshot.version
  );
}

/** A snapshot from the repository, against what the timestamp lists (5.5). */
export function updateSnapshot(set: TrustedSet, bytes: Uint8Array, now: number): TrustedSet {
  const listed = timestampOf(set).signed.snapshot;
  requireDigests('snapshot', bytes, listed);
  const snapshot = verifiedSnapshot(set, bytes);
  requireListedVersion('snapshot', snapshot.signed.version, listed);
  for (const [name, old] of set.snapshot?.signed.meta ?? []) {
    const entry = snapshot.signed.meta.get(name);
    if (entry === undefined) {
      throw new Problem('E_ROLLBACK', `snapshot ${snapshot.signed.version} drops ${name}`, {
        file: name,
      });
    }
    refuseRollback(`${name}, as listed in snapshot,`, entry.version, old.version);
  }
  // Roles were verified against the old snapshot; they are loaded anew, from the cache where they did not change.
  const next = { ...set, snapshot, roles: new Map() };
  requireFreshSnapshot(next, now);
  return next;
}

/** The snapshot that is used: not expired, of the version that the timestamp lists. */
export function requireFreshSnapshot(set: TrustedSet, now: number): void {
  const { snapshot } = set;
  if (snapshot === null) throw new Problem('E_MIX', 'no snapshot is trusted yet');
  requireFresh('timestamp', timestampOf(set).signed.expires, now);
  requireListedVersion('snapshot', snapshot.signed.version, timestampOf(set).signed.snapshot);
  requireFresh('snapshot', snapshot.signed.expires, now);
}

/** Where a targets role stands: `root` vouches for `targets`, a targets role for those it delegates to. */
export interface RoleName {
  readonly role: string;
  readonly delegator: string;
}

export const TARGETS: RoleName = { role: 'targets', delegator: 'root' };

/** The verified role, or null when it is not loaded under this delegator. */
export function roleOf(set: TrustedSet, name: RoleName): Metadata<Targets> | null {
  return set.roles.get(`${name.delegator}/${name.role}`) ?? null;
}

/** Refuses a role that expired since it was loaded. */
export function requireFreshRole(set: TrustedSet, name: RoleName, now: number): void {
  const role = roleOf(set, name);
  if (role !== null) requireFresh(name.role, role.signed.expires, now);
}

/** What the snapshot lists for a role. @throws Problem E_NOTARGET when it lists none. */
export function listedRole(set: TrustedSet, role: string): MetaEntry {
  const entry = set.snapshot?.signed.meta.get(`${role}.json`);
  if (entry === undefined) {
    throw new Problem('E_NOTARGET', `the snapshot does not list role ${role}`, { role });
  }
  return entry;
}

/** A targets role, from the repository or from the cache: both must be exactly what the snapshot lists (5.6). */
export function updateRole(
  set: TrustedSet,
  name: RoleName,
  bytes: Uint8Array,
  now: number,
): TrustedSet {
  requireFreshSnapshot(set, now);
  const listed = listedRole(set, name.role);
  requireDigests(name.role, bytes, listed);
  const role = verifiedRole(set, name, bytes);
  requireListedVersion(name.role, role.signed.version, listed);
  requireFresh(name.role, role.signed.expires, now);
  return { ...set, roles: new Map(set.roles).set(`${name.delegator}/${name.role}`, role) };
}

/**
 * A role as it was verified once, without timestamp and snapshot: what a host that never reaches a repository can still
 * check. Signatures and expiry hold; that it is current does not.
 */
export function loadRoleAlone(
  set: TrustedSet,
  name: RoleName,
  bytes: Uint8Array,
  now: number,
): TrustedSet {
  const role = verifiedRole(set, name, bytes);
  requireFresh(name.role, role.signed.expires, now);
  return { ...set, roles: new Map(set.roles).set(`${name.delegator}/${name.role}`, role) };
}

/** The delegation of a role in the verified metadata of its delegator, with the keys it may use. */
export function delegationOf(
  set: TrustedSet,
  name: RoleName,
): { readonly delegation: Delegation; readonly keys: ReadonlyMap<string, TufKey> } {
  const found = [...set.roles].find(([key]) => key.endsWith(`/${name.delegator}`))?.[1];
  const delegation = found?.signed.delegations.roles.find((entry) => entry.name === name.role);
  if (found === undefined || delegation === undefined) {
    throw new Problem('E_NOTARGET', `${name.delegator} does not delegate to ${name.role}`, {
      role: name.role,
    });
  }
  return { delegation, keys: found.signed.delegations.keys };
}

function verifiedTimestamp(set: TrustedSet, bytes: Uint8Array): Metadata<Timestamp> {
  const { roles, keys } = set.root.signed;
  const timestamp = decodeMetadata('timestamp', bytes, set.rules);
  requireSignatures(timestamp, 'timestamp', roles.timestamp, keys, set.rules);
  return timestamp;
}

function verifiedSnapshot(set: TrustedSet, bytes: Uint8Array): Metadata<Snapshot> {
  const { roles, keys } = set.root.signed;
  const snapshot = decodeMetadata('snapshot', bytes, set.rules);
  requireSignatures(snapshot, 'snapshot', roles.snapshot, keys, set.rules);
  return snapshot;
}

function verifiedRole(set: TrustedSet, name: RoleName, bytes: Uint8Array): Metadata<Targets> {
  const role = decodeMetadata('targets', bytes, set.rules);
  if (name.delegator === 'root') {
    const { roles, keys } = set.root.signed;
    requireSignatures(role, name.role, roles.targets, keys, set.rules);
  } else {
    const { delegation, keys } = delegationOf(set, name);
    requireSignatures(role, name.role, delegation.role, keys, set.rules);
  }
  return role;
}

/**
 * Enough distinct keys of the role signed. Distinct by key material: one key under two ids is one (A04). Work is bounded by
 * the keys of the role, whatever the number of signatures.
 */
function requireSignatures(
  metadata: Metadata,
  what: string,
  role: Role,
  keys: ReadonlyMap<string, TufKey>,
  rules: MetadataRules,
): void {
  const signatures = new Map<string, string>();
  for (const { keyid, sig } of metadata.signatures) {
    if (signatures.has(keyid)) {
      throw new Problem('E_DUPSIG', `${what} has two signatures by key ${keyid}`, { keyId: keyid });
    }
    signatures.set(keyid, sig);
  }
  const signedBy = new Set<string>();
  for (const keyId of role.keyIds) {
    const key = keys.get(keyId);
    const signature = signatures.get(keyId);
    if (key === undefined || signature === undefined) continue;
    const material = rules.keyMaterial(key);
    if (material === null || signedBy.has(material)) continue;
    if (rules.verifySignature(key, metadata.signedBytes, signature)) signedBy.add(material);
  }
  if (signedBy.size < role.threshold) {
    throw new Problem(
      'E_SIGS',
      `${what} has ${signedBy.size} valid signatures by trusted keys, ${role.threshold} needed`,
      { role: what, valid: signedBy.size, threshold: role.threshold },
    );
  }
}

function requireFresh(what: string, expires: number, now: number): void {
  if (expires > now) return;
  throw new Problem('E_EXPIRED', `${what} expired at ${dateText(expires)}`, {
    role: what,
    expires,
    now,
  });
}

function refuseRollback(what: string, version: number, seen: number): void {
  if (version >= seen) return;
  throw new Problem('E_ROLLBACK', `${what} has version ${version}, ${seen} was seen before`, {
    version,
    seen,
  });
}

function requireListedVersion(what: string, version: number, listed: MetaEntry): void {
  if (version === listed.version) return;
  throw new Problem('E_MIX', `${what} has version ${version}, ${listed.version} is listed`, {
    version,
    listed: listed.version,
  });
}

/** Length and every known digest, of the bytes as they came. @throws Problem E_HASH */
export function requireDigests(
  what: string,
  bytes: Uint8Array,
  listed: FileDigests & { readonly length: number | null },
): void {
  if (listed.length !== null && listed.length !== bytes.length) {
    throw new Problem('E_HASH', `${what} has ${bytes.length} bytes, ${listed.length} are signed`, {
      sizeBytes: bytes.length,
      signedBytes: listed.length,
    });
  }
  for (const [algorithm, signed] of listed.hashes) {
    const digest = createHash(algorithm).update(bytes).digest('hex');
    if (digest !== signed) {
      throw new Problem('E_HASH', `${what} has ${algorithm} ${digest}, ${signed} is signed`, {
        digest,
        signed,
      });
    }
  }
}

function timestampOf(set: TrustedSet): Metadata<Timestamp> {
  if (set.timestamp === null) throw new Problem('E_MIX', 'no timestamp is trusted yet');
  return set.timestamp;
}

function isEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}

/** Two files that say the same, however often they were signed. */
function isSame(a: Metadata, b: Metadata): boolean {
  return sha256(a.signedBytes) === sha256(b.signedBytes);
}
