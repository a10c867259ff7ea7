/** What the repository vouches for: releases, pins, floors, revocations, builders. docs/specs/trust.md, section 8. */
import { canonicalDocument } from '#/bundle/canonical.ts';
import { encodeEnvelope, MANIFEST_PAYLOAD_TYPE, openEnvelope } from '#/bundle/dsse.ts';
import { verifyFast } from '#/bundle/ed25519.ts';
import { sha256 } from '#/bundle/keys.ts';
import { MANIFEST_MAX_BYTES, type Manifest, manifestSchema } from '#/bundle/manifest.ts';
import {
  BUILDERS_PATH,
  type BuildersDocument,
  buildersDocument,
  buildersOf,
  configPath,
  configRole,
  desiredPath,
  FLOORS_PATH,
  type FloorsDocument,
  floorsDocument,
  groupRole,
  hostDesiredPath,
  imageRole,
  LOG_PATH,
  type LogDocument,
  logDocument,
  manifestEnvelopePath,
  manifestPath,
  POLICY_ROLE,
  readDocument,
  REVOKED_PATH,
  type RevokedDocument,
  revokedDocument,
} from '#/bundle/trust/documents.ts';
import {
  type ArtifactRef,
  type ConfigRef,
  type DesiredDocument,
  desiredDocument,
  type Envelope,
} from '#/protocol/documents.ts';
import { Problem } from '#/protocol/errors.ts';
import type { ArtifactId } from '#/protocol/ids.ts';
import { addClass, hasRole } from './delegations.ts';
import {
  publish,
  putTarget,
  readRoleDocument,
  readTarget,
  type Repository,
  type RepositoryFile,
  type TargetsDocument,
  withFiles,
} from './repository.ts';

export interface Release {
  readonly ref: ArtifactRef;
  readonly manifest: Manifest;
  readonly files: readonly RepositoryFile[];
}

/**
 * Releases a manifest: lists it and its envelope under `img-<class>` (which is added when it is new and the targets keys are
 * at hand). The builders that the policy names must have signed it.
 * @throws Problem E_SIGS, E_SCHEMA, E_ARTIFACT (envelope of other bytes), E_CONFLICT (release number taken), E_REVOKED
 */
export function addRelease(
  repository: Repository,
  manifestBytes: Uint8Array,
  envelope: Envelope,
): Release {
  const manifest = readDocument('manifest', manifestSchema, manifestBytes, MANIFEST_MAX_BYTES);
  const ref: ArtifactRef = {
    artifactId: sha256(manifestBytes) as ArtifactId,
    class: manifest.class,
    version: manifest.version,
    release: manifest.release,
    path: '',
  };
  const path = manifestPath(ref);
  checkSignedBy(repository, manifest.class, manifestBytes, envelope);
  if (readRevoked(repository).artifacts.includes(ref.artifactId)) {
    throw new Problem('E_REVOKED', `artifact ${ref.artifactId} was revoked`, { ...ref });
  }
  const role = imageRole(manifest.class);
  const added = hasRole(repository, role) ? [] : addClass(repository, manifest.class);
  const extended = { ...repository, store: withFiles(repository.store, added) };
  const document = readRoleDocument(extended, role);
  refuseTakenRelease(document, ref);
  // Listed already, by signatures made elsewhere: there is nothing left to sign.
  const listed = document.targets[path]?.hashes.sha256 === ref.artifactId;
  if (listed && document.targets[manifestEnvelopePath(ref)] !== undefined)
    return { ref: { ...ref, path }, manifest, files: [] };
  const custom = {
    artifactId: ref.artifactId,
    class: manifest.class,
    arch: manifest.arch,
    release: manifest.release,
    minAgent: manifest.minAgent,
  };
  const targets = [
    putTarget(document, path, manifestBytes, custom),
    putTarget(document, manifestEnvelopePath(ref), encodeEnvelope(envelope)),
  ];
  const files = [...added, ...publish(extended, new Map([[role, document]]), targets)];
  return { ref: { ...ref, path }, manifest, files: lastOfEachName(files) };
}

function checkSignedBy(
  repository: Repository,
  imageClass: string,
  manifestBytes: Uint8Array,
  envelope: Envelope,
): void {
  const { keys, threshold } = buildersOf(readBuilders(repository), imageClass);
  const payload = openEnvelope(envelope, {
    keys,
    threshold,
    payloadType: MANIFEST_PAYLOAD_TYPE,
    verify: verifyFast,
  });
  if (sha256(payload) !== sha256(manifestBytes)) {
    throw new Problem('E_ARTIFACT', 'the envelope is over another manifest');
  }
}

function refuseTakenRelease(document: TargetsDocument, ref: ArtifactRef): void {
  for (const [path, target] of Object.entries(document.targets)) {
    const custom = target.custom as { artifactId?: string; release?: number } | undefined;
    if (custom?.release === ref.release && custom.artifactId !== ref.artifactId) {
      throw new Problem(
        'E_CONFLICT',
        `release ${ref.release} of class ${ref.class} is ${path} already`,
        { release: ref.release, path },
      );
    }
  }
}

/** The pin of a group. @throws Problem E_NOT_FOUND (group, artifact), E_CONFLICT (seq does not grow) */
export function setDesired(
  repository: Repository,
  document: DesiredDocument,
): readonly RepositoryFile[] {
  return pin(repository, desiredPath(document.group), document);
}

/** The pin of a single host, `document.host`. */
export function setHostDesired(
  repository: Repository,
  document: DesiredDocument,
): readonly RepositoryFile[] {
  if (document.host === undefined) throw new Problem('E_USAGE', 'the pin names no host');
  return pin(repository, hostDesiredPath(document.group, document.host), document);
}

/** Takes the pin of a single host back: the pin of its group holds again. */
export function clearHostDesired(
  repository: Repository,
  group: string,
  host: string,
): readonly RepositoryFile[] {
  return clear(repository, group, hostDesiredPath(group, host));
}

/** Takes the pin of a group back: its role is signed anew without it, and hosts stay where they are. */
export function clearDesired(repository: Repository, group: string): readonly RepositoryFile[] {
  return clear(repository, group, desiredPath(group));
}

function clear(repository: Repository, group: string, path: string): readonly RepositoryFile[] {
  const role = groupRole(group);
  const document = readRoleDocument(repository, role);
  if (document.targets[path] === undefined) return [];
  delete document.targets[path];
  return publish(repository, new Map([[role, document]]), []);
}

function pin(
  repository: Repository,
  path: string,
  desired: DesiredDocument,
): readonly RepositoryFile[] {
  const bytes = canonicalDocument(desired);
  readDocument('pin', desiredDocument, bytes);
  for (const ref of [desired.artifact, desired.previous]) {
    if (ref !== undefined) requireReleased(repository, ref);
  }
  for (const ref of [desired.config, desired.previousConfig]) {
    if (ref !== undefined) requireConfigListed(repository, ref);
  }
  const role = groupRole(desired.group);
  const document = readRoleDocument(repository, role);
  const existing = readTarget(repository, document, path);
  if (existing !== null) {
    const { seq } = readDocument('pin', desiredDocument, existing);
    if (desired.seq <= seq) {
      throw new Problem('E_CONFLICT', `pin ${path} has seq ${seq}, the new one ${desired.seq}`, {
        seq,
      });
    }
  }
  const file = putTarget(document, path, bytes);
  return publish(repository, new Map([[role, document]]), [file]);
}

function requireReleased(repository: Repository, ref: ArtifactRef): void {
  const role = imageRole(ref.class);
  const listed =
    ref.path === manifestPath(ref) && hasRole(repository, role)
      ? readRoleDocument(repository, role).targets[ref.path]
      : undefined;
  if (listed === undefined) {
    throw new Problem('E_NOT_FOUND', `artifact ${ref.artifactId} is not released`, { ...ref });
  }
}

function requireConfigListed(repository: Repository, ref: ConfigRef): void {
  const role = configRole(ref.scope);
  const listed =
    ref.path === configPath(ref) && hasRole(repository, role)
      ? readRoleDocument(repository, role).targets[ref.path]
      : undefined;
  if (listed === undefined) {
    throw new Problem('E_NOT_FOUND', `config set ${ref.configId} is not listed`, { ...ref });
  }
}

/** Raises floors; classes that are not named keep theirs. @throws Problem E_CONFLICT for a floor that would go down */
export function setFloors(
  repository: Repository,
  floors: Readonly<Record<string, number>>,
): readonly RepositoryFile[] {
  const next = new Map(readFloors(repository).floors.map((entry) => [entry.class, entry.release]));
  for (const [imageClass, release] of Object.entries(floors)) {
    const floor = next.get(imageClass) ?? 0;
    if (release < floor) {
      throw new Problem('E_CONFLICT', `floor of ${imageClass} is ${floor}, never lower again`, {
        floor,
      });
    }
    next.set(imageClass, release);
  }
  const document: FloorsDocument = {
    schema: 'switchback.floors/1',
    floors: [...next].map(([imageClass, release]) => ({ class: imageClass, release })),
  };
  return setPolicy(repository, FLOORS_PATH, canonicalDocument(document), floorsDocument);
}

/** Revokes artifacts and keys, for ever. */
export function revoke(
  repository: Repository,
  what: { readonly artifacts?: readonly string[]; readonly keyIds?: readonly string[] },
): readonly RepositoryFile[] {
  const before = readRevoked(repository);
  const union = (a: readonly string[], b: readonly string[] = []): string[] => [
    ...new Set([...a, ...b]),
  ];
  const document = {
    schema: 'switchback.revoked/1',
    artifacts: union(before.artifacts, what.artifacts),
    keyIds: union(before.keyIds, what.keyIds),
  };
  return setPolicy(repository, REVOKED_PATH, canonicalDocument(document), revokedDocument);
}

/** Whose signatures manifests need. */
export function setBuilders(
  repository: Repository,
  document: BuildersDocument,
): readonly RepositoryFile[] {
  return setPolicy(repository, BUILDERS_PATH, canonicalDocument(document), buildersDocument);
}

/** Which audit log must have every pin. From then on hosts refuse pins without its proof. */
export function setLog(repository: Repository, document: LogDocument): readonly RepositoryFile[] {
  return setPolicy(repository, LOG_PATH, canonicalDocument(document), logDocument);
}

/** The log that the policy names, or null. */
export function readLog(repository: Repository): LogDocument | null {
  const bytes = readTarget(repository, readRoleDocument(repository, POLICY_ROLE), LOG_PATH);
  return bytes === null ? null : readDocument(LOG_PATH, logDocument, bytes);
}

/** The origin of the log that follows this one: the number at its end, one higher. */
export function nextOrigin(origin: string): string {
  const match = /^(.*)\/(\d{1,9})$/.exec(origin);
  return match === null ? `${origin}/2` : `${match[1]}/${Number(match[2]) + 1}`;
}

/** Signs a document of the policy role. @throws Problem E_SCHEMA and others of its shape */
export function setPolicy(
  repository: Repository,
  path: string,
  bytes: Uint8Array,
  schema: Parameters<typeof readDocument>[1],
): readonly RepositoryFile[] {
  readDocument(path, schema, bytes);
  const document = readRoleDocument(repository, POLICY_ROLE);
  const file = putTarget(document, path, bytes);
  return publish(repository, new Map([[POLICY_ROLE, document]]), [file]);
}

export function readFloors(repository: Repository): FloorsDocument {
  return readDocument(FLOORS_PATH, floorsDocument, policyTarget(repository, FLOORS_PATH));
}

export function readRevoked(repository: Repository): RevokedDocument {
  return readDocument(REVOKED_PATH, revokedDocument, policyTarget(repository, REVOKED_PATH));
}

export function readBuilders(repository: Repository): BuildersDocument {
  return readDocument(BUILDERS_PATH, buildersDocument, policyTarget(repository, BUILDERS_PATH));
}

function policyTarget(repository: Repository, path: string): Uint8Array {
  const bytes = readTarget(repository, readRoleDocument(repository, POLICY_ROLE), path);
  if (bytes === null) throw new Problem('E_NOT_FOUND', `the repository has no ${path}`, { path });
  return bytes;
}

/** Of files with one name the last: a transaction that writes them writes each name once. */
function lastOfEachName(files: readonly RepositoryFile[]): readonly RepositoryFile[] {
  return [...new Map(files.map((file) => [file.name, file])).values()];
}
