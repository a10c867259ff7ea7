/** Worker threads that pull jobs from one queue. */
import { Worker } from 'node:worker_threads';
import { must } from '#/protocol/errors.ts';
import { type Job, type JobAnswer, type JobResult, problemFrom, type WorkerSetup } from './jobs.ts';

/** Jobs handed to one thread ahead of its answers, so that it never waits for the next. */
const JOBS_AHEAD = 2;
const THREAD_LIMITS = { maxOldGenerationSizeMb: 64, maxYoungGenerationSizeMb: 4, stackSizeMb: 2 };

interface Waiting {
  readonly job: Job;
  readonly resolve: (result: JobResult) => void;
  readonly reject: (error: unknown) => void;
}

interface Thread {
  readonly worker: Worker;
  readonly ended: Promise<unknown>;
  /** In the order of their answers. */
  readonly given: Waiting[];
}

export interface WorkerPool {
  /** Runs one job. After a failure of any job the pool is of no use and is closed by its owner. */
  run(job: Job): Promise<JobResult>;
  /** True when a thread has nothing to do: then a small job is better than a late one. */
  isIdle(): boolean;
  /** Jobs that threads were handed are done; the others are refused. */
  close(): Promise<void>;
}

/** `count` threads with the same setup; `entry` is worker.ts or its built form. */
export function createWorkerPool(setup: WorkerSetup, count: number, entry: URL): WorkerPool {
  const queue: Waiting[] = [];
  let isClosed = false;
  const threads = Array.from({ length: count }, (): Thread => {
    const worker = new Worker(entry, { workerData: setup, resourceLimits: THREAD_LIMITS });
    return { worker, ended: new Promise((resolve) => worker.once('exit', resolve)), given: [] };
  });
  const feed = (): void => {
    for (let ahead = 1; ahead <= JOBS_AHEAD; ahead += 1) {
      for (const thread of threads) {
        if (thread.given.length >= ahead) continue;
        const next = queue.shift();
        if (next === undefined) return;
        thread.given.push(next);
        thread.worker.postMessage(next.job);
      }
    }
  };
  const abandon = (error: unknown): void => {
    for (const waiting of [
      ...threads.flatMap(({ given }) => given.splice(0)),
      ...queue.splice(0),
    ]) {
      waiting.reject(error);
    }
  };
  for (const thread of threads) {
    thread.worker.on('message', (answer: JobAnswer) => {
      const done = thread.given.shift();
      must(done !== undefined, 'a worker answers only what it was asked');
      feed();
      if (answer.ok) done.resolve(answer.result);
      else if ('problem' in answer) done.reject(problemFrom(answer.problem));
      else done.reject(new Error(`worker thread: ${answer.bug}`));
    });
    thread.worker.on('error', abandon);
    thread.worker.on('exit', (code) => {
      if (!isClosed) abandon(new Error(`worker thread ended with ${code}`));
    });
  }
  return {
    run(job) {
      return new Promise((resolve, reject) => {
        if (isClosed) {
          reject(new Error('the worker pool is closed'));
          return;
        }
        queue.push({ job, resolve, reject });
        feed();
      });
    },
    isIdle: () => threads.some(({ given }) => given.length === 0),
    async close() {
      isClosed = true;
      const closed = new Error('the worker pool is closed');
      for (const { reject } of queue.splice(0)) reject(closed);
      // Not `terminate`: Node aborts the process when that meets a decoder that is just being made. Jobs are short.
      for (const { worker } of threads) worker.postMessage(null);
      await Promise.all(threads.map(({ ended }) => ended));
      abandon(closed);
    },
  };
}
