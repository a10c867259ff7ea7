/**
 * Faults of single effects: each effect of a scenario, in each state of the machine that asks for it, fails, is killed before,
 * after and between its parts, meets a full, failing or read-only disk, hangs, or sees the wall clock jump.
 */
import { terminalPhases } from '#/protocol/documents.ts';
import { Problem } from '#/protocol/errors.ts';
import { crashStates } from '#/test/support/sim-fs/crash-states.ts';
import type { Injection, Operation } from '#/test/support/sim-fs/sim-fs.ts';
import { attemptEnds } from './checks.ts';
import type { ScenarioCase } from './scenarios.ts';
import {
  runHost,
  type HostExecutors,
  type Inside,
  type Run,
  type Scenario,
  type World,
} from './sim-host.ts';

export const effectFaults = [
  'fails',
  'killed before',
  'killed after',
  'killed between its parts',
  'ENOSPC',
  'EIO on write',
  'EIO on fsync',
  'EROFS',
  'hang',
  'clock jump',
  'partial write',
] as const;
export type EffectFault = (typeof effectFaults)[number];

/** One effect of a run: the first time that it was asked for in a state. */
export interface Span {
  /** `commit in committing`. */
  readonly name: string;
  /** Lengths of the disk's log, and numbers of operations, before and after it. */
  readonly log: readonly [number, number];
  readonly operations: readonly [number, number];
}

const YEAR_MS = 365 * 24 * 3600 * 1000;
const JUMPS_MS = [10 * YEAR_MS, -10 * YEAR_MS];
const HUNG_MS = 30 * 60_000;
const BROKEN_MS = 5 * 60_000;
const SEED = 5;

type AnyExecutor = (effect: never, signal: AbortSignal) => Promise<object>;

/** Wraps every executor; `around` gets the name of the effect and what runs it. */
function wrapped(
  around: (name: string, inside: Inside, run: () => Promise<object>) => Promise<object>,
): NonNullable<Scenario['wrapExecutors']> {
  return (executors, inside) =>
    Object.fromEntries(
      Object.entries(executors).map(([name, executor]) => [
        name,
        (effect: never, signal: AbortSignal) =>
          around(`${name} in ${inside.state().at}`, inside, () =>
            (executor as AnyExecutor)(effect, signal),
          ),
      ]),
    ) as unknown as HostExecutors;
}

/** Every effect of a scenario without a fault, in order. */
export async function spansOf(
  one: ScenarioCase,
): Promise<{ readonly run: Run; readonly spans: readonly Span[] }> {
  const spans = new Map<string, Span>();
  const run = await runHost(
    one.disk,
    one.world,
    {
      ...one.scenario,
      wrapExecutors: wrapped(async (name, { sim }, execute) => {
        const from = [sim.log.length, sim.operations()] as const;
        const result = await execute();
        if (!spans.has(name)) {
          const log = [from[0], sim.log.length] as const;
          spans.set(name, { name, log, operations: [from[1], sim.operations()] });
        }
        return result;
      }),
    },
    SEED,
  );
  return { run, spans: [...spans.values()] };
}

/** What became of one fault of one effect. */
export interface FaultEnd {
  /** `killed in commit after the write (1)`. */
  readonly name: string;
  /** Ends of all attempts that control heard of, then where the host is. */
  readonly end: string;
  /** What is wrong with the disk or with the books, whatever the end is. */
  readonly problems: readonly string[];
}

/** Every case of a scenario. A fault that cannot meet an effect (no write in it) has no case. */
export async function* faultEnds(one: ScenarioCase): AsyncGenerator<FaultEnd> {
  const { run, spans } = await spansOf(one);
  for (const span of spans) {
    for (const fault of effectFaults) {
      yield* endsOf(one, run, span, fault);
    }
  }
}

async function* endsOf(
  one: ScenarioCase,
  whole: Run,
  span: Span,
  fault: EffectFault,
): AsyncGenerator<FaultEnd> {
  const named = (text: string, run: Run, before: World): FaultEnd => ({
    name: text,
    end: endOf(run),
    problems: problemsOf(one, run, before),
  });
  const kills = async function* (
    cuts: readonly number[],
    isTorn: boolean,
    name: (at: number) => string,
  ): AsyncGenerator<FaultEnd> {
    const history = { base: one.disk.base, log: whole.sim.log };
    const options = { seed: SEED, cuts: new Set(cuts) };
    for (const state of crashStates(history, 'kill', options)) {
      if (state.world === null) continue;
      const wasTorn = state.history.log.at(-1) !== whole.sim.log[state.cut - 1];
      if (wasTorn !== isTorn && state.cut > 0) continue;
      const before = state.world as World;
      yield named(
        name(state.cut - span.log[0]),
        await runHost(state.history, before, one.scenario, SEED + 1),
        before,
      );
    }
  };
  const [from, to] = span.log;
  const inner = Array.from({ length: Math.max(0, to - from - 1) }, (_, at) => from + 1 + at);
  switch (fault) {
    case 'killed before':
      yield* kills([from], false, () => `killed before ${span.name}`);
      return;
    case 'killed after':
      yield* kills([to], false, () => `killed after ${span.name}`);
      return;
    case 'killed between its parts':
      yield* kills(
        inner,
        false,
        (at) => `killed in ${span.name} after ${partOf(whole, from + at)} (part ${at})`,
      );
      return;
    case 'partial write':
      yield* kills(
        [...inner, to],
        true,
        (at) => `killed in ${span.name} in the middle of a write (part ${at})`,
      );
      return;
    case 'fails':
      yield* withExecutors(one, `${span.name} fails`, oneFailure(span.name));
      return;
    case 'hang':
      yield* thenRestarted(one, `${span.name} hangs`, {
        wrapExecutors: hanging(span.name),
        giveUpMs: HUNG_MS,
      });
      return;
    case 'clock jump':
      for (const byMs of JUMPS_MS) {
        const name = `the wall clock jumps by ${byMs / YEAR_MS} years in ${span.name}`;
        yield* withExecutors(one, name, jumping(span.name, byMs));
      }
      return;
    case 'ENOSPC':
    case 'EIO on write':
    case 'EIO on fsync':
      yield* brokenOnce(one, span, fault);
      return;
    case 'EROFS': {
      const [first] = span.operations;
      const inject: Scenario['inject'] = ({ index }) => (index >= first ? 'EROFS' : null);
      if (span.operations[1] > first) {
        const name = `read-only from ${span.name} on`;
        yield* thenRestarted(one, name, { inject, giveUpMs: BROKEN_MS });
      }
    }
  }
}

async function* withExecutors(
  one: ScenarioCase,
  name: string,
  wrapExecutors: NonNullable<Scenario['wrapExecutors']>,
): AsyncGenerator<FaultEnd> {
  const run = await runHost(one.disk, one.world, { ...one.scenario, wrapExecutors }, SEED);
  yield { name, end: endOf(run), problems: problemsOf(one, run, one.world) };
}

/** The run with the fault ends as it may, but whole; the one after it has no fault. */
async function* thenRestarted(
  one: ScenarioCase,
  name: string,
  fault: Partial<Scenario>,
): AsyncGenerator<FaultEnd> {
  const first = await runHost(one.disk, one.world, { ...one.scenario, ...fault }, SEED);
  const between = one.checkDisk(first.sim.image());
  const bug = first.ended === 'bug' ? [`the agent crashed: ${String(first.error)}`] : [];
  const disk = { base: one.disk.base, log: first.sim.log };
  const second = await runHost(disk, first.world, one.scenario, SEED + 1);
  const problems = [...bug, ...between, ...problemsOf(one, second, first.world)];
  yield { name, end: endOf(second), problems };
}

const broken: Readonly<
  Record<
    'ENOSPC' | 'EIO on write' | 'EIO on fsync',
    readonly [readonly Operation['name'][], Injection]
  >
> = {
  ENOSPC: [['create', 'write', 'mkdir', 'symlink'], 'ENOSPC'],
  'EIO on write': [['write'], 'EIO'],
  'EIO on fsync': [['sync'], 'EIO'],
};

/** One operation of the effect is answered with the error, each in its turn. */
async function* brokenOnce(
  one: ScenarioCase,
  span: Span,
  fault: keyof typeof broken,
): AsyncGenerator<FaultEnd> {
  const [names, errno] = broken[fault];
  const [first, end] = span.operations;
  for (let failing = first; failing < end; failing += 1) {
    let wasHit = false;
    const inject: Scenario['inject'] = ({ index, name }) => {
      if (index !== failing || !names.includes(name)) return null;
      wasHit = true;
      return errno;
    };
    const run = await runHost(one.disk, one.world, { ...one.scenario, inject }, SEED);
    if (!wasHit) continue;
    const name = `${fault} in ${span.name} (operation ${failing - first})`;
    yield { name, end: endOf(run), problems: problemsOf(one, run, one.world) };
  }
}

function once(
  wanted: string,
  fault: (inside: Inside, execute: () => Promise<object>) => Promise<object>,
): NonNullable<Scenario['wrapExecutors']> {
  let isDone = false;
  return wrapped((name, inside, execute) => {
    if (isDone || name !== wanted) return execute();
    isDone = true;
    return fault(inside, execute);
  });
}

function oneFailure(wanted: string): NonNullable<Scenario['wrapExecutors']> {
  return once(wanted, () => Promise.reject(new Problem('E_IO', 'the effect fails')));
}

function hanging(wanted: string): NonNullable<Scenario['wrapExecutors']> {
  return once(wanted, () => new Promise(() => undefined));
}

function jumping(wanted: string, byMs: number): NonNullable<Scenario['wrapExecutors']> {
  return once(wanted, async ({ clock }, execute) => {
    clock.jumpWall(byMs);
    return await execute();
  });
}

/** What the last part of a cut effect was, in words. */
function partOf({ sim }: Run, cut: number): string {
  const entry = sim.log[cut - 1];
  switch (entry?.do) {
    case 'write':
      return 'the write';
    case 'sync':
      return 'the sync';
    case 'truncate':
      return 'the truncation';
    case 'entries':
      return entry.changes.length === 2
        ? 'the rename'
        : entry.made === null
          ? 'the removal'
          : `the new ${entry.made.node.kind}`;
    case 'mark':
      return 'the change of what runs';
    case undefined:
    case 'failed-sync':
      return 'nothing';
  }
}

/** `confirmed, idle`: how each attempt ended, in the order in which control heard of them, and where the host is. */
function endOf(run: Run): string {
  const ends = [...attemptEnds(run.world.received).values()].map(
    (list) => list.join('+') || 'open',
  );
  return [...ends, run.ended === 'rest' ? run.state.at : run.ended].join(', ');
}

/** Whatever the end: one whole version is live and runs, each attempt ended once, nothing is left over. */
function problemsOf(one: ScenarioCase, run: Run, _before: World): readonly string[] {
  const problems = [...one.checkDisk(run.sim.image())];
  if (run.ended !== 'rest') problems.push(`the agent is ${run.ended}: ${String(run.error)}`);
  for (const [attempt, ends] of attemptEnds(run.world.received)) {
    if (ends.length !== 1) problems.push(`attempt ${attempt} has ${ends.length} ends`);
  }
  const isKnown = (phase: string): boolean => terminalPhases.some((one_) => one_ === phase);
  if (![...attemptEnds(run.world.received).values()].flat().every(isKnown))
    problems.push('unknown end');
  const live = run.state.known.artifactId;
  if (run.world.active !== live) problems.push(`runs ${run.world.active}, live is ${live}`);
  return problems;
}
