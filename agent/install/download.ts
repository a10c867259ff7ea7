/**
 * The heavy part of an installation: sources and seed to written, synced slot (D2-D3, P2-P3). Nothing is written before its
 * digest was checked. What an earlier run left in place is checked and kept: the bytes on the disk are the only progress
 * record, so none can be wrong (docs/decisions/0012-resume-from-content.md).
 */
import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { numberText } from '#/agent/adapters/block-devices.ts';
import { makeDirectory, replaceFile } from '#/agent/adapters/durable.ts';
import { nodeFiles } from '#/agent/adapters/file-port.ts';
import { type ChunkIndex, parseIndex } from '#/bundle/chunk-index.ts';
import type { Manifest } from '#/bundle/manifest.ts';
import type { PatchSegment } from '#/bundle/patch.ts';
import { isProblem, Problem } from '#/protocol/errors.ts';
import { createBandwidth } from './bandwidth.ts';
import { manifestOf, openBundle, type OpenedBundle } from './container-reader.ts';
import { zeroOut } from './device-zeros.ts';
import { fetchChunks } from './fetcher.ts';
import { packFiles } from './file-table.ts';
import { Flusher } from './flusher.ts';
import type { WorkerSetup } from './jobs.ts';
import { Meter } from './meter.ts';
import { fetchPatch, findPatch, segmentsOf } from './patch-fetch.ts';
import { planPatch, usefulSegments } from './patch-plan.ts';
import type { OpenedPatch } from './patch-reader.ts';
import { type OpenSeed, planSeed, type SeedPlan } from './seed-plan.ts';
import { SLAB_BYTES, slabCount, Slabs } from './slabs.ts';
import { SourceSet } from './source-set.ts';
import { finishStaging, prepareStaging, syncDirectories, syncFileSystem } from './staging.ts';
import { attempt } from './target-files.ts';
import type { DownloadOutcome, DownloadTask, KeptVersion, TaskProgress } from './task.ts';
import type { TaskWorld } from './world.ts';
import { createWorkerPool, type WorkerPool } from './worker-pool.ts';
import { planWrites, type WritePlan } from './write-plan.ts';
import { nothingWritten } from './written.ts';

/** Chunks or files of one local job: large enough to be worth a message, small enough to share the work. */
const CHUNKS_PER_JOB = 64;
const FILES_PER_JOB = 256;
const ZERO_BYTES_PER_JOB = 32 * 1024 * 1024;
const THERE = 2;

/** Runs one download task. Aborting rejects with the reason of the signal; what was written stays for the next run. */
export async function runDownload(
  task: DownloadTask,
  world: TaskWorld,
  onProgress: (progress: TaskProgress) => void,
  signal: AbortSignal,
): Promise<DownloadOutcome> {
  const startedMs = world.nowMs();
  const manifest = manifestOf(task.artifactId, task.manifestBytes);
  const sources = new SourceSet(
    task.sources.map((url) => world.source(url, task.settings)),
    task.settings,
    world.unit,
  );
  const seed = openSeed(task.seed);
  let headBytes = 0;
  let onHead = (bytes: number): void => void (headBytes += bytes);
  const bundle = once(async () => {
    const opened = await openFromAny(sources, manifest, task, world, signal);
    onHead(opened.fetchedBytes);
    return opened;
  });
  const found = await findPatch(task, manifest, seed, world, signal);
  try {
    onHead(found.patch?.fetchedBytes ?? 0);
    const ofPatch = found.patch?.index ?? null;
    const index = ofPatch?.parsed ?? (await bundle()).index;
    await keepMeta(task, ofPatch?.raw ?? (await bundle()).rawIndex);
    const plan = planWrites(manifest, index, task.targets);
    const meter = new Meter(index.rawSizes, world.nowMs, onProgress);
    meter.fetched(headBytes);
    onHead = (bytes) => meter.fetched(bytes);
    const run = new DownloadRun(
      { task, index, bundle, seed, patch: found.patch, plan },
      meter,
      sources,
      world,
    );
    await run.all(signal);
    const totals = meter.totals();
    return {
      ...totals,
      durationMs: world.nowMs() - startedMs,
      failedSources: sources.failures(),
      rottenSeedChunks: run.rottenSeedChunks,
      way: run.patchedChunks > 0 ? 'patch' : totals.reusedBytes > 0 ? 'chunks' : 'whole',
      whyNoPatch: found.why ?? run.whyNoPatch,
      unpatchedChunks: run.unpatchedChunks,
      savedBytes: Math.max(0, manifest.dataBytes - totals.fetchedBytes),
    };
  } finally {
    await found.patch?.source.close();
    await sources.close();
  }
}

function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | null = null;
  return () => (made ??= make());
}

async function openFromAny(
  sources: SourceSet,
  manifest: Manifest,
  task: DownloadTask,
  world: TaskWorld,
  signal: AbortSignal,
): Promise<OpenedBundle> {
  for (;;) {
    const { source, waitMs } = sources.pick(world.nowMs());
    if (waitMs > 0) {
      await world.sleep(waitMs, signal);
      continue;
    }
    try {
      const bundle = await openBundle(source, manifest, task.manifestBytes, signal);
      sources.delivered(source);
      return bundle;
    } catch (error) {
      signal.throwIfAborted();
      if (!isProblem(error)) throw error;
      sources.failed(source, error, world.nowMs());
    }
  }
}

/** Manifest and index beside the slot, before its content: a later delta and the read-back start from them. */
async function keepMeta(task: DownloadTask, rawIndex: Uint8Array): Promise<void> {
  if (task.meta === null) return;
  const files = nodeFiles();
  await makeDirectory(files, task.meta);
  await replaceFile(files, `${task.meta}/manifest.json`, task.manifestBytes);
  await replaceFile(files, `${task.meta}/chunks.index`, rawIndex);
}

interface DownloadPlan {
  readonly task: DownloadTask;
  readonly index: ChunkIndex;
  /** Opened when the first chunk is needed. */
  readonly bundle: () => Promise<OpenedBundle>;
  readonly seed: OpenSeed | null;
  readonly patch: OpenedPatch | null;
  readonly plan: WritePlan;
}

class DownloadRun {
  rottenSeedChunks = 0;
  /** Chunks that came out of a patch, and those that did not although it said so. */
  patchedChunks = 0;
  unpatchedChunks = 0;
  whyNoPatch: string | null = null;
  readonly #index: ChunkIndex;
  readonly #bundle: () => Promise<OpenedBundle>;
  readonly #seed: OpenSeed | null;
  readonly #patch: OpenedPatch | null;
  readonly #segments: readonly PatchSegment[];
  readonly #task: DownloadTask;
  readonly #plan: WritePlan;
  readonly #meter: Meter;
  readonly #sources: SourceSet;
  readonly #world: TaskWorld;
  readonly #created: Int32Array;
  readonly #slabs: Slabs;
  /** Chunks that are verified and in place. */
  readonly #done: Uint8Array;

  constructor(planned: DownloadPlan, meter: Meter, sources: SourceSet, world: TaskWorld) {
    const { task, index, plan, patch } = planned;
    this.#task = task;
    this.#index = index;
    this.#bundle = planned.bundle;
    this.#seed = planned.seed;
    this.#patch = patch;
    const { segments, why } =
      patch === null ? { segments: [], why: null } : segmentsOf(patch, index);
    this.#segments = segments;
    this.whyNoPatch = why;
    this.#plan = plan;
    this.#meter = meter;
    this.#sources = sources;
    this.#world = world;
    this.#created = new Int32Array(new SharedArrayBuffer(Math.max(4, plan.files.length * 4)));
    this.#slabs = new Slabs(slabCount(task.settings.connections, task.settings.workers));
    this.#done = new Uint8Array(index.chunkCount);
  }

  async all(signal: AbortSignal): Promise<void> {
    const task = this.#task;
    const mayHold =
      task.staging === null
        ? task.resumesDevice
        : prepareStaging(task.staging, this.#plan, this.#created);
    const descriptors = this.#openImages();
    const seed = this.#seed === null ? null : planSeed(this.#index, this.#seed);
    const pool = createWorkerPool(
      this.#setup(descriptors, seed),
      task.settings.workers,
      this.#world.workerEntry,
    );
    const flush = new Flusher(descriptors.filter((descriptor) => descriptor >= 0));
    try {
      if (mayHold) await this.#recheck(pool, signal);
      await Promise.all([
        this.#zeros(pool, descriptors, flush, signal),
        this.#reuseAndFetch(pool, seed, flush, signal),
      ]);
      await flush.done();
      await this.#finish(pool, signal);
    } finally {
      await pool.close();
      for (const descriptor of descriptors) if (descriptor >= 0) closeSync(descriptor);
    }
  }

  #setup(descriptors: readonly number[], seed: SeedPlan | null): WorkerSetup {
    const index = this.#index;
    return {
      files: packFiles(this.#plan.files),
      descriptors,
      pieces: this.#plan.pieces,
      digests: shared(index.digests),
      rawSizes: index.rawSizes,
      storedSizes: index.storedSizes,
      created: this.#created,
      written: nothingWritten(this.#plan.files.length, this.#plan.pieces),
      seed,
      patch:
        this.#seed === null || this.#segments.length === 0
          ? null
          : planPatch(this.#segments, this.#seed.index),
      images: [],
      slabs: this.#slabs.memory,
      slabBytes: SLAB_BYTES,
      setOwners: this.#world.setOwners,
    };
  }

  /** One descriptor for an image or device from its first byte to its last fsync; -1 for other files. */
  #openImages(): number[] {
    const { O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;
    return this.#plan.files.map(({ kind, path, deviceNumber }, file) => {
      if (kind === 'file') return -1;
      const isNew = kind === 'image' && this.#created[file] !== THERE;
      // On a block device O_EXCL refuses one that is mounted or used otherwise (F26).
      const extra = isNew ? O_CREAT | O_EXCL : kind === 'device' ? O_EXCL : 0;
      const flags = O_RDWR | O_NOFOLLOW | extra;
      const descriptor = attempt('open', path, () => openSync(path, flags, 0o600));
      this.#created[file] = THERE;
      if (kind === 'device') requireDevice(descriptor, path, deviceNumber);
      return descriptor;
    });
  }

  async #recheck(pool: WorkerPool, signal: AbortSignal): Promise<void> {
    const all = Array.from({ length: this.#index.chunkCount }, (_, i) => i);
    await inJobs(all, CHUNKS_PER_JOB, signal, async (chunks) => {
      const { failed } = await pool.run({ do: 'recheck', chunks });
      this.#meter.resumed(this.#markDone(chunks, failed));
    });
  }

  async #zeros(
    pool: WorkerPool,
    descriptors: readonly number[],
    flush: Flusher,
    signal: AbortSignal,
  ): Promise<void> {
    for (const { file, offset, sizeBytes } of this.#plan.zeros) {
      signal.throwIfAborted();
      if (await zeroOut(descriptors[file] ?? -1, offset, sizeBytes)) continue;
      for (let done = 0; done < sizeBytes; done += ZERO_BYTES_PER_JOB) {
        signal.throwIfAborted();
        const part = Math.min(ZERO_BYTES_PER_JOB, sizeBytes - done);
        await pool.run({ do: 'zero', file, offset: offset + done, sizeBytes: part });
        flush.wrote(part);
        await flush.room();
      }
    }
  }

  async #reuseAndFetch(
    pool: WorkerPool,
    seed: SeedPlan | null,
    flush: Flusher,
    signal: AbortSignal,
  ): Promise<void> {
    const missing = this.#missing();
    const held = seed === null ? [] : missing.filter((chunk) => hasPieces(seed, chunk));
    const heldSet = new Set(held);
    const onStored = (chunks: readonly number[]): void => {
      this.#meter.stored(this.#markDone(chunks, []));
      flush.wrote(bytesOf(this.#index, chunks));
    };
    const toFetch = missing.filter((chunk) => !heldSet.has(chunk));
    await Promise.all([
      this.#reuse(pool, held, flush, signal),
      this.#patch === null
        ? this.#fetch(pool, toFetch, onStored, signal)
        : this.#applyPatch(pool, this.#patch, flush, signal),
    ]);
    // What the seed or the patch promised but did not have (F83).
    await this.#fetch(pool, this.#missing(), onStored, signal);
  }

  async #applyPatch(
    pool: WorkerPool,
    patch: OpenedPatch,
    flush: Flusher,
    signal: AbortSignal,
  ): Promise<void> {
    const useful = usefulSegments(this.#segments, this.#index, (chunk) => this.#done[chunk] === 0);
    const ended = await fetchPatch(
      {
        task: this.#task,
        patch,
        segments: this.#segments,
        useful,
        pool,
        slabs: this.#slabs,
        world: this.#world,
        onFetched: (bytes) => this.#meter.fetched(bytes),
        onApplied: (chunks, failed) => {
          const good = this.#markDone(chunks, failed);
          this.patchedChunks += good.length;
          this.unpatchedChunks += failed.length;
          this.#meter.stored(good);
          flush.wrote(bytesOf(this.#index, good));
        },
      },
      signal,
    );
    this.whyNoPatch ??= ended ?? (useful.length === 0 ? 'dearer' : null);
  }

  async #reuse(
    pool: WorkerPool,
    held: readonly number[],
    flush: Flusher,
    signal: AbortSignal,
  ): Promise<void> {
    await inJobs(held, CHUNKS_PER_JOB, signal, async (chunks) => {
      const { failed } = await pool.run({ do: 'reuse', chunks });
      this.rottenSeedChunks += failed.length;
      const good = this.#markDone(chunks, failed);
      this.#meter.reused(good);
      flush.wrote(bytesOf(this.#index, good));
      await flush.room();
    });
  }

  async #fetch(
    pool: WorkerPool,
    numbers: readonly number[],
    onStored: (chunks: readonly number[]) => void,
    signal: AbortSignal,
  ): Promise<void> {
    if (numbers.length === 0) return;
    const { settings } = this.#task;
    const { nowMs, sleep } = this.#world;
    const { dataOffset } = await this.#bundle();
    await fetchChunks(
      {
        index: this.#index,
        dataOffset,
        sources: this.#sources,
        pool,
        store: async (slab, chunks, starts) =>
          (await pool.run({ do: 'store', slab, chunks, starts })).failed,
        slabs: this.#slabs,
        bandwidth: createBandwidth(settings, nowMs, sleep),
        connections: settings.connections,
        nowMs,
        sleep,
        onFetched: (bytes) => this.#meter.fetched(bytes),
        onStored,
      },
      numbers,
      signal,
    );
  }

  async #finish(pool: WorkerPool, signal: AbortSignal): Promise<void> {
    const { staging, settings } = this.#task;
    const count = this.#plan.files.length;
    const ranges = fileRanges(count, FILES_PER_JOB);
    await inJobs(ranges, 1, signal, async ([range]) => {
      if (range !== undefined) await pool.run({ do: 'finish', ...range });
    });
    if (staging !== null) finishStaging(staging, this.#plan, this.#world.setOwners);
    if (staging !== null && count >= settings.syncfsFromFiles && (await syncFileSystem(staging))) {
      return;
    }
    await inJobs(ranges, 1, signal, async ([range]) => {
      if (range !== undefined) await pool.run({ do: 'sync', ...range });
    });
    if (staging !== null) syncDirectories(staging, this.#plan);
  }

  #missing(): number[] {
    const missing: number[] = [];
    for (const [chunk, done] of this.#done.entries()) if (done === 0) missing.push(chunk);
    return missing;
  }

  /** Marks `chunks` without `failed`; gives those that are new. */
  #markDone(chunks: readonly number[], failed: readonly number[]): number[] {
    const lost = new Set(failed);
    return chunks.filter((chunk) => {
      if (lost.has(chunk) || this.#done[chunk] === 1) return false;
      this.#done[chunk] = 1;
      return true;
    });
  }
}

/** F37: what is open is the block device that was chosen, also if its name has come to mean another. */
function requireDevice(descriptor: number, path: string, wanted: string | undefined): void {
  const found = fstatSync(descriptor, { bigint: true });
  const number = found.isBlockDevice() ? numberText(found.rdev) : null;
  if (number !== null && (wanted === undefined || wanted === number)) return;
  closeSync(descriptor);
  const what = number === null ? 'no block device' : `device ${number}`;
  throw new Problem('E_DISK', `${path} is ${what}, not ${wanted ?? 'a block device'}`, { path });
}

/** Null when the kept index is of a format that this agent does not read: then everything is fetched. */
function openSeed(seed: KeptVersion | null): OpenSeed | null {
  if (seed === null) return null;
  const { artifactId, rawIndex, targets } = seed;
  try {
    const manifest = manifestOf(artifactId, seed.manifestBytes);
    return { artifactId, manifest, rawIndex, index: parseIndex(rawIndex, manifest), targets };
  } catch (error) {
    if (isProblem(error)) return null;
    throw error;
  }
}

function hasPieces({ pieces }: SeedPlan, chunk: number): boolean {
  return (pieces.starts[chunk] ?? 0) < (pieces.starts[chunk + 1] ?? 0);
}

function bytesOf(index: ChunkIndex, chunks: readonly number[]): number {
  return chunks.reduce((sum, chunk) => sum + (index.rawSizes[chunk] ?? 0), 0);
}

/** A copy in memory that all threads see. */
export function shared(bytes: Uint8Array): Uint8Array {
  const copy = new Uint8Array(new SharedArrayBuffer(bytes.byteLength));
  copy.set(bytes);
  return copy;
}

/** Ranges of file numbers, `from` included and `to` not. */
function fileRanges(count: number, size: number): { from: number; to: number }[] {
  const ranges: { from: number; to: number }[] = [];
  for (let from = 0; from < count; from += size)
    ranges.push({ from, to: Math.min(count, from + size) });
  return ranges;
}

/** Jobs that may be in flight at once: enough for all workers, few enough to stop soon after an abort. */
const JOBS_IN_FLIGHT = 8;

/** Runs `run` over groups of `items`, several at once, in order of their start. */
export async function inJobs<T>(
  items: readonly T[],
  size: number,
  signal: AbortSignal,
  run: (group: readonly T[]) => Promise<void>,
): Promise<void> {
  let next = 0;
  const pull = async (): Promise<void> => {
    while (next < items.length) {
      signal.throwIfAborted();
      const from = next;
      next += size;
      await run(items.slice(from, from + size));
    }
  };
  await Promise.all(Array.from({ length: JOBS_IN_FLIGHT }, pull));
}
