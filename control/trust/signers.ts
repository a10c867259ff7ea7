/** Keys that no role has but a document of the policy names: builders, the gates, attesters, the audit log. */
import { BUILDERS_PATH, LOG_PATH } from '#/bundle/trust/documents.ts';
import { ATTESTERS_PATH, GATES_PATH } from '#/bundle/trust/gates.ts';
import { bytesOfHex, publicKeyOf } from '#/bundle/keys.ts';
import { readAttesters, readGates } from './gates.ts';
import type { Repository } from './repository.ts';
import { readBuilders, readLog } from './targets.ts';

export interface NamedSigner {
  /** Where it is named: `policy/gates.json`. */
  readonly document: string;
  /** What it signs, in words. */
  readonly signs: string;
  readonly threshold: number;
  readonly keyIds: readonly string[];
  /** Those among them that control holds. */
  readonly heldKeyIds: readonly string[];
}

/** Every such signer, in the order of the documents. `heldKeyIds`: the keys of control. */
export function namedSigners(
  repository: Repository,
  heldKeyIds: readonly string[],
): readonly NamedSigner[] {
  const signer = (
    document: string,
    signs: string,
    keys: readonly string[],
    threshold = 1,
  ): NamedSigner => {
    const keyIds = keys.map(keyIdOf);
    const held = keyIds.filter((keyId) => heldKeyIds.includes(keyId));
    return { document, signs, threshold, keyIds, heldKeyIds: held };
  };
  const gates = readGates(repository)?.gates ?? null;
  const log = readLog(repository);
  return [
    ...readBuilders(repository).classes.map(({ class: of, keys, threshold }) =>
      signer(BUILDERS_PATH, of === '*' ? 'manifests' : `manifests of ${of}`, keys, threshold),
    ),
    ...(gates === null ? [] : [signer(GATES_PATH, `verdicts of ${gates.verifierId}`, gates.keys)]),
    ...readAttesters(repository).attesters.map(({ name, keys }) =>
      signer(ATTESTERS_PATH, `statements of ${name}`, keys),
    ),
    ...(log === null ? [] : [signer(LOG_PATH, `the audit log ${log.origin}`, log.keys)]),
  ];
}

function keyIdOf(publicKey: string): string {
  return publicKeyOf(bytesOfHex(publicKey, 32) ?? new Uint8Array()).keyId;
}
