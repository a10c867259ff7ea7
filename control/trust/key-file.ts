/**
 * Key files: private keys on disk. Versioned JSON, mode 0600; a file that others may read is refused. docs/specs/trust.md,
 * section 3.
 */
import { open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import * as v from 'valibot';
import { canonicalDocument } from '#/bundle/canonical.ts';
import { bytesOfHex, hexOf, signerOf } from '#/bundle/keys.ts';
import { checkShape } from '#/bundle/trust/documents.ts';
import { parseStrictJson } from '#/bundle/strict-json.ts';
import { Problem } from '#/protocol/errors.ts';
import { sha256Hex } from '#/protocol/ids.ts';
import { type HeldKey, keyUses } from './repository.ts';

const KEY_FILE_MAX_BYTES = 256 * 1024;

const keyFile = v.strictObject({
  schema: v.literal('switchback.keys/1'),
  keys: v.pipe(
    v.array(
      v.strictObject({
        use: v.picklist(keyUses),
        keyId: sha256Hex,
        /** The 32 secret bytes. */
        seed: sha256Hex,
        public: sha256Hex,
      }),
    ),
    v.minLength(1),
    v.maxLength(256),
  ),
});

/** A key with its secret, as it stands in a key file. */
export interface StoredKey extends HeldKey {
  readonly seed: Uint8Array;
}

/** A key of 32 random bytes. */
export function storedKeyOf(use: HeldKey['use'], seed: Uint8Array): StoredKey {
  return { use, seed, signer: signerOf(seed) };
}

/** The bytes of a key file. They are secret. */
export function encodeKeyFile(keys: readonly StoredKey[]): Uint8Array {
  return canonicalDocument({
    schema: 'switchback.keys/1',
    keys: keys.map(({ use, seed, signer }) => ({
      use,
      keyId: signer.key.keyId,
      seed: hexOf(seed),
      public: hexOf(signer.key.bytes),
    })),
  });
}

/** The keys of a key file. @throws Problem E_PARSE, E_SCHEMA, E_KEYID (id or public key is not that of the seed) */
export function decodeKeyFile(bytes: Uint8Array): readonly StoredKey[] {
  const json = parseStrictJson(bytes, { maxBytes: KEY_FILE_MAX_BYTES });
  return checkShape('key file', keyFile, json).keys.map((entry) => {
    const key = storedKeyOf(entry.use, bytesOfHex(entry.seed, 32) ?? new Uint8Array());
    if (key.signer.key.keyId !== entry.keyId || hexOf(key.signer.key.bytes) !== entry.public) {
      throw new Problem('E_KEYID', `key file: ${entry.keyId} is not the id of its key`);
    }
    return key;
  });
}

/** Reads a key file. @throws Problem E_CONFIG when it is missing or others may read it */
export async function readKeyFile(path: string): Promise<readonly StoredKey[]> {
  const file = await open(path, 'r').catch((cause: unknown) => {
    throw new Problem('E_CONFIG', `cannot open key file ${path}`, { path }, { cause });
  });
  try {
    const { mode, size } = await file.stat();
    if ((mode & 0o077) !== 0) {
      throw new Problem(
        'E_CONFIG',
        `key file ${path} has mode ${(mode & 0o777).toString(8)}: only its owner may read it (0600)`,
        { path },
      );
    }
    if (size > KEY_FILE_MAX_BYTES) {
      throw new Problem('E_TOOBIG', `key file ${path} has ${size} bytes`, { path });
    }
    return decodeKeyFile(await file.readFile());
  } finally {
    await file.close();
  }
}

/** Writes a new key file, mode 0600, durable on return. @throws Problem E_CONFLICT when the path exists */
export async function writeKeyFile(path: string, keys: readonly StoredKey[]): Promise<void> {
  const file = await open(path, 'wx', 0o600).catch((cause: unknown) => {
    const exists = cause instanceof Error && 'code' in cause && cause.code === 'EEXIST';
    throw new Problem(
      exists ? 'E_CONFLICT' : 'E_IO',
      exists ? `key file ${path} exists already` : `cannot write key file ${path}`,
      { path },
      { cause },
    );
  });
  try {
    await file.writeFile(encodeKeyFile(keys));
    await file.sync();
  } finally {
    await file.close();
  }
  await syncDirectory(dirname(path));
}

/** Replaces a key file, whole or not at all. */
export async function replaceKeyFile(path: string, keys: readonly StoredKey[]): Promise<void> {
  const fresh = `${path}.new`;
  await rm(fresh, { force: true });
  await writeKeyFile(fresh, keys);
  await rename(fresh, path);
  await syncDirectory(dirname(path));
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
