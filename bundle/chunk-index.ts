/**
 * The chunk index: what content a bundle has, in which chunks it is stored, and where. Binary, columnar, versioned,
 * canonical (one value has one encoding). Format: docs/specs/bundle-format.md, section 3.
 */
import { createHash } from 'node:crypto';
import { zstdDecompressSync } from 'node:zlib';
import { Problem, must } from '#/protocol/errors.ts';
import { byteReader, type ByteReader } from '#/bundle/byte-reader.ts';
import type { Manifest } from '#/bundle/manifest.ts';
import { CHUNK_MAX_BYTES, type ChunkEntry } from '#/bundle/open-chunk.ts';
import type { TreeEntry } from '#/bundle/tree-entry.ts';
import { isSingleFrame } from '#/bundle/zstd-frame.ts';
import { treeLayout, type TreeLayout } from '#/bundle/tree-layout.ts';
import { parseTreeList } from '#/bundle/tree-list.ts';

export const INDEX_VERSION = 1;
/** Larger indexes are refused before they are decompressed. */
export const INDEX_MAX_BYTES = 256 * 1024 * 1024;
export const INDEX_MAX_PAYLOADS = 8;
export const DIGEST_BYTES = 32;
/** The numbers that stand for things in an index. */
export const indexMarks = {
  magic: 'SWBINDEX',
  codecZstd: 1,
  image: 1,
  tree: 2,
  /** Position + 1 of the name. */
  chunkers: ['acdc-32k', 'fastcdc-16k'],
  /** In the piece column: the next new chunk, a hole; negative values reach back. */
  nextChunk: 0,
  hole: 1,
} as const;

export type ChunkerName = 'acdc-32k' | 'fastcdc-16k';

export interface ChunkIndex {
  /** Distinct stored chunks, numbered in the order of their first use. */
  readonly chunkCount: number;
  /** 32 bytes each. */
  readonly digests: Uint8Array;
  readonly rawSizes: Uint32Array;
  readonly storedSizes: Uint32Array;
  /** Where chunk i starts in chunks.data; `offsets[chunkCount]` is the length of chunks.data. */
  readonly offsets: Float64Array;
  readonly payloads: readonly PayloadIndex[];
}

/**
 * One payload as a stream of pieces. An image is the stream; the files of a tree lie in it as `layout` says. Piece i
 * covers bytes `positions[i]` to `positions[i + 1]` of the stream.
 */
export interface PayloadIndex {
  readonly chunker: ChunkerName;
  readonly pieceCount: number;
  /** Chunk number of each piece, -1 for a hole: a run of zero bytes that is stored nowhere. */
  readonly chunks: Int32Array;
  /** pieceCount + 1 values. */
  readonly positions: Float64Array;
  readonly streamBytes: number;
  /** Null for an image. */
  readonly tree: PayloadTree | null;
}

export interface PayloadTree {
  readonly entries: readonly TreeEntry[];
  readonly layout: TreeLayout;
  /** sha256 of the canonical listing: `treeSha256` of the manifest. */
  readonly sha256: string;
}

/** Chunk `number` of the index. */
export function chunkAt(index: ChunkIndex, number: number): ChunkEntry {
  must(number >= 0 && number < index.chunkCount, `chunk ${number} is one of ${index.chunkCount}`);
  return {
    digest: index.digests.subarray(number * DIGEST_BYTES, (number + 1) * DIGEST_BYTES),
    rawSize: index.rawSizes[number] ?? 0,
    storedSize: index.storedSizes[number] ?? 0,
    offset: index.offsets[number] ?? 0,
  };
}

export interface PieceUse {
  readonly payload: number;
  readonly piece: number;
}

/** For each chunk number the pieces that it fills: what a writer does once the chunk is at hand. */
export function chunkUses(index: ChunkIndex): readonly (readonly PieceUse[])[] {
  const uses: PieceUse[][] = Array.from({ length: index.chunkCount }, () => []);
  for (const [payload, { chunks, pieceCount }] of index.payloads.entries()) {
    for (let piece = 0; piece < pieceCount; piece += 1) {
      const chunk = chunks[piece] ?? -1;
      if (chunk >= 0) uses[chunk]?.push({ payload, piece });
    }
  }
  return uses;
}

/**
 * The index as stored in a bundle, unpacked within its declared size, verified against the manifest and parsed.
 * Throws E_HASH, E_SIZE, E_SCHEMA, E_PATH, E_MODE.
 */
export function openIndex(stored: Uint8Array, manifest: Manifest): ChunkIndex {
  return parseIndex(unpackIndex(stored, manifest), manifest);
}

/** The raw index, unpacked within its declared size and verified against the manifest: what is kept beside a slot. */
export function unpackIndex(stored: Uint8Array, manifest: Manifest): Uint8Array {
  const { sizeBytes, sha256 } = manifest.index;
  if (sizeBytes > INDEX_MAX_BYTES) {
    throw new Problem(
      'E_SIZE',
      `index of ${sizeBytes} bytes is over the limit of ${INDEX_MAX_BYTES}`,
    );
  }
  if (!isSingleFrame(stored)) {
    throw new Problem('E_HASH', `index of ${stored.byteLength} bytes is not one zstd frame`);
  }
  let raw: Uint8Array;
  try {
    const bytes = zstdDecompressSync(stored, { maxOutputLength: Math.max(sizeBytes, 1) });
    raw = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  } catch (cause) {
    throw new Problem(
      'E_HASH',
      `index of ${stored.byteLength} bytes cannot be decompressed`,
      {},
      { cause },
    );
  }
  const digest = createHash('sha256').update(raw).digest('hex');
  if (raw.byteLength !== sizeBytes || digest !== sha256) {
    throw new Problem(
      'E_HASH',
      `index has digest ${digest} and ${raw.byteLength} bytes, not ${sha256} and ${sizeBytes}`,
    );
  }
  return raw;
}

/** Parses a raw index that has the digest the manifest gives, and checks it against the manifest. */
export function parseIndex(raw: Uint8Array, manifest: Manifest): ChunkIndex {
  const reader = byteReader(raw, 'index');
  if (Buffer.from(reader.take(8)).toString('latin1') !== indexMarks.magic)
    throw malformed('does not start with its mark');
  const version = reader.u32();
  if (version !== INDEX_VERSION)
    throw malformed(`has version ${version}, this program knows ${INDEX_VERSION}`);
  const codec = reader.u32();
  if (codec !== indexMarks.codecZstd)
    throw malformed(`has codec ${codec}, this program knows ${indexMarks.codecZstd}`);
  const chunkCount = reader.u32();
  const payloadCount = reader.u32();
  const dataBytes = reader.u64();
  if (payloadCount !== manifest.payloads.length || payloadCount > INDEX_MAX_PAYLOADS) {
    throw malformed(`has ${payloadCount} payloads, the manifest ${manifest.payloads.length}`);
  }
  if (dataBytes !== manifest.dataBytes) {
    throw new Problem(
      'E_SIZE',
      `index says ${dataBytes} bytes of data, the manifest ${manifest.dataBytes}`,
    );
  }
  reader.expect(chunkCount, DIGEST_BYTES + 8, 'chunks');
  const digests = reader.take(chunkCount * DIGEST_BYTES);
  const rawSizes = u32Column(reader, chunkCount);
  const storedSizes = u32Column(reader, chunkCount);
  const offsets = offsetsOf(rawSizes, storedSizes, dataBytes);
  const cursor = { next: 0 };
  const payloads = manifest.payloads.map((described) => {
    const payload = parsePayload(reader, cursor, rawSizes, described);
    checkPayload(payload, described);
    return payload;
  });
  if (cursor.next !== chunkCount)
    throw malformed(`has ${chunkCount} chunks but uses ${cursor.next}`);
  if (reader.remaining() !== 0) throw malformed(`has ${reader.remaining()} bytes after its end`);
  checkDistinct(digests, chunkCount);
  return { chunkCount, digests, rawSizes, storedSizes, offsets, payloads };
}

function malformed(what: string): Problem {
  return new Problem('E_SCHEMA', `index ${what}`);
}

function u32Column(reader: ByteReader, count: number): Uint32Array {
  const column = new Uint32Array(count);
  for (let i = 0; i < count; i += 1) column[i] = reader.u32();
  return column;
}

function offsetsOf(
  rawSizes: Uint32Array,
  storedSizes: Uint32Array,
  dataBytes: number,
): Float64Array {
  const offsets = new Float64Array(rawSizes.length + 1);
  let offset = 0;
  for (let i = 0; i < rawSizes.length; i += 1) {
    const raw = rawSizes[i] ?? 0;
    const stored = storedSizes[i] ?? 0;
    if (raw < 1 || raw > CHUNK_MAX_BYTES || stored < 1 || stored > raw) {
      throw new Problem('E_SIZE', `chunk ${i} has ${raw} bytes stored in ${stored}`);
    }
    offset += stored;
    offsets[i + 1] = offset;
  }
  if (offset !== dataBytes) {
    throw new Problem('E_SIZE', `chunks need ${offset} bytes of data, ${dataBytes} are declared`);
  }
  return offsets;
}

function parsePayload(
  reader: ByteReader,
  cursor: { next: number },
  rawSizes: Uint32Array,
  described: Manifest['payloads'][number],
): PayloadIndex {
  const kind = reader.u8();
  const chunker = indexMarks.chunkers[reader.u8() - 1];
  if (chunker === undefined || reader.u16() !== 0)
    throw malformed('has a payload of an unknown form');
  if (kind !== (described.kind === 'image' ? indexMarks.image : indexMarks.tree))
    throw malformed(`has no ${described.kind} where the manifest has one`);
  const pieceCount = reader.u32();
  const holeCount = reader.u32();
  const listBytes = reader.u32();
  reader.expect(pieceCount, 4, 'pieces');
  const codes = new Int32Array(pieceCount);
  for (let i = 0; i < pieceCount; i += 1) codes[i] = reader.i32();
  reader.expect(holeCount, 8, 'holes');
  const { chunks, positions } = resolvePieces(reader, codes, holeCount, cursor, rawSizes);
  const streamBytes = positions[pieceCount] ?? 0;
  const list = reader.take(listBytes);
  if (described.kind === 'image') {
    if (listBytes !== 0) throw malformed('has a listing for an image');
    return { chunker, pieceCount, chunks, positions, streamBytes, tree: null };
  }
  const entries = parseTreeList(list, described);
  const sha256 = createHash('sha256').update(list).digest('hex');
  return {
    chunker,
    pieceCount,
    chunks,
    positions,
    streamBytes,
    tree: { entries, layout: treeLayout(entries), sha256 },
  };
}

function resolvePieces(
  reader: ByteReader,
  codes: Int32Array,
  holeCount: number,
  cursor: { next: number },
  rawSizes: Uint32Array,
): { chunks: Int32Array; positions: Float64Array } {
  const chunks = new Int32Array(codes.length);
  const positions = new Float64Array(codes.length + 1);
  let holes = 0;
  let position = 0;
  for (let i = 0; i < codes.length; i += 1) {
    const code = codes[i] ?? 0;
    const chunk = code === indexMarks.hole ? -1 : cursor.next + code;
    if (code === indexMarks.hole) {
      // Two holes in a row, or an empty one, would be a second encoding of the same content.
      const size = holes < holeCount ? reader.u64() : 0;
      if (size === 0 || (i > 0 && chunks[i - 1] === -1))
        throw malformed(`has a hole that is not canonical at piece ${i}`);
      holes += 1;
      position += size;
    } else {
      if (code > indexMarks.nextChunk || chunk < 0 || chunk >= rawSizes.length)
        throw malformed(`has no chunk for piece ${i}`);
      if (code === indexMarks.nextChunk) cursor.next += 1;
      position += rawSizes[chunk] ?? 0;
    }
    if (!Number.isSafeInteger(position))
      throw new Problem('E_SIZE', 'payload has a size of 2^53 or more');
    chunks[i] = chunk;
    positions[i + 1] = position;
  }
  if (holes !== holeCount) throw malformed(`declares ${holeCount} holes but uses ${holes}`);
  return { chunks, positions };
}

function checkPayload(payload: PayloadIndex, described: Manifest['payloads'][number]): void {
  const { chunker, pieceCount, streamBytes, tree } = payload;
  const where = `payload ${described.name}`;
  if (chunker !== described.chunker)
    throw malformed(`and manifest differ in the chunker of ${where}`);
  if (pieceCount !== described.chunkCount) {
    throw new Problem(
      'E_SIZE',
      `${where} has ${pieceCount} pieces, the manifest says ${described.chunkCount}`,
    );
  }
  const content = tree === null ? streamBytes : tree.layout.contentBytes;
  if (
    content !== described.sizeBytes ||
    (tree !== null && tree.layout.streamBytes !== streamBytes)
  ) {
    throw new Problem(
      'E_SIZE',
      `${where} has ${content} bytes of content in ${streamBytes} bytes of chunks, the manifest says ${described.sizeBytes}`,
    );
  }
  if (described.kind === 'tree' && tree !== null) {
    if (tree.entries.length !== described.entryCount) {
      throw new Problem(
        'E_SIZE',
        `${where} has ${tree.entries.length} entries, the manifest says ${described.entryCount}`,
      );
    }
    if (tree.sha256 !== described.treeSha256) {
      throw new Problem(
        'E_HASH',
        `listing of ${where} has digest ${tree.sha256}, not ${described.treeSha256}`,
      );
    }
  }
}

/** One digest in two rows would let one chunk have two sizes. */
function checkDistinct(digests: Uint8Array, chunkCount: number): void {
  const seen = new Set<string>();
  const all = Buffer.from(digests.buffer, digests.byteOffset, digests.byteLength);
  for (let i = 0; i < chunkCount; i += 1) {
    seen.add(all.toString('latin1', i * DIGEST_BYTES, (i + 1) * DIGEST_BYTES));
  }
  if (seen.size !== chunkCount) throw malformed('has one chunk twice');
}
