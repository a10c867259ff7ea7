/**
 * Crash exploration: runs a scenario, then starts the agent again on every disk that a crash at any moment could have left,
 * and again on every disk that a crash of that recovery could have left, and says what was wrong at the end.
 */
import { imageKey, type Image } from '#/test/support/sim-fs/image.ts';
import {
  crashStates,
  persistenceModels,
  type CrashState,
  type DiskHistory,
  type PersistenceModel,
} from '#/test/support/sim-fs/crash-states.ts';
import { simRandom } from './sim-clock.ts';
import { runHost, type Run, type Scenario, type World } from './sim-host.ts';

export interface Exploration {
  readonly scenario: Scenario;
  readonly disk: DiskHistory;
  readonly world: World;
  /** What is wrong with a disk at any moment, before anything recovers it. */
  readonly checkDisk: (image: Image) => readonly string[];
  /** What is wrong once the host rests again. `before` is the world at the moment of the crash. */
  readonly checkEnd: (run: Run, before: World) => readonly string[];
  /** Crashes in a row, and how many states of each further crash are tried per recovery at most. */
  readonly depth: number;
  readonly samplesPerRecovery: number;
  /** At most so many crash states of the first crash, drawn evenly; all when there are fewer. */
  readonly maxFirst: number;
  readonly seed: number;
  readonly models?: readonly PersistenceModel[];
  /** Stop at the first violation: for mutants. */
  readonly failFast?: boolean;
}

export interface Violation {
  /** `weak@17 > kill@4`: the model and the number of log entries before each crash. */
  readonly path: string;
  readonly what: readonly string[];
}

export interface Explored {
  readonly states: number;
  /** States after two crashes. */
  readonly doubleStates: number;
  readonly operations: number;
  readonly violations: readonly Violation[];
}

const MAX_VIOLATIONS = 20;

/** Explores one scenario. */
export async function explore(exploration: Exploration): Promise<Explored> {
  const { disk, world, scenario, seed } = exploration;
  const base = await runHost(disk, world, scenario, seed);
  const tally = { states: 0, doubleStates: 0, violations: [] as Violation[] };
  const problems = [...endProblems(base), ...exploration.checkEnd(base, world)];
  if (problems.length > 0) tally.violations.push({ path: 'no crash', what: problems });
  await crashEverywhere(exploration, { base: disk.base, log: base.sim.log }, disk.log.length, {
    path: '',
    depth: 1,
    limit: exploration.maxFirst,
    tally,
  });
  return { ...tally, operations: base.sim.log.length - disk.log.length };
}

interface Level {
  readonly path: string;
  readonly depth: number;
  readonly limit: number;
  readonly tally: { states: number; doubleStates: number; violations: Violation[] };
}

async function crashEverywhere(
  exploration: Exploration,
  history: DiskHistory,
  from: number,
  level: Level,
): Promise<void> {
  const { tally } = level;
  for (const model of exploration.models ?? persistenceModels) {
    for (const state of chosenStates(exploration, history, model, from, level)) {
      if (tally.violations.length >= (exploration.failFast === true ? 1 : MAX_VIOLATIONS)) return;
      await recover(exploration, state, model, level);
    }
  }
}

async function recover(
  exploration: Exploration,
  state: CrashState,
  model: PersistenceModel,
  level: Level,
): Promise<void> {
  const { tally } = level;
  const path = `${level.path}${level.path === '' ? '' : ' > '}${model}@${state.cut}`;
  const before = state.world as World;
  tally.states += 1;
  if (level.depth > 1) tally.doubleStates += 1;
  const run = await runHost(
    state.history,
    model === 'kill' ? before : afterPowerCut(before),
    exploration.scenario,
    exploration.seed + state.cut,
  );
  const what = [
    ...exploration.checkDisk(state.image),
    ...endProblems(run),
    ...exploration.checkDisk(run.sim.image()),
    ...exploration.checkEnd(run, before),
  ];
  if (what.length > 0) tally.violations.push({ path, what });
  if (level.depth >= exploration.depth) return;
  await crashEverywhere(
    exploration,
    { base: state.history.base, log: run.sim.log },
    state.history.log.length,
    { path, depth: level.depth + 1, limit: exploration.samplesPerRecovery, tally },
  );
}

/** All distinct states, an even share of them after the first crash, or some drawn at random after a further one. */
function chosenStates(
  { seed }: Exploration,
  history: DiskHistory,
  model: PersistenceModel,
  from: number,
  { limit, depth, path }: Level,
): readonly CrashState[] {
  const cuts = history.log.length - from + 1;
  if (depth > 1 && limit < cuts) {
    const random = simRandom(seed + history.log.length + from + path.length);
    const drawn = new Set<number>();
    while (drawn.size < limit) drawn.add(from + Math.floor(random.unit() * cuts));
    const byCut = Map.groupBy(
      crashStates(history, model, { seed, from, cuts: drawn }),
      (state) => state.cut,
    );
    return [...byCut.values()].flatMap((states) => {
      const pick = states[Math.floor(random.unit() * states.length)];
      return pick === undefined || pick.world === null ? [] : [pick];
    });
  }
  const states = distinctStates(history, model, from, seed);
  const stride = Math.max(1, Math.ceil(states.length / limit));
  return states.filter((_state, index) => index % stride === (seed + from) % stride);
}

/** Crash states that differ in what is visible, what is pending or what the world knows. */
function distinctStates(
  history: DiskHistory,
  model: PersistenceModel,
  from: number,
  seed: number,
): readonly CrashState[] {
  const seen = new Map<string, CrashState>();
  const worlds = new Map<unknown, number>();
  for (const state of crashStates(history, model, { seed, from })) {
    if (state.world === null) continue;
    if (!worlds.has(state.world)) worlds.set(state.world, worlds.size);
    const pending = model === 'kill' ? state.history.log.length : 0;
    const key = `${worlds.get(state.world)} ${pending} ${imageKey(state.image)}`;
    if (!seen.has(key)) seen.set(key, state);
  }
  return [...seen.values()];
}

/** Nothing runs, a new boot, its clock near zero; the wall clock went on. */
export function afterPowerCut(world: World): World {
  return {
    ...world,
    boot: world.boot + 1,
    wallMs: world.wallMs + 60_000,
    monotonicMs: 8_000,
    active: null,
  };
}

function endProblems(run: Run): readonly string[] {
  if (run.ended === 'rest') return [];
  const error = run.error instanceof Error ? (run.error.stack ?? run.error.message) : '';
  return [`${run.ended} at ${run.state.at} ${'step' in run.state ? run.state.step : ''} ${error}`];
}
