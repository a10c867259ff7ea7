/** What a host that runs one bundle downloads for another. */
import { chunkFinder } from '#/bundle/chunk-finder.ts';
import type { ChunkIndex } from '#/bundle/chunk-index.ts';
import { planFetch } from '#/bundle/fetch-plan.ts';
import type { TreeEntry } from '#/bundle/tree-entry.ts';
import { patchPathOf } from '#/bundle/patch.ts';
import { readPatchHeader } from '#/control/cli/bundle/patch-verify.ts';
import { openBundle } from '#/control/cli/bundle/read.ts';
import { isProblem } from '#/protocol/errors.ts';
import type { ArtifactId } from '#/protocol/ids.ts';

export interface FileChange {
  readonly path: string;
  readonly change: 'added' | 'removed' | 'changed' | 'mode';
  readonly sizeBytes: number;
}

export interface BundleDiff {
  readonly from: {
    readonly artifactId: ArtifactId;
    readonly version: string;
    readonly release: number;
  };
  readonly to: {
    readonly artifactId: ArtifactId;
    readonly version: string;
    readonly release: number;
  };
  /** What travels: manifest, envelope, attestations, index, and the ranges of chunks. */
  readonly downloadBytes: number;
  readonly metadataBytes: number;
  readonly chunkBytes: number;
  /** What a host without any version downloads. */
  readonly fullBytes: number;
  readonly requests: number;
  readonly chunks: { readonly total: number; readonly reused: number; readonly fetched: number };
  readonly reusedBytes: number;
  /** What travels over the patch that lies beside the new bundle; null when there is none for this pair. */
  readonly patch: { readonly path: string; readonly downloadBytes: number } | null;
  /** By payload name, for trees that both have. */
  readonly files: readonly { readonly payload: string; readonly changes: readonly FileChange[] }[];
}

/** Compares two bundle files by their indexes alone. Throws as `openBundle` does. */
export async function diffBundles(fromPath: string, toPath: string): Promise<BundleDiff> {
  await using from = await openBundle(fromPath, null);
  await using to = await openBundle(toPath, null);
  const before = await from.index();
  const after = await to.index();
  const find = chunkFinder(before);
  const plan = planFetch(after, (number) => find(after, number) !== null);
  // The first request brings everything up to the header of the data.
  const metadataBytes = to.located.dataOffset;
  const named = ({ artifactId, manifest }: typeof from): BundleDiff['from'] => ({
    artifactId,
    version: manifest.version,
    release: manifest.release,
  });
  return {
    from: named(from),
    to: named(to),
    downloadBytes: metadataBytes + plan.fetchBytes,
    metadataBytes,
    chunkBytes: plan.fetchBytes,
    fullBytes: metadataBytes + to.manifest.dataBytes,
    requests: plan.ranges.length,
    chunks: {
      total: after.chunkCount,
      reused: plan.reused.length,
      fetched: after.chunkCount - plan.reused.length,
    },
    reusedBytes: plan.reusedBytes,
    patch: await patchBeside(toPath, from.artifactId, to.artifactId),
    files: to.manifest.payloads.flatMap((described, i) => {
      const old = entriesOf(from.manifest.payloads, before, described.name);
      const now = after.payloads[i]?.tree?.entries;
      return old && now ? [{ payload: described.name, changes: diffTrees(old, now) }] : [];
    }),
  };
}

async function patchBeside(toPath: string, from: string, to: string): Promise<BundleDiff['patch']> {
  const path = patchPathOf(toPath, from);
  try {
    const { header, fileBytes } = await readPatchHeader(path);
    return header.from === from && header.to === to ? { path, downloadBytes: fileBytes } : null;
  } catch (error) {
    if (isProblem(error, 'E_NOT_FOUND')) return null;
    throw error;
  }
}

function entriesOf(
  payloads: readonly { readonly name: string }[],
  index: ChunkIndex,
  name: string,
): readonly TreeEntry[] | undefined {
  return index.payloads[payloads.findIndex((payload) => payload.name === name)]?.tree?.entries;
}

/** The entries in which two listings differ, by path. */
export function diffTrees(before: readonly TreeEntry[], after: readonly TreeEntry[]): FileChange[] {
  const old = new Map(before.map((entry) => [entry.path, entry]));
  const changes: FileChange[] = [];
  for (const entry of after) {
    const was = old.get(entry.path);
    old.delete(entry.path);
    const change = was === undefined ? 'added' : changeOf(was, entry);
    if (change !== null) changes.push({ path: entry.path, change, sizeBytes: sizeOf(entry) });
  }
  for (const entry of old.values()) {
    changes.push({ path: entry.path, change: 'removed', sizeBytes: sizeOf(entry) });
  }
  return changes.sort((a, b) => (a.path < b.path ? -1 : 1));
}

function changeOf(was: TreeEntry, now: TreeEntry): 'changed' | 'mode' | null {
  if (contentOf(was) !== contentOf(now)) return 'changed';
  return was.mode === now.mode && was.uid === now.uid && was.gid === now.gid ? null : 'mode';
}

function contentOf(entry: TreeEntry): string {
  switch (entry.kind) {
    case 'directory':
      return entry.kind;
    case 'file':
      return `file ${entry.sizeBytes} ${entry.sha256}`;
    case 'symlink':
    case 'hardlink':
      return `${entry.kind} ${entry.target}`;
  }
}

function sizeOf(entry: TreeEntry): number {
  return entry.kind === 'file' ? entry.sizeBytes : 0;
}
