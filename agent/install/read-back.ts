/**
 * Reading back what was written, past the page cache where the file system allows it: what the cache holds says nothing
 * about the disk (F24). Where it is not possible, the file is read plainly and the answer says so.
 */
import { createHash } from 'node:crypto';
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { attempt } from './target-files.ts';

/** One read; a multiple of every sector size. */
const READ_BYTES = 1024 * 1024;
const PAGE_BYTES = 64 * 1024;

export interface ReadBack {
  /** sha256 (hex) of the first `sizeBytes` of a file or device; null when it is shorter, longer (a file) or not there. */
  sha256(
    path: string,
    sizeBytes: number,
  ): { readonly sha256: string | null; readonly direct: boolean };
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
  };
}

/** The part of the global WebAssembly that is used: the configured library of types is that of a language, not of a browser. */
interface MemoryGlobal {
  readonly WebAssembly: {
    readonly Memory: new (size: { initial: number; maximum: number }) => { buffer: ArrayBuffer };
  };
}

function alignedMemory(pages: number): ArrayBuffer {
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

function digest(
  opened: Opened,
  path: string,
  sizeBytes: number,
  buffer: Uint8Array,
): { sha256: string | null; direct: boolean } {
  const { descriptor, direct } = opened;
  const found = fstatSync(descriptor);
  if (found.isFile() ? found.size !== sizeBytes : !found.isBlockDevice()) {
    return { sha256: null, direct };
  }
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
