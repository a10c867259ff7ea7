/**
 * The definition of a config set, as its owners write it (TOML or JSON). Secrets are named by the files that hold them: never in
 * the definition, in an argument, or in the environment. Reference: docs/specs/operator-files.md, section 3.
 */
import { open } from 'node:fs/promises';
import { resolve } from 'node:path';
import { parse as parseToml } from 'smol-toml';
import * as v from 'valibot';
import { entryName, SECRET_MAX_BYTES } from '#/bundle/config-set.ts';
import { openBundle } from '#/control/cli/bundle/read.ts';
import { readText } from '#/control/cli/files.ts';
import { Problem } from '#/protocol/errors.ts';
import { artifactId, type ArtifactId, groupName, name } from '#/protocol/ids.ts';

const DEFINITION_MAX_BYTES = 512 * 1024;
const positive = v.pipe(v.number(), v.safeInteger(), v.minValue(1));
const path = v.pipe(v.string(), v.minLength(1), v.maxLength(4096));

export const configDefinition = v.strictObject({
  scope: name,
  version: positive,
  group: groupName,
  /** Artifact ids, or bundle files, relative to the definition. */
  artifacts: v.pipe(v.array(path), v.minLength(1), v.maxLength(16)),
  schema: v.strictObject({ id: name, version: positive }),
  plain: v.optional(v.record(entryName, v.string()), {}),
  /** Name: the file with the secret, relative to the definition. Its bytes are taken as they are. */
  secrets: v.optional(v.record(entryName, path), {}),
});
export type ConfigDefinition = v.InferOutput<typeof configDefinition>;

/** The definition in a file. @throws Problem E_CONFIG with the key that is wrong */
export async function readConfigDefinition(file: string): Promise<ConfigDefinition> {
  const text = await readText(file, DEFINITION_MAX_BYTES);
  let value: unknown;
  try {
    value = file.endsWith('.json') ? JSON.parse(text) : parseToml(text);
  } catch (cause) {
    const why = (cause as Error).message;
    throw new Problem('E_CONFIG', `${file} cannot be parsed: ${why}`, {}, { cause });
  }
  const result = v.safeParse(configDefinition, value);
  if (result.success) return result.output;
  const issue = result.issues[0];
  throw new Problem('E_CONFIG', `${file}: ${v.getDotPath(issue) ?? 'document'}: ${issue.message}`);
}

/** The artifact that is meant: its id, or the bundle file that holds it. */
export async function artifactNamed(base: string, text: string): Promise<ArtifactId> {
  const id = v.safeParse(artifactId, text);
  if (id.success) return id.output;
  await using bundle = await openBundle(resolve(base, text), null);
  return bundle.artifactId;
}

/** The bytes of a secret. @throws Problem E_CONFIG when others may read the file, E_TOOBIG */
export async function readSecretFile(file: string): Promise<Uint8Array> {
  const handle = await open(file, 'r').catch((cause: unknown) => {
    throw new Problem('E_USAGE', `read ${file}`, { path: file }, { cause });
  });
  try {
    const { mode, size } = await handle.stat();
    if ((mode & 0o077) !== 0)
      throw new Problem(
        'E_CONFIG',
        `${file} has mode ${(mode & 0o777).toString(8)}: only its owner may read a secret (0600)`,
        { path: file },
      );
    if (size > SECRET_MAX_BYTES)
      throw new Problem('E_TOOBIG', `${file} has ${size} bytes, at most ${SECRET_MAX_BYTES}`);
    return await handle.readFile();
  } finally {
    await handle.close();
  }
}
