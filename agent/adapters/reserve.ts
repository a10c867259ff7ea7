/**
 * Space that is kept for the state store: a file of real bytes that is given up when the disk is full, so that a journal
 * record, a ticket or an end of an attempt can always be written (F18, F69).
 */
import type { FilePort } from '#/agent/ports.ts';
import { isProblem } from '#/protocol/errors.ts';
import { removeFile, replaceFile } from './durable.ts';

export interface Reserve {
  /** Sets the space aside if it is not; on a full disk it is tried again another time. */
  keep(): Promise<void>;
  /** Runs `write`; when the disk is full, gives the space up and runs it once more. `write` is idempotent. */
  spend<T>(write: () => Promise<T>): Promise<T>;
}

/** A reserve of `sizeBytes` at `path`; 0: none. */
export function openReserve(files: FilePort, path: string, sizeBytes: number): Reserve {
  return {
    async keep() {
      if (sizeBytes === 0) return;
      const found = await files.stat(path);
      if (found?.sizeBytes === sizeBytes) return;
      try {
        // Not zeros, which some file systems store as nothing.
        await replaceFile(files, path, new Uint8Array(sizeBytes).fill(0xa5));
      } catch (error) {
        if (!isProblem(error, 'E_SPACE')) throw error;
      }
    },
    async spend(write) {
      try {
        return await write();
      } catch (error) {
        if (!isProblem(error, 'E_SPACE') || (await files.stat(path)) === null) throw error;
        await removeFile(files, path);
        return await write();
      }
    },
  };
}
