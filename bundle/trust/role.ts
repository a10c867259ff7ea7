/** Roles and their keys, and the rules by which a verifier takes them. docs/specs/trust.md, section 5. */
import type { JsonValue } from '#/protocol/errors.ts';
import type { TufKey } from '../keys.ts';
import { arrayAt, integerAt, objectAt, refuse, stringAt } from './shape.ts';

export const topLevelRoles = ['root', 'timestamp', 'snapshot', 'targets'] as const;
export type TopLevelRole = (typeof topLevelRoles)[number];

/** What a verifier accepts beyond the agent's rules; only the conformance client sets other values than `agentRules`. */
export interface MetadataRules {
  /** True when `signature` (bytes of its hex) by `key` over `message` is valid; false also for unknown kinds of key. */
  readonly verifySignature: (key: TufKey, message: Uint8Array, signature: string) => boolean;
  /** The material by which keys are told apart; null when the key is of a kind that is not accepted. */
  readonly keyMaterial: (key: TufKey) => string | null;
  /** Consistent snapshots; timestamp and snapshot entries with length and sha256; sha256 for every target. */
  readonly strictForms: boolean;
  /** Names of delegated roles. */
  readonly isRoleName: (name: string) => boolean;
}

export interface Role {
  readonly keyIds: readonly string[];
  readonly threshold: number;
}

const KEYS_MAX = 1024;
const ROLE_KEYS_MAX = 64;

/** Keys by key id. Keys of kinds that are not accepted stay in: they are ignored where signatures are counted. */
export function readKeys(value: JsonValue | undefined, where: string): Map<string, TufKey> {
  const keys = new Map<string, TufKey>();
  const entries = Object.entries(objectAt(value, where));
  if (entries.length > KEYS_MAX) return refuse('E_SCHEMA', where, `at most ${KEYS_MAX} keys`);
  for (const [keyId, entry] of entries) {
    const key = objectAt(entry, `${where}.${keyId}`);
    const keyval = objectAt(key['keyval'], `${where}.${keyId}.keyval`);
    keys.set(keyId, {
      keytype: stringAt(key['keytype'], `${where}.${keyId}.keytype`, 64),
      scheme: stringAt(key['scheme'], `${where}.${keyId}.scheme`, 64),
      keyval: { public: stringAt(keyval['public'], `${where}.${keyId}.keyval.public`, 8192) },
    });
  }
  return keys;
}

/** Key ids and threshold of a role. */
export function readRole(value: JsonValue | undefined, where: string): Role {
  const role = objectAt(value, where);
  const keyIds = arrayAt(role['keyids'], `${where}.keyids`, ROLE_KEYS_MAX).map((keyId) =>
    stringAt(keyId, `${where}.keyids`, 256),
  );
  if (new Set(keyIds).size !== keyIds.length) {
    return refuse('E_SCHEMA', `${where}.keyids`, 'each key id once');
  }
  return { keyIds, threshold: integerAt(role['threshold'], `${where}.threshold`, 1) };
}
