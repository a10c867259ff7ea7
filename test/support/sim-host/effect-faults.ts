/**
 * Faults of single effects: each effect of a scenario, in each state of the machine that asks for it, fails, is killed before,
 * after and between its parts, meets a full, failing or read-only disk, hangs, or sees the wall clock jump.
 */
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

/** A run without a fault. */
interface Whole {
  readonly run: Run;
  readonly spans: readonly Span[];
  /** Of all operations on the disk, by their number. */
  readonly names: readonly Operation['name'][];
}

/** Every effect of a scenario without a fault, in order. */
export async function spansOf(one: ScenarioCase): Promise<Whole> {
  const spans = new Map<string, Span>();
  const names: Operation['name'][] = [];
  const run = await runHost(
    one.disk,
    one.world,
    {
      ...one.scenario,
      inject: (operation) => {
        names[operation.index] = operation.name;
        return one.scenario.inject?.(operation) ?? null;
      },
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
  return { run, spans: [...spans.values()], names };
}

/** What became of one fault of one effect. */
export interface FaultEnd {
  /** `killed in commit in committing after the rename`. */
  readonly name: string;
  /** Ends of all attempts that control heard of, then where the host is. */
  readonly end: string;
  /** What is wrong with the disk or with the books, whatever the end is. */
  readonly problems: readonly string[];
}

/** Every case of a scenario. A fault that cannot meet an effect (no write in it) has no case. */
export async function* faultEnds(one: ScenarioCase): AsyncGenerator<FaultEnd> {
  const whole = await spansOf(one);
  for (const span of whole.spans) {
    for (const fault of effectFaults) yield* endsOf(one, whole, span, fault);
  }
}

async function* endsOf(
  one: ScenarioCase,
  { run: whole, names }: Whole,
  span: Span,
  fault: EffectFault,
): AsyncGenerator<FaultEnd> {
  const named = (name: string, run: Run): FaultEnd => ({
    name,
    end: endOf(run),
    problems: problemsOf(one, run),
  });
  const kills = async function* (
    cuts: readonly number[],
    isTorn: boolean,
    name: (cut: number) => string,
  ): AsyncGenerator<FaultEnd> {
    const history = { base: one.disk.base, log: whole.sim.log };
    // The same words, the same case: every single moment is crashed in by the families of `npm run prove`.
    const firsts = new Map(cuts.toReversed().map((cut) => [name(cut), cut]));
    const options = { seed: SEED, cuts: new Set(firsts.values()) };
    for (const state of crashStates(history, 'kill', options)) {
      if (state.world === null) continue;
      const wasTorn = state.history.log.at(-1) !== whole.sim.log[state.cut - 1];
      if (wasTorn !== isTorn && state.cut > 0) continue;
      const before = state.world as World;
      const run = await runHost(state.history, before, one.scenario, SEED + 1);
      yield named(name(state.cut), run);
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
      yield* kills(inner, false, (cut) => `killed in ${span.name} after ${partOf(whole, cut)}`);
      return;
    case 'partial write':
      yield* kills(
        [...inner, to],
        true,
        (cut) => `killed in ${span.name} in the middle of ${partOf(whole, cut)}`,
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
      yield* brokenOnce(one, names, span, fault);
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
  yield { name, end: endOf(run), problems: problemsOf(one, run) };
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
  const problems = [...bug, ...between, ...problemsOf(one, second)];
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

/** One operation of the effect is answered with the error: the first of each kind that can be. */
async function* brokenOnce(
  one: ScenarioCase,
  names: readonly Operation['name'][],
  span: Span,
  fault: keyof typeof broken,
): AsyncGenerator<FaultEnd> {
  const [kinds, errno] = broken[fault];
  const [first, end] = span.operations;
  for (const kind of kinds) {
    const failing = names.findIndex((name, at) => at >= first && at < end && name === kind);
    if (failing === -1) continue;
    const inject: Scenario['inject'] = ({ index }) => (index === failing ? errno : null);
    const run = await runHost(one.disk, one.world, { ...one.scenario, inject }, SEED);
    const name =
      fault === 'ENOSPC' ? `ENOSPC at ${kind} in ${span.name}` : `${fault} in ${span.name}`;
    yield { name, end: endOf(run), problems: problemsOf(one, run) };
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
function problemsOf(one: ScenarioCase, run: Run): readonly string[] {
  const problems = [...one.checkDisk(run.sim.image())];
  if (run.ended !== 'rest') problems.push(`the agent is ${run.ended}: ${String(run.error)}`);
  for (const [attempt, ends] of attemptEnds(run.world.received)) {
    if (ends.length !== 1) problems.push(`attempt ${attempt} has ${ends.length} ends`);
  }
  const live = run.state.known.artifactId;
  if (run.world.active !== live) problems.push(`runs ${run.world.active}, live is ${live}`);
  return problems;
}
