/**
 * The TUF repository as values: reads the files that are published, returns the files that are to be published. Nothing is
 * written here, so that control puts metadata, targets and the pin into one transaction. docs/specs/trust.md, section 8.
 */
import { canonicalDocument, canonicalJson } from '#/bundle/canonical.ts';
import { hexOf, sha256, type PublicKey, type Signer, type TufKey } from '#/bundle/keys.ts';
import { parseStrictJson } from '#/bundle/strict-json.ts';
import { METADATA_MAX_BYTES } from '#/bundle/trust/metadata.ts';
import { type Role, topLevelRoles } from '#/bundle/trust/role.ts';
import { dateText, secondsAt } from '#/bundle/trust/shape.ts';
import { type JsonValue, Problem } from '#/protocol/errors.ts';

/** What is published. Names: `metadata/<file>` and `targets/<path>`, as agents ask for them below the trust URL. */
export interface RepositoryStore {
  read(name: string): Uint8Array | null;
}

/** A file to publish; a name that exists already is `metadata/timestamp.json`, `metadata/root.json` or has the same bytes. */
export interface RepositoryFile {
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** What a key is for. Under starter trust one key of each use exists; more may be added. */
export const keyUses = [
  'root',
  'targets',
  'snapshot',
  'timestamp',
  'policy',
  'release',
  'operator',
  'config',
] as const;
export type KeyUse = (typeof keyUses)[number];

export interface HeldKey {
  readonly use: KeyUse;
  readonly signer: Signer;
}

/** The repository, the keys at hand, and the time; every function of control/trust takes one. */
export interface Repository {
  readonly store: RepositoryStore;
  readonly keys: readonly HeldKey[];
  readonly nowMs: number;
  /** Files with too few signatures are made all the same: for proposals that others sign (proposal.ts). */
  readonly mayLackSignatures?: boolean;
}

/** How long signatures of a role are good for, in seconds. */
export const LIFETIME_SECONDS = {
  root: 365 * 86_400,
  timestamp: 86_400,
  snapshot: 7 * 86_400,
  targets: 365 * 86_400,
  delegated: 30 * 86_400,
} as const;

export const SPEC_VERSION = '1.0.34';

export interface MetaDocument {
  version: number;
  length: number;
  hashes: { sha256: string };
}
interface CommonDocument {
  spec_version: string;
  version: number;
  expires: string;
}
export interface RoleDocument {
  keyids: string[];
  threshold: number;
}
export interface RootDocument extends CommonDocument {
  _type: 'root';
  consistent_snapshot: boolean;
  keys: Record<string, TufKey>;
  roles: Record<string, RoleDocument>;
}
export interface TimestampDocument extends CommonDocument {
  _type: 'timestamp';
  meta: { 'snapshot.json': MetaDocument };
  'x-switchback-issued': string;
}
export interface SnapshotDocument extends CommonDocument {
  _type: 'snapshot';
  meta: Record<string, MetaDocument>;
}
export interface TargetDocument {
  length: number;
  hashes: { sha256: string };
  custom?: JsonValue;
}
export interface DelegationDocument extends RoleDocument {
  name: string;
  paths: string[];
  terminating: boolean;
}
export interface TargetsDocument extends CommonDocument {
  _type: 'targets';
  targets: Record<string, TargetDocument>;
  delegations?: { keys: Record<string, TufKey>; roles: DelegationDocument[] };
}
export type SignedDocument = RootDocument | TimestampDocument | SnapshotDocument | TargetsDocument;
export interface SignedFile<T extends SignedDocument> {
  signed: T;
  signatures: { keyid: string; sig: string }[];
}

/** The documents that are current now, each a copy that may be changed. */
export interface Current {
  readonly root: RootDocument;
  readonly timestamp: TimestampDocument | null;
  readonly snapshot: SnapshotDocument | null;
  readonly targets: TargetsDocument;
}

/** Reads the current documents. @throws Problem E_NOT_FOUND when there is no repository yet */
export function readCurrent(repository: Repository): Current {
  const root = readFile<RootDocument>(repository.store, 'metadata/root.json').signed;
  const timestamp = readFile<TimestampDocument>(repository.store, 'metadata/timestamp.json').signed;
  const { version } = timestamp.meta['snapshot.json'];
  const snapshot = readFile<SnapshotDocument>(
    repository.store,
    `metadata/${version}.snapshot.json`,
  ).signed;
  return { root, timestamp, snapshot, targets: readRoleFile(repository, snapshot, 'targets') };
}

/**
 * A targets role as the snapshot lists it; an empty one of version 0 when it is delegated and nobody has signed it yet.
 * @throws Problem E_NOT_FOUND when it is not delegated
 */
export function readRoleDocument(repository: Repository, role: string): TargetsDocument {
  return roleDocumentIn(repository, readCurrent(repository), role);
}

/** As readRoleDocument, for callers that look at many roles: the current documents are read once. */
export function roleDocumentIn(
  repository: Repository,
  current: Current,
  role: string,
): TargetsDocument {
  const { root, snapshot, targets } = current;
  if (snapshot?.meta[`${role}.json`] !== undefined) {
    return readRoleFile(repository, snapshot, role);
  }
  roleKeysOf(root, targets, role);
  return emptyTargets(repository);
}

/** A targets role that lists nothing. */
export function emptyTargets(repository: Repository): TargetsDocument {
  return {
    _type: 'targets',
    spec_version: SPEC_VERSION,
    version: 0,
    expires: expiry(repository, 'delegated'),
    targets: {},
  };
}

/** True when enough keys of the role are at hand. */
export function canSign(repository: Repository, role: Role): boolean {
  const held = new Set(repository.keys.map((key) => key.signer.key.keyId));
  return role.keyIds.filter((keyId) => held.has(keyId)).length >= role.threshold;
}

function readRoleFile(
  repository: Repository,
  snapshot: SnapshotDocument,
  role: string,
): TargetsDocument {
  const version = snapshot.meta[`${role}.json`]?.version;
  return readFile<TargetsDocument>(repository.store, `metadata/${version}.${role}.json`).signed;
}

/** A file of the repository, parsed. Its shape is what this module wrote. */
export function readFile<T extends SignedDocument>(
  store: RepositoryStore,
  name: string,
): SignedFile<T> {
  const bytes = store.read(name);
  if (bytes === null) throw new Problem('E_NOT_FOUND', `the repository has no ${name}`, { name });
  const json: unknown = parseStrictJson(bytes, { maxBytes: METADATA_MAX_BYTES.snapshot });
  return json as SignedFile<T>;
}

/** The content of a target that a role lists, or null. */
export function readTarget(
  repository: Repository,
  document: TargetsDocument,
  path: string,
): Uint8Array | null {
  const entry = document.targets[path];
  if (entry === undefined) return null;
  return repository.store.read(targetFileName(path, entry.hashes.sha256));
}

/** The name under which a target is published. */
export function targetFileName(path: string, digest: string): string {
  const slash = path.lastIndexOf('/') + 1;
  return `targets/${path.slice(0, slash)}${digest}.${path.slice(slash)}`;
}

/** Versions of a role that stay published, the newest among them: a host that began its refresh before the last changes ends it. */
export const VERSIONS_KEPT = 32;

/** The name of the metadata file that leaves the repository when `name` comes, whether or not there is one. Null: none. */
export function replacedBy(name: string): string | null {
  const [, digits, role] = /^metadata\/(\d+)\.(.+)\.json$/u.exec(name) ?? [];
  // Hosts walk the whole chain of roots.
  if (digits === undefined || role === undefined || role === 'root') return null;
  const version = Number(digits) - VERSIONS_KEPT;
  return version < 1 ? null : `metadata/${version}.${role}.json`;
}

/** Lists `bytes` as the target `path` of the document, and returns the file to publish. */
export function putTarget(
  document: TargetsDocument,
  path: string,
  bytes: Uint8Array,
  custom?: JsonValue,
): RepositoryFile {
  const digest = sha256(bytes);
  document.targets[path] = {
    length: bytes.length,
    hashes: { sha256: digest },
    ...(custom === undefined ? {} : { custom }),
  };
  return { name: targetFileName(path, digest), bytes };
}

/**
 * New versions of the given targets roles, of the snapshot and of the timestamp, signed with the keys at hand.
 * @throws Problem E_SIGS when a role needs more keys than are at hand
 */
export function publish(
  repository: Repository,
  changed: ReadonlyMap<string, TargetsDocument>,
  files: readonly RepositoryFile[],
): readonly RepositoryFile[] {
  const current = readCurrent(repository);
  const targets = changed.get('targets') ?? current.targets;
  const published: RepositoryFile[] = [...files];
  const meta = { ...current.snapshot?.meta };
  for (const [role, document] of changed) {
    const previous = meta[`${role}.json`]?.version ?? 0;
    const signed = {
      ...document,
      version: previous + 1,
      expires: expiry(repository, role === 'targets' ? 'targets' : 'delegated'),
    };
    const bytes = signFor(repository, signed, roleKeysOf(current.root, targets, role));
    meta[`${role}.json`] = metaOf(signed.version, bytes);
    published.push({ name: `metadata/${signed.version}.${role}.json`, bytes });
  }
  return [...published, ...publishOnline(repository, current, meta)];
}

/** A new snapshot of `meta` and a new timestamp of it. */
export function publishOnline(
  repository: Repository,
  current: Current,
  meta: Record<string, MetaDocument>,
): readonly RepositoryFile[] {
  const snapshot: SnapshotDocument = {
    _type: 'snapshot',
    spec_version: SPEC_VERSION,
    version: (current.snapshot?.version ?? 0) + 1,
    expires: expiry(repository, 'snapshot'),
    meta,
  };
  const bytes = signFor(repository, snapshot, topLevelKeysOf(current.root, 'snapshot'));
  return [
    { name: `metadata/${snapshot.version}.snapshot.json`, bytes },
    publishTimestamp(repository, current, metaOf(snapshot.version, bytes)),
  ];
}

/** A new timestamp over a snapshot. */
export function publishTimestamp(
  repository: Repository,
  current: Current,
  snapshot: MetaDocument,
): RepositoryFile {
  const timestamp: TimestampDocument = {
    _type: 'timestamp',
    spec_version: SPEC_VERSION,
    version: (current.timestamp?.version ?? 0) + 1,
    expires: expiry(repository, 'timestamp'),
    meta: { 'snapshot.json': snapshot },
    'x-switchback-issued': dateText(nowSeconds(repository)),
  };
  const keys = topLevelKeysOf(current.root, 'timestamp');
  return {
    name: 'metadata/timestamp.json',
    bytes: signFor(repository, timestamp, keys),
  };
}

/** A root: both files that hold it. Signed by the keys at hand of the old and of the new root. */
export function rootFiles(
  repository: Repository,
  document: RootDocument,
  previous: RootDocument | null,
): readonly RepositoryFile[] {
  const mine = topLevelKeysOf(document, 'root');
  const before = previous === null ? mine : topLevelKeysOf(previous, 'root');
  const bytes = signFor(repository, document, mine, [before]);
  return [
    { name: `metadata/${document.version}.root.json`, bytes },
    { name: 'metadata/root.json', bytes },
  ];
}

function signFor(
  repository: Repository,
  signed: SignedDocument,
  role: Role,
  alsoBy: readonly Role[] = [],
): Uint8Array {
  if (repository.mayLackSignatures !== true) {
    return signDocument(signed, role, repository.keys, alsoBy);
  }
  const without = (each: Role): Role => ({ ...each, threshold: 0 });
  return signDocument(signed, without(role), repository.keys, alsoBy.map(without));
}

/** The signed file of a document. @throws Problem E_SIGS when fewer keys than a threshold are at hand */
export function signDocument(
  signed: SignedDocument,
  role: Role,
  keys: readonly HeldKey[],
  alsoBy: readonly Role[] = [],
): Uint8Array {
  const message = canonicalJson(signed);
  const wanted = new Set([role, ...alsoBy].flatMap((each) => each.keyIds));
  const signers = new Map(
    keys
      .filter((held) => wanted.has(held.signer.key.keyId))
      .map((held) => [held.signer.key.keyId, held.signer]),
  );
  for (const each of [role, ...alsoBy]) {
    const held = each.keyIds.filter((keyId) => signers.has(keyId)).length;
    if (held < each.threshold) {
      throw new Problem(
        'E_SIGS',
        `${signed._type} ${signed.version} needs ${each.threshold} keys, ${held} are at hand`,
        { needed: each.threshold, held, keyIds: [...each.keyIds] },
      );
    }
  }
  const signatures = [...signers.values()].map((signer) => ({
    keyid: signer.key.keyId,
    sig: hexOf(signer.sign(message)),
  }));
  return canonicalDocument({ signed, signatures });
}

/** Key ids and threshold of any role. @throws Problem E_NOT_FOUND */
export function roleKeysOf(root: RootDocument, targets: TargetsDocument, role: string): Role {
  if ((topLevelRoles as readonly string[]).includes(role)) return topLevelKeysOf(root, role);
  const delegation = targets.delegations?.roles.find((entry) => entry.name === role);
  if (delegation === undefined) {
    throw new Problem('E_NOT_FOUND', `the repository has no role ${role}`, { role });
  }
  return { keyIds: delegation.keyids, threshold: delegation.threshold };
}

function topLevelKeysOf(root: RootDocument, role: string): Role {
  const entry = root.roles[role];
  if (entry === undefined) throw new Problem('E_NOT_FOUND', `root has no role ${role}`, { role });
  return { keyIds: entry.keyids, threshold: entry.threshold };
}

/** Keys at hand of one use. */
export function keysOfUse(keys: readonly HeldKey[], use: KeyUse): readonly PublicKey[] {
  return keys.filter((held) => held.use === use).map((held) => held.signer.key);
}

/** Length and digest of a published file. */
export function metaOf(version: number, bytes: Uint8Array): MetaDocument {
  return { version, length: bytes.length, hashes: { sha256: sha256(bytes) } };
}

/** When a signature made now ends. */
export function expiry(repository: Repository, role: keyof typeof LIFETIME_SECONDS): string {
  return dateText(nowSeconds(repository) + LIFETIME_SECONDS[role]);
}

/** True when less than half of the life of a signature is left. */
export function isDue(
  repository: Repository,
  document: SignedDocument,
  role: keyof typeof LIFETIME_SECONDS,
): boolean {
  const left = secondsAt(document.expires, 'expires') - nowSeconds(repository);
  return left * 2 < LIFETIME_SECONDS[role];
}

export function nowSeconds(repository: Repository): number {
  return Math.floor(repository.nowMs / 1000);
}

/** The store with some files on top: for several changes before one transaction. */
export function withFiles(
  store: RepositoryStore,
  files: readonly RepositoryFile[],
): RepositoryStore {
  const added = new Map(files.map((file) => [file.name, file.bytes]));
  return { read: (name) => added.get(name) ?? store.read(name) };
}
