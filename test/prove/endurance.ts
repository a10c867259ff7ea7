/**
 * T16: one agent updates again and again, on the real file system and on a virtual clock, while its disk fails now and then. What it
 * keeps must not grow: files, bytes, descriptors, memory.
 */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { nodeFiles, fileProblem } from '#/agent/adapters/file-port.ts';
import type { FileHandlePort, FilePort } from '#/agent/ports.ts';
import type { Runner } from '#/agent/runner.ts';
import { attemptEnds } from '#/test/support/sim-host/checks.ts';
import { simRandom } from '#/test/support/sim-host/sim-clock.ts';
import { emptyHost } from '#/test/support/sim-host/scenarios.ts';
import { freshWorld, runHost, SLOT_ROOT, type World } from '#/test/support/sim-host/sim-host.ts';
import { type Version, version } from '#/test/support/sim-host/versions.ts';
import type { Family, Finding } from './family.ts';

const updates = { ci: 300, full: 2000, long: 20_000 } as const;
/** Updates between two starts of the agent; what it holds is measured at its end. */
const SEGMENT = 50;
/** The first segments fill caches and the history that is kept. */
const WARM_SEGMENTS = 2;
/** One in so many changes of the disk fails. */
const FAILS_ONE_IN = 700;
const VIRTUAL_LIMIT_MS = 1000 * 3600 * 1000;
/** What a state directory may be larger than after warming up: the journal up to its rotation, one report more. */
const SLACK_BYTES = 64 * 1024;
const SLACK_FILES = 4;
/** V8 keeps some code and caches of what it met for the first time. */
const SLACK_HEAP_BYTES = 12 * 1024 * 1024;

const IN_MEMORY = '/dev/shm';

interface Held {
  readonly files: number;
  readonly bytes: number;
  readonly descriptors: number;
  readonly heapBytes: number;
}

export const endurance: Family = {
  name: 'endurance',
  isLight: true,
  what: 'thousands of updates in a row under disk errors: nothing that is kept grows',
  async run({ seed, scale, say }) {
    // What the syncs cost is not the question: in memory where there is such a place.
    const parent = existsSync(IN_MEMORY) ? IN_MEMORY : tmpdir();
    const root = mkdtempSync(join(parent, 'prove-endurance-'));
    try {
      const segments = updates[scale] / SEGMENT;
      const findings: Finding[] = [];
      let world = freshWorld();
      let warm: Held | null = null;
      let last: Held | null = null;
      let failures = 0;
      mkdirSync(join(root, SLOT_ROOT));
      for (let segment = 0; segment < segments; segment += 1) {
        const from = segment * SEGMENT;
        const done = await updateInARow(root, world, from, seed + segment);
        failures += done.failures;
        findings.push(...done.findings);
        if (done.findings.length > 0) break;
        world = { ...done.world, received: [] };
        last = held(root);
        if (segment + 1 === WARM_SEGMENTS) warm = last;
      }
      if (warm !== null && last !== null) findings.push(...growth(warm, last));
      say(
        `${failures} failed calls; at the end ${JSON.stringify(last)}, at the start ${JSON.stringify(warm)}`,
      );
      return { cases: updates[scale], states: updates[scale] + failures, findings };
    } finally {
      rmSync(root, { recursive: true, force: true });
    }
  },
};

async function updateInARow(
  root: string,
  world: World,
  from: number,
  seed: number,
): Promise<{
  readonly world: World;
  readonly failures: number;
  readonly findings: readonly Finding[];
}> {
  // One before them is live.
  const fresh = Array.from({ length: SEGMENT }, (_, at) => version(from + at + 1));
  const versions: readonly Version[] = from === 0 ? fresh : [version(from), ...fresh];
  const random = simRandom(seed);
  let failures = 0;
  const mayFail = (name: string, path: string): void => {
    if (random.unit() * FAILS_ONE_IN > 1) return;
    failures += 1;
    throw fileProblem(name, path, random.unit() < 0.5 ? 'ENOSPC' : 'EIO');
  };
  const counted = rooted(root, mayFail);
  let runner: Runner | null = null as Runner | null;
  const run = await runHost(
    { base: emptyHost(), log: [] },
    world,
    {
      versions,
      giveUpMs: VIRTUAL_LIMIT_MS,
      onRunner: (made) => {
        runner = made;
      },
      assign: ({ received }) => {
        const state = runner?.state();
        // A failing disk is a reason to ask for attention: the operator looks, and lets it go on.
        if (state?.at === 'needs-attention' && state.step === 'rest') {
          runner?.command({ kind: 'clear' });
        }
        const at = versions.findIndex((one) => one.artifactId === state?.known.artifactId);
        const artifactId = (versions[at + 1] ?? versions.at(-1))?.artifactId ?? null;
        // A trial that the failing disk ended speaks against the version: the operator has it tried again.
        const failed = received.filter(
          (event) => event.phase === 'rolled-back' && event.artifactId === artifactId,
        );
        return { artifactId, retryGeneration: failed.length };
      },
      wrap: () => counted.files,
      pending: counted.pending,
    },
    seed,
  );
  const wanted = versions.at(-1);
  const findings: Finding[] = [];
  if (run.ended !== 'rest' || run.state.known.artifactId !== wanted?.artifactId) {
    const { known, lastEnd, retry } = run.state;
    const at = versions.findIndex((one) => one.artifactId === known.artifactId);
    const state = JSON.stringify({ at: run.state.at, retry, lastEnd });
    const text = `after ${from} updates and ${at} more: ${run.ended}, ${state} ${String(run.error)}`;
    findings.push({ fault: 'stuck', text });
  }
  for (const [attempt, ends] of attemptEnds(run.world.received)) {
    if (ends.length === 1) continue;
    findings.push({
      fault: 'lost',
      text: `attempt ${attempt} ended ${ends.join(', ') || 'never'}`,
    });
  }
  return { world: run.world, failures, findings };
}

/** The real file system below a directory. `before` each change: it may throw. `pending` waits for the calls under way. */
function rooted(
  root: string,
  before: (name: string, path: string) => void,
): { readonly files: FilePort; readonly pending: () => Promise<void> | null } {
  const real = nodeFiles();
  let pending = 0;
  let waiting = Promise.withResolvers<void>();
  const at = (path: string): string => `${root}${path}`;
  const call = async <T>(work: () => Promise<T>): Promise<T> => {
    pending += 1;
    try {
      return await work();
    } finally {
      pending -= 1;
      if (pending === 0) {
        waiting.resolve();
        waiting = Promise.withResolvers();
      }
    }
  };
  const change = <T>(name: string, path: string, work: () => Promise<T>): Promise<T> =>
    call(() => {
      before(name, path);
      return work();
    });
  const handle = (file: FileHandlePort, path: string): FileHandlePort => ({
    read: (buffer, position) => call(() => file.read(buffer, position)),
    write: (bytes, position) => change('write', path, () => file.write(bytes, position)),
    truncate: (sizeBytes) => change('truncate', path, () => file.truncate(sizeBytes)),
    sync: () => change('fsync', path, () => file.sync()),
    close: () => call(() => file.close()),
  });
  const files: FilePort = {
    open: (path, flags) => call(async () => handle(await real.open(at(path), flags), path)),
    rename: (from, to) => change('rename', to, () => real.rename(at(from), at(to))),
    unlink: (path) => change('unlink', path, () => real.unlink(at(path))),
    mkdir: (path, mode) => change('mkdir', path, () => real.mkdir(at(path), mode)),
    rmdir: (path) => change('rmdir', path, () => real.rmdir(at(path))),
    symlink: (target, path) => change('symlink', path, () => real.symlink(target, at(path))),
    readlink: (path) => call(() => real.readlink(at(path))),
    list: (path) => call(() => real.list(at(path))),
    stat: (path) => call(() => real.stat(at(path))),
  };
  return { files, pending: () => (pending === 0 ? null : waiting.promise) };
}

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

function held(root: string): Held {
  collect();
  const paths = readdirSync(root, { recursive: true, withFileTypes: true });
  const files = paths.filter((entry) => entry.isFile());
  return {
    files: paths.length,
    bytes: files.reduce(
      (sum, { parentPath, name }) => sum + statSync(join(parentPath, name)).size,
      0,
    ),
    descriptors: readdirSync('/proc/self/fd').length,
    heapBytes: process.memoryUsage().heapUsed,
  };
}

function growth(warm: Held, last: Held): readonly Finding[] {
  const limits: Readonly<Record<keyof Held, number>> = {
    files: SLACK_FILES,
    bytes: SLACK_BYTES,
    descriptors: 0,
    heapBytes: SLACK_HEAP_BYTES,
  };
  return Object.entries(limits).flatMap(([what, slack]) => {
    const key = what as keyof Held;
    if (last[key] <= warm[key] + slack) return [];
    return [{ fault: 'wrong' as const, text: `${what} grew from ${warm[key]} to ${last[key]}` }];
  });
}
