/**
 * Documents of the `policy` role, and the names of targets and roles. The targets of a policy role are small JSON files;
 * what stands here is checked after their signatures. Formats: docs/specs/trust.md, section 7.
 */
import * as v from 'valibot';
import { artifactId, configId, groupName, name, sha256Hex } from '#/protocol/ids.ts';
import type { ArtifactRef, ConfigRef } from '#/protocol/documents.ts';
import { type JsonValue, Problem } from '#/protocol/errors.ts';
import { bytesOfHex, publicKeyOf, type PublicKey } from '../keys.ts';
import { parseStrictJson } from '../strict-json.ts';

/** Documents of the policy and group roles are small; larger ones are refused before they are fetched. */
export const DOCUMENT_MAX_BYTES = 768 * 1024;

const release = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const entriesMax = 4096;

/** `policy/floors.json`: the lowest release that may be installed, per class. */
export const floorsDocument = v.strictObject({
  schema: v.literal('switchback.floors/1'),
  floors: v.pipe(v.array(v.strictObject({ class: name, release })), v.maxLength(entriesMax)),
});
export type FloorsDocument = v.InferOutput<typeof floorsDocument>;

/** `policy/revoked.json`: what is never to be used again. */
export const revokedDocument = v.strictObject({
  schema: v.literal('switchback.revoked/1'),
  artifacts: v.pipe(v.array(artifactId), v.maxLength(entriesMax)),
  keyIds: v.pipe(v.array(sha256Hex), v.maxLength(entriesMax)),
});
export type RevokedDocument = v.InferOutput<typeof revokedDocument>;

/** `policy/builders.json`: whose signatures a manifest needs, per class; `*` stands for classes that are not listed. */
export const buildersDocument = v.strictObject({
  schema: v.literal('switchback.builders/1'),
  classes: v.pipe(
    v.array(
      v.strictObject({
        class: v.union([v.literal('*'), name]),
        threshold: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(16)),
        /** Ed25519 public keys, 64 lower-case hex digits. */
        keys: v.pipe(v.array(sha256Hex), v.minLength(1), v.maxLength(64)),
      }),
    ),
    v.maxLength(entriesMax),
  ),
});
export type BuildersDocument = v.InferOutput<typeof buildersDocument>;

/** `policy/log.json`: the audit log that must have every pin. While there is no such target, pins need no proof. */
export const logDocument = v.strictObject({
  schema: v.literal('switchback.log/1'),
  /** First line of the log's checkpoints. Another origin is another log: what hosts remember of the old one is put aside. */
  origin: v.pipe(v.string(), v.regex(/^[!-*,-~]{1,200}$/, 'expected no spaces and no plus')),
  /** Ed25519 public keys that may sign checkpoints, 64 lower-case hex digits. */
  keys: v.pipe(v.array(sha256Hex), v.minLength(1), v.maxLength(8)),
});
export type LogDocument = v.InferOutput<typeof logDocument>;

/** Custom data of an image target. Further fields may follow. */
export const imageCustom = v.looseObject({
  artifactId,
  class: name,
  arch: v.picklist(['amd64', 'arm64', 'any']),
  release: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  minAgent: release,
});
export type ImageCustom = v.InferOutput<typeof imageCustom>;

/** Custom data of the target of a config set: what lists show without opening it. Further fields may follow. */
export const configCustom = v.looseObject({
  configId,
  version: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  group: groupName,
  artifacts: v.array(artifactId),
  configSchema: v.looseObject({ id: name, version: v.number() }),
  plain: v.number(),
  secrets: v.number(),
  created: v.number(),
});
export type ConfigCustom = v.InferOutput<typeof configCustom>;

export const FLOORS_PATH = 'policy/floors.json';
export const REVOKED_PATH = 'policy/revoked.json';
export const BUILDERS_PATH = 'policy/builders.json';
export const LOG_PATH = 'policy/log.json';

/** Target path of a group's pin. */
export function desiredPath(group: string): string {
  return `groups/${group}/desired.json`;
}

/** Target path of the pin of one host, which goes before the pin of its group. */
export function hostDesiredPath(group: string, host: string): string {
  return `groups/${group}/host-${host}.json`;
}

/** Target path of a manifest. */
export function manifestPath(ref: Pick<ArtifactRef, 'class' | 'version' | 'artifactId'>): string {
  return `images/${ref.class}/${ref.version}/${ref.artifactId}.manifest.json`;
}

/** Target path of the DSSE envelope over the same manifest. */
export function manifestEnvelopePath(
  ref: Pick<ArtifactRef, 'class' | 'version' | 'artifactId'>,
): string {
  return `images/${ref.class}/${ref.version}/${ref.artifactId}.manifest.dsse.json`;
}

/** Target path of the envelope over a config set. */
export function configPath(ref: Pick<ConfigRef, 'scope' | 'version' | 'configId'>): string {
  return `config/${ref.scope}/${ref.version}/${ref.configId}.json`;
}

/** Target path of what is sealed for the hosts of the same config set. */
export function sealedPath(ref: Pick<ConfigRef, 'scope' | 'version' | 'configId'>): string {
  return `config/${ref.scope}/${ref.version}/${ref.configId}.sealed.json`;
}

/** The role that alone may sign config sets of the scope. */
export function configRole(scope: string): string {
  return `cfg-${scope}`;
}

export const POLICY_ROLE = 'policy';

/** The role that alone may pin hosts of the group. */
export function groupRole(group: string): string {
  return `grp-${group}`;
}

/** The role that alone may release images of the class. */
export function imageRole(imageClass: string): string {
  return `img-${imageClass}`;
}

/** A signed JSON document of a schema. @throws Problem E_TOOBIG, E_PARSE, E_CANON, E_SCHEMA */
export function readDocument<T>(
  what: string,
  schema: v.GenericSchema<unknown, T>,
  bytes: Uint8Array,
  maxBytes: number = DOCUMENT_MAX_BYTES,
): T {
  return checkShape(what, schema, parseStrictJson(bytes, { maxBytes }));
}

/** The value if it has the shape. @throws Problem E_SCHEMA that names the field */
export function checkShape<T>(
  what: string,
  schema: v.GenericSchema<unknown, T>,
  value: JsonValue | undefined,
): T {
  const result = v.safeParse(schema, value);
  if (result.success) return result.output;
  const issue = result.issues[0];
  const field = v.getDotPath(issue);
  throw new Problem('E_SCHEMA', `${what}${field === null ? '' : `: ${field}`}: ${issue.message}`, {
    field,
  });
}

/** Keys and threshold of the builders of a class. @throws Problem E_SIGS when the policy names none */
export function buildersOf(
  document: BuildersDocument,
  imageClass: string,
): { readonly keys: readonly PublicKey[]; readonly threshold: number } {
  const entry =
    document.classes.find((each) => each.class === imageClass) ??
    document.classes.find((each) => each.class === '*');
  if (entry === undefined) {
    throw new Problem('E_SIGS', `the policy names no builders of class ${imageClass}`);
  }
  return {
    keys: entry.keys.map((hex) => publicKeyOf(bytesOfHex(hex, 32) ?? new Uint8Array())),
    threshold: entry.threshold,
  };
}
