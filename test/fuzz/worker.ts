/** The thread: each of its targets in turn, slice by slice, until the time is over. */
import { parentPort, workerData } from 'node:worker_threads';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { bytesAt, type Finding, type FuzzTarget, tryOnce } from './run.ts';

export interface Work {
  /** A module that exports `fuzzTargets`. */
  readonly targets: string;
  readonly names: readonly string[];
  readonly seconds: number;
  readonly seed: number;
  /** A target is left alone once it has kept this many bytes. */
  readonly growthMaxBytes: number;
}

/** Told before and after each slice; silence means that the target hangs. */
export interface Beat {
  readonly target: string;
  readonly tries: number;
  readonly finding: Finding | null;
  /** Bytes that are kept since the first slice of this target, over all its slices; after a collection. */
  readonly keptBytes: number;
  readonly isDone: boolean;
}

const SLICE_MS = 250;
const FINDINGS_MAX = 3;

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/** Bytes in use after a collection, those outside of the heap of V8 as well. */
async function usedBytes(): Promise<number> {
  // What was given back is only freed once the loop has turned: handles of zlib, for example.
  for (let turn = 0; turn < 3; turn += 1) {
    await new Promise(setImmediate);
    collect();
  }
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

class Standing {
  readonly target: FuzzTarget;
  tries = 0;
  found = 0;
  slices = 0;
  keptBytes = 0;

  constructor(target: FuzzTarget) {
    this.target = target;
  }

  beat(finding: Finding | null): void {
    const { tries, keptBytes } = this;
    const beat: Beat = { target: this.target.name, tries, finding, keptBytes, isDone: false };
    parentPort?.postMessage(beat);
  }
}

async function slice(standing: Standing, { seed }: Work, sliceMs: number): Promise<void> {
  const { target } = standing;
  const before = await usedBytes();
  const untilMs = performance.now() + sliceMs;
  standing.beat(null);
  let finding: Finding | null = null;
  while (performance.now() < untilMs && finding === null) {
    const tried = tryOnce(target, bytesAt(target, seed, standing.tries), standing.tries);
    finding = tried instanceof Promise ? await tried : tried;
    standing.tries += 1;
  }
  if (finding !== null) standing.found += 1;
  // The first slice fills caches and has code compiled.
  if (standing.slices > 0) standing.keptBytes += (await usedBytes()) - before;
  standing.slices += 1;
  standing.beat(finding);
}

const work = workerData as Work;
const { fuzzTargets } = (await import(work.targets)) as {
  fuzzTargets: () => Promise<readonly FuzzTarget[]>;
};
const standings = (await fuzzTargets())
  .filter(({ name }) => work.names.includes(name))
  .map((target) => new Standing(target));
const untilMs = performance.now() + work.seconds * 1000;
// Four rounds at least, also when there is little time.
const sliceMs = Math.min(SLICE_MS, (work.seconds * 1000) / standings.length / 4);
while (performance.now() < untilMs) {
  const open = standings.filter(
    ({ found, keptBytes }) => found < FINDINGS_MAX && keptBytes <= work.growthMaxBytes,
  );
  if (open.length === 0) break;
  for (const standing of open) await slice(standing, work, sliceMs);
}
const end: Beat = { target: '', tries: 0, finding: null, keptBytes: 0, isDone: true };
parentPort?.postMessage(end);
