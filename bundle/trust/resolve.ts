/**
 * From a fresh trusted set to a verified artifact: steps 3 to 7 of the verification order (docs/specs/trust.md, section 9).
 * State moves only forward; what moved is returned even when the answer is that there is nothing to do.
 */
import {
  type ArtifactRef,
  type ConfigRef,
  type DesiredDocument,
  desiredDocument,
} from '#/protocol/documents.ts';
import { Problem } from '#/protocol/errors.ts';
import { type ArtifactId, type VersionId, versionIdOf } from '#/protocol/ids.ts';
import { checkCompatibility } from '../compatibility.ts';
import {
  decodeEnvelope,
  ENVELOPE_MAX_BYTES,
  MANIFEST_PAYLOAD_TYPE,
  openEnvelope,
} from '../dsse.ts';
import { bytesOfHex, keyIdOf, publicKeyOf, sha256 } from '../keys.ts';
import {
  MANIFEST_MAX_BYTES,
  type Manifest,
  manifestSchema,
  requireConfigNamed,
  requireWhole,
} from '../manifest.ts';
import { requireVerdict } from '../vsa.ts';
import type { Session } from './client.ts';
import {
  BUILDERS_PATH,
  buildersDocument,
  buildersOf,
  checkShape,
  desiredPath,
  FLOORS_PATH,
  floorsDocument,
  groupRole,
  hostDesiredPath,
  imageCustom,
  imageRole,
  manifestEnvelopePath,
  manifestPath,
  POLICY_ROLE,
  readDocument,
  REVOKED_PATH,
  revokedDocument,
} from './documents.ts';
import { type Documents, documentOf, fetchTarget, findIn, findOptional } from './find.ts';
import { coversGroup, GATES_PATH, gatesDocument } from './gates.ts';
import { type LogMemory, readLogPolicy, requireLogged } from './logged.ts';
import type { TrustedSet } from './trusted-set.ts';
import { openWaveAt } from './waves.ts';

/** What a host remembers beside the metadata. Every field only grows. */
export interface TrustMemory {
  /** Seconds since 1970: time is never earlier than this. */
  readonly timeFloor: number;
  /** Lowest release that may be installed, per class: the highest that `floors.json` ever said. */
  readonly floors: Readonly<Record<string, number>>;
  /** Highest release that was committed, per class: the floor for bundle files, which no pin orders. */
  readonly committed: Readonly<Record<string, number>>;
  /** Highest `seq` of each pin document, by its target path. */
  readonly pins: Readonly<Record<string, number>>;
  readonly revokedArtifacts: readonly string[];
  readonly revokedKeyIds: readonly string[];
  /** The newest tree of the audit log that was seen. */
  readonly log?: LogMemory | undefined;
}

export const emptyMemory: TrustMemory = {
  timeFloor: 0,
  floors: {},
  committed: {},
  pins: {},
  revokedArtifacts: [],
  revokedKeyIds: [],
};

export interface HostContext {
  readonly group: string;
  readonly host: string;
  readonly class: string;
  readonly arch: 'amd64' | 'arm64';
  /** `agentNumber` of the running agent. */
  readonly agent: number;
}

export interface VerifiedManifest {
  readonly artifactId: ArtifactId;
  readonly manifest: Manifest;
  readonly manifestBytes: Uint8Array;
}

/** Step 3: floors and revocations. The set that is returned no longer counts signatures by revoked keys. */
export async function applyPolicy(
  set: TrustedSet,
  session: Session,
  documents: Documents,
  memory: TrustMemory,
): Promise<{ readonly set: TrustedSet; readonly memory: TrustMemory }> {
  const floorsTarget = await findIn(set, FLOORS_PATH, POLICY_ROLE, session);
  const floors = readDocument(
    FLOORS_PATH,
    floorsDocument,
    await documentOf(floorsTarget, session, documents),
  );
  const revokedTarget = await findIn(floorsTarget.set, REVOKED_PATH, POLICY_ROLE, session);
  const revoked = readDocument(
    REVOKED_PATH,
    revokedDocument,
    await documentOf(revokedTarget, session, documents),
  );
  const raised: Record<string, number> = { ...memory.floors };
  for (const entry of floors.floors) {
    raised[entry.class] = Math.max(raised[entry.class] ?? 0, entry.release);
  }
  const next: TrustMemory = {
    ...memory,
    floors: raised,
    revokedArtifacts: union(memory.revokedArtifacts, revoked.artifacts),
    revokedKeyIds: union(memory.revokedKeyIds, revoked.keyIds),
  };
  return { set: withoutKeys(revokedTarget.set, next.revokedKeyIds), memory: next };
}

/** The set under rules that take revoked keys for no keys. Roles that are loaded stay as they were verified. */
export function withoutKeys(set: TrustedSet, keyIds: readonly string[]): TrustedSet {
  if (keyIds.length === 0) return set;
  const revoked = new Set(keyIds);
  const { rules } = set;
  return {
    ...set,
    rules: {
      ...rules,
      keyMaterial: (key) => (revoked.has(keyIdOf(key)) ? null : rules.keyMaterial(key)),
    },
  };
}

export interface Pin {
  readonly set: TrustedSet;
  readonly memory: TrustMemory;
  readonly desired: DesiredDocument;
}

/** The group's role lists no pin: its operators took it back, and what an agent has to do is nothing. */
export interface NoPin {
  readonly set: TrustedSet;
  readonly desired: null;
}

/**
 * Step 4: the pin of this host, or of its group; from exactly the group's role, never older than one seen before, and in the
 * audit log when the policy names one.
 */
export async function readPin(
  set: TrustedSet,
  session: Session,
  documents: Documents,
  memory: TrustMemory,
  host: HostContext,
): Promise<Pin | NoPin> {
  const role = groupRole(host.group);
  const hostPath = hostDesiredPath(host.group, host.host);
  const own = await findOptional(set, hostPath, role, session);
  const path = own === null ? desiredPath(host.group) : hostPath;
  const found = own ?? (await findOptional(set, path, role, session));
  // The role itself cannot be an older one: its version only grows (A08).
  if (found === null) return { set, desired: null };
  const desired = readDocument(path, desiredDocument, await documentOf(found, session, documents));
  if (desired.group !== host.group || (own !== null && desired.host !== host.host)) {
    throw new Problem('E_PIN', `${path} is the pin of ${desired.group} ${desired.host ?? ''}`);
  }
  if (own === null && desired.host !== undefined) {
    throw new Problem('E_PIN', `${path} names a single host`);
  }
  const seen = memory.pins[path] ?? 0;
  if (desired.seq < seen) {
    throw new Problem('E_ROLLBACK', `${path} has seq ${desired.seq}, ${seen} was seen before`, {
      seq: desired.seq,
      seen,
    });
  }
  const policy = await readLogPolicy(found.set, session, documents);
  const log =
    policy.log === null
      ? memory.log
      : await requireLogged(desired, policy.log, memory.log ?? null, session.fetch);
  return {
    set: policy.set,
    desired,
    memory: { ...memory, log, pins: { ...memory.pins, [path]: desired.seq } },
  };
}

/** The version that a pin pins. */
function pinnedOf({ artifact, config }: DesiredDocument): VersionId {
  return versionIdOf(artifact.artifactId, config?.configId);
}

/** What hosts ran before, by the pin; null for nothing. */
function previousOf({ previous, previousConfig }: DesiredDocument): VersionId | null {
  return previous === undefined ? null : versionIdOf(previous.artifactId, previousConfig?.configId);
}

/** Why a pin causes no switch now, or null when it does. `now` in seconds. */
export function pinHindrance(
  desired: DesiredDocument,
  version: VersionId,
  host: string,
  now: number,
): string | null {
  if (desired.expiresAt !== undefined && now >= desired.expiresAt) return 'the pin has expired';
  // What hosts ran before may be offered at any time: it is how a rollout goes back.
  if (version === previousOf(desired)) return null;
  const opensAt = openWaveAt(desired.waves, host);
  return now < opensAt ? `the wave of this host opens at ${opensAt}` : null;
}

/**
 * Steps 5 to 7: the image target of exactly the class's role, its manifest by the trusted builders, and the verdict of the gates
 * where the policy has some.
 */
export async function readManifest(
  pin: Pin,
  session: Session,
  documents: Documents,
  version: VersionId,
  host: HostContext,
): Promise<VerifiedManifest & { readonly set: TrustedSet; readonly config: ConfigRef | null }> {
  const { desired, memory } = pin;
  const isOfPin = version === pinnedOf(desired);
  const ref = isOfPin
    ? desired.artifact
    : version === previousOf(desired)
      ? desired.previous
      : undefined;
  if (ref === undefined) {
    throw new Problem('E_PIN', `version ${version} is not what the pin of ${host.group} allows`, {
      artifactId: version,
      pinned: pinnedOf(desired),
      seq: desired.seq,
    });
  }
  const config = (isOfPin ? desired.config : desired.previousConfig) ?? null;
  if (ref.class !== host.class) {
    throw new Problem('E_CLASS', `artifact of class ${ref.class}, this host is ${host.class}`);
  }
  const path = manifestPath(ref);
  if (ref.path !== path) {
    throw new Problem('E_PIN', `the pin names the path ${ref.path}, expected ${path}`);
  }
  const role = imageRole(ref.class);
  const listed = await findIn(pin.set, path, role, session);
  const custom = checkShape(`custom of ${path}`, imageCustom, listed.target.custom);
  const isPinned =
    custom.artifactId === ref.artifactId &&
    custom.class === ref.class &&
    custom.release === ref.release &&
    listed.target.hashes.get('sha256') === ref.artifactId;
  if (!isPinned) {
    throw new Problem('E_ARTIFACT', `${path} is released as something else than was pinned`);
  }
  requireAllowed(memory, ref.class, ref.release, ref.artifactId);
  const envelopeTarget = await findIn(listed.set, manifestEnvelopePath(ref), role, session);
  const builders = await findIn(envelopeTarget.set, BUILDERS_PATH, POLICY_ROLE, session);
  const trusted = buildersOf(
    readDocument(BUILDERS_PATH, buildersDocument, await documentOf(builders, session, documents)),
    ref.class,
  );
  const envelopeBytes = await fetchTarget(envelopeTarget, session, ENVELOPE_MAX_BYTES);
  const manifestBytes = openEnvelope(decodeEnvelope(envelopeBytes), {
    keys: trusted.keys.filter((key) => !memory.revokedKeyIds.includes(key.keyId)),
    threshold: trusted.threshold,
    payloadType: MANIFEST_PAYLOAD_TYPE,
  });
  const verified = manifestOf(manifestBytes, ref.artifactId);
  const { manifest } = verified;
  const isReleased =
    manifest.class === ref.class &&
    manifest.version === ref.version &&
    manifest.release === ref.release &&
    manifest.minAgent === custom.minAgent &&
    manifest.arch === custom.arch;
  if (!isReleased) {
    throw new Problem(
      'E_ARTIFACT',
      `manifest ${ref.artifactId} is not what was released under ${path}`,
    );
  }
  checkCompatibility(manifest, { ...host, runningRelease: null });
  requireConfigNamed(manifest.config, config !== null, ref.artifactId);
  const gated = await requireGates(builders.set, session, documents, desired, ref, memory);
  return { ...verified, set: gated, config };
}

/**
 * Step 7: where the policy has gates for the group, the pin carries a verdict about what is offered. What ran before is judged by
 * the rules of its time: going back is never held up by newer ones.
 */
async function requireGates(
  set: TrustedSet,
  session: Session,
  documents: Documents,
  desired: DesiredDocument,
  ref: ArtifactRef,
  memory: TrustMemory,
): Promise<TrustedSet> {
  const found = await findOptional(set, GATES_PATH, POLICY_ROLE, session);
  if (found === null) return set;
  const bytes = await documentOf(found, session, documents);
  const gates = readDocument(GATES_PATH, gatesDocument, bytes);
  if (!coversGroup(gates.groups, desired.group)) return found.set;
  const isPinned = ref.artifactId === desired.artifact.artifactId;
  requireVerdict(desired.verdicts ?? [], {
    artifactId: ref.artifactId,
    class: ref.class,
    group: desired.group,
    keys: gates.keys
      .map((hex) => publicKeyOf(bytesOfHex(hex, 32) ?? new Uint8Array()))
      .filter((key) => !memory.revokedKeyIds.includes(key.keyId)),
    verifierId: gates.verifierId,
    policyDigest: isPinned ? sha256(bytes) : null,
  });
  return found.set;
}

/** The manifest of bytes whose digest is the artifact id. @throws Problem E_ARTIFACT, E_SCHEMA */
export function manifestOf(manifestBytes: Uint8Array, artifactId: string): VerifiedManifest {
  const digest = sha256(manifestBytes);
  if (digest !== artifactId) {
    throw new Problem('E_ARTIFACT', `manifest has sha256 ${digest}, ${artifactId} was pinned`);
  }
  const manifest = readDocument('manifest', manifestSchema, manifestBytes, MANIFEST_MAX_BYTES);
  requireWhole(manifest);
  return { artifactId: digest as ArtifactId, manifest, manifestBytes };
}

/** @throws Problem E_REVOKED, E_FLOOR */
export function requireAllowed(
  memory: TrustMemory,
  imageClass: string,
  release: number,
  artifactId: string,
): void {
  if (memory.revokedArtifacts.includes(artifactId)) {
    throw new Problem('E_REVOKED', `artifact ${artifactId} was revoked`, { artifactId });
  }
  const floor = memory.floors[imageClass] ?? 0;
  if (release < floor) {
    throw new Problem('E_FLOOR', `release ${release} of ${imageClass}, the floor is ${floor}`, {
      release,
      floor,
    });
  }
}

function union(a: readonly string[], b: readonly string[]): readonly string[] {
  return [...new Set([...a, ...b])];
}
