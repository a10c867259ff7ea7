/** What the worker threads are given to do, and what they answer. Plain data. */
import { isProblem, type ErrorCode, type JsonObject, Problem } from '#/protocol/errors.ts';
import type { FileTable } from './file-table.ts';
import type { PatchColumns } from './patch-plan.ts';
import type { Written } from './written.ts';
import type { SeedPlan } from './seed-plan.ts';
import type { PieceColumns } from './write-plan.ts';

/** What every worker holds from its start. Typed arrays lie in shared memory. */
export interface WorkerSetup {
  readonly files: FileTable;
  /** Open descriptors of images and devices, shared by all threads; -1 for other files. */
  readonly descriptors: readonly number[];
  readonly pieces: PieceColumns;
  readonly digests: Uint8Array;
  readonly rawSizes: Uint32Array;
  readonly storedSizes: Uint32Array;
  /** One value per file: 0 not there, 1 being created, 2 there. */
  readonly created: Int32Array;
  /** What is written of each file and of each chunk. */
  readonly written: Written;
  readonly seed: SeedPlan | null;
  /** The segments of a patch from the seed's version. */
  readonly patch: PatchColumns | null;
  /** For the read-back: what lies where in each image. */
  readonly images: readonly ImagePieces[];
  /** `slabCount` buffers of `slabBytes` each, filled by the fetcher. */
  readonly slabs: Uint8Array;
  readonly slabBytes: number;
  /** Owners are set and compared only by root. */
  readonly setOwners: boolean;
}

/** Piece i is chunk `chunks[i]`, or zeros where that is -1, from `positions[i]` to `positions[i + 1]`. */
export interface ImagePieces {
  /** Number of the image or device among the files. */
  readonly file: number;
  readonly chunks: Int32Array;
  readonly positions: Float64Array;
}

export type Job =
  /** Stored chunks in a slab: verify, write. Answers the numbers of those that are damaged. */
  | {
      readonly do: 'store';
      readonly slab: number;
      readonly chunks: readonly number[];
      /** Start of each chunk in the slab. */
      readonly starts: readonly number[];
    }
  /** Segments of a patch in a slab: decode, verify each chunk, write. Answers the numbers of the chunks that did not come out. */
  | {
      readonly do: 'patch';
      readonly slab: number;
      readonly segments: readonly number[];
      /** Start of each segment in the slab. */
      readonly starts: readonly number[];
    }
  /** Chunks that may be in place already: answers the numbers of those that are not. */
  | { readonly do: 'recheck'; readonly chunks: readonly number[] }
  /** Chunks that the seed should have: verify, write. Answers the numbers of those that are damaged or gone. */
  | { readonly do: 'reuse'; readonly chunks: readonly number[] }
  | {
      readonly do: 'zero';
      readonly file: number;
      readonly offset: number;
      readonly sizeBytes: number;
    }
  /** Final size, owner and mode of those files `from` to `to` that do not have them; makes the empty ones. */
  | { readonly do: 'finish'; readonly from: number; readonly to: number }
  | { readonly do: 'sync'; readonly from: number; readonly to: number }
  /** Reads files `from` to `to` past the page cache and compares; answers the numbers of the files that differ. */
  | { readonly do: 'readBack'; readonly from: number; readonly to: number }
  /** The same for pieces `from` to `to` of an image, each by the digest of its chunk: an image is read by all threads. */
  | {
      readonly do: 'readBackImage';
      readonly image: number;
      readonly from: number;
      readonly to: number;
    };

export interface JobResult {
  readonly failed: readonly number[];
  /** readBack: false when the page cache could not be passed by for some file. */
  readonly direct: boolean;
}

export interface ProblemData {
  readonly code: ErrorCode;
  readonly message: string;
  readonly details: JsonObject;
}

export type JobAnswer =
  | { readonly ok: true; readonly result: JobResult }
  | { readonly ok: false; readonly problem: ProblemData }
  | { readonly ok: false; readonly bug: string };

/** A Problem as plain data; null for anything else, which is a bug. */
export function problemData(error: unknown): ProblemData | null {
  if (!isProblem(error)) return null;
  return { code: error.code, message: error.message, details: error.details };
}

export function problemFrom(data: ProblemData): Problem {
  return new Problem(data.code, data.message, data.details);
}
