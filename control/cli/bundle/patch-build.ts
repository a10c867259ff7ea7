/**
 * Builds a patch between two bundles, from their files alone. The same two bundles give the same patch, whatever the number
 * of threads. Format: docs/specs/patch-format.md.
 */
import { open, rename, rm } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { dirname } from 'node:path';
import { type ChunkIndex, unpackIndex } from '#/bundle/chunk-index.ts';
import {
  chunksMissingFrom,
  dictionaryBuffer,
  encodePatchHeader,
  encodePatchTable,
  INDEX_PATCH_MAX_BYTES,
  type OldRange,
  packPatchTable,
  packWithDictionary,
  type PatchHeader,
  type PatchSegment,
  SEGMENT_MAX_BYTES,
  streamBytesOf,
} from '#/bundle/patch.ts';
import { writeAll } from '#/control/cli/bundle/chunk-writer.ts';
import { createCompressPool } from '#/control/cli/bundle/compress-pool.ts';
import { type OpenBundle, openBundle } from '#/control/cli/bundle/read.ts';
import { createSimilarity, type Similarity } from '#/control/cli/bundle/similar.ts';
import { createStreamReader, type StreamReader } from '#/control/cli/bundle/stream-reader.ts';
import { Problem } from '#/protocol/errors.ts';
import type { ArtifactId } from '#/protocol/ids.ts';

/** Higher levels cost four times the time for one percent. */
const LEVEL = 19;

export interface PatchOptions {
  readonly from: string;
  readonly to: string;
  readonly out: string;
  readonly workers?: number;
  readonly onProgress?: (progress: { doneBytes: number; totalBytes: number }) => void;
  readonly signal?: AbortSignal | undefined;
}

export interface PatchResult {
  readonly path: string;
  readonly from: ArtifactId;
  readonly to: ArtifactId;
  readonly patchBytes: number;
  readonly segments: number;
  /** What a host with `from` downloads from the bundle instead. */
  readonly chunkBytes: number;
}

/** Writes the patch to `out`, durably and atomically. Throws as `openBundle`; E_USAGE when both are the same version. */
export async function buildPatch(options: PatchOptions): Promise<PatchResult> {
  await using from = await openBundle(options.from, null);
  await using to = await openBundle(options.to, null);
  if (from.artifactId === to.artifactId) {
    throw new Problem('E_USAGE', `both bundles are ${to.artifactId}: there is nothing to patch`);
  }
  const before = await from.index();
  const after = await to.index();
  const missing = chunksMissingFrom(before, after);
  const groups = segmentsOf(after, missing);
  const totalBytes =
    before.rawSizes.reduce((sum, size) => sum + size, 0) +
    missing.reduce((sum, chunk) => sum + (after.rawSizes[chunk] ?? 0), 0);
  let doneBytes = 0;
  const onBytes = (bytes: number): void => {
    options.signal?.throwIfAborted();
    doneBytes += bytes;
    options.onProgress?.({ doneBytes, totalBytes });
  };
  const similarity = await sampleOld(from, before, onBytes);
  const built = await compressAll({
    from,
    to,
    before,
    after,
    similarity,
    groups,
    onBytes,
    options,
  });
  const { segments, frames } = built;
  const table = encodePatchTable(segments);
  const tableStored = packPatchTable(table);
  const indexStored = await packIndex(from, to);
  const header: PatchHeader = {
    from: from.artifactId,
    to: to.artifactId,
    indexStoredBytes: indexStored.byteLength,
    tableBytes: table.byteLength,
    tableStoredBytes: tableStored.byteLength,
    segmentCount: segments.length,
    dataBytes: frames.reduce((sum, frame) => sum + frame.byteLength, 0),
  };
  const parts = [encodePatchHeader(header), indexStored, tableStored, ...frames];
  await writeParts(options.out, parts);
  return {
    path: options.out,
    from: from.artifactId,
    to: to.artifactId,
    patchBytes: parts.reduce((sum, part) => sum + part.byteLength, 0),
    segments: segments.length,
    chunkBytes: storedBytesOf(after, missing),
  };
}

/** The missing chunks in groups of one segment each. */
function segmentsOf(after: ChunkIndex, missing: readonly number[]): number[][] {
  const groups: number[][] = [];
  let rawBytes = SEGMENT_MAX_BYTES;
  for (const chunk of missing) {
    const size = after.rawSizes[chunk] ?? 0;
    if (rawBytes + size > SEGMENT_MAX_BYTES) {
      groups.push([]);
      rawBytes = 0;
    }
    groups.at(-1)?.push(chunk);
    rawBytes += size;
  }
  return groups;
}

/** All chunks of the old version, each at the first place where it is used. */
async function sampleOld(
  from: OpenBundle,
  before: ChunkIndex,
  onBytes: (bytes: number) => void,
): Promise<Similarity> {
  const contentBytes = before.rawSizes.reduce((sum, size) => sum + size, 0);
  const similarity = createSimilarity(streamBytesOf(before), contentBytes);
  let base = 0;
  let next = 0;
  for (const { chunks, positions, streamBytes } of before.payloads) {
    for (const [piece, chunk] of chunks.entries()) {
      // Chunks are numbered in the order of their first use.
      if (chunk !== next) continue;
      next += 1;
      const content = await from.readChunk(chunk);
      similarity.add(content, base + (positions[piece] ?? 0));
      onBytes(content.byteLength);
    }
    base += streamBytes;
  }
  return similarity;
}

interface CompressWork {
  readonly from: OpenBundle;
  readonly to: OpenBundle;
  readonly before: ChunkIndex;
  readonly after: ChunkIndex;
  readonly similarity: Similarity;
  readonly groups: readonly (readonly number[])[];
  readonly onBytes: (bytes: number) => void;
  readonly options: PatchOptions;
}

async function compressAll(
  work: CompressWork,
): Promise<{ segments: PatchSegment[]; frames: Uint8Array[] }> {
  const { from, to, before, after, similarity, groups, onBytes, options } = work;
  const workers = options.workers ?? availableParallelism();
  const pool = createCompressPool(workers);
  const old = createStreamReader(from, before);
  const results = new Map<number, { ranges: OldRange[]; frame: Uint8Array }>();
  let next = 0;
  const pull = async (): Promise<void> => {
    while (next < groups.length) {
      const number = next;
      next += 1;
      const content = await contentOf(to, groups[number] ?? []);
      const ranges = similarity.find(content);
      const dictionary = await dictionaryOf(old, ranges);
      const sizes = Uint32Array.of(content.byteLength);
      const sizeBytes = content.byteLength;
      const { stored } = await pool.run({ bytes: content, sizes, level: LEVEL, dictionary });
      results.set(number, { ranges, frame: stored });
      onBytes(sizeBytes);
    }
  };
  try {
    // One more than threads, so that none waits for its next segment.
    await Promise.all(Array.from({ length: workers + 1 }, pull));
  } finally {
    await pool.close();
  }
  let offset = 0;
  const frames: Uint8Array[] = [];
  const segments = groups.map((chunks, number): PatchSegment => {
    const rawBytes = chunks.reduce((sum, chunk) => sum + (after.rawSizes[chunk] ?? 0), 0);
    const { ranges, frame } = results.get(number) ?? { ranges: [], frame: new Uint8Array(0) };
    // Where chunks are smaller, or nothing became smaller, there is nothing to gain.
    const isOfUse = frame.byteLength < Math.min(rawBytes, storedBytesOf(after, chunks));
    const storedBytes = isOfUse ? frame.byteLength : 0;
    const segment = { chunks, rawBytes, storedBytes, offset, ranges: isOfUse ? ranges : [] };
    if (isOfUse) frames.push(frame);
    offset += storedBytes;
    return segment;
  });
  return { segments, frames };
}

async function contentOf(
  bundle: OpenBundle,
  chunks: readonly number[],
): Promise<Uint8Array<ArrayBuffer>> {
  const parts: Uint8Array[] = [];
  for (const chunk of chunks) parts.push(await bundle.readChunk(chunk));
  const content = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
  let at = 0;
  for (const part of parts) {
    content.set(part, at);
    at += part.byteLength;
  }
  return content;
}

/** The old content of some ranges as a dictionary; null for none. */
export async function dictionaryOf(
  old: StreamReader,
  ranges: readonly OldRange[],
): Promise<Uint8Array | null> {
  if (ranges.length === 0) return null;
  const sizeBytes = ranges.reduce((sum, range) => sum + range.sizeBytes, 0);
  const { whole, content } = dictionaryBuffer(sizeBytes);
  let at = 0;
  for (const range of ranges) {
    await old.read(range, content.subarray(at, at + range.sizeBytes));
    at += range.sizeBytes;
  }
  return whole;
}

/** The new index with the old one as dictionary; nothing when they are too large for that. */
async function packIndex(from: OpenBundle, to: OpenBundle): Promise<Uint8Array> {
  const sizes = [from.manifest.index.sizeBytes, to.manifest.index.sizeBytes];
  if (Math.max(...sizes) > INDEX_PATCH_MAX_BYTES) return new Uint8Array(0);
  const [before, after] = await Promise.all([rawIndexOf(from), rawIndexOf(to)]);
  const { whole, content } = dictionaryBuffer(before.byteLength);
  content.set(before);
  return packWithDictionary(after, whole, LEVEL);
}

async function rawIndexOf(bundle: OpenBundle): Promise<Uint8Array> {
  const { offset, sizeBytes } = bundle.located.index;
  return unpackIndex(await bundle.readAt(offset, sizeBytes), bundle.manifest);
}

function storedBytesOf(index: ChunkIndex, chunks: readonly number[]): number {
  return chunks.reduce((sum, chunk) => sum + (index.storedSizes[chunk] ?? 0), 0);
}

async function writeParts(out: string, parts: readonly Uint8Array[]): Promise<void> {
  const temporary = `${out}.part`;
  try {
    {
      await using file = await open(temporary, 'w', 0o644);
      let at = 0;
      for (const part of parts) {
        await writeAll(file, part, at);
        at += part.byteLength;
      }
      await file.sync();
    }
    await rename(temporary, out);
  } finally {
    await rm(temporary, { force: true });
  }
  await using directory = await open(dirname(out), 'r');
  await directory.sync();
}
