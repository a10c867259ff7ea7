/** Config sets in the repository: what the role of a scope lists. docs/specs/config-sets.md. */
import {
  decodeConfigEnvelope,
  encodeSealed,
  type KnownConfig,
  openConfigSet,
  peekConfigSet,
  readSealed,
  requireBoxes,
  type Sealed,
} from '#/bundle/config-set.ts';
import { encodeEnvelope } from '#/bundle/dsse.ts';
import { verifyFast } from '#/bundle/ed25519.ts';
import {
  checkShape,
  type ConfigCustom,
  configCustom,
  configPath,
  configRole,
  sealedPath,
} from '#/bundle/trust/documents.ts';
import type { ConfigRef, Envelope } from '#/protocol/documents.ts';
import { Problem } from '#/protocol/errors.ts';
import type { ConfigId, HostId } from '#/protocol/ids.ts';
import { addScope, hasRole, keysOfRole } from './delegations.ts';
import {
  publish,
  putTarget,
  readCurrent,
  readTarget,
  type Repository,
  type RepositoryFile,
  roleDocumentIn,
  readRoleDocument,
  type TargetsDocument,
  withFiles,
} from './repository.ts';
import { readRevoked } from './targets.ts';

/** A config set as signed documents name it. */
export function configRefOf({ configId, set }: KnownConfig): ConfigRef {
  const { scope, version } = set;
  return { configId, scope, version, path: configPath({ scope, version, configId }) };
}

/**
 * Lists a config set and what is sealed of it under `cfg-<scope>`, which is added when it is new and the targets keys are at
 * hand. Listing it again with other sealed keys replaces those alone.
 * @throws Problem E_SIGS (not signed by the keys of the scope), E_SEAL, E_CONFIG_SET (its parts do not belong together),
 * E_CONFLICT (the version is another config set already)
 */
export function addConfigSet(
  repository: Repository,
  envelope: Envelope,
  sealed: Sealed,
): readonly RepositoryFile[] {
  const { set } = peekConfigSet(envelope);
  const role = configRole(set.scope);
  const added = hasRole(repository, role) ? [] : addScope(repository, set.scope);
  const extended = { ...repository, store: withFiles(repository.store, added) };
  const known = openSigned(extended, role, envelope);
  requireParts(known, sealed);
  const document = readRoleDocument(extended, role);
  const ref = configRefOf(known);
  refuseTakenVersion(document, ref);
  // As configCustom reads it again.
  const custom = {
    configId: known.configId,
    version: set.version,
    group: set.group,
    artifacts: [...set.artifacts],
    configSchema: { ...set.configSchema },
    plain: Object.keys(set.plain).length,
    secrets: Object.keys(set.secrets).length,
    created: set.created,
  };
  const targets = [
    putTarget(document, ref.path, encodeEnvelope(envelope), custom),
    putTarget(document, sealedPath(ref), encodeSealed(sealed)),
  ];
  const files = [...added, ...publish(extended, new Map([[role, document]]), targets)];
  return [...new Map(files.map((file) => [file.name, file])).values()];
}

/** Takes a config set off the list. Hosts that run it go on; no pin can name it any more. */
export function dropConfigSet(
  repository: Repository,
  ref: Pick<ConfigRef, 'scope' | 'version' | 'configId'>,
): readonly RepositoryFile[] {
  const role = configRole(ref.scope);
  const document = readRoleDocument(repository, role);
  if (document.targets[configPath(ref)] === undefined)
    throw new Problem('E_NOT_FOUND', `there is no config set ${ref.configId}`);
  delete document.targets[configPath(ref)];
  delete document.targets[sealedPath(ref)];
  return publish(repository, new Map([[role, document]]), []);
}

function openSigned(repository: Repository, role: string, envelope: Envelope): KnownConfig {
  const revoked = readRevoked(repository).keyIds;
  const { keys, threshold } = keysOfRole(repository, role);
  return openConfigSet(envelope, {
    keys: keys.filter((key) => !revoked.includes(key.keyId)),
    threshold,
    verify: verifyFast,
  });
}

function requireParts(known: KnownConfig, sealed: Sealed): void {
  if (sealed.configId !== known.configId)
    throw new Problem('E_CONFIG_SET', `what is sealed is of config set ${sealed.configId}`);
  requireBoxes(known, sealed.boxes);
}

function refuseTakenVersion(document: TargetsDocument, ref: ConfigRef): void {
  for (const [path, target] of Object.entries(document.targets)) {
    const custom = target.custom as Partial<ConfigCustom> | undefined;
    if (custom?.version === ref.version && custom.configId !== ref.configId)
      throw new Problem(
        'E_CONFLICT',
        `version ${ref.version} of scope ${ref.scope} is ${path} already: build it with the next version`,
        { path, version: ref.version },
      );
  }
}

/** A config set as the lists show it. */
export interface ListedConfig {
  readonly ref: ConfigRef;
  readonly custom: ConfigCustom;
}

/** Every config set that is listed, by scope and version, the newest first within its scope. */
export function listConfigSets(repository: Repository): readonly ListedConfig[] {
  const current = readCurrent(repository);
  const roles = (current.targets.delegations?.roles ?? []).map((entry) => entry.name);
  return roles
    .filter((role) => role.startsWith('cfg-'))
    .toSorted()
    .flatMap((role) =>
      listedIn(roleDocumentIn(repository, current, role), role.slice('cfg-'.length)),
    );
}

function listedIn(document: TargetsDocument, scope: string): readonly ListedConfig[] {
  const found = Object.entries(document.targets).flatMap(([path, target]) => {
    if (path.endsWith('.sealed.json')) return [];
    const custom = checkShape(`custom of ${path}`, configCustom, target.custom);
    const { configId, version } = custom;
    return [{ ref: { configId, scope, version, path }, custom }];
  });
  return found.toSorted((a, b) => b.ref.version - a.ref.version);
}

/** A listed config set by its id. @throws Problem E_NOT_FOUND */
export function findConfigSet(
  repository: Repository,
  configId: ConfigId,
): { readonly ref: ConfigRef; readonly known: KnownConfig; readonly sealed: Sealed } {
  const listed = listConfigSets(repository).find(({ ref }) => ref.configId === configId);
  if (listed === undefined)
    throw new Problem('E_NOT_FOUND', `there is no config set ${configId}`, { configId });
  return { ref: listed.ref, ...readListed(repository, listed.ref) };
}

/**
 * A listed config set, checked as it is listed: signed by its scope, under its own name, its parts belonging together.
 * @throws Problem E_NOT_FOUND, E_SIGS, E_SEAL, E_CONFIG_SET
 */
export function readListed(
  repository: Repository,
  ref: Pick<ConfigRef, 'scope' | 'version' | 'configId'>,
): { readonly known: KnownConfig; readonly sealed: Sealed } {
  const role = configRole(ref.scope);
  const document = readRoleDocument(repository, role);
  const envelope = readTarget(repository, document, configPath(ref));
  const sealedBytes = readTarget(repository, document, sealedPath(ref));
  if (envelope === null || sealedBytes === null)
    throw new Problem('E_NOT_FOUND', `config set ${ref.configId} is not listed whole`);
  const known = openSigned(repository, role, decodeConfigEnvelope(envelope));
  const sealed = readSealed(sealedBytes);
  if (configRefOf(known).path !== configPath(ref))
    throw new Problem('E_CONFIG_SET', `${configPath(ref)} holds config set ${known.configId}`);
  requireParts(known, sealed);
  return { known, sealed };
}

/** Hosts that a listed config set is sealed for. */
export function sealedHosts(
  repository: Repository,
  ref: Pick<ConfigRef, 'scope' | 'version' | 'configId'>,
): readonly HostId[] {
  const document = readRoleDocument(repository, configRole(ref.scope));
  const bytes = readTarget(repository, document, sealedPath(ref));
  return bytes === null ? [] : (Object.keys(readSealed(bytes).hosts).toSorted() as HostId[]);
}
