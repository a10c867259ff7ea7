/**
 * What is written, in memory that all threads share: a file gets its owner and mode from the thread that writes the last
 * piece of it, while it has it open. Only verified content counts.
 */
import type { PieceColumns } from './write-plan.ts';

/** Plain data: it travels to the threads. */
export interface Written {
  /** Pieces of each file that are still to come. */
  readonly piecesLeft: Int32Array;
  /** 1 for chunks that are verified and in all their places. */
  readonly chunks: Uint8Array;
  /** 1 for files that have their size, owner and mode. */
  readonly finished: Uint8Array;
}

/** Nothing is written yet of `fileCount` files that `pieces` fill. */
export function nothingWritten(fileCount: number, pieces: PieceColumns): Written {
  const piecesLeft = new Int32Array(new SharedArrayBuffer(fileCount * 4));
  for (const file of pieces.file) piecesLeft[file] = (piecesLeft[file] ?? 0) + 1;
  return {
    piecesLeft,
    chunks: new Uint8Array(new SharedArrayBuffer(pieces.starts.length)),
    finished: new Uint8Array(new SharedArrayBuffer(fileCount)),
  };
}

/** Counts the chunk once, however often it is written; gives true the first time. */
export function markChunk(written: Written, chunk: number): boolean {
  return Atomics.exchange(written.chunks, chunk, 1) === 0;
}

/** Counts a piece of a file; gives true for its last. */
export function markPiece(written: Written, file: number): boolean {
  return Atomics.sub(written.piecesLeft, file, 1) === 1;
}
