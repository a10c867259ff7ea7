/** Writes the chunk index: the builder's side of chunk-index.ts. Format: docs/specs/bundle-format.md, section 3. */
import { byteWriter } from '#/bundle/byte-reader.ts';
import { type ChunkerName, INDEX_VERSION, indexMarks } from '#/bundle/chunk-index.ts';
import type { TreeEntry } from '#/bundle/tree-entry.ts';
import { encodeTreeList } from '#/bundle/tree-list.ts';
import { compressFrame } from '#/bundle/zstd-compress.ts';
import { must } from '#/protocol/errors.ts';

/** What a builder hands over per payload; holes as sizes, chunks as numbers in order of first use. */
export interface PayloadPieces {
  readonly chunker: ChunkerName;
  readonly pieces: readonly ({ readonly chunk: number } | { readonly hole: number })[];
  readonly entries: readonly TreeEntry[] | null;
}

export interface StoredChunk {
  readonly digest: Uint8Array;
  readonly rawSize: number;
  readonly storedSize: number;
}

/** The canonical bytes of an index: what the manifest has the digest and size of. */
export function encodeIndex(
  chunks: readonly StoredChunk[],
  payloads: readonly PayloadPieces[],
): Uint8Array {
  const out = byteWriter(64 + chunks.length * 48);
  out.put(Buffer.from(indexMarks.magic, 'latin1'));
  out.u32(INDEX_VERSION);
  out.u32(indexMarks.codecZstd);
  out.u32(chunks.length);
  out.u32(payloads.length);
  out.u64(chunks.reduce((sum, chunk) => sum + chunk.storedSize, 0));
  for (const chunk of chunks) out.put(chunk.digest);
  for (const chunk of chunks) out.u32(chunk.rawSize);
  for (const chunk of chunks) out.u32(chunk.storedSize);
  let next = 0;
  for (const { chunker, pieces, entries } of payloads) {
    const holes = pieces.flatMap((piece) => ('hole' in piece ? [piece.hole] : []));
    const list = entries === null ? new Uint8Array(0) : encodeTreeList(entries);
    out.u8(entries === null ? indexMarks.image : indexMarks.tree);
    out.u8(indexMarks.chunkers.indexOf(chunker) + 1);
    out.u16(0);
    out.u32(pieces.length);
    out.u32(holes.length);
    out.u32(list.byteLength);
    for (const piece of pieces) {
      if ('hole' in piece) {
        out.i32(indexMarks.hole);
      } else {
        must(piece.chunk <= next, 'chunks are numbered in the order of their first use');
        out.i32(piece.chunk - next);
        if (piece.chunk === next) next += 1;
      }
    }
    for (const hole of holes) out.u64(hole);
    out.put(list);
  }
  return out.done();
}

/** The stored form of an index: one zstd frame. */
export function packIndex(raw: Uint8Array): Uint8Array {
  return compressFrame(raw, 19);
}
