/**
 * The manifest: the signed description of one version. The sha256 of its canonical bytes is the artifact id.
 * Format: docs/specs/bundle-format.md, section 2.
 */
import { createHash } from 'node:crypto';
import * as v from 'valibot';
import { canonicalDocument } from '#/bundle/canonical.ts';
import { parseStrictJson } from '#/bundle/strict-json.ts';
import { Problem } from '#/protocol/errors.ts';
import { type ArtifactId, name, sha256Hex, versionText } from '#/protocol/ids.ts';

export const MANIFEST_SCHEMA = 'switchback.manifest/1';
/** Larger manifests are refused before they are parsed. */
export const MANIFEST_MAX_BYTES = 1024 * 1024;

const bytes = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const count = (max: number) => v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(max));
const positive = (max: number) =>
  v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(max));
const day = 24 * 3600 * 1000;
const text = (max: number) => v.pipe(v.string(), v.minLength(1), v.maxLength(max));
const argv = v.pipe(v.array(text(4096)), v.minLength(1), v.maxLength(64));

const common = {
  name,
  /** A failing required check ends the trial; a failing wanted one is only reported. */
  required: v.boolean(),
  timeoutMs: positive(10 * 60_000),
  intervalMs: positive(10 * 60_000),
  /** Consecutive successes before the check counts as passed. */
  successesNeeded: positive(1000),
  /** Failures in a row, after `startAfterMs`, that are forgiven. */
  failuresAllowed: count(1000),
  /** `not-worse`: a check that failed before the switch may fail after it. */
  baseline: v.picklist(['must-pass', 'not-worse']),
  startAfterMs: count(day),
};

export const healthCheck = v.variant('kind', [
  v.strictObject({
    ...common,
    kind: v.literal('http'),
    url: text(2048),
    status: positive(599),
    bodyIncludes: v.optional(text(1024)),
  }),
  v.strictObject({ ...common, kind: v.literal('tcp'), host: text(255), port: positive(65_535) }),
  v.strictObject({ ...common, kind: v.literal('exec'), argv }),
  v.strictObject({ ...common, kind: v.literal('unit'), unit: text(255) }),
  v.strictObject({ ...common, kind: v.literal('process'), executable: text(4096) }),
  v.strictObject({
    ...common,
    kind: v.literal('file'),
    path: text(4096),
    maxAgeMs: v.optional(positive(365 * day)),
  }),
  v.strictObject({
    ...common,
    kind: v.literal('resource'),
    minDiskFreeBytes: v.optional(bytes),
    minMemoryFreeBytes: v.optional(bytes),
    /** Load average over one minute, per core, in hundredths. */
    maxLoadPerCorePercent: v.optional(positive(100_000)),
  }),
]);

export const trialRules = v.strictObject({
  /** How long all required checks must hold after they first passed. */
  soakMs: count(7 * day),
  /** Hard limit of checks and soak together, in time that the host was running. */
  deadlineMs: positive(30 * day),
  maxBoots: positive(10),
  /** `must-reach`: the trial passes only once control was reached from the new version. */
  control: v.picklist(['offline-ok', 'must-reach']),
  /**
   * It changes data that the version before cannot read: it is never taken back by itself (F53), and only hosts that say so
   * take it.
   */
  oneWay: v.optional(v.boolean()),
});

/** How a directory version is started. `{slot}` in an argument stands for the directory of the version. */
export const activation = v.variant('kind', [
  v.strictObject({ kind: v.literal('none') }),
  v.strictObject({
    kind: v.literal('units'),
    units: v.pipe(v.array(text(255)), v.minLength(1), v.maxLength(64)),
  }),
  v.strictObject({
    kind: v.literal('command'),
    start: argv,
    stop: v.optional(argv),
    timeoutMs: positive(10 * 60_000),
  }),
  v.strictObject({ kind: v.literal('process'), argv, stopTimeoutMs: positive(10 * 60_000) }),
  v.strictObject({ kind: v.literal('reboot') }),
]);

/** The config that a version takes. It is run with a config set of exactly this schema, or not at all. */
export const configSchemaRef = v.strictObject({
  schema: name,
  version: positive(Number.MAX_SAFE_INTEGER),
});
export type ConfigSchemaRef = v.InferOutput<typeof configSchemaRef>;

const payloadCommon = {
  name,
  chunker: v.picklist(['acdc-32k', 'fastcdc-16k']),
  /** Bytes of content: the image's size, or the sum of all file sizes of the tree. */
  sizeBytes: bytes,
  /** Pieces of the payload: chunks, each time they are used, and holes. */
  chunkCount: count(16 * 1024 * 1024),
};
export const payload = v.variant('kind', [
  v.strictObject({
    ...payloadCommon,
    kind: v.literal('image'),
    sha256: sha256Hex,
    /** Root hash of the dm-verity tree that lies in the image, and where in it the superblock of the tree begins. */
    verityRootHash: v.optional(sha256Hex),
    verityHashOffsetBytes: v.optional(bytes),
  }),
  v.strictObject({
    ...payloadCommon,
    kind: v.literal('tree'),
    /** Files, directories and links. */
    entryCount: positive(4 * 1024 * 1024),
    /** sha256 of the canonical listing (bundle-format section 4): what the slot is compared with. */
    treeSha256: sha256Hex,
    /** Octal mode bits that entries may have beyond 0777; absent means none. */
    allowSetuid: v.optional(v.boolean()),
    /** Paths may differ only in case. */
    allowCaseCollisions: v.optional(v.boolean()),
    /** Links may be absolute, seen from the root of the tree: for trees that are used as a root directory. */
    allowAbsoluteLinks: v.optional(v.boolean()),
  }),
]);

export const manifestSchema = v.strictObject({
  schema: v.literal(MANIFEST_SCHEMA),
  name,
  class: name,
  arch: v.picklist(['amd64', 'arm64', 'any']),
  version: versionText,
  /** Monotonic per class: what floors and anti-rollback compare. */
  release: positive(Number.MAX_SAFE_INTEGER),
  /** Seconds since 1970, from SOURCE_DATE_EPOCH. */
  created: bytes,
  /** Oldest agent, as `major*1e6 + minor*1e3 + patch`, that can install this. */
  minAgent: count(Number.MAX_SAFE_INTEGER),
  /** Oldest running release from which this can be installed; 0 = any. */
  minFrom: count(Number.MAX_SAFE_INTEGER),
  /** The raw index, before it is compressed into chunks.index. */
  index: v.strictObject({ sha256: sha256Hex, sizeBytes: bytes }),
  /** Length of chunks.data. */
  dataBytes: bytes,
  payloads: v.pipe(v.array(payload), v.minLength(1), v.maxLength(8)),
  activation,
  health: v.pipe(v.array(healthCheck), v.maxLength(64)),
  trial: trialRules,
  /** Absent: the version takes no config set. */
  config: v.optional(configSchemaRef),
});

export type Manifest = v.InferOutput<typeof manifestSchema>;
export type Payload = v.InferOutput<typeof payload>;
export type HealthCheck = v.InferOutput<typeof healthCheck>;
export type TrialRules = v.InferOutput<typeof trialRules>;
export type Activation = v.InferOutput<typeof activation>;

/** The name of a version: sha256 of its manifest's bytes, 64 hex digits. */
export function artifactIdOf(manifestBytes: Uint8Array): ArtifactId {
  return createHash('sha256').update(manifestBytes).digest('hex') as ArtifactId;
}

/** An artifact that takes a config set is not run without one. @throws Problem E_CONFIG_SET */
export function requireConfigNamed(
  takes: ConfigSchemaRef | undefined,
  isNamed: boolean,
  artifact: ArtifactId,
): void {
  if (takes === undefined || isNamed) return;
  throw new Problem(
    'E_CONFIG_SET',
    `artifact ${artifact} takes a config set of schema ${takes.schema} ${takes.version}, and none is pinned with it`,
    { artifactId: artifact },
  );
}

/** The canonical bytes of a manifest. Throws E_SCHEMA or E_SIZE when it is not one. */
export function encodeManifest(manifest: Manifest): Uint8Array {
  return canonicalDocument(checkManifest(manifest));
}

/**
 * The manifest in `bytes`, which are verified or will be compared with a pinned artifact id. Throws E_TOOBIG, E_PARSE,
 * E_CANON (not strict JSON, not its canonical form), E_SCHEMA (message names the field), E_SIZE (sums over 2^53; C14).
 */
export function parseManifest(bytes: Uint8Array): Manifest {
  const manifest = checkManifest(parseStrictJson(bytes, { maxBytes: MANIFEST_MAX_BYTES }));
  if (Buffer.compare(canonicalDocument(manifest), bytes) !== 0) {
    throw new Problem('E_CANON', 'manifest is not in its canonical form');
  }
  return manifest;
}

function checkManifest(value: unknown): Manifest {
  const result = v.safeParse(manifestSchema, value);
  if (!result.success) {
    const issue = result.issues[0];
    throw new Problem(
      'E_SCHEMA',
      `manifest: ${v.getDotPath(issue) ?? 'document'}: ${issue.message}`,
    );
  }
  requireWhole(result.output);
  return result.output;
}

/** What no schema says of a manifest: each payload has a name of its own, and all sizes together are a number. @throws E_SCHEMA, E_SIZE */
export function requireWhole(manifest: Manifest): void {
  const names = new Set(manifest.payloads.map((described) => described.name));
  if (names.size !== manifest.payloads.length) {
    throw new Problem('E_SCHEMA', 'manifest: payloads: two payloads have one name');
  }
  const sum = manifest.payloads.reduce((total, described) => total + described.sizeBytes, 0);
  if (!Number.isSafeInteger(sum) || !Number.isSafeInteger(sum + manifest.dataBytes)) {
    throw new Problem('E_SIZE', 'manifest: sizes sum up to 2^53 bytes or more');
  }
}
