/** Ids and their grammar. Ids are plain strings at run time; the brands keep one from being passed for another. */
import * as v from 'valibot';

/** sha256 of the manifest bytes, 64 lower-case hex digits: the name of a version everywhere. */
export type ArtifactId = string & { readonly __brand: 'ArtifactId' };
/** sha256 of the bytes of a config set, 64 lower-case hex digits. */
export type ConfigId = string & { readonly __brand: 'ConfigId' };
/**
 * What a host runs: an artifact, or an artifact together with the config set that was pinned with it, as
 * `<artifact id>.<config id>`. Everything that runs, is tried, denied or gone back to is named by it, so the two are never taken
 * apart. An artifact that takes no config is its own version.
 */
export type VersionId = string & { readonly __brand: 'ArtifactId' | 'VersionId' };
export type HostId = string & { readonly __brand: 'HostId' };
export type GroupName = string & { readonly __brand: 'GroupName' };
export type RolloutId = string & { readonly __brand: 'RolloutId' };

export const sha256Hex = v.pipe(
  v.string(),
  v.regex(/^[0-9a-f]{64}$/, 'expected 64 lower-case hex digits'),
);
export const artifactId = v.pipe(
  sha256Hex,
  v.transform((text) => text as ArtifactId),
);

export const configId = v.pipe(
  sha256Hex,
  v.transform((text) => text as ConfigId),
);
const VERSION_ID = /^[0-9a-f]{64}(?:\.[0-9a-f]{64})?$/;
export const versionId = v.pipe(
  v.string(),
  v.regex(VERSION_ID, 'expected an artifact id, or one with a dot and a config id'),
  v.transform((text) => text as VersionId),
);

/** True for the text of a version id. */
export function isVersionId(text: string): text is VersionId {
  return VERSION_ID.test(text);
}

/** The version that is this artifact with this config set, or without one. */
export function versionIdOf(artifact: ArtifactId, config: ConfigId | null | undefined): VersionId {
  return config === null || config === undefined
    ? artifact
    : (`${artifact}.${config}` as VersionId);
}

/** The artifact of a version. */
export function artifactOf(version: VersionId): ArtifactId {
  return version.slice(0, 64) as ArtifactId;
}

/** The config set of a version, or null. */
export function configOf(version: VersionId): ConfigId | null {
  return version.length === 64 ? null : (version.slice(65) as ConfigId);
}

/** Names that people choose: groups, classes. They stand in paths and URLs, so the grammar is narrow. */
export const name = v.pipe(
  v.string(),
  v.regex(
    /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/,
    'expected 1 to 63 of a-z, 0-9 and -, not at an end',
  ),
);
export const groupName = v.pipe(
  name,
  v.transform((text) => text as GroupName),
);
export const hostId = v.pipe(
  v.string(),
  v.regex(/^h-[0-9a-f]{32}$/, 'expected h- and 32 hex digits'),
  v.transform((text) => text as HostId),
);
export const rolloutId = v.pipe(
  v.string(),
  v.regex(/^r-[0-9a-f]{16}$/, 'expected r- and 16 hex digits'),
  v.transform((text) => text as RolloutId),
);
/** Free version text of a release, shown to people, never compared. */
export const versionText = v.pipe(
  v.string(),
  v.regex(/^[A-Za-z0-9][A-Za-z0-9.+~_-]{0,63}$/, 'expected 1 to 64 of A-Z a-z 0-9 . + ~ _ -'),
);
