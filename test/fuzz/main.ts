/**
 * `npm run fuzz -- [--seconds=60] [--seed=N] [--only=TARGET] [--at=N]`. Seeds are printed; the same seed makes the same bytes.
 * Ends with `N passed, N failed`: targets without and with findings.
 */
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { bytesAt, type Finding, tryOnce } from './run.ts';
import { fuzzTargets } from './targets.ts';

interface Options {
  readonly seconds: number;
  readonly seed: number;
  readonly only: string;
  readonly at: number | null;
}

/** Told after each slice of work; silence for longer than HANG_MS is a hang. */
interface Beat {
  readonly target: string;
  readonly tries: number;
  readonly finding: Finding | null;
  readonly heapBytes: number;
  readonly isDone: boolean;
}

const say = (line: string): void => {
  process.stdout.write(`${line}\n`);
};
const HANG_MS = 30_000;
const SLICE_MS = 250;
const GROWTH_MAX_BYTES = 48 * 1024 * 1024;
const FINDINGS_MAX = 3;

function optionsOf(args: readonly string[]): Options {
  const of = (name: string): string | undefined =>
    args.find((arg) => arg.startsWith(`--${name}=`))?.slice(name.length + 3);
  const at = of('at');
  return {
    seconds: Number(of('seconds') ?? 60),
    seed: Number(of('seed') ?? Date.now() % 2 ** 31),
    only: of('only') ?? '',
    at: at === undefined ? null : Number(at),
  };
}

/** Bytes of the heap after a collection. */
function heapBytes(): number {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  collect();
  return process.memoryUsage().heapUsed;
}

/** In the thread: each target in turn, slice by slice, until the time is over. */
function work({ seconds, seed, only }: Options): void {
  const targets = fuzzTargets().filter(({ name }) => name.includes(only));
  const untilMs = performance.now() + seconds * 1000;
  const tries = new Map(targets.map(({ name }) => [name, 0]));
  const found = new Map<string, number>();
  while (performance.now() < untilMs) {
    for (const target of targets) {
      const sliceMs = performance.now() + Math.min(SLICE_MS, (seconds * 1000) / targets.length / 4);
      let finding: Finding | null = null;
      let at = tries.get(target.name) ?? 0;
      parentPort?.postMessage({
        target: target.name,
        tries: at,
        finding,
        heapBytes: 0,
        isDone: false,
      });
      while (performance.now() < sliceMs && (found.get(target.name) ?? 0) < FINDINGS_MAX) {
        finding = tryOnce(target, bytesAt(target, seed, at), at);
        at += 1;
        if (finding === null) continue;
        found.set(target.name, (found.get(target.name) ?? 0) + 1);
        break;
      }
      tries.set(target.name, at);
      const beat: Beat = { target: target.name, tries: at, finding, heapBytes: 0, isDone: false };
      parentPort?.postMessage(beat);
    }
    parentPort?.postMessage({
      target: '',
      tries: 0,
      finding: null,
      heapBytes: heapBytes(),
      isDone: false,
    });
  }
  parentPort?.postMessage({
    target: '',
    tries: 0,
    finding: null,
    heapBytes: heapBytes(),
    isDone: true,
  });
}

async function watch(options: Options): Promise<readonly string[]> {
  const tries = new Map<string, number>();
  const failures: string[] = [];
  const heaps: number[] = [];
  const worker = new Worker(new URL(import.meta.url), { workerData: options });
  const { promise, resolve } = Promise.withResolvers<void>();
  let last = '';
  const hang = setInterval(() => {
    failures.push(`${last}: no answer for ${HANG_MS} ms after try ${tries.get(last) ?? 0}`);
    void worker.terminate().then(() => resolve());
  }, HANG_MS);
  worker.on('message', (beat: Beat) => {
    hang.refresh();
    if (beat.heapBytes > 0) heaps.push(beat.heapBytes);
    if (beat.isDone) resolve();
    if (beat.target === '') return;
    last = beat.target;
    tries.set(beat.target, beat.tries);
    if (beat.finding === null) return;
    const { target, at, what, bytes } = beat.finding;
    failures.push(
      `${target}: --only=${target} --seed=${options.seed} --at=${at}\n${what}\n${Buffer.from(bytes).toString('base64').slice(0, 2000)}`,
    );
  });
  worker.on('error', (error: Error) => {
    failures.push(`${last}: the thread ended: ${error.stack ?? error.message}`);
    resolve();
  });
  await promise;
  clearInterval(hang);
  await worker.terminate();
  // The first rounds warm caches and code up; from then on the heap stays.
  const [first, end] = [heaps[Math.min(2, heaps.length - 1)] ?? 0, heaps.at(-1) ?? 0];
  if (end - first > GROWTH_MAX_BYTES)
    failures.push(`memory: the heap grew from ${first} to ${end} bytes`);
  for (const [target, count] of tries) say(`${String(count).padStart(9)}  ${target}`);
  say(
    `heap after collection: ${Math.round(first / 1024)} KiB, at the end ${Math.round(end / 1024)} KiB`,
  );
  return failures;
}

if (!isMainThread) work(workerData as Options);
else {
  const options = optionsOf(process.argv.slice(2));
  say(`seed ${options.seed}, ${options.seconds} s`);
  const names = fuzzTargets().filter(({ name }) => name.includes(options.only));
  if (options.at !== null) {
    for (const target of names) {
      const finding = tryOnce(target, bytesAt(target, options.seed, options.at), options.at);
      say(`${target.name}: ${finding === null ? 'nothing' : finding.what}`);
    }
  } else {
    const failures = await watch(options);
    for (const failure of failures) say(failure);
    const failed = new Set(failures.map((failure) => failure.split(':')[0])).size;
    say(`${Math.max(0, names.length - failed)} passed, ${failed} failed`);
    process.exitCode = failed === 0 ? 0 : 1;
  }
}
