/** Entry of a worker thread: answers jobs in the order in which they come; null ends it. */
import { parentPort, workerData } from 'node:worker_threads';
import { ChunkWorker } from './chunk-worker.ts';
import { type Job, type JobAnswer, problemData, type WorkerSetup } from './jobs.ts';

const worker = new ChunkWorker(workerData as WorkerSetup);

parentPort?.on('message', (job: Job | null) => {
  if (job === null) {
    worker.close();
    parentPort?.close();
    return;
  }
  parentPort?.postMessage(answer(job));
});

function answer(job: Job): JobAnswer {
  try {
    return { ok: true, result: worker.run(job) };
  } catch (error) {
    const problem = problemData(error);
    if (problem !== null) return { ok: false, problem };
    return {
      ok: false,
      bug: error instanceof Error ? (error.stack ?? error.message) : String(error),
    };
  }
}
