/**
 * The heavy part of an installation: sources and seed to written, synced slot (D2-D3, P2-P3). Nothing is written before its
 * digest was checked. What an earlier run left in place is checked and kept: the bytes on the disk are the only progress
 * record, so none can be wrong (docs/decisions/0012-resume-from-content.md).
 */
import { closeSync, constants, fdatasync, fstatSync, openSync } from 'node:fs';
import { promisify } from 'node:util';
import { numberText } from '#/agent/adapters/block-devices.ts';
import { makeDirectory, replaceFile } from '#/agent/adapters/durable.ts';
import { fileProblem, nodeFiles } from '#/agent/adapters/file-port.ts';
import { type ChunkIndex, parseIndex } from '#/bundle/chunk-index.ts';
import type { Manifest } from '#/bundle/manifest.ts';
import { isProblem, Problem } from '#/protocol/errors.ts';
import { createBandwidth } from './bandwidth.ts';
import { manifestOf, openBundle, type OpenedBundle } from './container-reader.ts';
import { zeroOut } from './device-zeros.ts';
import { fetchChunks } from './fetcher.ts';
import type { WorkerSetup } from './jobs.ts';
import { Meter } from './meter.ts';
import { planSeed, type SeedPlan } from './seed-plan.ts';
import { SLAB_BYTES, slabCount, Slabs } from './slabs.ts';
import { SourceSet } from './source-set.ts';
import { finishStaging, prepareStaging, syncDirectories, syncFileSystem } from './staging.ts';
import { attempt } from './target-files.ts';
import type { DownloadOutcome, DownloadTask, KeptVersion, TaskProgress } from './task.ts';
import type { TaskWorld } from './world.ts';
import { createWorkerPool, type WorkerPool } from './worker-pool.ts';
import { planWrites, type WritePlan } from './write-plan.ts';

/** Chunks or files of one local job: large enough to be worth a message, small enough to share the work. */
const CHUNKS_PER_JOB = 64;
const FILES_PER_JOB = 256;
const ZERO_BYTES_PER_JOB = 32 * 1024 * 1024;
/** Dirty data of an image is bounded by a flush each so many bytes (durability recipe 4). */
const FLUSH_BYTES = 64 * 1024 * 1024;
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
  try {
    const bundle = await openFromAny(sources, manifest, task, world, signal);
    await keepMeta(task, bundle);
    const plan = planWrites(manifest, bundle.index, task.targets);
    const meter = new Meter(bundle.index.rawSizes, world.nowMs, onProgress);
    meter.fetched(bundle.fetchedBytes);
    const run = new DownloadRun(task, bundle, plan, meter, sources, world);
    await run.all(signal);
    return {
      ...meter.totals(),
      durationMs: world.nowMs() - startedMs,
      failedSources: sources.failures(),
      rottenSeedChunks: run.rottenSeedChunks,
    };
  } finally {
    await sources.close();
  }
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
async function keepMeta(task: DownloadTask, bundle: OpenedBundle): Promise<void> {
  if (task.meta === null) return;
  const files = nodeFiles();
  await makeDirectory(files, task.meta);
  await replaceFile(files, `${task.meta}/manifest.json`, task.manifestBytes);
  await replaceFile(files, `${task.meta}/chunks.index`, bundle.rawIndex);
}

class DownloadRun {
  rottenSeedChunks = 0;
  readonly #task: DownloadTask;
  readonly #bundle: OpenedBundle;
  readonly #plan: WritePlan;
  readonly #meter: Meter;
  readonly #sources: SourceSet;
  readonly #world: TaskWorld;
  readonly #created: Int32Array;
  readonly #slabs: Slabs;
  /** Chunks that are verified and in place. */
  readonly #done: Uint8Array;

  constructor(
    task: DownloadTask,
    bundle: OpenedBundle,
    plan: WritePlan,
    meter: Meter,
    sources: SourceSet,
    world: TaskWorld,
  ) {
    this.#task = task;
    this.#bundle = bundle;
    this.#plan = plan;
    this.#meter = meter;
    this.#sources = sources;
    this.#world = world;
    this.#created = new Int32Array(new SharedArrayBuffer(Math.max(4, plan.files.length * 4)));
    this.#slabs = new Slabs(slabCount(task.settings.connections, task.settings.workers));
    this.#done = new Uint8Array(bundle.index.chunkCount);
  }

  async all(signal: AbortSignal): Promise<void> {
    const task = this.#task;
    const mayHold =
      task.staging === null
        ? task.resumesDevice
        : prepareStaging(task.staging, this.#plan, this.#created);
    const descriptors = this.#openImages();
    const seed = task.seed === null ? null : seedPlanOf(task.seed, this.#bundle.index);
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
    const { index } = this.#bundle;
    return {
      files: this.#plan.files,
      descriptors,
      pieces: this.#plan.pieces,
      digests: shared(index.digests),
      rawSizes: index.rawSizes,
      storedSizes: index.storedSizes,
      created: this.#created,
      seed,
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
    const all = Array.from({ length: this.#bundle.index.chunkCount }, (_, i) => i);
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
      flush.wrote(bytesOf(this.#bundle.index, chunks));
    };
    const toFetch = missing.filter((chunk) => !heldSet.has(chunk));
    await Promise.all([
      this.#reuse(pool, held, flush, signal),
      this.#fetch(pool, toFetch, onStored, signal),
    ]);
    // What the seed promised but did not have (F83).
    await this.#fetch(pool, this.#missing(), onStored, signal);
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
      flush.wrote(bytesOf(this.#bundle.index, good));
      await flush.room();
    });
  }

  async #fetch(
    pool: WorkerPool,
    numbers: readonly number[],
    onStored: (chunks: readonly number[]) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const { settings } = this.#task;
    const { nowMs, sleep } = this.#world;
    await fetchChunks(
      {
        index: this.#bundle.index,
        dataOffset: this.#bundle.dataOffset,
        sources: this.#sources,
        pool,
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

/** Flushes images while they are written. An error is final: the descriptor is spent. */
class Flusher {
  readonly #descriptors: readonly number[];
  #sinceBytes = 0;
  #running: Promise<void> = Promise.resolve();
  #isRunning = false;

  constructor(descriptors: readonly number[]) {
    this.#descriptors = descriptors;
  }

  wrote(bytes: number): void {
    this.#sinceBytes += bytes;
    if (this.#sinceBytes < FLUSH_BYTES || this.#isRunning || this.#descriptors.length === 0) return;
    this.#sinceBytes = 0;
    this.#isRunning = true;
    this.#running = flushAll(this.#descriptors).then(() => {
      this.#isRunning = false;
    });
    // Waited for in `done`; until then it must not count as unhandled.
    this.#running.catch(() => undefined);
  }

  /** Waits, when a whole bound is dirty again, for the flush of the one before: local work outruns any disk. */
  async room(): Promise<void> {
    // A flush that failed is told by `done`, and none is tried after it.
    if (this.#sinceBytes >= FLUSH_BYTES) await this.#running.catch(() => undefined);
  }

  async done(): Promise<void> {
    await this.#running;
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

async function flushAll(descriptors: readonly number[]): Promise<void> {
  for (const descriptor of descriptors) {
    try {
      await promisify(fdatasync)(descriptor);
    } catch (error) {
      const errno = error instanceof Error && 'code' in error ? String(error.code) : 'EIO';
      throw fileProblem('fdatasync', 'the image', errno, error);
    }
  }
}

/** Null when the kept index is of a format that this agent does not read: then everything is fetched. */
function seedPlanOf(seed: KeptVersion, index: ChunkIndex): SeedPlan | null {
  try {
    const manifest = manifestOf(seed.artifactId, seed.manifestBytes);
    const seedIndex = parseIndex(seed.rawIndex, manifest);
    return planSeed(index, { manifest, index: seedIndex, targets: seed.targets });
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
