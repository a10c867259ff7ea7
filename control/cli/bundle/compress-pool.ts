/** Threads that compress chunks for the builder. What comes out does not depend on how many there are. */
import { Worker } from 'node:worker_threads';

/** Chunks one after another. */
export interface CompressJob {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly sizes: Uint32Array;
  readonly level: number;
  /** Old content that the chunks are compressed against (patches); none when absent. */
  readonly dictionary?: Uint8Array | null;
}
export interface CompressResult {
  /** The stored chunks one after another. */
  readonly stored: Uint8Array<ArrayBuffer>;
  readonly storedSizes: Uint32Array;
}

export interface CompressPool {
  /** Takes over the buffer of `job.bytes`. Jobs wait in a queue; the caller bounds how many it gives. */
  readonly run: (job: CompressJob) => Promise<CompressResult>;
  /** Ends when the threads have: each ends what it has begun. */
  readonly close: () => Promise<void>;
}

interface Waiting {
  readonly job: CompressJob;
  readonly resolve: (result: CompressResult) => void;
  readonly reject: (error: Error) => void;
}

/** A pool of `workers` threads, started as they are needed. */
export function createCompressPool(workers: number): CompressPool {
  // Beside this file, in the form that this file has: .ts in the source tree, .mjs when it is bundled.
  const ending = import.meta.url.endsWith('.ts') ? 'ts' : 'mjs';
  const url = new URL(`./compress-worker.${ending}`, import.meta.url);
  const idle: Worker[] = [];
  const ended: Promise<unknown>[] = [];
  const all: Worker[] = [];
  const queue: Waiting[] = [];
  const running = new Map<Worker, Waiting>();
  let failure: Error | null = null;

  const next = (): void => {
    while (queue.length > 0) {
      const worker = idle.pop() ?? (all.length < workers ? start() : undefined);
      if (worker === undefined) return;
      const waiting = queue.shift();
      if (waiting === undefined) return;
      running.set(worker, waiting);
      worker.postMessage(waiting.job, [waiting.job.bytes.buffer]);
    }
  };
  const start = (): Worker => {
    const worker = new Worker(url);
    all.push(worker);
    ended.push(new Promise((resolve) => worker.once('exit', resolve)));
    worker.on('message', (result: CompressResult) => {
      const done = running.get(worker);
      running.delete(worker);
      idle.push(worker);
      done?.resolve(result);
      next();
    });
    worker.on('error', (error) => {
      failure ??= error as Error;
      for (const waiting of [...running.values(), ...queue.splice(0)])
        waiting.reject(error as Error);
      running.clear();
    });
    return worker;
  };
  return {
    run: (job) =>
      new Promise((resolve, reject) => {
        if (failure !== null) {
          reject(failure);
          return;
        }
        queue.push({ job, resolve, reject });
        next();
      }),
    close: async () => {
      // Not `terminate`: Node aborts the process when that meets an encoder that is just being made. A batch is short.
      for (const worker of all) worker.postMessage(null);
      await Promise.all(ended);
    },
  };
}
