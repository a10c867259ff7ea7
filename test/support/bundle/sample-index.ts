import { createHash } from 'node:crypto';
import { encodeIndex, type PayloadPieces, type StoredChunk } from '#/bundle/index-encode.ts';
import { type Manifest, MANIFEST_SCHEMA, type Payload } from '#/bundle/manifest.ts';
import type { TreeEntry } from '#/bundle/tree-entry.ts';
import { encodeTreeList } from '#/bundle/tree-list.ts';

export const sha256 = (bytes: Uint8Array): string =>
  createHash('sha256').update(bytes).digest('hex');

export const trial: Manifest['trial'] = {
  soakMs: 0,
  deadlineMs: 60_000,
  maxBoots: 1,
  control: 'offline-ok',
};

/** A manifest over a raw index; `changes` go over what would be right. */
export function manifestOver(
  raw: Uint8Array,
  payloads: readonly Payload[],
  dataBytes: number,
  changes: Partial<Manifest> = {},
): Manifest {
  return {
    schema: MANIFEST_SCHEMA,
    name: 'sample',
    class: 'sample',
    arch: 'any',
    version: '1',
    release: 1,
    created: 0,
    minAgent: 0,
    minFrom: 0,
    index: { sha256: sha256(raw), sizeBytes: raw.byteLength },
    dataBytes,
    payloads: [...payloads],
    activation: { kind: 'none' },
    health: [],
    trial,
    ...changes,
  };
}

/** A chunk of the given sizes whose digest is that of its number: enough for an index. */
export function fakeChunk(number: number, rawSize: number, storedSize = rawSize): StoredChunk {
  const digest = createHash('sha256').update(`chunk ${number}`).digest();
  return { digest, rawSize, storedSize };
}

/** An index of one image with these chunks and holes (negative: a hole of so many bytes), and its manifest. */
export function imageIndex(
  sizes: readonly number[],
  changes: Partial<Payload> = {},
): { readonly raw: Uint8Array; readonly manifest: Manifest } {
  const chunks: StoredChunk[] = [];
  const pieces = sizes.map((size) => {
    if (size < 0) return { hole: -size };
    chunks.push(fakeChunk(chunks.length, size));
    return { chunk: chunks.length - 1 };
  });
  const raw = encodeIndex(chunks, [{ chunker: 'acdc-32k', pieces, entries: null }]);
  const payload = {
    kind: 'image',
    name: 'root',
    chunker: 'acdc-32k',
    sizeBytes: sizes.reduce((sum, size) => sum + Math.abs(size), 0),
    chunkCount: pieces.length,
    sha256: '0'.repeat(64),
    ...changes,
  } as Payload;
  const dataBytes = chunks.reduce((sum, chunk) => sum + chunk.storedSize, 0);
  return { raw, manifest: manifestOver(raw, [payload], dataBytes) };
}

/** An index of one tree whose stream is cut in chunks of at most 64 KiB, and its manifest. */
export function treeIndex(
  entries: readonly TreeEntry[],
  streamBytes: number,
  changes: Partial<Payload> = {},
): { readonly raw: Uint8Array; readonly manifest: Manifest } {
  const chunks: StoredChunk[] = [];
  for (let left = streamBytes; left > 0; left -= 65_536) {
    chunks.push(fakeChunk(chunks.length, Math.min(left, 65_536)));
  }
  const pieces = chunks.map((_, chunk) => ({ chunk }));
  const pieced: PayloadPieces = { chunker: 'fastcdc-16k', pieces, entries };
  const raw = encodeIndex(chunks, [pieced]);
  const payload = {
    kind: 'tree',
    name: 'root',
    chunker: 'fastcdc-16k',
    sizeBytes: entries.reduce(
      (sum, entry) => sum + (entry.kind === 'file' ? entry.sizeBytes : 0),
      0,
    ),
    chunkCount: pieces.length,
    entryCount: entries.length,
    treeSha256: sha256(encodeTreeList(entries)),
    ...changes,
  } as Payload;
  return { raw, manifest: manifestOver(raw, [payload], streamBytes) };
}

export const directory = (path: string, mode = 0o755): TreeEntry => ({
  path,
  kind: 'directory',
  mode,
  uid: 0,
  gid: 0,
});
export const file = (path: string, content = path, mode = 0o644): TreeEntry => ({
  path,
  kind: 'file',
  mode,
  uid: 0,
  gid: 0,
  sizeBytes: Buffer.byteLength(content),
  sha256: sha256(Buffer.from(content)),
});
export const symlink = (path: string, target: string): TreeEntry => ({
  path,
  kind: 'symlink',
  mode: 0o777,
  uid: 0,
  gid: 0,
  target,
});
export const hardlink = (path: string, target: string): TreeEntry => ({
  path,
  kind: 'hardlink',
  mode: 0o777,
  uid: 0,
  gid: 0,
  target,
});
