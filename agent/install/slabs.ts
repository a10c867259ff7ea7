/** A fixed number of shared buffers between the network and the workers: this bounds memory and is the back-pressure. */
import { CHUNK_MAX_BYTES } from '#/bundle/open-chunk.ts';

export const SLAB_BYTES = 1024 * 1024;
/** A slab per connection and two per worker, and one to spare. */
export const slabCount = (connections: number, workers: number): number =>
  connections + 2 * workers + 1;

export interface Slab {
  readonly number: number;
  readonly bytes: Uint8Array;
  readonly chunks: number[];
  readonly starts: number[];
  usedBytes: number;
}

export class Slabs {
  readonly memory: Uint8Array;
  readonly #free: number[];
  readonly #waiting: ((number: number) => void)[] = [];

  constructor(count: number) {
    if (SLAB_BYTES < CHUNK_MAX_BYTES) throw new Error('a slab holds the largest chunk');
    this.memory = new Uint8Array(new SharedArrayBuffer(count * SLAB_BYTES));
    this.#free = Array.from({ length: count }, (_, i) => i);
  }

  /** An empty slab, once one is free. */
  async acquire(): Promise<Slab> {
    const number =
      this.#free.pop() ?? (await new Promise<number>((resolve) => this.#waiting.push(resolve)));
    const bytes = this.memory.subarray(number * SLAB_BYTES, (number + 1) * SLAB_BYTES);
    return { number, bytes, chunks: [], starts: [], usedBytes: 0 };
  }

  release(slab: Slab): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free.push(slab.number);
    else next(slab.number);
  }
}
