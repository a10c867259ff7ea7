/**
 * The data directory: `control.db`, `artifacts/`, `keys/` (trust.json, enrolment.json, bearer.json, log.json, gate.json; 0600), `admin.token`.
 * Made by `init`, opened by `serve`. docs/specs/protocol.md, section 5.
 */
import { randomBytes } from 'node:crypto';
import { chmod, mkdir, open, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { bytesOfHex, hexOf, type Signer, signerOf } from '#/bundle/keys.ts';
import {
  readKeyFile,
  replaceKeyFile,
  type StoredKey,
  writeKeyFile,
} from '#/control/trust/key-file.ts';
import type { LogDocument } from '#/bundle/trust/documents.ts';
import { createRepository } from '#/control/trust/delegations.ts';
import type { HeldKey, RepositoryFile } from '#/control/trust/repository.ts';
import { starterKeys } from '#/control/trust/starter.ts';
import { isProblem, Problem } from '#/protocol/errors.ts';
import { sha256Hex } from '#/protocol/ids.ts';

export interface DataDir {
  readonly path: string;
  readonly database: string;
  readonly trustKeys: readonly HeldKey[];
  readonly enrolment: Signer;
  /** Signs checkpoints of the audit log; null in a directory that was made before there was one. */
  readonly logKey: Signer | null;
  /** Signs verdicts of the policy gates; null as above. */
  readonly gateKey: Signer | null;
  /** Key of the bearers that hosts hold. */
  readonly bearerKey: Uint8Array;
}

const secretFile = v.strictObject({
  schema: v.literal('switchback.control-secret/1'),
  seed: sha256Hex,
});

export const databasePath = (dataDir: string): string => join(dataDir, 'control.db');
export const adminTokenPath = (dataDir: string): string => join(dataDir, 'admin.token');
const keysDir = (dataDir: string): string => join(dataDir, 'keys');
const trustKeyPath = (dataDir: string): string => join(keysDir(dataDir), 'trust.json');
/** Under starter trust the root key lies beside the others until the operator moves it away (`trust harden`). */
export const rootKeyPath = (dataDir: string): string => join(keysDir(dataDir), 'root.json');

const logKeyPath = (dataDir: string): string => join(keysDir(dataDir), 'log.json');

const gateKeyPath = (dataDir: string): string => join(keysDir(dataDir), 'gate.json');

/** A key that directories did not always have. */
async function readOptionalKey(path: string): Promise<Signer | null> {
  const has = await stat(path).then(
    () => true,
    () => false,
  );
  return has ? signerOf(await readSecret(path)) : null;
}

/** Creates a file that only its owner reads; durable on return. False when it exists already. */
export async function createSecretFile(path: string, text: string): Promise<boolean> {
  const file = await open(path, 'wx', 0o600).catch((cause: unknown) => {
    if (cause instanceof Error && 'code' in cause && cause.code === 'EEXIST') return null;
    throw new Problem('E_IO', `cannot write ${path}`, { path }, { cause });
  });
  if (file === null) return false;
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  return true;
}

async function readSecret(path: string): Promise<Uint8Array> {
  const text = await readFile(path, 'utf8').catch((cause: unknown) => {
    throw new Problem(
      'E_CONFIG',
      `cannot read ${path}; run switchback-control init`,
      { path },
      { cause },
    );
  });
  const { mode } = await stat(path);
  if ((mode & 0o077) !== 0)
    throw new Problem(
      'E_CONFIG',
      `${path} has mode ${(mode & 0o777).toString(8)}: only its owner may read it (0600)`,
    );
  const parsed = v.safeParse(secretFile, JSON.parse(text));
  if (!parsed.success) throw new Problem('E_CONFIG', `${path}: ${parsed.issues[0].message}`);
  return bytesOfHex(parsed.output.seed, 32) ?? new Uint8Array();
}

async function ensureSecret(path: string): Promise<void> {
  const seed = hexOf(randomBytes(32));
  await createSecretFile(
    path,
    `${JSON.stringify({ schema: 'switchback.control-secret/1', seed })}\n`,
  );
}

async function ensureTrustKeys(path: string): Promise<void> {
  const keys = starterKeys(() => randomBytes(32));
  for (const [file, list] of [
    [rootKeyPath(path), keys.root],
    [trustKeyPath(path), keys.control],
  ] as const)
    try {
      await writeKeyFile(file, list);
    } catch (error) {
      // A second init, or one after a crash: what is there is kept.
      if (!isProblem(error, 'E_CONFLICT')) throw error;
    }
}

/** Makes what is missing of the directory and its keys. Running it again changes nothing. */
export async function initDataDir(path: string): Promise<void> {
  await mkdir(path, { recursive: true, mode: 0o700 });
  await mkdir(join(path, 'artifacts'), { recursive: true, mode: 0o750 });
  await mkdir(keysDir(path), { recursive: true, mode: 0o700 });
  await chmod(keysDir(path), 0o700);
  await ensureTrustKeys(path);
  await ensureSecret(join(keysDir(path), 'enrolment.json'));
  await ensureSecret(join(keysDir(path), 'bearer.json'));
  await ensureSecret(logKeyPath(path));
  await ensureSecret(gateKeyPath(path));
}

/** The log that pins must be in: its name has the id of its key, and the number of its beginning. */
function firstLog(signer: Signer): LogDocument {
  return {
    schema: 'switchback.log/1',
    origin: `switchback-log/${signer.key.keyId.slice(0, 16)}/1`,
    keys: [hexOf(signer.key.bytes)],
  };
}

/**
 * Replaces the keys that control holds, whole or not at all. A control that runs takes them at its next start.
 * @throws Problem E_USAGE when no timestamp or no snapshot key would be left
 */
export async function changeTrustKeys(
  dataDir: string,
  edit: (keys: readonly StoredKey[]) => readonly StoredKey[],
): Promise<readonly StoredKey[]> {
  const path = trustKeyPath(dataDir);
  const keys = edit(await readKeyFile(path));
  for (const use of ['timestamp', 'snapshot'] as const)
    if (!keys.some((key) => key.use === use))
      throw new Problem('E_USAGE', `control would have no ${use} key and could not work`);
  await replaceKeyFile(path, keys);
  return keys;
}

/** The first files of the trust repository. Needs the root key once. */
export async function firstTrustFiles(
  dir: DataDir,
  nowMs: number,
): Promise<readonly RepositoryFile[]> {
  const root = await readKeyFile(rootKeyPath(dir.path));
  return createRepository(
    [...root, ...dir.trustKeys],
    nowMs,
    dir.logKey === null ? null : firstLog(dir.logKey),
  );
}

/** Opens a directory that `init` made. @throws E_CONFIG */
export async function openDataDir(path: string): Promise<DataDir> {
  return {
    path,
    database: databasePath(path),
    trustKeys: await readKeyFile(trustKeyPath(path)),
    enrolment: signerOf(await readSecret(join(keysDir(path), 'enrolment.json'))),
    logKey: await readOptionalKey(logKeyPath(path)),
    gateKey: await readOptionalKey(gateKeyPath(path)),
    bearerKey: await readSecret(join(keysDir(path), 'bearer.json')),
  };
}
