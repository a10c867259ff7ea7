/**
 * Config sets: what a version is told beside its content. A signed document names the artifacts and the group that it is for,
 * holds the plain values, and the digests of the encrypted secrets; a second document beside it holds the encrypted secrets and,
 * for each host, their data keys sealed for it. Only the second one changes when hosts come or change their keys.
 * Format and rules: docs/specs/config-sets.md.
 */
import * as v from 'valibot';
import { envelope as envelopeSchema, type Envelope } from '#/protocol/documents.ts';
import { Problem } from '#/protocol/errors.ts';
import {
  artifactId as artifactIdSchema,
  type ArtifactId,
  type ConfigId,
  configId as configIdSchema,
  groupName,
  hostId as hostIdSchema,
  type HostId,
  name,
  sha256Hex,
} from '#/protocol/ids.ts';
import { base64Of, bytesOfBase64 } from './base64.ts';
import { canonicalDocument } from './canonical.ts';
import { openEnvelope, type EnvelopeTrust } from './dsse.ts';
import { sha256 } from './keys.ts';
import type { ConfigSchemaRef } from './manifest.ts';
import {
  BOX_OVERHEAD_BYTES,
  boxSecret,
  lengthPrefixed,
  openBox,
  openSealed,
  requireSealKey,
  seal,
  SEAL_KEY_BYTES,
} from './seal.ts';
import { parseStrictJson } from './strict-json.ts';

export const CONFIG_PAYLOAD_TYPE = 'application/vnd.switchback.config+json';
/** Larger documents are refused before they are parsed: the signed one; in its envelope; and the one with what is sealed. */
export const CONFIG_MAX_BYTES = 512 * 1024;
export const CONFIG_ENVELOPE_MAX_BYTES = 1024 * 1024;
export const SEALED_MAX_BYTES = 4 * 1024 * 1024;
export const SECRET_MAX_BYTES = 256 * 1024;
const ENTRIES_MAX = 256;
const ARTIFACTS_MAX = 16;
const HOSTS_MAX = 20_000;

const positive = v.pipe(v.number(), v.safeInteger(), v.minValue(1));
/** Names of entries become names of files, below a directory that holds nothing else. */
export const entryName = v.pipe(
  v.string(),
  v.regex(
    /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/,
    'expected 1 to 128 of A-Z a-z 0-9 . _ -, a letter or digit first',
  ),
);
const base64 = (maxBytes: number) =>
  v.pipe(v.string(), v.maxLength(Math.ceil(maxBytes / 3) * 4), v.regex(/^[A-Za-z0-9+/]*={0,2}$/));

export const configSetSchema = v.strictObject({
  schema: v.literal('switchback.config/1'),
  /** Whose config it is: the role that may sign it is cfg-<scope>. */
  scope: name,
  /** Grows with each config set of the scope, by whoever builds them. */
  version: positive,
  /** Hosts of this group only. */
  group: groupName,
  /** The artifacts that it may be pinned with; in ascending order. */
  artifacts: v.pipe(v.array(artifactIdSchema), v.minLength(1), v.maxLength(ARTIFACTS_MAX)),
  /** What the manifests of these artifacts say that they take. */
  configSchema: v.strictObject({ id: name, version: positive }),
  /** Seconds since 1970. */
  created: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
  plain: v.record(entryName, v.pipe(v.string(), v.maxLength(SECRET_MAX_BYTES))),
  /** Digest and length of each secret as it is encrypted; of the secret itself nothing stands here (G09). */
  secrets: v.record(
    entryName,
    v.strictObject({
      sealedSha256: sha256Hex,
      sizeBytes: v.pipe(
        v.number(),
        v.safeInteger(),
        v.minValue(BOX_OVERHEAD_BYTES),
        v.maxValue(SECRET_MAX_BYTES + BOX_OVERHEAD_BYTES),
      ),
    }),
  ),
});
export type ConfigSet = v.InferOutput<typeof configSetSchema>;

const sealedKeys = v.record(entryName, base64(128));
export const sealedSchema = v.strictObject({
  schema: v.literal('switchback.sealed/1'),
  configId: configIdSchema,
  /** The encrypted secrets by name. */
  boxes: v.record(entryName, base64(SECRET_MAX_BYTES + BOX_OVERHEAD_BYTES)),
  /** Host, artifact, name: the data key of the secret, sealed for that host and that artifact. */
  hosts: v.record(hostIdSchema, v.record(artifactIdSchema, sealedKeys)),
});
export type Sealed = v.InferOutput<typeof sealedSchema>;

/** A config set whose id is the digest of its bytes. */
export interface KnownConfig {
  readonly configId: ConfigId;
  readonly set: ConfigSet;
  readonly bytes: Uint8Array;
}

/** What a service is given. */
export interface ConfigEntry {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly isSecret: boolean;
}

/** A host that secrets are sealed for, with the public key of its signed statement. */
export interface Recipient {
  readonly host: HostId;
  readonly sealKey: Uint8Array;
}

/** A config set from the values that make it. @throws Problem E_SCHEMA, E_TOOBIG */
export function makeConfigSet(set: ConfigSet): KnownConfig {
  const artifacts = [...new Set(set.artifacts)].toSorted();
  const bytes = canonicalDocument({ ...set, artifacts });
  return readConfigSet(bytes);
}

/**
 * The config set in these bytes, under the digest of them. @throws Problem E_TOOBIG, E_PARSE, E_CANON (not its canonical form),
 * E_SCHEMA
 */
export function readConfigSet(bytes: Uint8Array): KnownConfig {
  const set = shaped('config set', configSetSchema, bytes, CONFIG_MAX_BYTES);
  const names = [...Object.keys(set.plain), ...Object.keys(set.secrets)];
  if (names.length > ENTRIES_MAX) {
    throw new Problem('E_SCHEMA', `config set: ${names.length} entries, at most ${ENTRIES_MAX}`);
  }
  if (new Set(names).size !== names.length) {
    throw new Problem('E_SCHEMA', 'config set: an entry is plain and secret at once');
  }
  const isSorted = set.artifacts.every((id, at) => at === 0 || (set.artifacts[at - 1] ?? '') < id);
  if (!isSorted) {
    throw new Problem('E_SCHEMA', 'config set: artifacts: expected ascending order, each once');
  }
  return { configId: sha256(bytes) as ConfigId, set, bytes };
}

/** The config set of an envelope that the keys of its scope signed. @throws Problem E_SIGS, E_DUPSIG, and as readConfigSet */
export function openConfigSet(
  envelope: Envelope,
  trust: Omit<EnvelopeTrust, 'payloadType'>,
): KnownConfig {
  return readConfigSet(openEnvelope(envelope, { ...trust, payloadType: CONFIG_PAYLOAD_TYPE }));
}

/** The config set in an envelope, its signatures not looked at. */
export function peekConfigSet(envelope: Envelope): KnownConfig {
  const bytes = bytesOfBase64(envelope.payload);
  if (envelope.payloadType !== CONFIG_PAYLOAD_TYPE || bytes === null) {
    throw new Problem('E_SCHEMA', `an envelope of type ${envelope.payloadType} is no config set`);
  }
  return readConfigSet(bytes);
}

/** An envelope over a config set, from bytes; nothing verified. */
export function decodeConfigEnvelope(bytes: Uint8Array): Envelope {
  return shaped('envelope', envelopeSchema, bytes, CONFIG_ENVELOPE_MAX_BYTES, false);
}

/** The document with what is sealed. @throws Problem E_TOOBIG, E_PARSE, E_CANON, E_SCHEMA */
export function readSealed(bytes: Uint8Array): Sealed {
  const sealed = shaped('sealed secrets', sealedSchema, bytes, SEALED_MAX_BYTES);
  if (Object.keys(sealed.hosts).length > HOSTS_MAX) {
    throw new Problem('E_SCHEMA', `sealed secrets: for more than ${HOSTS_MAX} hosts`);
  }
  return sealed;
}

/** The canonical bytes of what is sealed. */
export function encodeSealed(sealed: Sealed): Uint8Array {
  const bytes = canonicalDocument(sealed);
  if (bytes.length <= SEALED_MAX_BYTES) return bytes;
  throw new Problem(
    'E_TOOBIG',
    `the sealed secrets have ${bytes.length} bytes, at most ${SEALED_MAX_BYTES}: use fewer artifacts or secrets, or a scope for each group`,
  );
}

/**
 * Encrypts a secret under its own data key. @throws Problem E_TOOBIG
 * @param dataKey 32 fresh random bytes
 */
export function encryptSecret(
  entry: string,
  secret: Uint8Array,
  dataKey: Uint8Array,
): { readonly box: Uint8Array; readonly listed: ConfigSet['secrets'][string] } {
  if (secret.length > SECRET_MAX_BYTES) {
    throw new Problem('E_TOOBIG', `secret ${entry}: at most ${SECRET_MAX_BYTES} bytes`);
  }
  const box = boxSecret(secret, entry, dataKey);
  return { box, listed: { sealedSha256: sha256(box), sizeBytes: box.length } };
}

/**
 * Every secret has its box, with the digest that was signed, and every box is of a secret. @throws Problem E_SEAL, E_CONFIG_SET
 */
export function requireBoxes(known: KnownConfig, boxes: Sealed['boxes']): void {
  const { secrets } = known.set;
  for (const entry of Object.keys(boxes)) {
    if (!Object.hasOwn(secrets, entry)) {
      throw new Problem('E_CONFIG_SET', `${entry} is no secret of config set ${known.configId}`);
    }
  }
  for (const entry of Object.keys(secrets)) boxOf(known, boxes, entry);
}

/** The data keys of all secrets, sealed for one host and every artifact of the set. @throws Problem E_SEAL, E_CONFIG_SET */
export function sealFor(
  recipient: Recipient,
  known: KnownConfig,
  dataKeys: ReadonlyMap<string, Uint8Array>,
  randomSeed: () => Uint8Array,
): Sealed['hosts'][HostId] {
  requireSealKey(recipient.sealKey);
  const { set } = known;
  const sealOne = (artifact: ArtifactId, entry: string): string => {
    const dataKey = dataKeys.get(entry);
    if (dataKey === undefined) {
      throw new Problem('E_CONFIG_SET', `the data key of ${entry} is not at hand`);
    }
    const context = sealContext(recipient.host, artifact, known, entry);
    return base64Of(seal(dataKey, recipient.sealKey, context, randomSeed()));
  };
  const names = Object.keys(set.secrets);
  return Object.fromEntries(
    set.artifacts.map((artifact) => [
      artifact,
      Object.fromEntries(names.map((entry) => [entry, sealOne(artifact, entry)])),
    ]),
  ) as Sealed['hosts'][HostId];
}

/** What the box of a data key is bound to. */
function sealContext(
  host: HostId,
  artifact: ArtifactId,
  known: KnownConfig,
  entry: string,
): Uint8Array {
  return lengthPrefixed([host, artifact, known.configId, String(known.set.version), entry]);
}

/** What a host was given of the sealed document: its own part, for one artifact. */
export interface OwnSecrets {
  readonly boxes: Sealed['boxes'];
  readonly keys: v.InferOutput<typeof sealedKeys>;
}

/** The part of a host. @throws Problem E_CONFIG_SET when it is of another config set, E_SEAL when nothing is sealed for the host */
export function ownSecrets(
  sealed: Sealed,
  known: KnownConfig,
  host: HostId,
  artifact: ArtifactId,
): OwnSecrets {
  if (sealed.configId !== known.configId) {
    throw new Problem(
      'E_CONFIG_SET',
      `sealed secrets of ${sealed.configId}, not ${known.configId}`,
    );
  }
  const names = Object.keys(known.set.secrets);
  const keys = sealed.hosts[host]?.[artifact] ?? {};
  if (names.length > 0 && sealed.hosts[host]?.[artifact] === undefined) {
    throw new Problem('E_SEAL', `nothing is sealed for host ${host} and artifact ${artifact}`, {
      host,
      artifactId: artifact,
    });
  }
  return { boxes: sealed.boxes, keys };
}

/**
 * All entries of a config set for this host. `secretKeys` are its secret halves, the newest first: the others are those that it
 * had before a rotation. @throws Problem E_SEAL with the name of the entry, never its value
 */
export function openEntries(
  known: KnownConfig,
  own: OwnSecrets,
  host: HostId,
  artifact: ArtifactId,
  secretKeys: readonly Uint8Array[],
): readonly ConfigEntry[] {
  const plain = Object.entries(known.set.plain).map(([entry, value]) => ({
    name: entry,
    bytes: Buffer.from(value, 'utf8'),
    isSecret: false,
  }));
  const secret = Object.keys(known.set.secrets).map((entry) => {
    const box = boxOf(known, own.boxes, entry);
    const sealedKey = bytesOfBase64(ownValue(own.keys, entry) ?? '');
    const context = sealContext(host, artifact, known, entry);
    for (const secretKey of sealedKey === null ? [] : secretKeys) {
      const dataKey = openSealed(sealedKey ?? new Uint8Array(), secretKey, context);
      const bytes = dataKey?.length === SEAL_KEY_BYTES ? openBox(box, entry, dataKey) : null;
      if (bytes !== null) return { name: entry, bytes, isSecret: true };
    }
    throw new Problem('E_SEAL', `secret ${entry} does not open for host ${host}`, {
      entry,
      host,
      artifactId: artifact,
      configId: known.configId,
    });
  });
  return [...plain, ...secret];
}

function boxOf(known: KnownConfig, boxes: Sealed['boxes'], entry: string): Uint8Array {
  const box = bytesOfBase64(ownValue(boxes, entry) ?? '');
  const listed = known.set.secrets[entry];
  if (box === null || listed === undefined || sha256(box) !== listed.sealedSha256) {
    throw new Problem('E_SEAL', `secret ${entry} is not what was signed`, {
      entry,
      configId: known.configId,
    });
  }
  return box;
}

/** What a config set is checked against: the pin, and the artifact that it is pinned with. */
export interface ConfigWanted {
  readonly configId: ConfigId;
  readonly scope: string;
  readonly version: number;
  readonly group: string;
  readonly artifactId: ArtifactId;
  /** What the manifest says that the artifact takes. */
  readonly takes: ConfigSchemaRef | undefined;
}

/** The config set is the pinned one, and for this artifact and group. @throws Problem E_CONFIG_SET with what is wrong */
export function requireConfigFor({ configId, set }: KnownConfig, wanted: ConfigWanted): void {
  const refuse = (why: string): never => {
    throw new Problem('E_CONFIG_SET', `config set ${configId}: ${why}`, { configId });
  };
  if (configId !== wanted.configId) refuse(`${wanted.configId} was pinned`);
  if (set.scope !== wanted.scope || set.version !== wanted.version) {
    refuse(`it is ${set.scope} ${set.version}, pinned was ${wanted.scope} ${wanted.version}`);
  }
  if (set.group !== wanted.group) refuse(`it is for group ${set.group}, not ${wanted.group}`);
  if (!set.artifacts.includes(wanted.artifactId)) {
    refuse(`artifact ${wanted.artifactId} is not among those it is for`);
  }
  const { id, version } = set.configSchema;
  if (wanted.takes?.schema !== id || wanted.takes.version !== version) {
    const takes =
      wanted.takes === undefined ? 'no config' : `${wanted.takes.schema} ${wanted.takes.version}`;
    refuse(`it is of schema ${id} ${version}, the artifact takes ${takes}`);
  }
}

function ownValue(record: Readonly<Record<string, string>>, key: string): string | undefined {
  return Object.hasOwn(record, key) ? record[key] : undefined;
}

function shaped<T>(
  what: string,
  schema: v.GenericSchema<unknown, T>,
  bytes: Uint8Array,
  maxBytes: number,
  isCanonical = true,
): T {
  const json = parseStrictJson(bytes, { maxBytes });
  const result = v.safeParse(schema, json);
  if (!result.success) {
    const issue = result.issues[0];
    throw new Problem(
      'E_SCHEMA',
      `${what}: ${v.getDotPath(issue) ?? 'document'}: ${issue.message}`,
    );
  }
  // Also catches names that a record of valibot leaves out.
  if (isCanonical && Buffer.compare(canonicalDocument(result.output), bytes) !== 0) {
    throw new Problem('E_CANON', `${what} is not in its canonical form`);
  }
  return result.output;
}
