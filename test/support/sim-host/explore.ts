/**
 * Crash exploration: runs a scenario, then starts the agent again on every disk that a crash at any moment could have left, and
 * again on every disk that a crash of that recovery could have left, and says what was wrong at the end. Of states that are
 * the same to the agent (state-key.ts) one is recovered, so that all of them can be looked at.
 */
import type { Image } from '#/test/support/sim-fs/image.ts';
import {
  crashStates,
  persistenceModels,
  type CrashState,
  type DiskHistory,
  type PersistenceModel,
} from '#/test/support/sim-fs/crash-states.ts';
import { runHost, type Run, type Scenario, type World } from './sim-host.ts';
import { alikeFor, stateKey } from './state-key.ts';

export interface Exploration {
  readonly scenario: Scenario;
  readonly disk: DiskHistory;
  readonly world: World;
  /** What is wrong with a disk at any moment, before anything recovers it. */
  readonly checkDisk: (image: Image) => readonly string[];
  /** What is wrong once the host rests again. `before` is the world at the moment of the crash. */
  readonly checkEnd: (run: Run, before: World) => readonly string[];
  /** Crashes in a row. */
  readonly depth: number;
  /** Of the states after the first crash, so many are recovered: one in `oneIn`, drawn by the seed. 1: all. */
  readonly oneIn: number;
  /** As `oneIn`, for the states after each further crash. */
  readonly oneInLater?: number;
  readonly seed: number;
  /** In this order; absent: from kind to cruel. */
  readonly models?: readonly PersistenceModel[];
  /** Stops at so many violations. */
  readonly maxViolations?: number;
}

export interface Violation {
  /** `weak@17 > kill@4`: the model and the number of log entries before each crash. */
  readonly path: string;
  readonly what: readonly string[];
}

/** Of one number of crashes in a row. */
export interface Level {
  /** Crash states that were formed. */
  readonly formed: number;
  /** Those that were recovered: no other of them was the same to the agent. */
  readonly recovered: number;
}

export interface Explored {
  readonly levels: readonly Level[];
  readonly operations: number;
  readonly violations: readonly Violation[];
}

const MAX_VIOLATIONS = 20;

/** Explores one scenario. */
export async function explore(exploration: Exploration): Promise<Explored> {
  const { disk, world, scenario, seed } = exploration;
  const base = await runHost(disk, world, scenario, seed);
  const walk = new CrashWalk(exploration);
  walk.note('no crash', [...endProblems(base), ...exploration.checkEnd(base, world)]);
  const history = { base: disk.base, log: base.sim.log };
  await walk.crashEverywhere(history, disk.log.length, '', 1);
  const { levels, violations } = walk;
  return { levels, violations, operations: base.sim.log.length - disk.log.length };
}

class CrashWalk {
  readonly levels: { formed: number; recovered: number }[];
  readonly violations: Violation[] = [];
  readonly #exploration: Exploration;
  /** Keys of states that were recovered, and how many crashes were still to be tried from them. */
  readonly #seen = new Map<string, number>();

  constructor(exploration: Exploration) {
    this.#exploration = exploration;
    this.levels = Array.from({ length: exploration.depth }, () => ({ formed: 0, recovered: 0 }));
  }

  note(path: string, what: readonly string[]): void {
    if (what.length > 0) this.violations.push({ path, what });
  }

  async crashEverywhere(
    history: DiskHistory,
    from: number,
    path: string,
    crashes: number,
  ): Promise<void> {
    const { seed, models = persistenceModels, maxViolations = MAX_VIOLATIONS } = this.#exploration;
    const alike = alikeFor(crashes === this.#exploration.depth);
    for (const model of models) {
      for (const state of crashStates(history, model, { seed, from, onlyNew: true, alike })) {
        if (this.violations.length >= maxViolations) return;
        if (state.world === null || !this.#isNew(state, model, crashes)) continue;
        const name = `${model}@${state.cut}`;
        await this.#recover(state, model, path === '' ? name : `${path} > ${name}`, crashes);
      }
    }
  }

  #isNew(state: CrashState, model: PersistenceModel, crashes: number): boolean {
    const { seed, depth, oneIn, oneInLater = 1 } = this.#exploration;
    const level = this.levels[crashes - 1];
    if (level !== undefined) level.formed += 1;
    const left = depth - crashes;
    const key = stateKey(state, model, left === 0);
    if (this.#crashesTriedFrom(key) >= left) return false;
    this.#seen.set(key, left);
    if (!isDrawn(key, seed, crashes === 1 ? oneIn : oneInLater)) return false;
    const asLast = stateKey(state, model, true);
    this.#seen.set(asLast, Math.max(0, this.#crashesTriedFrom(asLast)));
    return true;
  }

  #crashesTriedFrom(key: string): number {
    return this.#seen.get(key) ?? -1;
  }

  async #recover(
    state: CrashState,
    model: PersistenceModel,
    path: string,
    crashes: number,
  ): Promise<void> {
    const { scenario, seed, depth, checkDisk, checkEnd } = this.#exploration;
    const level = this.levels[crashes - 1];
    if (level !== undefined) level.recovered += 1;
    const before = state.world as World;
    const world = model === 'kill' ? before : afterPowerCut(before);
    const run = await runHost(state.history, world, scenario, seed);
    this.note(path, [
      ...checkDisk(state.image),
      ...endProblems(run),
      ...checkDisk(run.sim.image()),
      ...checkEnd(run, before),
    ]);
    if (crashes >= depth) return;
    const history = { base: state.history.base, log: run.sim.log };
    await this.crashEverywhere(history, state.history.log.length, path, crashes + 1);
  }
}

/** One in `oneIn` of all keys, other ones with each seed. */
function isDrawn(key: string, seed: number, oneIn: number): boolean {
  return (Buffer.from(key, 'base64').readUInt32LE(0) + seed) % oneIn === 0;
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
