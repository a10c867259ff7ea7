/** Ids and their grammar. Ids are plain strings at run time; the brands keep one from being passed for another. */
import * as v from 'valibot';

/** sha256 of the manifest bytes, 64 lower-case hex digits: the name of a version everywhere. */
export type ArtifactId = string & { readonly __brand: 'ArtifactId' };
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
