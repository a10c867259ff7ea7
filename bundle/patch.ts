/**
 * A patch: what a host that holds version A needs for version B, smaller than B's missing chunks. Not signed and not part of
 * the bundle: whatever it gives is compared with the digests of B's signed index before a byte is used, and what does not
 * fit comes as a chunk. So only its bounds are checked here. Format: docs/specs/patch-format.md.
 */
import { constants, zstdDecompressSync } from 'node:zlib';
import { byteReader, byteWriter } from '#/bundle/byte-reader.ts';
import { chunkFinder } from '#/bundle/chunk-finder.ts';
import type { ChunkIndex } from '#/bundle/chunk-index.ts';
import { CHUNK_MAX_BYTES } from '#/bundle/open-chunk.ts';
import { compressFrame } from '#/bundle/zstd-compress.ts';
import { isSingleFrame } from '#/bundle/zstd-frame.ts';
import { must, Problem } from '#/protocol/errors.ts';

const MAGIC = 'SWBPATCH';
const VERSION = 1;
const ID_BYTES = 32;
export const PATCH_HEADER_BYTES = 100;
/** Content of one segment: it is decoded in one piece, in memory. */
export const SEGMENT_MAX_BYTES = CHUNK_MAX_BYTES;
/** Old content that one segment may refer to: a decoder's memory is bounded by it. */
export const DICTIONARY_MAX_BYTES = 1024 * 1024;
/** Places that the dictionary of one segment is put together from. */
export const RANGES_MAX = 32;
/** Larger indexes are fetched whole: a patch of one needs both in memory. */
export const INDEX_PATCH_MAX_BYTES = 16 * 1024 * 1024;
const TABLE_MAX_BYTES = 32 * 1024 * 1024;
const TABLE_LEVEL = 19;
/** The smallest window that frames of zstd have is 1 KiB; small content is given a little more. */
const WINDOW_LOG_MIN = 17;
/** What a frame adds to content that does not compress. */
const FRAME_SLACK_BYTES = 64 * 1024;

export interface PatchHeader {
  /** Artifact ids. */
  readonly from: string;
  readonly to: string;
  /** The frame of the new index, with the old one as dictionary; 0: there is none, the index comes from the bundle. */
  readonly indexStoredBytes: number;
  readonly tableBytes: number;
  readonly tableStoredBytes: number;
  readonly segmentCount: number;
  /** All segments one after another. */
  readonly dataBytes: number;
}

/** A part of the old version: bytes of its payload streams, one stream behind the other in the order of its manifest. */
export interface OldRange {
  readonly position: number;
  readonly sizeBytes: number;
}

/** Consecutive chunks of the new version that the old one does not have. */
export interface PatchSegment {
  /** Chunk numbers of the new index, ascending. */
  readonly chunks: readonly number[];
  readonly rawBytes: number;
  /** 0: not in the patch, its chunks are smaller. */
  readonly storedBytes: number;
  /** From the start of the data. */
  readonly offset: number;
  /** The dictionary: one zero byte and then these, in this order. */
  readonly ranges: readonly OldRange[];
}

/** Name of the patch that leads from `from` to the bundle with this file name, path or URL path. It lies beside it. */
export function patchPathOf(bundlePath: string, from: string): string {
  return `${bundlePath.replace(/\.bundle$/, '')}.from-${from}.patch`;
}

/** Where the parts of a patch lie in its file. */
export function patchParts(header: PatchHeader): {
  readonly index: number;
  readonly table: number;
  readonly data: number;
  readonly end: number;
} {
  const index = PATCH_HEADER_BYTES;
  const table = index + header.indexStoredBytes;
  const data = table + header.tableStoredBytes;
  return { index, table, data, end: data + header.dataBytes };
}

export function encodePatchHeader(header: PatchHeader): Uint8Array {
  const writer = byteWriter(PATCH_HEADER_BYTES);
  writer.put(Buffer.from(MAGIC, 'latin1'));
  writer.u32(VERSION);
  writer.put(Buffer.from(header.from, 'hex'));
  writer.put(Buffer.from(header.to, 'hex'));
  writer.u32(header.indexStoredBytes);
  writer.u32(header.tableBytes);
  writer.u32(header.tableStoredBytes);
  writer.u32(header.segmentCount);
  writer.u64(header.dataBytes);
  const bytes = writer.done();
  must(bytes.byteLength === PATCH_HEADER_BYTES, 'the header of a patch has its fixed length');
  return bytes;
}

/**
 * The header in the first bytes of a patch. `maxDataBytes`: a patch that is larger than what it stands for is of no use.
 * Throws E_SCHEMA (no patch, or of another version), E_SIZE (over a limit).
 */
export function parsePatchHeader(bytes: Uint8Array, maxDataBytes: number): PatchHeader {
  const reader = byteReader(bytes.subarray(0, PATCH_HEADER_BYTES), 'patch');
  if (Buffer.from(reader.take(MAGIC.length)).toString('latin1') !== MAGIC)
    throw malformed('does not start with its mark');
  const version = reader.u32();
  if (version !== VERSION) throw malformed(`has version ${version}, this program knows ${VERSION}`);
  const hex = (): string => Buffer.from(reader.take(ID_BYTES)).toString('hex');
  const header: PatchHeader = {
    from: hex(),
    to: hex(),
    indexStoredBytes: reader.u32(),
    tableBytes: reader.u32(),
    tableStoredBytes: reader.u32(),
    segmentCount: reader.u32(),
    dataBytes: reader.u64(),
  };
  const isTooLarge =
    header.indexStoredBytes > INDEX_PATCH_MAX_BYTES + FRAME_SLACK_BYTES ||
    header.tableBytes > TABLE_MAX_BYTES ||
    header.tableStoredBytes > header.tableBytes + FRAME_SLACK_BYTES ||
    header.dataBytes > maxDataBytes;
  if (isTooLarge) throw new Problem('E_SIZE', 'patch declares more than its limits');
  return header;
}

/** Chunk numbers of `wanted` whose digest `held` does not have, ascending: what a patch is about. */
export function chunksMissingFrom(held: ChunkIndex, wanted: ChunkIndex): number[] {
  const find = chunkFinder(held);
  const missing: number[] = [];
  for (let chunk = 0; chunk < wanted.chunkCount; chunk += 1) {
    if (find(wanted, chunk) === null) missing.push(chunk);
  }
  return missing;
}

/** Length of all payload streams of a version. */
export function streamBytesOf(index: ChunkIndex): number {
  return index.payloads.reduce((sum, { streamBytes }) => sum + streamBytes, 0);
}

/** The table, raw. */
export function encodePatchTable(segments: readonly PatchSegment[]): Uint8Array {
  const writer = byteWriter();
  for (const { chunks } of segments) writer.u16(chunks.length);
  for (const { storedBytes } of segments) writer.u32(storedBytes);
  for (const { ranges } of segments) writer.u8(ranges.length);
  const ranges = segments.flatMap((segment) => segment.ranges);
  for (const { position } of ranges) writer.u64(position);
  for (const { sizeBytes } of ranges) writer.u32(sizeBytes);
  return writer.done();
}

export function packPatchTable(table: Uint8Array): Uint8Array {
  return compressFrame(table, TABLE_LEVEL);
}

/**
 * The segments of a patch from its stored table. `missing`: `chunksMissingFrom` of the two versions; the segments cover it in
 * order. Throws E_SCHEMA, E_SIZE, E_HASH (does not decompress).
 */
export function openPatchTable(
  stored: Uint8Array,
  header: PatchHeader,
  missing: readonly number[],
  wanted: Pick<ChunkIndex, 'rawSizes'>,
  oldStreamBytes: number,
): PatchSegment[] {
  const { segmentCount, tableBytes, dataBytes } = header;
  if (segmentCount > missing.length) {
    throw malformed(`has ${segmentCount} segments for ${missing.length} chunks`);
  }
  const raw = inflate(stored, tableBytes, null);
  if (raw === null) throw new Problem('E_HASH', 'table of the patch cannot be decompressed');
  const reader = byteReader(raw, 'table of the patch');
  reader.expect(segmentCount, 2 + 4 + 1, 'segments');
  const counts = Array.from({ length: segmentCount }, () => reader.u16());
  const sizes = Array.from({ length: segmentCount }, () => reader.u32());
  const rangeCounts = Array.from({ length: segmentCount }, () => reader.u8());
  const rangeTotal = rangeCounts.reduce((sum, count) => sum + count, 0);
  reader.expect(rangeTotal, 8 + 4, 'ranges');
  const positions = Array.from({ length: rangeTotal }, () => reader.u64());
  const ranges = positions.map((position) => ({ position, sizeBytes: reader.u32() }));
  if (reader.remaining() !== 0) throw malformed(`has ${reader.remaining()} bytes after its table`);
  let next = 0;
  let nextRange = 0;
  let offset = 0;
  const segments = counts.map((count, i): PatchSegment => {
    const chunks = missing.slice(next, next + count);
    const rawBytes = chunks.reduce((sum, chunk) => sum + (wanted.rawSizes[chunk] ?? 0), 0);
    const own = ranges.slice(nextRange, nextRange + (rangeCounts[i] ?? 0));
    const segment = { chunks, rawBytes, storedBytes: sizes[i] ?? 0, offset, ranges: own };
    if (count === 0 || chunks.length !== count) throw malformed(`has no chunks for segment ${i}`);
    checkSegment(segment, i, oldStreamBytes);
    next += count;
    nextRange += own.length;
    offset += segment.storedBytes;
    return segment;
  });
  if (next !== missing.length) {
    throw malformed(`covers ${next} of ${missing.length} chunks`);
  }
  if (offset !== dataBytes) {
    throw new Problem('E_SIZE', `segments need ${offset} bytes of data, ${dataBytes} are declared`);
  }
  return segments;
}

function checkSegment(segment: PatchSegment, number: number, oldStreamBytes: number): void {
  const { rawBytes, storedBytes, ranges } = segment;
  const dictionaryBytes = ranges.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const isOutside = ranges.some(
    ({ position, sizeBytes }) => sizeBytes === 0 || position + sizeBytes > oldStreamBytes,
  );
  if (
    rawBytes > SEGMENT_MAX_BYTES ||
    storedBytes > SEGMENT_MAX_BYTES ||
    ranges.length > RANGES_MAX ||
    dictionaryBytes > DICTIONARY_MAX_BYTES ||
    isOutside
  ) {
    throw new Problem('E_SIZE', `segment ${number} of the patch is over a limit`);
  }
}

/** A segment or an index as a patch stores it: one frame, everything in `dictionary` at hand. */
export function packWithDictionary(
  raw: Uint8Array,
  dictionary: Uint8Array,
  level: number,
): Uint8Array {
  return compressFrame(raw, level, dictionary);
}

/** Exactly `rawBytes` from one frame, or null. Nothing in it is verified; memory is bounded by the sizes given. */
export function inflate(
  stored: Uint8Array,
  rawBytes: number,
  dictionary: Uint8Array | null,
): Uint8Array | null {
  if (!isSingleFrame(stored)) return null;
  try {
    const raw = zstdDecompressSync(stored, {
      chunkSize: Math.max(rawBytes, 64),
      maxOutputLength: Math.max(rawBytes, 1),
      // A frame that asks for a larger window than its content is refused before memory is set aside for it.
      params: { [constants.ZSTD_d_windowLogMax]: windowLogOf(rawBytes) },
      ...(dictionary === null ? {} : { dictionary }),
    });
    return raw.byteLength === rawBytes ? raw : null;
  } catch {
    // Whatever the decoder says: the bytes are not what was promised, and its messages are not an interface.
    return null;
  }
}

/** The window that a frame of so much content may ask for. */
export function windowLogOf(rawBytes: number): number {
  return Math.max(WINDOW_LOG_MIN, Math.ceil(Math.log2(Math.max(rawBytes, 1))));
}

/** The buffer of a dictionary of so much old content: a zero byte in front, so that no content is taken for a trained one. */
export function dictionaryBuffer(sizeBytes: number): { whole: Uint8Array; content: Uint8Array } {
  const whole = new Uint8Array(sizeBytes + 1);
  return { whole, content: whole.subarray(1) };
}

function malformed(what: string): Problem {
  return new Problem('E_SCHEMA', `patch ${what}`);
}
