/**
 * Where a directory host keeps its versions, each under its version id (protocol/ids.ts). Pure: names and paths only. Written down in docs/specs/slot-layout.md.
 *
 *     <root>/current -> releases/<version>       the live version; the only truth about it
 *     <root>/previous -> releases/<version>      derived: the version to go back to, repaired when it is wrong
 *     <root>/releases/<version>/                 a complete version
 *     <root>/releases/.tmp-<version>/            a version that is being written
 *     <root>/releases/.meta-<version>/           its manifest and chunk index: what a later delta starts from
 *     <root>/releases/.old-<version>/            a version that is being removed
 *     <root>/.former -> releases/<version>       the version that the switch under way has left
 *     <state>/slots/<version>.json               the slot record
 */
import { join } from 'node:path';
import { isVersionId, type VersionId } from '#/protocol/ids.ts';

/** True for names that may stand as a slot of a directory host: version ids and nothing else. */
export function isDirectorySlot(slot: string): slot is VersionId {
  return isVersionId(slot);
}

export interface DirectoryLayout {
  readonly root: string;
  readonly releases: string;
  readonly current: string;
  readonly previous: string;
  /** The version that was left by the switch under way: becomes `previous` at its commit. */
  readonly former: string;
  /** A complete version. */
  release(slot: string): string;
  /** The version while it is written. */
  staging(slot: string): string;
  /** A version that is being removed: never selectable again. */
  condemned(slot: string): string;
  /** Manifest and index of the version, kept beside it. */
  meta(slot: string): string;
  manifestFile(slot: string): string;
  indexFile(slot: string): string;
}

/** Paths under `root`, which is absolute. */
export function directoryLayout(root: string): DirectoryLayout {
  const releases = join(root, 'releases');
  const meta = (slot: string): string => join(releases, `.meta-${slot}`);
  return {
    root,
    releases,
    current: join(root, 'current'),
    previous: join(root, 'previous'),
    former: join(root, '.former'),
    release: (slot) => join(releases, slot),
    staging: (slot) => join(releases, `.tmp-${slot}`),
    condemned: (slot) => join(releases, `.old-${slot}`),
    meta,
    manifestFile: (slot) => join(meta(slot), 'manifest.json'),
    indexFile: (slot) => join(meta(slot), 'chunks.index'),
  };
}

/** Relative target of `current` and `previous` for a slot. */
export function linkTarget(slot: string): string {
  return `releases/${slot}`;
}

/** The slot that a link target names, or null when it names none of ours. */
export function slotOfLink(target: string): string | null {
  const slot = /^(?:\.\/)?releases\/([0-9a-f.]{64,129})\/?$/.exec(target)?.[1];
  return slot !== undefined && isVersionId(slot) ? slot : null;
}

/** What an entry of `releases/` is: ours by its name, or `foreign`, which is left alone. */
export function classifyEntry(name: string): {
  readonly kind: 'release' | 'staging' | 'meta' | 'condemned' | 'foreign';
  readonly slot: string;
} {
  const match = /^(\.tmp-|\.meta-|\.old-)?([0-9a-f.]{64,129})$/.exec(name);
  const slot = match?.[2];
  if (slot === undefined || !isVersionId(slot)) return { kind: 'foreign', slot: '' };
  const prefix = match?.[1];
  if (prefix === '.tmp-') return { kind: 'staging', slot };
  if (prefix === '.meta-') return { kind: 'meta', slot };
  return prefix === '.old-' ? { kind: 'condemned', slot } : { kind: 'release', slot };
}
