/**
 * Reading back what was written, past the page cache where the file system allows it: what the cache holds says nothing
 * about the disk (F24). Where it is not possible, the file is read plainly and the answer says so.
 */
import { createHash } from 'node:crypto';
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import type { ImagePieces } from './jobs.ts';
import { attempt } from './target-files.ts';

/** One read; a multiple of every sector size. */
const READ_BYTES = 1024 * 1024;
const PAGE_BYTES = 64 * 1024;
/** Where a direct read may begin. */
const ALIGNED_BYTES = 4096;
const DIGEST_BYTES = 32;

export interface ReadBack {
  /** sha256 (hex) of the first `sizeBytes` of a file or device; null when it is shorter, longer (a file) or not there. */
  sha256(
    path: string,
    sizeBytes: number,
  ): { readonly sha256: string | null; readonly direct: boolean };
  /** True when pieces `from` to `to` of an image or device are their chunks and their holes are zeros. */
  compare(
    path: string,
    sizeBytes: number,
    pieces: Pick<ImagePieces, 'chunks' | 'positions'> & { readonly digests: Uint8Array },
    from: number,
    to: number,
  ): { readonly same: boolean; readonly direct: boolean };
}

/** One per thread. O_DIRECT needs memory aligned to the sector: the memory of WebAssembly starts at a page. */
export function createReadBack(): ReadBack {
  const buffer = new Uint8Array(alignedMemory(READ_BYTES / PAGE_BYTES));
  return {
    sha256(path, sizeBytes) {
      const opened = openDirect(path);
      if (opened === null) return { sha256: null, direct: true };
      try {
        return digest(opened, path, sizeBytes, buffer);
      } finally {
        closeSync(opened.descriptor);
      }
    },
    compare(path, sizeBytes, pieces, from, to) {
      const opened = openDirect(path);
      if (opened === null) return { same: false, direct: true };
      try {
        if (!hasSize(opened, sizeBytes)) return { same: false, direct: opened.direct };
        const window = new ReadWindow(opened, path, buffer);
        for (let piece = from; piece < to; piece += 1) {
          if (!isPiece(window, pieces, piece)) return { same: false, direct: opened.direct };
        }
        return { same: true, direct: opened.direct };
      } finally {
        closeSync(opened.descriptor);
      }
    },
  };
}

/** The part of a file that was read last. */
class ReadWindow {
  readonly #opened: Opened;
  readonly #path: string;
  readonly #buffer: Uint8Array;
  #from = 0;
  #count = 0;

  constructor(opened: Opened, path: string, buffer: Uint8Array) {
    this.#opened = opened;
    this.#path = path;
    this.#buffer = buffer;
  }

  /** Bytes from `start` on, at most up to `end`; none when the file ends before. */
  bytes(start: number, end: number): Uint8Array {
    if (start < this.#from || start >= this.#from + this.#count) {
      this.#from = Math.floor(start / ALIGNED_BYTES) * ALIGNED_BYTES;
      this.#count = attempt('read back', this.#path, () =>
        readSync(this.#opened.descriptor, this.#buffer, 0, READ_BYTES, this.#from),
      );
    }
    return this.#buffer.subarray(
      Math.min(start - this.#from, this.#count),
      Math.min(end - this.#from, this.#count),
    );
  }
}

function isPiece(
  window: ReadWindow,
  pieces: Parameters<ReadBack['compare']>[2],
  piece: number,
): boolean {
  const { chunks, positions, digests } = pieces;
  const chunk = chunks[piece] ?? -1;
  const end = positions[piece + 1] ?? 0;
  const hash = chunk < 0 ? null : createHash('sha256');
  for (let at = positions[piece] ?? 0; at < end; ) {
    const bytes = window.bytes(at, end);
    if (bytes.byteLength === 0) return false;
    if (hash !== null) hash.update(bytes);
    else if (!isZeros(bytes)) return false;
    at += bytes.byteLength;
  }
  const digest = digests.subarray(chunk * DIGEST_BYTES, (chunk + 1) * DIGEST_BYTES);
  return hash === null || Buffer.compare(hash.digest(), digest) === 0;
}

/** Each byte is the one before it, and the first is zero. */
function isZeros(bytes: Uint8Array): boolean {
  return bytes[0] === 0 && Buffer.compare(bytes.subarray(1), bytes.subarray(0, -1)) === 0;
}

/** The part of the global WebAssembly that is used: the configured library of types is that of a language, not of a browser. */
interface MemoryGlobal {
  readonly WebAssembly: {
    readonly Memory: new (size: { initial: number; maximum: number }) => { buffer: ArrayBuffer };
  };
}

/** Memory for direct reads: begins at a page. `pages` of 64 KiB. */
export function alignedMemory(pages: number): ArrayBuffer {
  const { WebAssembly } = globalThis as unknown as MemoryGlobal;
  return new WebAssembly.Memory({ initial: pages, maximum: pages }).buffer;
}

interface Opened {
  readonly descriptor: number;
  readonly direct: boolean;
}

function openDirect(path: string): Opened | null {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK, O_DIRECT } = constants;
  const flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK;
  try {
    return { descriptor: openSync(path, flags | O_DIRECT), direct: true };
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ELOOP', 'ENXIO')) return null;
    // File systems without direct access answer EINVAL.
    if (!isErrno(error, 'EINVAL'))
      return attempt('open', path, () => {
        throw error;
      });
    return { descriptor: attempt('open', path, () => openSync(path, flags)), direct: false };
  }
}

/** A file has exactly this size; a device has at least, as reading it will show. */
function hasSize({ descriptor }: Opened, sizeBytes: number): boolean {
  const found = fstatSync(descriptor);
  return found.isFile() ? found.size === sizeBytes : found.isBlockDevice();
}

function digest(
  opened: Opened,
  path: string,
  sizeBytes: number,
  buffer: Uint8Array,
): { sha256: string | null; direct: boolean } {
  const { descriptor, direct } = opened;
  if (!hasSize(opened, sizeBytes)) return { sha256: null, direct };
  const hash = createHash('sha256');
  for (let done = 0; done < sizeBytes; ) {
    // Always a whole buffer: a direct read of an odd length is refused; at the end of a file it comes back short.
    const count = attempt('read back', path, () =>
      readSync(descriptor, buffer, 0, READ_BYTES, done),
    );
    if (count === 0) return { sha256: null, direct };
    const used = Math.min(count, sizeBytes - done);
    hash.update(buffer.subarray(0, used));
    done += used;
  }
  return { sha256: hash.digest('hex'), direct };
}

function isErrno(error: unknown, ...codes: readonly string[]): boolean {
  return error instanceof Error && 'code' in error && codes.includes(String(error.code));
}
