/**
 * What the owners of a config set keep: the file that they import, and, for themselves alone, the data keys of its secrets, with
 * which it is sealed again for other hosts. Formats: docs/specs/operator-files.md, section 3.
 */
import { open, readFile, rename, stat } from 'node:fs/promises';
import * as v from 'valibot';
import { canonicalDocument } from '#/bundle/canonical.ts';
import {
  CONFIG_ENVELOPE_MAX_BYTES,
  type KnownConfig,
  peekConfigSet,
  type Sealed,
  SEALED_MAX_BYTES,
  sealedSchema,
} from '#/bundle/config-set.ts';
import { bytesOfHex, hexOf } from '#/bundle/keys.ts';
import { parseStrictJson } from '#/bundle/strict-json.ts';
import { checkShape } from '#/bundle/trust/documents.ts';
import { writeNew } from '#/control/cli/files.ts';
import { envelope, type Envelope } from '#/protocol/documents.ts';
import { Problem } from '#/protocol/errors.ts';
import { configId, type ConfigId, hostId, sha256Hex } from '#/protocol/ids.ts';

const configFile = v.strictObject({
  schema: v.literal('switchback.config-file/1'),
  envelope,
  sealed: sealedSchema,
});
const keysFile = v.strictObject({
  schema: v.literal('switchback.config-keys/1'),
  configId,
  /** Name of the secret: its data key. */
  keys: v.record(v.string(), sha256Hex),
  /** Host: the public key that it was sealed to. */
  sealedTo: v.record(hostId, sha256Hex),
});
const FILE_MAX_BYTES = CONFIG_ENVELOPE_MAX_BYTES + SEALED_MAX_BYTES;

export interface ConfigFile {
  readonly envelope: Envelope;
  readonly sealed: Sealed;
}

export interface ConfigKeys {
  readonly configId: ConfigId;
  readonly keys: ReadonlyMap<string, Uint8Array>;
  readonly sealedTo: Readonly<Record<string, string | undefined>>;
}

/** A config file, its signatures not looked at. @throws Problem E_PARSE, E_SCHEMA, E_TOOBIG, E_USAGE */
export async function readConfigFile(path: string): Promise<ConfigFile & { known: KnownConfig }> {
  const bytes = await readLimited(path);
  const json = parseStrictJson(bytes, { maxBytes: FILE_MAX_BYTES });
  const { envelope: signed, sealed } = checkShape(path, configFile, json);
  return { envelope: signed, sealed, known: peekConfigSet(signed) };
}

export async function writeConfigFile(path: string, file: ConfigFile): Promise<void> {
  await writeNew(path, encodeFile(file), 0o644);
}

/** Replaces a config file, whole or not at all. */
export async function replaceConfigFile(path: string, file: ConfigFile): Promise<void> {
  await replaceWhole(path, encodeFile(file), 0o644);
}

function encodeFile({ envelope: signed, sealed }: ConfigFile): Uint8Array {
  return canonicalDocument({ schema: 'switchback.config-file/1', envelope: signed, sealed });
}

/** The data keys. @throws Problem E_CONFIG when others may read them */
export async function readConfigKeys(path: string): Promise<ConfigKeys> {
  const bytes = await readLimited(path);
  const { mode } = await stat(path);
  if ((mode & 0o077) !== 0)
    throw new Problem(
      'E_CONFIG',
      `${path} has mode ${(mode & 0o777).toString(8)}: only its owner may read data keys (0600)`,
      { path },
    );
  const json = parseStrictJson(bytes, { maxBytes: FILE_MAX_BYTES });
  const { configId: id, keys, sealedTo } = checkShape(path, keysFile, json);
  const entries = Object.entries(keys).map(
    ([name, hex]) => [name, bytesOfHex(hex, 32) ?? new Uint8Array()] as const,
  );
  return { configId: id, keys: new Map(entries), sealedTo };
}

export async function writeConfigKeys(path: string, keys: ConfigKeys): Promise<void> {
  await writeNew(path, encodeKeys(keys), 0o600);
}

export async function replaceConfigKeys(path: string, keys: ConfigKeys): Promise<void> {
  await replaceWhole(path, encodeKeys(keys), 0o600);
}

function encodeKeys({ configId: id, keys, sealedTo }: ConfigKeys): Uint8Array {
  return canonicalDocument({
    schema: 'switchback.config-keys/1',
    configId: id,
    keys: Object.fromEntries([...keys].map(([name, key]) => [name, hexOf(key)])),
    sealedTo,
  });
}

async function readLimited(path: string): Promise<Uint8Array> {
  try {
    const { size } = await stat(path);
    if (size > FILE_MAX_BYTES) throw new Problem('E_TOOBIG', `${path} has ${size} bytes`);
    return await readFile(path);
  } catch (cause) {
    if (cause instanceof Problem) throw cause;
    throw new Problem('E_USAGE', `read ${path}`, { path }, { cause });
  }
}

/** Beside it first, then in its place. */
export async function replaceWhole(path: string, bytes: Uint8Array, mode: number): Promise<void> {
  const fresh = `${path}.new`;
  const file = await open(fresh, 'w', mode).catch((cause: unknown) => {
    throw new Problem('E_IO', `cannot write ${fresh}`, { path: fresh }, { cause });
  });
  try {
    await file.chmod(mode);
    await file.writeFile(bytes);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(fresh, path);
}
