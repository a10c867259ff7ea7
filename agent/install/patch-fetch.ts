/**
 * The way over a patch: finds one beside a source, fetches its segments, has the workers apply them. Whatever goes wrong with it
 * is no failure of the download: what a patch did not give comes as chunks.
 */
import type { ChunkIndex } from '#/bundle/chunk-index.ts';
import type { Manifest } from '#/bundle/manifest.ts';
import type { PatchSegment } from '#/bundle/patch.ts';
import { isProblem } from '#/protocol/errors.ts';
import { createBandwidth } from './bandwidth.ts';
import { fetchChunks, type StoredParts } from './fetcher.ts';
import { type OpenedPatch, openPatch, patchUrlOf, whyNoPatch } from './patch-reader.ts';
import type { OpenSeed } from './seed-plan.ts';
import type { Slabs } from './slabs.ts';
import { SourceSet } from './source-set.ts';
import type { DownloadTask } from './task.ts';
import type { WorkerPool } from './worker-pool.ts';
import type { TaskWorld } from './world.ts';

/** Failed requests in a row before the rest comes as chunks. */
const ATTEMPTS = 2;

export interface FoundPatch {
  readonly patch: OpenedPatch | null;
  /** Null with a patch. Otherwise `off`, `no-seed`, `none` (no source has one), or the code of what was wrong with it. */
  readonly why: string | null;
}

/** The first good patch beside one of the sources. Opening costs two small requests; where there is none, one. */
export async function findPatch(
  task: DownloadTask,
  manifest: Manifest,
  seed: OpenSeed | null,
  world: TaskWorld,
  signal: AbortSignal,
): Promise<FoundPatch> {
  if (!task.settings.patches) return { patch: null, why: 'off' };
  if (seed === null) return { patch: null, why: 'no-seed' };
  let why = 'none';
  for (const url of task.sources) {
    const source = world.source(patchUrlOf(url, seed.artifactId), task.settings);
    try {
      const patch = await openPatch(source, task.artifactId, manifest, seed, signal);
      return { patch, why: null };
    } catch (error) {
      await source.close();
      signal.throwIfAborted();
      const reason = whyNoPatch(error);
      if (reason !== 'none') why = reason;
    }
  }
  return { patch: null, why };
}

export interface PatchRun {
  readonly task: DownloadTask;
  readonly patch: OpenedPatch;
  readonly segments: readonly PatchSegment[];
  /** Numbers of the segments to fetch, ascending. */
  readonly useful: readonly number[];
  readonly pool: WorkerPool;
  readonly slabs: Slabs;
  readonly world: TaskWorld;
  readonly onFetched: (bytes: number) => void;
  /** Chunks of segments that were applied, and those of them that did not come out. */
  readonly onApplied: (chunks: readonly number[], failed: readonly number[]) => void;
}

/** Fetches and applies segments. Gives the code of what ended it early, or null. Local failures (E_IO, E_SPACE …) are thrown. */
export async function fetchPatch(run: PatchRun, signal: AbortSignal): Promise<string | null> {
  const { task, patch, segments, pool, slabs, world } = run;
  const { settings } = task;
  const sources = new SourceSet(
    [patch.source],
    { ...settings, attemptsPerSource: ATTEMPTS },
    world.unit,
  );
  let local: { readonly error: unknown } | null = null;
  const store = async (
    slab: number,
    parts: readonly number[],
    starts: readonly number[],
  ): Promise<readonly number[]> => {
    const { failed } = await pool
      .run({ do: 'patch', slab, segments: parts, starts })
      .catch((error: unknown) => {
        local = { error };
        throw error;
      });
    run.onApplied(
      parts.flatMap((part) => segments[part]?.chunks ?? []),
      failed,
    );
    // Asking again would give the same bytes; the chunks are the way that cannot be wrong.
    return [];
  };
  try {
    await fetchChunks(
      {
        index: partsOf(segments),
        dataOffset: patch.dataOffset,
        sources,
        pool,
        store,
        slabs,
        bandwidth: createBandwidth(settings, world.nowMs, world.sleep),
        connections: settings.connections,
        nowMs: world.nowMs,
        sleep: world.sleep,
        onFetched: run.onFetched,
        onStored: () => undefined,
      },
      run.useful,
      signal,
    );
    return null;
  } catch (error) {
    signal.throwIfAborted();
    if (local !== null || !isProblem(error)) throw error;
    return error.code;
  }
}

function partsOf(segments: readonly PatchSegment[]): StoredParts {
  const offsets = Float64Array.of(
    0,
    ...segments.map(({ offset, storedBytes }) => offset + storedBytes),
  );
  return { offsets, storedSizes: Uint32Array.from(segments, ({ storedBytes }) => storedBytes) };
}

/** The segments of a patch for this index, or why they cannot be used. */
export function segmentsOf(
  patch: OpenedPatch,
  index: ChunkIndex,
): { readonly segments: readonly PatchSegment[]; readonly why: string | null } {
  try {
    return { segments: patch.segments(index), why: null };
  } catch (error) {
    return { segments: [], why: whyNoPatch(error) };
  }
}
