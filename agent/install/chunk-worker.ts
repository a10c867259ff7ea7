/** The work of one thread: verify, write, compare, all synchronous (measured: the libuv pool costs three times the CPU). */
import {
  constants,
  fchmodSync,
  fchownSync,
  fsyncSync,
  fstatSync,
  ftruncateSync,
  openSync,
  closeSync,
} from 'node:fs';
import { CHUNK_MAX_BYTES, isChunk } from '#/bundle/open-chunk.ts';
import { DICTIONARY_MAX_BYTES, dictionaryBuffer } from '#/bundle/patch.ts';
import { Problem } from '#/protocol/errors.ts';
import { createChunkOpener } from './chunk-opener.ts';
import { fileOf } from './file-table.ts';
import type { Job, JobResult, WorkerSetup } from './jobs.ts';
import type { PatchColumns } from './patch-plan.ts';
import { createReadBack, type ReadBack } from './read-back.ts';
import { createSegmentOpener, type SegmentOpener } from './segment-opener.ts';
import {
  attempt,
  seedFiles,
  type SeedFiles,
  targetFiles,
  type TargetFiles,
} from './target-files.ts';
import type { PieceColumns } from './write-plan.ts';
import { markChunk, markPiece } from './written.ts';

const ZEROS_BYTES = 1024 * 1024;
const DIGEST_BYTES = 32;

export class ChunkWorker {
  readonly #setup: WorkerSetup;
  readonly #targets: TargetFiles;
  readonly #seeds: SeedFiles | null;
  readonly #content = new Uint8Array(CHUNK_MAX_BYTES);
  readonly #scratch = new Uint8Array(CHUNK_MAX_BYTES);
  readonly #opener = createChunkOpener();
  #zeros: Uint8Array | null = null;
  #dictionary: ReturnType<typeof dictionaryBuffer> | null = null;
  #segments: SegmentOpener | null = null;
  #readBack: ReadBack | null = null;

  constructor(setup: WorkerSetup) {
    this.#setup = setup;
    this.#targets = targetFiles(setup.files, setup.descriptors, setup.created);
    this.#seeds = setup.seed === null ? null : seedFiles(setup.seed.files);
  }

  run(job: Job): JobResult {
    switch (job.do) {
      case 'store':
        return failed(
          job.chunks.filter((chunk, i) => !this.#store(chunk, job.slab, job.starts[i] ?? 0)),
        );
      case 'patch':
        return failed(
          job.segments.flatMap((segment, i) =>
            this.#applySegment(segment, job.slab, job.starts[i] ?? 0),
          ),
        );
      case 'recheck':
        return failed(job.chunks.filter((chunk) => !this.#isInPlace(chunk)));
      case 'reuse':
        return failed(job.chunks.filter((chunk) => !this.#reuse(chunk)));
      case 'zero':
        this.#zero(job.file, job.offset, job.sizeBytes);
        return failed([]);
      case 'finish':
        for (let file = job.from; file < job.to; file += 1) {
          if (this.#setup.written.finished[file] !== 1) this.#finish(file);
        }
        return failed([]);
      case 'sync':
        for (let file = job.from; file < job.to; file += 1) this.#sync(file);
        return failed([]);
      case 'readBack':
        return this.#compare(job.from, job.to);
      case 'readBackImage':
        return this.#compareImage(job.image, job.from, job.to);
    }
  }

  close(): void {
    this.#targets.closeAll();
    this.#seeds?.closeAll();
  }

  #entry(chunk: number): {
    digest: Uint8Array;
    rawSize: number;
    storedSize: number;
    offset: number;
  } {
    const { digests, rawSizes, storedSizes } = this.#setup;
    return {
      digest: digests.subarray(chunk * DIGEST_BYTES, (chunk + 1) * DIGEST_BYTES),
      rawSize: rawSizes[chunk] ?? 0,
      storedSize: storedSizes[chunk] ?? 0,
      offset: 0,
    };
  }

  /** False when the stored bytes are not the chunk (C01, C02, F8); nothing was written then. */
  #store(chunk: number, slab: number, start: number): boolean {
    const { slabs, slabBytes } = this.#setup;
    const entry = this.#entry(chunk);
    const from = slab * slabBytes + start;
    const content = this.#opener.open(slabs.subarray(from, from + entry.storedSize), entry);
    if (content === null) return false;
    this.#write(chunk, content);
    return true;
  }

  /** Chunks of the segment that did not come out: a bad patch, or a seed that is not what its index says (F83). */
  #applySegment(segment: number, slab: number, start: number): number[] {
    const { slabs, slabBytes, patch } = this.#setup;
    if (patch === null) return [];
    const { chunkStarts, rawBytes, storedBytes } = patch;
    const from = slab * slabBytes + start;
    const stored = slabs.subarray(from, from + (storedBytes[segment] ?? 0));
    const chunks = patch.chunks.subarray(chunkStarts[segment], chunkStarts[segment + 1]);
    const dictionary = this.#dictionaryOf(segment, patch);
    this.#segments ??= createSegmentOpener();
    const content =
      dictionary === undefined
        ? null
        : this.#segments.open(stored, rawBytes[segment] ?? 0, dictionary);
    if (content === null) return [...chunks];
    const bad: number[] = [];
    let at = 0;
    for (const chunk of chunks) {
      const entry = this.#entry(chunk);
      const own = content.subarray(at, at + entry.rawSize);
      at += entry.rawSize;
      if (isChunk(own, entry)) this.#write(chunk, own);
      else bad.push(chunk);
    }
    return bad;
  }

  /** Old content, unverified: what comes out of it is. Null: none is needed. Undefined: the seed does not have it. */
  #dictionaryOf(segment: number, patch: PatchColumns): Uint8Array | null | undefined {
    const sizeBytes = patch.dictionaryBytes[segment] ?? 0;
    if (sizeBytes === 0) return null;
    if (this.#seeds === null) return undefined;
    this.#dictionary ??= dictionaryBuffer(DICTIONARY_MAX_BYTES);
    const { whole, content } = this.#dictionary;
    const { starts, file, fileOffset, chunkOffset, sizeBytes: sizes } = patch.dictionary;
    for (let i = starts[segment] ?? 0; i < (starts[segment + 1] ?? 0); i += 1) {
      const from = chunkOffset[i] ?? 0;
      const into = content.subarray(from, from + (sizes[i] ?? 0));
      const count = this.#seeds.read(file[i] ?? 0, into, fileOffset[i] ?? 0);
      if (count !== into.byteLength) return undefined;
    }
    return whole.subarray(0, sizeBytes + 1);
  }

  /** Writes verified content to all its places; a file that this completes is finished. */
  #write(chunk: number, content: Uint8Array): void {
    const { pieces, written } = this.#setup;
    // In place from an earlier run, or by another way: its files may be finished.
    if (Atomics.load(written.chunks, chunk) === 1) return;
    const { starts, file, fileOffset, chunkOffset, sizeBytes } = pieces;
    for (let i = starts[chunk] ?? 0; i < (starts[chunk + 1] ?? 0); i += 1) {
      const from = chunkOffset[i] ?? 0;
      const piece = content.subarray(from, from + (sizeBytes[i] ?? 0));
      this.#targets.write(file[i] ?? 0, piece, fileOffset[i] ?? 0);
    }
    this.#count(chunk, (number) => {
      this.#finish(number);
      this.#targets.close(number);
    });
  }

  /** Counts the pieces of a chunk that is in place; hears the files that have no piece left to come. */
  #count(chunk: number, onComplete: (file: number) => void): void {
    const { pieces, written } = this.#setup;
    if (!markChunk(written, chunk)) return;
    for (let i = pieces.starts[chunk] ?? 0; i < (pieces.starts[chunk + 1] ?? 0); i += 1) {
      const file = pieces.file[i] ?? 0;
      if (markPiece(written, file)) onComplete(file);
    }
  }

  /** True when every place of the chunk holds it already: what an earlier, killed run has written (F2). */
  #isInPlace(chunk: number): boolean {
    const content = this.#gather(chunk, this.#setup.pieces, this.#targets, true);
    if (content === null || !isChunk(content, this.#entry(chunk))) return false;
    // Not finished here: other threads may still be reading what they recheck of the same file.
    this.#count(chunk, () => undefined);
    return true;
  }

  /** False when the seed does not have the chunk any more (F83). */
  #reuse(chunk: number): boolean {
    const { seed } = this.#setup;
    if (seed === null || this.#seeds === null) return false;
    const content = this.#gather(chunk, seed.pieces, this.#seeds, false);
    if (content === null || !isChunk(content, this.#entry(chunk))) return false;
    this.#write(chunk, content);
    return true;
  }

  /** The chunk put together from its pieces; null when one is missing, or, with `all`, when two places differ. */
  #gather(
    chunk: number,
    columns: PieceColumns,
    files: Pick<TargetFiles, 'read'>,
    all: boolean,
  ): Uint8Array | null {
    const { starts, file, fileOffset, chunkOffset, sizeBytes } = columns;
    let filled = 0;
    for (let i = starts[chunk] ?? 0; i < (starts[chunk + 1] ?? 0); i += 1) {
      const from = chunkOffset[i] ?? 0;
      const size = sizeBytes[i] ?? 0;
      if (from > filled) return null;
      if (!all && from + size <= filled) continue;
      const into = this.#scratch.subarray(0, size);
      if (files.read(file[i] ?? 0, into, fileOffset[i] ?? 0) !== size) return null;
      const known = Math.min(filled - from, size);
      if (
        Buffer.compare(into.subarray(0, known), this.#content.subarray(from, from + known)) !== 0
      ) {
        return null;
      }
      this.#content.set(into.subarray(known), from + known);
      filled = Math.max(filled, from + size);
    }
    const { rawSize } = this.#entry(chunk);
    return filled === rawSize ? this.#content.subarray(0, rawSize) : null;
  }

  #zero(file: number, offset: number, sizeBytes: number): void {
    this.#zeros ??= new Uint8Array(ZEROS_BYTES);
    for (let done = 0; done < sizeBytes; done += ZEROS_BYTES) {
      const part = this.#zeros.subarray(0, Math.min(ZEROS_BYTES, sizeBytes - done));
      this.#targets.write(file, part, offset + done);
    }
  }

  #finish(file: number): void {
    const planned = fileOf(this.#setup.files, file);
    if (planned === undefined || planned.kind === 'device') return;
    const { path, sizeBytes, mode, uid, gid } = planned;
    const descriptor = this.#targets.descriptor(file);
    attempt('finish', path, () => {
      const found = fstatSync(descriptor);
      if (!found.isFile() || found.nlink !== 1) {
        throw new Problem('E_PATH', `${path} is not the file that was created`);
      }
      if (found.size !== sizeBytes) ftruncateSync(descriptor, sizeBytes);
      // Before the mode: a change of owner clears setuid.
      if (this.#setup.setOwners && (found.uid !== uid || found.gid !== gid)) {
        fchownSync(descriptor, uid, gid);
      }
      if ((found.mode & 0o7777) !== mode) fchmodSync(descriptor, mode);
    });
    this.#setup.written.finished[file] = 1;
  }

  #sync(file: number): void {
    const planned = fileOf(this.#setup.files, file);
    if (planned === undefined) return;
    const { path } = planned;
    const known = this.#setup.descriptors[file] ?? -1;
    if (known >= 0) {
      attempt('fsync', path, () => fsyncSync(known));
      return;
    }
    // Read only: the final mode may forbid writing, and fsync needs no more.
    const descriptor = attempt('open', path, () =>
      openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK),
    );
    try {
      attempt('fsync', path, () => fsyncSync(descriptor));
    } finally {
      closeSync(descriptor);
    }
  }

  #compare(from: number, to: number): JobResult {
    this.#readBack ??= createReadBack();
    const different: number[] = [];
    let direct = true;
    for (let file = from; file < to; file += 1) {
      const planned = fileOf(this.#setup.files, file);
      if (planned === undefined) continue;
      const seen = this.#readBack.sha256(planned.path, planned.sizeBytes);
      direct &&= seen.direct;
      if (seen.sha256 !== planned.sha256) different.push(file);
    }
    return { failed: different, direct };
  }

  #compareImage(image: number, from: number, to: number): JobResult {
    const { images, files, digests } = this.#setup;
    const pieces = images[image];
    const planned = fileOf(files, pieces?.file ?? -1);
    if (pieces === undefined || planned === undefined) return failed([]);
    this.#readBack ??= createReadBack();
    const { path, sizeBytes } = planned;
    const seen = this.#readBack.compare(path, sizeBytes, { ...pieces, digests }, from, to);
    return { failed: seen.same ? [] : [pieces.file], direct: seen.direct };
  }
}

function failed(numbers: readonly number[]): JobResult {
  return { failed: numbers, direct: true };
}
