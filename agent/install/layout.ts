/**
 * Where a directory host keeps its versions. Pure: names and paths only. Written down in docs/specs/slot-layout.md.
 *
 *     <root>/current -> releases/<artifactId>       the live version; the only truth about it
 *     <root>/previous -> releases/<artifactId>      derived: the version to go back to, repaired when it is wrong
 *     <root>/releases/<artifactId>/                 a complete version
 *     <root>/releases/.tmp-<artifactId>/            a version that is being written
 *     <root>/releases/.meta-<artifactId>/           its manifest and chunk index: what a later delta starts from
 *     <state>/slots/<artifactId>.json               the slot record
 */
import { join } from 'node:path';

const ID = /^[0-9a-f]{64}$/;

/** True for names that may stand as a slot of a directory host: artifact ids and nothing else. */
export function isDirectorySlot(slot: string): boolean {
  return ID.test(slot);
}

export interface DirectoryLayout {
  readonly root: string;
  readonly releases: string;
  readonly current: string;
  readonly previous: string;
  /** A complete version. */
  release(slot: string): string;
  /** The version while it is written. */
  staging(slot: string): string;
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
    release: (slot) => join(releases, slot),
    staging: (slot) => join(releases, `.tmp-${slot}`),
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
  const match = /^(?:\.\/)?releases\/([0-9a-f]{64})\/?$/.exec(target);
  return match?.[1] ?? null;
}
