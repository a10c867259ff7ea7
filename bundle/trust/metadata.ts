/**
 * TUF metadata (spec 1.0.34, section 4) from bytes: limits before parsing, strict JSON, shapes. Nothing here is verified yet;
 * trusted-set.ts does that. Unknown fields are kept in what is signed and otherwise ignored. docs/specs/trust.md, section 5.
 */
import type { JsonObject, JsonValue } from '#/protocol/errors.ts';
import { canonicalJson } from '../canonical.ts';
import type { TufKey } from '../keys.ts';
import { parseStrictJson } from '../strict-json.ts';
import { readDelegations, type Delegations } from './delegation.ts';
import { type MetadataRules, readKeys, readRole, type Role, type TopLevelRole } from './role.ts';
import { arrayAt, booleanAt, integerAt, objectAt, refuse, secondsAt, stringAt } from './shape.ts';

/** Larger files are refused before they are parsed. */
export const METADATA_MAX_BYTES = {
  root: 64 * 1024,
  timestamp: 16 * 1024,
  snapshot: 1024 * 1024,
  targets: 1024 * 1024,
} as const;

export interface FileDigests {
  /** Algorithm to lower-case hex; sha256 and sha512 are known, others are ignored. */
  readonly hashes: ReadonlyMap<string, string>;
}
export interface MetaEntry extends FileDigests {
  readonly version: number;
  readonly length: number | null;
}
export interface TargetEntry extends FileDigests {
  readonly path: string;
  readonly length: number;
  readonly custom: JsonValue | undefined;
}

interface Common {
  readonly version: number;
  /** Seconds since 1970. */
  readonly expires: number;
}
export interface Root extends Common {
  readonly type: 'root';
  readonly consistentSnapshot: boolean;
  readonly keys: ReadonlyMap<string, TufKey>;
  readonly roles: Readonly<Record<TopLevelRole, Role>>;
}
export interface Timestamp extends Common {
  readonly type: 'timestamp';
  readonly snapshot: MetaEntry;
  /** When it was signed, seconds since 1970; null when the repository does not say. Our extension of the format. */
  readonly issued: number | null;
}
export interface Snapshot extends Common {
  readonly type: 'snapshot';
  /** By file name, `<role>.json`. */
  readonly meta: ReadonlyMap<string, MetaEntry>;
}
export interface Targets extends Common {
  readonly type: 'targets';
  readonly targets: ReadonlyMap<string, TargetEntry>;
  readonly delegations: Delegations;
}
export type Signed = Root | Timestamp | Snapshot | Targets;

export interface Metadata<T extends Signed = Signed> {
  readonly signed: T;
  /** What the signatures are over. */
  readonly signedBytes: Uint8Array;
  readonly signatures: readonly { readonly keyid: string; readonly sig: string }[];
  /** The file as it came. */
  readonly bytes: Uint8Array;
}

/** Field of our timestamps that says when they were signed: a floor of time for hosts without a clock. */
export const ISSUED_FIELD = 'x-switchback-issued';

const SIGNATURES_MAX = 64;
const META_ENTRIES_MAX = 8192;
const TARGETS_MAX = 16_384;
const PATH_MAX_CHARS = 1024;

/** Decodes one metadata file as the type that is expected. @throws Problem E_TOOBIG, E_PARSE, E_CANON, E_SCHEMA, E_TYPE, … */
export function decodeMetadata(
  type: 'root',
  bytes: Uint8Array,
  rules: MetadataRules,
): Metadata<Root>;
export function decodeMetadata(
  type: 'timestamp',
  bytes: Uint8Array,
  rules: MetadataRules,
): Metadata<Timestamp>;
export function decodeMetadata(
  type: 'snapshot',
  bytes: Uint8Array,
  rules: MetadataRules,
): Metadata<Snapshot>;
export function decodeMetadata(
  type: 'targets',
  bytes: Uint8Array,
  rules: MetadataRules,
): Metadata<Targets>;
export function decodeMetadata(
  type: TopLevelRole,
  bytes: Uint8Array,
  rules: MetadataRules,
): Metadata {
  // `shortest`: a version of 1.5 or 2^53 + 1 is told as E_VERSION below, not as a number of the wrong form.
  const json = parseStrictJson(bytes, { maxBytes: METADATA_MAX_BYTES[type], numbers: 'shortest' });
  const envelope = objectAt(json, type);
  const signed = objectAt(envelope['signed'], `${type}.signed`);
  const signatures = arrayAt(envelope['signatures'], `${type}.signatures`, SIGNATURES_MAX).map(
    (entry, index) => readSignature(entry, `${type}.signatures[${index}]`),
  );
  return {
    signed: readSigned(type, signed, rules),
    signedBytes: canonicalJson(signed),
    signatures,
    bytes,
  };
}

function readSignature(value: JsonValue, where: string): { keyid: string; sig: string } {
  const entry = objectAt(value, where);
  return {
    keyid: stringAt(entry['keyid'], `${where}.keyid`, 256),
    sig: stringAt(entry['sig'], `${where}.sig`, 4096),
  };
}

function readSigned(type: TopLevelRole, signed: JsonObject, rules: MetadataRules): Signed {
  if (signed['_type'] !== type) return refuse('E_TYPE', '_type', type);
  const spec = signed['spec_version'];
  if (typeof spec !== 'string' || !/^1\.[0-9]{1,6}(\.[0-9]{1,6})?$/.test(spec)) {
    return refuse('E_SPEC', 'spec_version', '1.x');
  }
  const common: Common = {
    version: integerAt(signed['version'], `${type}.version`, 1, 'E_VERSION'),
    expires: secondsAt(signed['expires'], `${type}.expires`),
  };
  switch (type) {
    case 'root':
      return readRoot(common, signed, rules);
    case 'timestamp':
      return readTimestamp(common, signed, rules);
    case 'snapshot':
      return readSnapshot(common, signed, rules);
    case 'targets':
      return {
        ...common,
        type,
        targets: readTargets(signed, rules),
        delegations: readDelegations(signed['delegations'], rules),
      };
  }
}

function readRoot(common: Common, signed: JsonObject, rules: MetadataRules): Root {
  const roles = objectAt(signed['roles'], 'root.roles');
  const role = (name: TopLevelRole): Role => readRole(roles[name], `root.roles.${name}`);
  const consistent = signed['consistent_snapshot'];
  if (rules.strictForms && consistent !== true) {
    return refuse('E_SCHEMA', 'root.consistent_snapshot', 'true');
  }
  return {
    ...common,
    type: 'root',
    consistentSnapshot:
      consistent === undefined ? false : booleanAt(consistent, 'root.consistent_snapshot'),
    keys: readKeys(signed['keys'], 'root.keys'),
    roles: {
      root: role('root'),
      timestamp: role('timestamp'),
      snapshot: role('snapshot'),
      targets: role('targets'),
    },
  };
}

function readTimestamp(common: Common, signed: JsonObject, rules: MetadataRules): Timestamp {
  const meta = objectAt(signed['meta'], 'timestamp.meta');
  // TUF 1.0.34, section 4.6: it MUST only include a description of snapshot.json.
  if (Object.keys(meta).some((name) => name !== 'snapshot.json')) {
    return refuse('E_SCHEMA', 'timestamp.meta', 'snapshot.json alone');
  }
  const issued = signed[ISSUED_FIELD];
  return {
    ...common,
    type: 'timestamp',
    snapshot: readMetaEntry(meta['snapshot.json'], 'timestamp.meta.snapshot.json', rules),
    issued: issued === undefined ? null : secondsAt(issued, `timestamp.${ISSUED_FIELD}`),
  };
}

function readSnapshot(common: Common, signed: JsonObject, rules: MetadataRules): Snapshot {
  const entries = Object.entries(objectAt(signed['meta'], 'snapshot.meta'));
  if (entries.length > META_ENTRIES_MAX) {
    return refuse('E_SCHEMA', 'snapshot.meta', `at most ${META_ENTRIES_MAX} entries`);
  }
  const meta = new Map<string, MetaEntry>();
  for (const [name, entry] of entries) {
    const role = name.endsWith('.json') ? name.slice(0, -'.json'.length) : '';
    if (role !== 'targets' && !rules.isRoleName(role)) {
      return refuse('E_SCHEMA', `snapshot.meta.${name.slice(0, 64)}`, 'the name of a role');
    }
    meta.set(name, readMetaEntry(entry, `snapshot.meta.${name}`, rules));
  }
  return { ...common, type: 'snapshot', meta };
}

function readMetaEntry(
  value: JsonValue | undefined,
  where: string,
  rules: MetadataRules,
): MetaEntry {
  const entry = objectAt(value, where);
  const version = integerAt(entry['version'], `${where}.version`, 1, 'E_VERSION');
  const { length } = entry;
  const isWhole = length !== undefined && entry['hashes'] !== undefined;
  if (rules.strictForms && !isWhole) return refuse('E_SCHEMA', where, 'length and hashes');
  return {
    version,
    length: length === undefined ? null : integerAt(length, `${where}.length`, 1),
    hashes:
      entry['hashes'] === undefined
        ? new Map()
        : readHashes(entry['hashes'], `${where}.hashes`, rules),
  };
}

function readTargets(signed: JsonObject, rules: MetadataRules): Map<string, TargetEntry> {
  const entries = Object.entries(objectAt(signed['targets'], 'targets.targets'));
  if (entries.length > TARGETS_MAX) {
    return refuse('E_SCHEMA', 'targets.targets', `at most ${TARGETS_MAX} targets`);
  }
  const targets = new Map<string, TargetEntry>();
  for (const [path, value] of entries) {
    const where = `targets.targets.${path.slice(0, 128)}`;
    if (path.length > PATH_MAX_CHARS) return refuse('E_SCHEMA', where, 'a shorter path');
    const entry = objectAt(value, where);
    targets.set(path, {
      path,
      length: integerAt(entry['length'], `${where}.length`, 0),
      hashes: readHashes(entry['hashes'], `${where}.hashes`, rules),
      custom: entry['custom'],
    });
  }
  return targets;
}

const HASH_CHARS = { sha256: 64, sha512: 128 } as const;

/** At least one digest of a known kind, sha256 where the rules want it. */
function readHashes(
  value: JsonValue | undefined,
  where: string,
  rules: MetadataRules,
): Map<string, string> {
  const object = objectAt(value, where);
  const hashes = new Map<string, string>();
  for (const [algorithm, chars] of Object.entries(HASH_CHARS)) {
    const digest = object[algorithm];
    if (digest === undefined) continue;
    const text = stringAt(digest, `${where}.${algorithm}`, chars);
    if (text.length !== chars || !/^[0-9a-f]+$/.test(text)) {
      return refuse('E_SCHEMA', `${where}.${algorithm}`, `${chars} lower-case hex digits`);
    }
    hashes.set(algorithm, text);
  }
  if (hashes.size === 0 || (rules.strictForms && !hashes.has('sha256'))) {
    return refuse('E_HASHALG', where, 'a sha256 digest');
  }
  return hashes;
}
