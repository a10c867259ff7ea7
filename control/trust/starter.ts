/**
 * Starter trust: all keys made by one call, and what is not protected yet because of that. docs/specs/trust.md, section 8.
 */
import { BUILDERS_PATH } from '#/bundle/trust/documents.ts';
import { GATES_PATH } from '#/bundle/trust/gates.ts';
import { secondsAt } from '#/bundle/trust/shape.ts';
import { type StoredKey, storedKeyOf } from './key-file.ts';
import {
  type KeyUse,
  keyUses,
  nowSeconds,
  readCurrent,
  type Repository,
  roleDocumentIn,
  roleKeysOf,
  type SignedDocument,
} from './repository.ts';
import { namedSigners, type NamedSigner } from './signers.ts';
import { readBuilders } from './targets.ts';

export interface StarterKeys {
  /** To a file that the operator chooses, away from control. */
  readonly root: readonly StoredKey[];
  /** Held by control: everything else. */
  readonly control: readonly StoredKey[];
}

/** One key of each use. `randomSeed` gives 32 fresh random bytes at each call. */
export function starterKeys(randomSeed: () => Uint8Array): StarterKeys {
  const keys = keyUses.map((use) => storedKeyOf(use, randomSeed()));
  return {
    root: keys.filter((key) => key.use === 'root'),
    control: keys.filter((key) => key.use !== 'root'),
  };
}

export interface RoleStatus {
  readonly role: string;
  readonly threshold: number;
  readonly keyIds: readonly string[];
  /** Keys of the role that are in the hands of control. */
  readonly heldKeyIds: readonly string[];
  readonly version: number;
  readonly expires: string;
  readonly hasExpired: boolean;
}

export interface TrustOverview {
  readonly roles: readonly RoleStatus[];
  /** Keys of no role: of builders, gates, attesters and the log. */
  readonly signers: readonly NamedSigner[];
  /** Sentences: what whoever takes over control could do, because of how the keys are held. Empty when all is on. */
  readonly protectionsOff: readonly string[];
}

/** Every role with its keys, and the protections that are off. `heldKeyIds`: the keys of control, else those at hand. */
export function trustStatus(
  repository: Repository,
  heldKeyIds: readonly string[] = repository.keys.map((key) => key.signer.key.keyId),
): TrustOverview {
  const current = readCurrent(repository);
  const { root, timestamp, snapshot, targets } = current;
  const held = new Set(heldKeyIds);
  const delegated = (targets.delegations?.roles ?? []).map((entry) => entry.name);
  const documents = new Map<string, SignedDocument | null>([
    ['root', root],
    ['timestamp', timestamp],
    ['snapshot', snapshot],
    ['targets', targets],
    ...delegated.map((role) => [role, roleDocumentIn(repository, current, role)] as const),
  ]);
  const roles: RoleStatus[] = [];
  for (const [role, document] of documents) {
    if (document === null) continue;
    const { keyIds, threshold } = roleKeysOf(root, targets, role);
    roles.push({
      role,
      threshold,
      keyIds,
      heldKeyIds: keyIds.filter((keyId) => held.has(keyId)),
      version: document.version,
      expires: document.expires,
      hasExpired: secondsAt(document.expires, role) <= nowSeconds(repository),
    });
  }
  const signers = namedSigners(repository, heldKeyIds);
  return { roles, signers, protectionsOff: protectionsOff(repository, roles, signers) };
}

/** What a role's keys are worth to whoever holds enough of them. */
const powers: Readonly<Record<Exclude<KeyUse, 'snapshot' | 'timestamp'>, string>> = {
  root: 'replace every other key',
  targets: 'name other keys for releases, pins and policy',
  policy: 'name other builders and stop raising floors',
  release: 'release an image',
  operator: 'pin any released image',
  config: 'sign other config (not read the secrets of what there is)',
};

function protectionsOff(
  repository: Repository,
  roles: readonly RoleStatus[],
  signers: readonly NamedSigner[],
): readonly string[] {
  const sentences: string[] = [];
  for (const status of roles) {
    const use = useOf(status.role);
    if (use === 'snapshot' || use === 'timestamp') continue;
    if (status.heldKeyIds.length >= status.threshold) {
      sentences.push(
        `${status.role}: control holds enough keys; whoever takes over control can ${powers[use]}`,
      );
    } else if (status.threshold === 1) {
      sentences.push(`${status.role}: one stolen key is enough to ${powers[use]}`);
    }
  }
  for (const entry of readBuilders(repository).classes) {
    if (entry.threshold === 1) {
      sentences.push(
        `${BUILDERS_PATH}: class ${entry.class} needs one builder; one stolen key is enough to sign a manifest`,
      );
    }
  }
  for (const { document, heldKeyIds } of signers) {
    if (document === GATES_PATH && heldKeyIds.length > 0) {
      sentences.push(
        `${GATES_PATH}: control holds a key of the gates; whoever takes over control can say that they passed`,
      );
    }
  }
  return sentences;
}

function useOf(role: string): KeyUse {
  if (role === 'root' || role === 'targets' || role === 'snapshot' || role === 'timestamp') {
    return role;
  }
  if (role === 'policy') return 'policy';
  if (role.startsWith('cfg-')) return 'config';
  return role.startsWith('grp-') ? 'operator' : 'release';
}
