/** A bundle in a local file: `install FILE` on a host without any network. */
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { fileProblem } from '#/agent/adapters/file-port.ts';
import { Problem } from '#/protocol/errors.ts';
import type { Source, SourceDescription } from './source.ts';

const READ_BYTES = 256 * 1024;

/** `url` is a file URL. The file is opened at the first read and stays open: one file, whatever happens to its name. */
export function createFileSource(url: string): Source {
  const path = fileURLToPath(url);
  let opened: Promise<FileHandle> | null = null;
  const mapped = async <T>(operation: string, run: () => Promise<T>): Promise<T> => {
    try {
      return await run();
    } catch (error) {
      if (error instanceof Error && 'code' in error && typeof error.code === 'string') {
        throw fileProblem(operation, path, error.code, error);
      }
      throw error;
    }
  };
  const openOnce = (): Promise<FileHandle> => {
    opened ??= mapped('open', async () => {
      const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
      if ((await file.stat()).isFile()) return file;
      await file.close();
      throw new Problem('E_IO', `${path} is no regular file`);
    });
    return opened;
  };
  return {
    describe: (): SourceDescription => ({ url, kind: 'file', ranged: true }),
    async *readRange(offset, lengthBytes, signal) {
      const file = await openOnce();
      const buffer = new Uint8Array(Math.min(READ_BYTES, lengthBytes));
      for (let done = 0; done < lengthBytes; ) {
        signal.throwIfAborted();
        const want = Math.min(buffer.byteLength, lengthBytes - done);
        const { bytesRead } = await mapped('read', () => file.read(buffer, 0, want, offset + done));
        if (bytesRead === 0) {
          throw new Problem(
            'E_LENGTH',
            `${path} ends ${lengthBytes - done} bytes before the range does`,
          );
        }
        done += bytesRead;
        yield buffer.subarray(0, bytesRead);
      }
    },
    async close() {
      const file = await opened?.catch(() => null);
      opened = null;
      await file?.close();
    },
  };
}
