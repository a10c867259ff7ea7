/**
 * The definition of a release, as people write it (TOML or JSON): what a manifest says beyond what the content says, with
 * defaults. Reference: docs/reference/release-definition.md.
 */
import { parse as parseToml } from 'smol-toml';
import * as v from 'valibot';
import { agentNumber } from '#/bundle/compatibility.ts';
import { activation, configSchemaRef, healthCheck, trialRules } from '#/bundle/manifest.ts';
import { Problem } from '#/protocol/errors.ts';
import { name, versionText } from '#/protocol/ids.ts';

/** Larger definition files are refused. */
export const DEFINITION_MAX_BYTES = 1024 * 1024;

const natural = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
/** A number as in the manifest, or a version text. */
const agentVersion = v.union([
  natural,
  v.pipe(v.string(), v.regex(/^\d{1,6}\.\d{1,3}\.\d{1,3}$/), v.transform(agentNumber)),
]);

/** What a check says when the definition does not. */
export const checkDefaults = {
  required: true,
  timeoutMs: 5000,
  intervalMs: 1000,
  successesNeeded: 2,
  failuresAllowed: 3,
  baseline: 'must-pass',
  startAfterMs: 0,
};
/** What the trial is when the definition does not say it. */
export const trialDefaults = {
  soakMs: 10_000,
  deadlineMs: 300_000,
  maxBoots: 3,
  control: 'offline-ok',
};

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const withDefaults =
  (defaults: object) =>
  (value: unknown): unknown =>
    isRecord(value) ? { ...defaults, ...value } : value;

export const payloadDefinition = v.strictObject({
  name,
  kind: v.picklist(['tree', 'image']),
  /** Relative to the definition file. */
  path: v.pipe(v.string(), v.minLength(1), v.maxLength(4096)),
  /** fastcdc-16k for trees, acdc-32k for images, unless given. */
  chunker: v.optional(v.picklist(['acdc-32k', 'fastcdc-16k'])),
  /** Owners of files as they are; otherwise all belong to 0:0. */
  keepOwners: v.optional(v.boolean(), false),
  /** Images that carry their dm-verity tree: what `veritysetup format` printed and was given. */
  verity: v.optional(
    v.strictObject({
      rootHash: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
      hashOffsetBytes: natural,
    }),
  ),
  allowSetuid: v.optional(v.boolean(), false),
  allowCaseCollisions: v.optional(v.boolean(), false),
  allowAbsoluteLinks: v.optional(v.boolean(), false),
});

export const definitionSchema = v.strictObject({
  name,
  class: name,
  arch: v.optional(v.picklist(['amd64', 'arm64', 'any']), 'any'),
  version: versionText,
  release: v.pipe(natural, v.minValue(1)),
  minAgent: v.optional(agentVersion, 0),
  minFrom: v.optional(natural, 0),
  activation: v.optional(activation, { kind: 'none' }),
  health: v.optional(
    v.array(v.pipe(v.unknown(), v.transform(withDefaults(checkDefaults)), healthCheck)),
    [],
  ),
  trial: v.pipe(v.optional(v.unknown(), {}), v.transform(withDefaults(trialDefaults)), trialRules),
  /**
   * zstd level of the chunks. 15: small, about 10 MB a second and core; 6: 5 % larger, six times as fast. Part of the
   * definition because it changes the bundle.
   */
  compressionLevel: v.optional(v.pipe(natural, v.minValue(1), v.maxValue(19)), 15),
  /** Name and version of the config that it takes (config-sets.md). */
  config: v.optional(configSchemaRef),
  payloads: v.optional(v.pipe(v.array(payloadDefinition), v.minLength(1), v.maxLength(8))),
});
/** A definition with its defaults filled in. */
export type Definition = v.InferOutput<typeof definitionSchema>;
export type PayloadDefinition = v.InferOutput<typeof payloadDefinition>;

/** A definition from an object. Throws E_CONFIG; the message names the key. */
export function checkDefinition(value: unknown): Definition {
  const result = v.safeParse(definitionSchema, value);
  if (!result.success) {
    const issue = result.issues[0];
    throw new Problem(
      'E_CONFIG',
      `definition: ${v.getDotPath(issue) ?? 'document'}: ${issue.message}`,
    );
  }
  return result.output;
}

/** A definition from the text of a file; `path` decides between JSON and TOML. Throws E_CONFIG. */
export function parseDefinition(text: string, path: string): Definition {
  if (Buffer.byteLength(text) > DEFINITION_MAX_BYTES) {
    throw new Problem('E_CONFIG', `${path} is larger than ${DEFINITION_MAX_BYTES} bytes`);
  }
  let value: unknown;
  try {
    value = path.endsWith('.json') ? JSON.parse(text) : parseToml(text);
  } catch (cause) {
    throw new Problem(
      'E_CONFIG',
      `${path} cannot be parsed: ${(cause as Error).message}`,
      {},
      { cause },
    );
  }
  return checkDefinition(value);
}
