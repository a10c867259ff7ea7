/** Delegations of a targets role: which roles may speak of a path, in their order of trust. docs/specs/trust.md, section 6. */
import type { JsonValue } from '#/protocol/errors.ts';
import { sha256, type TufKey } from '../keys.ts';
import { type MetadataRules, type Role, readKeys, readRole, topLevelRoles } from './role.ts';
import { arrayAt, booleanAt, objectAt, refuse, stringAt } from './shape.ts';

export interface Delegation {
  readonly name: string;
  readonly role: Role;
  readonly terminating: boolean;
  /** Shell patterns, or null when hash prefixes are given. */
  readonly paths: readonly string[] | null;
  readonly pathHashPrefixes: readonly string[] | null;
}

export interface Delegations {
  readonly keys: ReadonlyMap<string, TufKey>;
  readonly roles: readonly Delegation[];
}

const DELEGATIONS_MAX = 4096;
const PATTERNS_MAX = 1024;

/** The delegations of a targets role; none when the field is absent. @throws Problem E_SCHEMA */
export function readDelegations(value: JsonValue | undefined, rules: MetadataRules): Delegations {
  if (value === undefined) return { keys: new Map(), roles: [] };
  const object = objectAt(value, 'targets.delegations');
  const roles: Delegation[] = [];
  const names = new Set<string>();
  const listed = arrayAt(object['roles'], 'targets.delegations.roles', DELEGATIONS_MAX);
  for (const [index, entry] of listed.entries()) {
    const delegation = readDelegation(entry, `targets.delegations.roles[${index}]`, rules);
    if (names.has(delegation.name)) {
      return refuse('E_SCHEMA', `delegation of ${delegation.name}`, 'each role once');
    }
    names.add(delegation.name);
    roles.push(delegation);
  }
  return { keys: readKeys(object['keys'], 'targets.delegations.keys'), roles };
}

function readDelegation(value: JsonValue, where: string, rules: MetadataRules): Delegation {
  const object = objectAt(value, where);
  const name = stringAt(object['name'], `${where}.name`, 256);
  if ((topLevelRoles as readonly string[]).includes(name) || !rules.isRoleName(name)) {
    return refuse('E_SCHEMA', `${where}.name`, 'the name of a delegated role');
  }
  const { paths, path_hash_prefixes: prefixes } = object;
  if ((paths === undefined) === (prefixes === undefined)) {
    return refuse('E_SCHEMA', where, 'either paths or path_hash_prefixes');
  }
  const texts = (list: JsonValue | undefined, field: string): string[] | null =>
    list === undefined
      ? null
      : arrayAt(list, `${where}.${field}`, PATTERNS_MAX).map((text) =>
          stringAt(text, `${where}.${field}`, 1024),
        );
  return {
    name,
    role: readRole(object, where),
    terminating: booleanAt(object['terminating'], `${where}.terminating`),
    paths: texts(paths, 'paths'),
    pathHashPrefixes: texts(prefixes, 'path_hash_prefixes'),
  };
}

/** True when the delegation covers the path. */
export function isDelegated(delegation: Delegation, path: string): boolean {
  if (delegation.paths !== null) {
    return delegation.paths.some((pattern) => matchesPattern(pattern, path));
  }
  const digest = sha256(new TextEncoder().encode(path));
  return (delegation.pathHashPrefixes ?? []).some((prefix) => digest.startsWith(prefix));
}

/**
 * Shell pattern of TUF: `*` any characters but `/`, `?` one character but `/`; everything else is itself, case-sensitive.
 * Linear in pattern length times path length, whatever the pattern.
 */
export function matchesPattern(pattern: string, path: string): boolean {
  const patternParts = pattern.split('/');
  const pathParts = path.split('/');
  return (
    patternParts.length === pathParts.length &&
    patternParts.every((part, index) => matchesSegment(part, pathParts[index] ?? ''))
  );
}

function matchesSegment(pattern: string, text: string): boolean {
  let p = 0;
  let t = 0;
  let star = -1;
  let starText = 0;
  while (t < text.length) {
    if (p < pattern.length && pattern[p] === '*') {
      star = p;
      starText = t;
      p += 1;
    } else if (p < pattern.length && (pattern[p] === '?' || pattern[p] === text[t])) {
      p += 1;
      t += 1;
    } else if (star >= 0) {
      p = star + 1;
      starText += 1;
      t = starText;
    } else {
      return false;
    }
  }
  while (pattern[p] === '*') p += 1;
  return p === pattern.length;
}
