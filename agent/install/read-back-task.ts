/**
 * D4, P4: is the slot exactly what the manifest says? Content is read back past the page cache; kinds, modes, owners, links
 * and stray entries are compared with the signed listing.
 */
import { lstatSync, readdirSync, readlinkSync, type Stats } from 'node:fs';
import { type ChunkIndex, parseIndex } from '#/bundle/chunk-index.ts';
import { must } from '#/protocol/errors.ts';
import { manifestOf } from './container-reader.ts';
import { inJobs, shared } from './download.ts';
import { packFiles } from './file-table.ts';
import type { ImagePieces, Job } from './jobs.ts';
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
import { nothingWritten } from './written.ts';

/** Small, so that progress moves and all threads have work to the end. */
const FILES_PER_JOB = 64;
const IMAGE_BYTES_PER_JOB = 16 * 1024 * 1024;

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
  const damaged = new Set<string>();
  let direct = true;
  let doneBytes = 0;
  const images = imagePieces(index, plan);
  const pool = createWorkerPool(
    {
      files: packFiles(plan.files),
      descriptors: [],
      pieces: plan.pieces,
      digests: images.length === 0 ? new Uint8Array(0) : shared(index.digests),
      rawSizes: new Uint32Array(0),
      storedSizes: new Uint32Array(0),
      created: new Int32Array(new SharedArrayBuffer(4)),
      written: nothingWritten(plan.files.length, plan.pieces),
      seed: null,
      patch: null,
      images,
      slabs: new Uint8Array(0),
      slabBytes: 0,
      setOwners: world.setOwners,
    },
    task.workers,
    world.workerEntry,
  );
  try {
    await inJobs(readBackJobs(plan, images), 1, signal, async ([planned]) => {
      if (planned === undefined) return;
      const answer = await pool.run(planned.job);
      direct &&= answer.direct;
      for (const file of answer.failed) damaged.add(plan.files[file]?.path ?? '');
      doneBytes += planned.sizeBytes;
      onProgress({ doneBytes, totalBytes, fetchedBytes: 0, reusedBytes: 0 });
    });
  } finally {
    await pool.close();
  }
  const differences = [...structure, ...Array.from(damaged, (path) => `${path} has other content`)];
  return {
    differences: differences.slice(0, DIFFERENCES_MAX),
    damagedFiles: [...damaged],
    direct,
    durationMs: world.nowMs() - startedMs,
  };
}

/** What lies where in the images of the plan, which are in the order of their payloads. */
function imagePieces(index: ChunkIndex, plan: WritePlan): ImagePieces[] {
  const payloads = index.payloads.filter(({ tree }) => tree === null);
  const files = [...plan.files.keys()].filter((file) => plan.files[file]?.kind !== 'file');
  must(files.length === payloads.length, 'each image of the index is a file of the plan');
  return payloads.map(({ chunks, positions }, i) => ({
    file: files[i] ?? -1,
    chunks: Int32Array.from(chunks),
    positions: Float64Array.from(positions),
  }));
}

interface PlannedJob {
  readonly job: Job;
  readonly sizeBytes: number;
}

/** Files by their own digest, images by their chunks, so that one large image is work for all threads. */
function readBackJobs(plan: WritePlan, images: readonly ImagePieces[]): PlannedJob[] {
  const sizeOf = (file: number): number => plan.files[file]?.sizeBytes ?? 0;
  const jobs: PlannedJob[] = [];
  let from = 0;
  let sizeBytes = 0;
  for (const [file, { kind }] of plan.files.entries()) {
    // A range of files has no image in it and is at most so long.
    if (kind === 'file') sizeBytes += sizeOf(file);
    const to = kind === 'file' ? file + 1 : file;
    const isLast = file === plan.files.length - 1;
    if (kind !== 'file' || isLast || to - from === FILES_PER_JOB) {
      if (to > from) jobs.push({ job: { do: 'readBack', from, to }, sizeBytes });
      from = file + 1;
      sizeBytes = 0;
    }
  }
  for (const [image, { positions }] of images.entries()) {
    const pieceCount = positions.length - 1;
    for (let from = 0; from < pieceCount; ) {
      const start = positions[from] ?? 0;
      let to = from + 1;
      while (to < pieceCount && (positions[to + 1] ?? 0) - start <= IMAGE_BYTES_PER_JOB) to += 1;
      const sizeBytes = (positions[to] ?? 0) - start;
      jobs.push({ job: { do: 'readBackImage', image, from, to }, sizeBytes });
      from = to;
    }
  }
  return jobs;
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
