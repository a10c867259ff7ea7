/**
 * Cuts a stream into content-defined pieces, so that an edit changes only the chunks around it. Streaming and
 * deterministic: the same bytes give the same pieces whatever the sizes of the reads. docs/specs/bundle-format.md, section 5.
 */
import { must } from '#/protocol/errors.ts';
import { acdcLimits, findAcdcPiece } from '#/bundle/chunker-acdc.ts';
import { fastcdcLimits, findFastcdcPiece } from '#/bundle/chunker-fastcdc.ts';
import type { ChunkerName } from '#/bundle/chunk-index.ts';

/** How many bytes the next piece has and whether it is a hole; null: more bytes are needed to decide. */
export type FindPiece = (
  bytes: Uint8Array,
  from: number,
  to: number,
  isEnd: boolean,
  /** The piece before was a hole, so zeros at the start belong to it. */
  afterHole: boolean,
) => { readonly sizeBytes: number; readonly isHole: boolean } | null;

export interface ChunkSink {
  /** One chunk; `bytes` may be overwritten after the call. */
  readonly chunk: (bytes: Uint8Array) => void;
  /** Zero bytes; consecutive calls make one hole. */
  readonly hole: (sizeBytes: number) => void;
}

export interface Chunker {
  /** The next bytes of the stream. */
  readonly push: (bytes: Uint8Array) => void;
  /** A forced boundary: the end of the stream or of a file. The chunker can go on with the next. */
  readonly end: () => void;
}

export interface ChunkLimits {
  readonly minBytes: number;
  readonly averageBytes: number;
  readonly maxBytes: number;
}

/** No chunk is larger than `maxBytes`; smaller than `minBytes` only in front of a boundary or a hole. */
export const chunkLimits: Readonly<Record<ChunkerName, ChunkLimits>> = {
  'acdc-32k': acdcLimits,
  'fastcdc-16k': fastcdcLimits,
};

const finders: Readonly<Record<ChunkerName, FindPiece>> = {
  'acdc-32k': findAcdcPiece,
  'fastcdc-16k': findFastcdcPiece,
};

const BUFFER_BYTES = 1024 * 1024;

/** A chunker that hands pieces to `sink` as soon as they are decided. Holds at most one buffer of 1 MiB. */
export function createChunker(name: ChunkerName, sink: ChunkSink): Chunker {
  const find = finders[name];
  const buffer = new Uint8Array(BUFFER_BYTES);
  let from = 0;
  let to = 0;
  let afterHole = false;
  const drain = (isEnd: boolean): void => {
    while (from < to) {
      const piece = find(buffer, from, to, isEnd, afterHole);
      if (piece === null) break;
      must(
        piece.sizeBytes > 0 && piece.sizeBytes <= to - from,
        'a piece is not empty and not beyond its bytes',
      );
      if (piece.isHole) sink.hole(piece.sizeBytes);
      else sink.chunk(buffer.subarray(from, from + piece.sizeBytes));
      from += piece.sizeBytes;
      afterHole = piece.isHole;
    }
    if (from > 0) {
      buffer.copyWithin(0, from, to);
      to -= from;
      from = 0;
    }
  };
  return {
    push: (bytes) => {
      for (let taken = 0; taken < bytes.byteLength; ) {
        const part = bytes.subarray(taken, taken + BUFFER_BYTES - to);
        buffer.set(part, to);
        to += part.byteLength;
        taken += part.byteLength;
        if (to === BUFFER_BYTES) drain(false);
      }
    },
    end: () => {
      drain(true);
      afterHole = false;
      must(to === 0, 'the end leaves nothing behind');
    },
  };
}
