/** Flushes images while they are written, so that dirty data is bounded (durability recipe 4). */
import { fdatasync } from 'node:fs';
import { promisify } from 'node:util';
import { fileProblem } from '#/agent/adapters/file-port.ts';

const FLUSH_BYTES = 64 * 1024 * 1024;

/** An error is final: the descriptor is spent. */
export class Flusher {
  readonly #descriptors: readonly number[];
  #sinceBytes = 0;
  #running: Promise<void> = Promise.resolve();
  #isRunning = false;

  constructor(descriptors: readonly number[]) {
    this.#descriptors = descriptors;
  }

  wrote(bytes: number): void {
    this.#sinceBytes += bytes;
    if (this.#sinceBytes < FLUSH_BYTES || this.#isRunning || this.#descriptors.length === 0) return;
    this.#sinceBytes = 0;
    this.#isRunning = true;
    this.#running = flushAll(this.#descriptors).then(() => {
      this.#isRunning = false;
    });
    // Waited for in `done`; until then it must not count as unhandled.
    this.#running.catch(() => undefined);
  }

  /** Waits, when a whole bound is dirty again, for the flush of the one before: local work outruns any disk. */
  async room(): Promise<void> {
    // A flush that failed is told by `done`, and none is tried after it.
    if (this.#sinceBytes >= FLUSH_BYTES) await this.#running.catch(() => undefined);
  }

  async done(): Promise<void> {
    await this.#running;
  }
}

async function flushAll(descriptors: readonly number[]): Promise<void> {
  for (const descriptor of descriptors) {
    try {
      await promisify(fdatasync)(descriptor);
    } catch (error) {
      const errno = error instanceof Error && 'code' in error ? String(error.code) : 'EIO';
      throw fileProblem('fdatasync', 'the image', errno, error);
    }
  }
}
