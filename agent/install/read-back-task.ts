/**
 * D4, P4: is the slot exactly what the manifest says? Content is read back past the page cache; kinds, modes, owners, links
 * and stray entries are compared with the signed listing.
 */
import { lstatSync, readdirSync, readlinkSync, type Stats } from 'node:fs';
import { parseIndex } from '#/bundle/chunk-index.ts';
import { manifestOf } from './container-reader.ts';
import { fileRanges, inJobs } from './download.ts';
import { attempt } from './target-files.ts';
import {
  DIFFERENCES_MAX,
  type ReadBackOutcome,
  type ReadBackTask,
  type TaskProgress,
} from './task.ts';
import type { TaskWorld } from './world.ts';
import { createWorkerPool } from './worker-pool.ts';
import { planWrites, type WritePlan } from './write-plan.ts';

/** Small, so that progress moves; a large image is one file. */
const FILES_PER_JOB = 64;

/** Compares a slot with its manifest. Differences are an answer, not an error. */
export async function runReadBack(
  task: ReadBackTask,
  world: TaskWorld,
  onProgress: (progress: TaskProgress) => void,
  signal: AbortSignal,
): Promise<ReadBackOutcome> {
  const startedMs = world.nowMs();
  const manifest = manifestOf(task.artifactId, task.manifestBytes);
  const index = parseIndex(task.rawIndex, manifest);
  const plan = planWrites(manifest, index, task.targets);
  const structure =
    task.directory === null ? [] : compareTree(task.directory, plan, world.setOwners);
  const totalBytes = plan.files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const damaged: string[] = [];
  let direct = true;
  let doneBytes = 0;
  const pool = createWorkerPool(
    {
      files: plan.files,
      descriptors: [],
      pieces: plan.pieces,
      digests: new Uint8Array(0),
      rawSizes: new Uint32Array(0),
      storedSizes: new Uint32Array(0),
      created: new Int32Array(new SharedArrayBuffer(4)),
      seed: null,
      slabs: new Uint8Array(0),
      slabBytes: 0,
      setOwners: world.setOwners,
    },
    task.workers,
    world.workerEntry,
  );
  try {
    const ranges = fileRanges(plan.files.length, FILES_PER_JOB);
    await inJobs(ranges, 1, signal, async ([range]) => {
      if (range === undefined) return;
      const answer = await pool.run({ do: 'readBack', ...range });
      direct &&= answer.direct;
      for (const file of answer.failed) damaged.push(plan.files[file]?.path ?? '');
      for (let file = range.from; file < range.to; file += 1) {
        doneBytes += plan.files[file]?.sizeBytes ?? 0;
      }
      onProgress({ doneBytes, totalBytes, fetchedBytes: 0, reusedBytes: 0 });
    });
  } finally {
    await pool.close();
  }
  const differences = [...structure, ...damaged.map((path) => `${path} has other content`)];
  return {
    differences: differences.slice(0, DIFFERENCES_MAX),
    damagedFiles: damaged,
    direct,
    durationMs: world.nowMs() - startedMs,
  };
}

/** Everything about the entries but their content. */
export function compareTree(directory: string, plan: WritePlan, compareOwners: boolean): string[] {
  const expected = new Map<string, (found: Stats) => string | null>();
  const ownerOf = (found: Stats, uid: number, gid: number): string | null =>
    compareOwners && (found.uid !== uid || found.gid !== gid)
      ? `has owner ${found.uid}:${found.gid}, not ${uid}:${gid}`
      : null;
  for (const { path, mode, uid, gid } of plan.directories) {
    expected.set(path, (found) =>
      found.isDirectory() ? (modeOf(found, mode) ?? ownerOf(found, uid, gid)) : 'is no directory',
    );
  }
  for (const { path, mode, uid, gid } of plan.files) {
    expected.set(path, (found) =>
      found.isFile() ? (modeOf(found, mode) ?? ownerOf(found, uid, gid)) : 'is no file',
    );
  }
  for (const { path, target } of plan.symlinks) {
    expected.set(path, (found) =>
      found.isSymbolicLink() && readlinkSync(path) === target ? null : 'is another link',
    );
  }
  for (const { path, target } of plan.hardlinks) {
    expected.set(path, (found) =>
      found.ino === lstatSync(target, { throwIfNoEntry: false })?.ino ? null : 'is not that file',
    );
  }
  const differences: string[] = [];
  const walk = (parent: string): void => {
    for (const name of readdirSync(parent)) {
      const path = `${parent}/${name}`;
      const found = lstatSync(path);
      const check = expected.get(path);
      expected.delete(path);
      const difference = check === undefined ? 'is not in the listing' : check(found);
      if (difference !== null) differences.push(`${path} ${difference}`);
      if (found.isDirectory() && check !== undefined) walk(path);
    }
  };
  attempt('compare', directory, () => walk(directory));
  for (const path of expected.keys()) differences.push(`${path} is missing`);
  return differences;
}

function modeOf(found: Stats, mode: number): string | null {
  const seen = found.mode & 0o7777;
  return seen === mode ? null : `has mode ${seen.toString(8)}, not ${mode.toString(8)}`;
}
