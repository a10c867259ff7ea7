/** Keys as operators name them: key files, or public keys as hex from somebody who keeps the file. */
import { resolve } from 'node:path';
import { bytesOfHex, type PublicKey, publicKeyOf } from '#/bundle/keys.ts';
import type { RoleKeys } from '#/control/trust/delegations.ts';
import { readKeyFile, type StoredKey } from '#/control/trust/key-file.ts';
import { Problem } from '#/protocol/errors.ts';

/** The public keys behind `named`: each a key file or 64 hex digits. */
export async function publicKeys(
  cwd: string,
  named: readonly string[],
): Promise<readonly PublicKey[]> {
  const found = new Map<string, PublicKey>();
  for (const text of named) {
    const bytes = bytesOfHex(text, 32);
    const keys =
      bytes === null
        ? (await readKeyFile(resolve(cwd, text))).map((key) => key.signer.key)
        : [publicKeyOf(bytes)];
    for (const key of keys) found.set(key.keyId, key);
  }
  return [...found.values()];
}

/** Every key of these files. */
export async function secretKeys(
  cwd: string,
  files: readonly string[],
): Promise<readonly StoredKey[]> {
  const found = await Promise.all(files.map((file) => readKeyFile(resolve(cwd, file))));
  return found.flat();
}

/** Keys and how many of them must sign; without a threshold, more than half. */
export function roleKeys(keys: readonly PublicKey[], threshold: number | undefined): RoleKeys {
  const needed = threshold ?? Math.floor(keys.length / 2) + 1;
  if (keys.length === 0 || needed > keys.length)
    throw new Problem('E_USAGE', `${needed} of ${keys.length} keys cannot sign: give more --to`);
  return { keys, threshold: needed };
}
