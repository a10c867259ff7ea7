/** The start of a raw partition: small writes that are durable on return, reads that do not ask the page cache. */
import { constants } from 'node:fs';
import * as fs from 'node:fs/promises';
import { alignedMemory } from '#/agent/install/read-back.ts';
import { Problem } from '#/protocol/errors.ts';
import { fileProblem } from '#/agent/adapters/file-port.ts';

export interface RawRegion {
  /** The first `sizeBytes`, at most 64 KiB; E_IO when the device is shorter. */
  read(sizeBytes: number): Promise<Uint8Array>;
  /** Durable on return (O_DSYNC); one write, E_IO when it is cut short. */
  write(position: number, bytes: Uint8Array): Promise<void>;
}

/** A device or file, by any path to it: links as udev makes them are followed at each call. */
export function nodeRegion(path: string): RawRegion {
  return {
    read: (sizeBytes) =>
      opened(path, 'read', async (file) => {
        const buffer = new Uint8Array(alignedMemory(1), 0, sizeBytes);
        const { bytesRead } = await file.read(buffer, 0, sizeBytes, 0);
        if (bytesRead === sizeBytes) return buffer;
        throw new Problem('E_IO', `read ${path}: ${bytesRead} of ${sizeBytes} bytes`, { path });
      }),
    write: (position, bytes) =>
      opened(path, 'write', async (file) => {
        const { bytesWritten } = await file.write(bytes, 0, bytes.byteLength, position);
        if (bytesWritten === bytes.byteLength) return;
        const size = bytes.byteLength;
        throw new Problem('E_IO', `write ${path}: ${bytesWritten} of ${size} bytes`, { path });
      }),
  };
}

/** Bytes of a device or file, past the page cache where that is possible; E_IO when it is shorter. */
export async function readPart(
  path: string,
  offsetBytes: number,
  sizeBytes: number,
): Promise<Uint8Array> {
  // Direct reads begin and end at a sector, of 4 KiB at most.
  const start = Math.floor(offsetBytes / 4096) * 4096;
  const size = Math.ceil((offsetBytes + sizeBytes - start) / 4096) * 4096;
  return await opened(path, 'read', async (file) => {
    const buffer = new Uint8Array(alignedMemory(Math.ceil(size / 65536)), 0, size);
    const { bytesRead } = await file.read(buffer, 0, size, start);
    const from = offsetBytes - start;
    if (bytesRead >= from + sizeBytes) return buffer.subarray(from, from + sizeBytes);
    throw new Problem('E_IO', `read ${path}: ${bytesRead} bytes at ${start}, not ${size}`, {
      path,
    });
  });
}

const { O_RDONLY, O_RDWR, O_DSYNC, O_DIRECT, O_NOFOLLOW } = constants;
const flagsOf = {
  read: [O_RDONLY | O_DIRECT | O_NOFOLLOW, O_RDONLY | O_NOFOLLOW],
  write: [O_RDWR | O_DSYNC | O_NOFOLLOW],
} as const;

async function opened<T>(
  path: string,
  operation: 'read' | 'write',
  use: (file: fs.FileHandle) => Promise<T>,
): Promise<T> {
  try {
    const real = await fs.realpath(path);
    const file = await openFirst(real, flagsOf[operation]);
    try {
      return await use(file);
    } finally {
      await file.close();
    }
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.name !== 'Problem') {
      throw fileProblem(operation, path, String(error.code), error);
    }
    throw error;
  }
}

/** Files that do not take direct reads answer EINVAL: then the next flags. */
async function openFirst(path: string, choices: readonly number[]): Promise<fs.FileHandle> {
  for (const [index, flags] of choices.entries()) {
    try {
      return await fs.open(path, flags);
    } catch (error) {
      const isRefused = error instanceof Error && 'code' in error && error.code === 'EINVAL';
      if (!isRefused || index === choices.length - 1) throw error;
    }
  }
  throw new Problem('E_IO', `open ${path}: no way to open it`);
}
