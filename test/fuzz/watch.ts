/** Threads that fuzz, watched from outside: a crash, a hang and growth of memory are told, with what shows them again. */
import { Worker } from 'node:worker_threads';
import type { FuzzTarget } from './run.ts';
import type { Beat, Work } from './worker.ts';

export interface FuzzOptions {
  /** Of all threads together. */
  readonly seconds: number;
  readonly threads: number;
  readonly seed: number;
  /** Part of the name of a target. */
  readonly only: string;
  /** The URL of a module that exports `fuzzTargets`. */
  readonly targets: URL;
  /** A target that is silent for so long hangs. */
  readonly hangMs: number;
  readonly growthMaxBytes: number;
  /** Heap of a thread: one that takes more is ended, and with it the target. */
  readonly heapMaxMb: number;
}

export interface FuzzResult {
  /** By target, how often it was tried. */
  readonly tries: ReadonlyMap<string, number>;
  /** Target and what happened. */
  readonly failures: readonly { readonly target: string; readonly what: string }[];
  /** By target, the memory that it kept. */
  readonly kept: ReadonlyMap<string, number>;
}

/** Deals the targets to the threads and runs them until their time is over. */
export async function fuzz(options: FuzzOptions): Promise<FuzzResult> {
  const { fuzzTargets } = (await import(options.targets.href)) as {
    fuzzTargets: () => Promise<readonly FuzzTarget[]>;
  };
  const names = (await fuzzTargets())
    .map(({ name }) => name)
    .filter((name) => name.includes(options.only));
  const threads = Math.min(options.threads, names.length);
  const parts = Array.from({ length: threads }, (_, thread) =>
    names.filter((_name, at) => at % threads === thread),
  );
  const results = await Promise.all(parts.map((part) => watch(part, options, threads)));
  return {
    tries: new Map(results.flatMap(({ tries }) => [...tries])),
    failures: results.flatMap(({ failures }) => failures),
    kept: new Map(results.flatMap(({ kept }) => [...kept])),
  };
}

/** One thread. Targets that stand behind one that hangs go on in a new thread, without it. */
async function watch(
  names: readonly string[],
  options: FuzzOptions,
  threads: number,
): Promise<FuzzResult> {
  const { seed, growthMaxBytes, hangMs, targets } = options;
  const tries = new Map(names.map((name) => [name, 0]));
  const failures: { target: string; what: string }[] = [];
  const kept = new Map<string, number>();
  const seconds = options.seconds / threads;
  const work: Work = { targets: targets.href, names, seconds, seed, growthMaxBytes };
  const { promise, resolve } = Promise.withResolvers<void>();
  const worker = new Worker(new URL('worker.ts', import.meta.url), {
    workerData: work,
    resourceLimits: { maxOldGenerationSizeMb: options.heapMaxMb },
  });
  let last = 'start';
  const again = (at: number): string => `--only=${last} --seed=${seed} --at=${at}`;
  const fail = (target: string, what: string): void => void failures.push({ target, what });
  const hang = setInterval(() => {
    fail(
      last,
      `no answer for ${hangMs} ms, from try ${tries.get(last) ?? 0} on: --only=${last} --seed=${seed}`,
    );
    resolve();
  }, hangMs);
  worker.on('message', (beat: Beat) => {
    hang.refresh();
    if (beat.isDone) resolve();
    if (beat.target === '') return;
    last = beat.target;
    tries.set(last, beat.tries);
    if (beat.keptBytes > growthMaxBytes && (kept.get(last) ?? 0) <= growthMaxBytes)
      fail(last, `keeps memory: ${beat.keptBytes} bytes after ${beat.tries} tries`);
    kept.set(last, beat.keptBytes);
    if (beat.finding === null) return;
    const { at, what, bytes } = beat.finding;
    fail(last, `${again(at)}\n${what}\n${Buffer.from(bytes).toString('base64').slice(0, 2000)}`);
  });
  worker.on('error', (error: Error) => {
    fail(last, `the thread ended: ${error.stack ?? error.message}`);
    resolve();
  });
  await promise;
  clearInterval(hang);
  await worker.terminate();
  return { tries, failures, kept };
}
