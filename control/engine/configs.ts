/** Config sets that a change lists, and what a pin asks of them. Control never sees a secret. */
import { type ConfigSet, type KnownConfig, requireConfigFor } from '#/bundle/config-set.ts';
import { sha256 } from '#/bundle/keys.ts';
import {
  MANIFEST_MAX_BYTES,
  type Manifest,
  manifestSchema,
  requireConfigNamed,
} from '#/bundle/manifest.ts';
import {
  configPath,
  configRole,
  imageRole,
  manifestPath,
  readDocument,
  sealedPath,
} from '#/bundle/trust/documents.ts';
import type { Release } from '#/control/core/model.ts';
import {
  configRefOf,
  findConfigSet,
  listConfigSets,
  readListed,
  sealedHosts,
} from '#/control/trust/configs.ts';
import {
  readRoleDocument,
  readTarget,
  type Repository,
  type TargetsDocument,
} from '#/control/trust/repository.ts';
import type { ConfigView } from '#/protocol/config-set.ts';
import type { ConfigRef } from '#/protocol/documents.ts';
import { Problem } from '#/protocol/errors.ts';
import { type ConfigId, configOf } from '#/protocol/ids.ts';
import type { Desk } from './desk.ts';
import type { Draft } from './draft.ts';

/** The manifest of a release, as its role lists it. */
function manifestOf(repository: Repository, release: Release): Manifest {
  const path = manifestPath(release);
  const bytes = readTarget(
    repository,
    readRoleDocument(repository, imageRole(release.class)),
    path,
  );
  if (bytes === null) throw new Problem('E_NOT_FOUND', `the repository has no ${path}`, { path });
  return readDocument(path, manifestSchema, bytes, MANIFEST_MAX_BYTES);
}

/**
 * The config set that is to be pinned with a release, or null where it takes none.
 * @throws Problem E_NOT_FOUND, E_CONFIG_SET (not for this release or group; none named where one is needed)
 */
export function configFor(
  repository: Repository,
  release: Release,
  group: string,
  configId: ConfigId | null,
): ConfigRef | null {
  const { config: takes } = manifestOf(repository, release);
  const { artifactId } = release;
  requireConfigNamed(takes, configId !== null, artifactId);
  if (configId === null) return null;
  const { ref, known } = findConfigSet(repository, configId);
  requireConfigFor(known, { ...ref, group, artifactId, takes });
  return ref;
}

/** A config set by its id, or null when it is not listed any more. */
export function listedConfig(repository: Repository, configId: ConfigId): ConfigRef | null {
  return listConfigSets(repository).find(({ ref }) => ref.configId === configId)?.ref ?? null;
}

/** A config set that a pin names stays: hosts of it would be refused what they are promised. */
function refusePinned(draft: Draft, path: string, configId: ConfigId): void {
  const { groups, hosts, hostsOf } = draft.fleet;
  const members = [...hostsOf.values()].flatMap((ids) => [...ids]);
  const pinned = [...groups.values(), ...members.map((id) => hosts.get(id))];
  const pins = pinned.flatMap((one) => one?.pin ?? []);
  const pin = pins.find((one) => configOf(one.artifactId) === configId);
  if (pin === undefined) return;
  throw new Problem('E_CONFLICT', `${path} is pinned: ${pin.host ?? pin.group}`, { path });
}

/** Every config set that is listed, for operators. */
export function configViews(desk: Desk, nowMs: number): readonly ConfigView[] {
  const { fleet } = desk.engine;
  const repository: Repository = {
    store: { read: (name) => fleet.trust.get(name) ?? null },
    keys: [],
    nowMs,
  };
  const pins = [...fleet.groups.values(), ...fleet.hosts.values()].flatMap(({ pin }) =>
    pin === null ? [] : [pin],
  );
  return listConfigSets(repository).map(({ ref, custom }) => ({
    configId: ref.configId,
    scope: ref.scope,
    version: ref.version,
    group: custom.group,
    artifacts: custom.artifacts,
    configSchema: { id: custom.configSchema.id, version: custom.configSchema.version },
    plain: custom.plain,
    secrets: custom.secrets,
    createdAtMs: custom.created * 1000,
    sealedFor: [...sealedHosts(repository, ref)],
    pinnedBy: pins
      .filter((pin) => configOf(pin.artifactId) === ref.configId)
      .map((pin) => pin.host ?? pin.group)
      .toSorted(),
  }));
}

/** Config sets in a role of a scope that changed, appeared or are gone: checked, and written into the log. */
export async function followConfigs(
  draft: Draft,
  next: Repository,
  before: TargetsDocument['targets'],
  scope: string,
  actor: string,
): Promise<void> {
  const now = readRoleDocument(next, configRole(scope)).targets;
  const changed = new Set<string>();
  for (const path of Object.keys({ ...before, ...now })) {
    if (before[path]?.hashes.sha256 !== now[path]?.hashes.sha256) changed.add(setOf(path));
  }
  for (const path of changed) {
    if (now[path] === undefined) {
      refusePinned(draft, path, refIn(path, scope).configId);
      await draft.audit(actor, 'config.drop', `config/${scope}`, { path });
      continue;
    }
    const ref = refIn(path, scope);
    const { known, sealed } = readListed(next, ref);
    const isNew = before[path] === undefined;
    await draft.audit(actor, isNew ? 'config.import' : 'config.seal', `config/${scope}`, {
      ...shown(known),
      hosts: Object.keys(sealed.hosts).toSorted(),
      sealedSha256: now[sealedPath(ref)]?.hashes.sha256 ?? sha256(new Uint8Array()),
    });
  }
}

/** What the log says of a config set: nothing of its values, and digests of ciphertexts only (G09). */
function shown(known: KnownConfig): {
  readonly configId: ConfigId;
  readonly path: string;
  readonly version: number;
  readonly group: string;
  readonly artifacts: ConfigSet['artifacts'];
  readonly secrets: readonly string[];
} {
  const { set, configId } = known;
  const { version, group, artifacts } = set;
  const secrets = Object.keys(set.secrets).toSorted();
  return { configId, path: configRefOf(known).path, version, group, artifacts, secrets };
}

/** The path of the set to which a target belongs. */
function setOf(path: string): string {
  return path.replace(/\.sealed\.json$/, '.json');
}

function refIn(path: string, scope: string): Pick<ConfigRef, 'scope' | 'version' | 'configId'> {
  const match = /^config\/[^/]+\/(\d{1,16})\/([0-9a-f]{64})\.json$/.exec(path);
  const ref = { scope, version: Number(match?.[1]), configId: match?.[2] as ConfigId };
  if (match === null || configPath(ref) !== path)
    throw new Problem('E_SCHEMA', `${path} is no name of a config set`, { path });
  return ref;
}
