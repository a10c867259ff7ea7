/**
 * The file port on the real file system, and the errno rules that every file port keeps (docs/specs/durable-state.md,
 * section 1). This file, durable.ts and the slot and download writers are the only code of the agent that writes.
 */
import { constants } from 'node:fs';
import * as fs from 'node:fs/promises';
import { type ErrorCode, type JsonObject, Problem, isProblem } from '#/protocol/errors.ts';
import type { FileHandlePort, FilePort } from '#/agent/ports.ts';

/** State files are for root alone; the guard is root too. */
const FILE_MODE = 0o600;

const flagBits = {
  read: constants.O_RDONLY | constants.O_NOFOLLOW,
  create: constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
  append: constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW,
  directory: constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW,
} as const;

/** The error code for an errno: what the caller can do about it, not what the kernel called it. */
export function codeOfErrno(errno: string): ErrorCode {
  if (errno === 'ENOSPC' || errno === 'EDQUOT') return 'E_SPACE';
  if (errno === 'EROFS' || errno === 'EACCES' || errno === 'EPERM') return 'E_READ_ONLY';
  return 'E_IO';
}

/** A failed file operation as a Problem: `<operation> <path>: <errno>`, errno in `details.errno`. */
export function fileProblem(
  operation: string,
  path: string,
  errno: string,
  cause?: unknown,
): Problem {
  const details: JsonObject = { errno, operation, path };
  return new Problem(codeOfErrno(errno), `${operation} ${path}: ${errno}`, details, { cause });
}

/** The errno of a Problem made by a file port, or null. */
export function errnoOf(error: unknown): string | null {
  if (!isProblem(error)) return null;
  const errno = error.details['errno'];
  return typeof errno === 'string' ? errno : null;
}

async function mapped<T>(operation: string, path: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    if (error instanceof Error && 'code' in error && typeof error.code === 'string') {
      throw fileProblem(operation, path, error.code, error);
    }
    throw error;
  }
}

function nodeHandle(file: fs.FileHandle, path: string): FileHandlePort {
  // A second fsync after a failed one answers "fine" with the data lost (measured on ext4, XFS and btrfs).
  let isSpent = false;
  const refuseSpent = (operation: string): void => {
    if (isSpent) throw fileProblem(operation, path, 'EIO', new Error('an earlier sync failed'));
  };
  return {
    async read(buffer, position) {
      const { bytesRead } = await mapped('read', path, () =>
        file.read(buffer, 0, buffer.byteLength, position),
      );
      return bytesRead;
    },
    async write(bytes, position) {
      refuseSpent('write');
      const { bytesWritten } = await mapped('write', path, () =>
        file.write(bytes, 0, bytes.byteLength, position),
      );
      return bytesWritten;
    },
    async truncate(sizeBytes) {
      refuseSpent('truncate');
      await mapped('truncate', path, () => file.truncate(sizeBytes));
    },
    async sync() {
      refuseSpent('fsync');
      try {
        await mapped('fsync', path, () => file.sync());
      } catch (error) {
        isSpent = true;
        throw error;
      }
    },
    async close() {
      await mapped('close', path, () => file.close());
    },
  };
}

function kindOf(entry: {
  isFile(): boolean;
  isDirectory(): boolean;
  isSymbolicLink(): boolean;
}): 'file' | 'directory' | 'link' | 'other' {
  if (entry.isFile()) return 'file';
  if (entry.isDirectory()) return 'directory';
  return entry.isSymbolicLink() ? 'link' : 'other';
}

/** The real file system. `list` is sorted by name; `stat` does not follow links and is null when nothing is there. */
export function nodeFiles(): FilePort {
  return {
    async open(path, flags) {
      const file = await mapped('open', path, () => fs.open(path, flagBits[flags], FILE_MODE));
      return nodeHandle(file, path);
    },
    rename: (from, to) => mapped('rename', to, () => fs.rename(from, to)),
    unlink: (path) => mapped('unlink', path, () => fs.unlink(path)),
    async mkdir(path, mode) {
      await mapped('mkdir', path, () => fs.mkdir(path, { mode }));
    },
    rmdir: (path) => mapped('rmdir', path, () => fs.rmdir(path)),
    symlink: (target, path) => mapped('symlink', path, () => fs.symlink(target, path)),
    readlink: (path) => mapped('readlink', path, () => fs.readlink(path)),
    async list(path) {
      const entries = await mapped('list', path, () => fs.readdir(path, { withFileTypes: true }));
      return entries
        .map((entry) => ({ name: entry.name, kind: kindOf(entry) }))
        .sort((a, b) => (a.name < b.name ? -1 : 1));
    },
    async stat(path) {
      try {
        const found = await mapped('stat', path, () => fs.lstat(path));
        return { sizeBytes: found.size, kind: kindOf(found), mtimeMs: found.mtimeMs };
      } catch (error) {
        const errno = errnoOf(error);
        if (errno === 'ENOENT' || errno === 'ENOTDIR') return null;
        throw error;
      }
    },
  };
}
