/** Feeds one payload, an image file or the files of a tree, through its chunker into the chunk store. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { createChunker } from '#/bundle/chunker.ts';
import type { ChunkerName } from '#/bundle/chunk-index.ts';
import type { PayloadPieces } from '#/bundle/index-encode.ts';
import { checkTree, type TreeRules } from '#/bundle/tree-check.ts';
import type { TreeEntry } from '#/bundle/tree-entry.ts';
import { isSmallFile } from '#/bundle/tree-layout.ts';
import type { ChunkStore } from '#/control/cli/bundle/chunk-store.ts';
import type { ScannedEntry } from '#/control/cli/bundle/scan-tree.ts';
import { Problem } from '#/protocol/errors.ts';

const READ_BYTES = 1024 * 1024;

export interface ChunkContext {
  readonly store: ChunkStore;
  /** Called with the bytes that were read since the last call. */
  readonly onBytes: (bytes: number) => void;
  readonly signal?: AbortSignal | undefined;
}

/** Chunks an image; holes of a sparse file read as zeros and come out as holes. */
export async function chunkImage(
  path: string,
  sizeBytes: number,
  chunker: ChunkerName,
  context: ChunkContext,
): Promise<{ readonly pieces: PayloadPieces; readonly sha256: string }> {
  const chunks = createChunker(chunker, context.store);
  const sha256 = await feed(path, sizeBytes, chunks.push, context);
  chunks.end();
  return { pieces: { chunker, pieces: context.store.takePieces(), entries: null }, sha256 };
}

/**
 * Chunks the files of a tree in the order of its layout (small files first, then the others; each content once) and gives
 * the complete listing. Throws E_PATH, E_MODE, E_IO (a file changed while it was read).
 */
export async function chunkTree(
  root: string,
  scanned: readonly ScannedEntry[],
  chunker: ChunkerName,
  rules: TreeRules,
  context: ChunkContext,
): Promise<PayloadPieces & { readonly entries: readonly TreeEntry[] }> {
  // Before anything is read, everything that can be refused is.
  checkTree(
    scanned.map((entry) => withDigest(entry, '')),
    rules,
  );
  const files = scanned.filter((entry) => entry.kind === 'file');
  const digests = new Map<string, string>();
  const seen = new Set<string>();
  const chunks = createChunker(chunker, context.store);
  for (const file of files.filter((entry) => isSmallFile(entry.sizeBytes))) {
    context.signal?.throwIfAborted();
    // At once: for thousands of small files the waiting would take longer than the reading.
    const bytes = readFileSync(join(root, file.path));
    if (bytes.byteLength !== file.sizeBytes) throw changed(file.path);
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    digests.set(file.path, sha256);
    if (!seen.has(sha256)) chunks.push(bytes);
    context.onBytes(bytes.byteLength);
    await context.store.drain();
    seen.add(sha256);
  }
  chunks.end();
  const large = files.filter((entry) => !isSmallFile(entry.sizeBytes));
  const ofSize = Map.groupBy(large, (entry) => entry.sizeBytes);
  for (const file of large) {
    const path = join(root, file.path);
    // Only a file that has a twin in size can be a second copy: those are digested before they are chunked.
    const hasTwin = (ofSize.get(file.sizeBytes)?.length ?? 0) > 1;
    const early = hasTwin ? await feed(path, file.sizeBytes, () => {}, context) : null;
    if (early !== null && seen.has(early)) {
      digests.set(file.path, early);
      continue;
    }
    const sha256 = await feed(
      path,
      file.sizeBytes,
      chunks.push,
      hasTwin ? { ...context, onBytes: () => {} } : context,
    );
    if (early !== null && early !== sha256) throw changed(path);
    chunks.end();
    digests.set(file.path, sha256);
    seen.add(sha256);
  }
  const entries = scanned.map((entry) => withDigest(entry, digests.get(entry.path) ?? ''));
  return { chunker, pieces: context.store.takePieces(), entries };
}

function withDigest(entry: ScannedEntry, sha256: string): TreeEntry {
  const { path, mode, uid, gid } = entry;
  switch (entry.kind) {
    case 'directory':
      return { path, mode, uid, gid, kind: entry.kind };
    case 'file':
      return { path, mode, uid, gid, kind: entry.kind, sizeBytes: entry.sizeBytes, sha256 };
    case 'symlink':
    case 'hardlink':
      return { path, mode, uid, gid, kind: entry.kind, target: entry.target };
  }
}

/** Reads a file of exactly `sizeBytes` into `push`; returns its sha256. */
async function feed(
  path: string,
  sizeBytes: number,
  push: (bytes: Uint8Array) => void,
  context: ChunkContext,
): Promise<string> {
  const hash = createHash('sha256');
  await using file: FileHandle = await open(path, 'r');
  // One buffer is filled while the other is digested and cut.
  let filling = new Uint8Array(Math.min(READ_BYTES, sizeBytes + 1));
  let filled = new Uint8Array(filling.byteLength);
  let total = 0;
  let reading = file.read(filling, 0, filling.byteLength, 0);
  try {
    for (;;) {
      context.signal?.throwIfAborted();
      const { bytesRead } = await reading;
      if (bytesRead === 0) break;
      total += bytesRead;
      if (total > sizeBytes) throw changed(path);
      [filled, filling] = [filling, filled];
      reading = file.read(filling, 0, filling.byteLength, total);
      const bytes = filled.subarray(0, bytesRead);
      hash.update(bytes);
      push(bytes);
      context.onBytes(bytesRead);
      await context.store.drain();
    }
  } finally {
    // The file is closed next; a read must not be under way, and its own failure no longer matters.
    await reading.catch(() => null);
  }
  if (total !== sizeBytes) throw changed(path);
  return hash.digest('hex');
}

function changed(path: string): Problem {
  return new Problem('E_IO', `${path} changed while it was read`);
}
