/** Counts what a download has done, and tells at most a few times a second. Never goes backwards. */
import type { TaskProgress } from './task.ts';

const TELL_EVERY_MS = 200;

export class Meter {
  readonly #rawSizes: Uint32Array;
  readonly #nowMs: () => number;
  readonly #tell: (progress: TaskProgress) => void;
  readonly #totalBytes: number;
  #doneBytes = 0;
  #fetchedBytes = 0;
  #reusedBytes = 0;
  #resumedBytes = 0;
  #toldMs = Number.NEGATIVE_INFINITY;

  /** `rawSizes`: content of each chunk. A chunk is reported to the meter once. */
  constructor(rawSizes: Uint32Array, nowMs: () => number, tell: (progress: TaskProgress) => void) {
    this.#rawSizes = rawSizes;
    this.#nowMs = nowMs;
    this.#tell = tell;
    this.#totalBytes = rawSizes.reduce((sum, size) => sum + size, 0);
  }

  fetched(bytes: number): void {
    this.#fetchedBytes += bytes;
    this.#report();
  }

  stored(chunks: readonly number[]): void {
    this.#doneBytes += this.#sum(chunks);
    this.#report();
  }

  reused(chunks: readonly number[]): void {
    this.#reusedBytes += this.#sum(chunks);
    this.stored(chunks);
  }

  resumed(chunks: readonly number[]): void {
    this.#resumedBytes += this.#sum(chunks);
    this.stored(chunks);
  }

  totals(): { fetchedBytes: number; reusedBytes: number; resumedBytes: number } {
    return {
      fetchedBytes: this.#fetchedBytes,
      reusedBytes: this.#reusedBytes,
      resumedBytes: this.#resumedBytes,
    };
  }

  #sum(chunks: readonly number[]): number {
    return chunks.reduce((sum, chunk) => sum + (this.#rawSizes[chunk] ?? 0), 0);
  }

  #report(): void {
    const now = this.#nowMs();
    if (now - this.#toldMs < TELL_EVERY_MS && this.#doneBytes < this.#totalBytes) return;
    this.#toldMs = now;
    this.#tell({
      doneBytes: this.#doneBytes,
      totalBytes: this.#totalBytes,
      fetchedBytes: this.#fetchedBytes,
      reusedBytes: this.#reusedBytes + this.#resumedBytes,
    });
  }
}
