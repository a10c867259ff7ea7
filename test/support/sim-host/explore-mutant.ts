/**
 * Looks for a crash that shows a mutant of the durable writes. Only crashes near its mistake can: power cuts while what it
 * forgot is still pending, and, for what a start does, kills that leave something pending before it.
 */
import {
  crashStates,
  type CrashState,
  type DiskHistory,
} from '#/test/support/sim-fs/crash-states.ts';
import type { LogEntry } from '#/test/support/sim-fs/log.ts';
import { afterPowerCut } from './explore.ts';
import { simRandom } from './sim-clock.ts';
import { mutate, type Mutant } from './mutants.ts';
import type { ScenarioCase } from './scenarios.ts';
import { runHost, type Run, type World } from './sim-host.ts';

/** Log entries after a mistake within which every power cut is tried; the rest of the run is sampled. */
const WINDOW = 10;
const FAR_CUTS = 10;
/** States per cut, drawn with the oldest and the newest among them. */
const STATES_PER_CUT = 4;
/** States per mutant and scenario: after one crash, and after a kill before it. */
const MAX_SINGLE = 400;
const KILLS = 14;
const MAX_PER_KILL = 70;
/** Log entries that the opening of all state takes at most. */
const START_ENTRIES = 45;

export interface Hunt {
  readonly states: number;
  /** Where and how it showed, or null. */
  readonly caught: string | null;
}

/** Explores one scenario with the mutant in place, until something is wrong or the budget is spent. */
export async function huntMutant(one: ScenarioCase, mutant: Mutant, seed: number): Promise<Hunt> {
  const hunt = new MutantHunt(one, mutant, seed);
  const base = await hunt.run(one.disk, one.world);
  const history = { base: one.disk.base, log: base.run.sim.log };
  const caught =
    (await hunt.powerCuts(history, base.hits, 'start', MAX_SINGLE, 'far first')) ??
    (await hunt.killsThenCuts(base.run.sim.log));
  return { states: hunt.states, caught };
}

interface Hit {
  readonly run: Run;
  /** Length of the log at each mistake. */
  readonly hits: readonly number[];
}

class MutantHunt {
  states = 0;
  readonly #one: ScenarioCase;
  readonly #mutant: Mutant;
  readonly #seed: number;

  constructor(one: ScenarioCase, mutant: Mutant, seed: number) {
    this.#one = one;
    this.#mutant = mutant;
    this.#seed = seed;
  }

  async run(disk: DiskHistory, world: World): Promise<Hit> {
    const hits: number[] = [];
    const { scenario } = this.#one;
    let length = (): number => 0;
    const run = await runHost(
      disk,
      world,
      {
        ...scenario,
        onSim: (sim) => {
          length = () => sim.log.length;
        },
        wrap: (files) => mutate(files, this.#mutant, () => hits.push(length())),
      },
      this.#seed,
    );
    return { run, hits };
  }

  /** Where and how it showed, or null. */
  async powerCuts(
    history: DiskHistory,
    hits: readonly number[],
    path: string,
    budget: number,
    order: 'near first' | 'far first',
  ): Promise<string | null> {
    const { log } = history;
    const near = hits.flatMap((hit) => Array.from({ length: WINDOW }, (_, at) => hit + at));
    const first = hits[0] ?? log.length;
    const far = Array.from({ length: FAR_CUTS }, (_, at) =>
      Math.round(first + ((log.length - first) * (at + 1)) / FAR_CUTS),
    );
    let left = budget;
    for (const cut of new Set(
      hits.length === 0 ? [] : order === 'far first' ? [...far, ...near] : [...near, ...far],
    )) {
      for (const model of ['weak', 'ordered'] as const) {
        const states = [...crashStates(history, model, { seed: this.#seed, cuts: new Set([cut]) })];
        for (const state of drawn(states, this.#seed + cut)) {
          const caught = await this.#check(state, `${path} > ${model}@${cut}`);
          if (caught !== null) return caught;
          left -= 1;
          if (left <= 0) return null;
        }
      }
    }
    return null;
  }

  /** Kills where something is visible and not durable: right after each rename. */
  async killsThenCuts(log: readonly LogEntry[]): Promise<string | null> {
    const renames = log.flatMap((entry, at) =>
      entry.do === 'entries' && entry.changes.length === 2 ? [at + 1] : [],
    );
    const stride = Math.max(1, Math.ceil(renames.length / KILLS));
    const { disk } = this.#one;
    for (const cut of renames.filter((_, at) => at % stride === this.#seed % stride)) {
      const options = { seed: this.#seed, from: cut, cuts: new Set([cut]) };
      for (const state of crashStates({ base: disk.base, log }, 'kill', options)) {
        if (state.world === null) continue;
        const { run, hits } = await this.run(state.history, state.world as World);
        const history = { base: state.history.base, log: run.sim.log };
        // A start makes its mistakes at once; the later ones were looked at before.
        const early = hits.filter((hit) => hit - state.history.log.length < START_ENTRIES);
        const caught = await this.powerCuts(
          history,
          early,
          `kill@${cut}`,
          MAX_PER_KILL,
          'near first',
        );
        if (caught !== null) return caught;
      }
    }
    return null;
  }

  async #check(state: CrashState, path: string): Promise<string | null> {
    if (state.world === null) return null;
    this.states += 1;
    const before = state.world as World;
    const { run } = await this.run(state.history, afterPowerCut(before));
    const what = [
      ...this.#one.checkDisk(state.image),
      ...(run.ended === 'rest' ? [] : [`${run.ended} at ${run.state.at}`]),
      ...this.#one.checkDisk(run.sim.image()),
      ...this.#one.checkEnd(run, before),
    ];
    return what.length === 0 ? null : `${path}: ${what.join('; ')}`;
  }
}

function drawn(states: readonly CrashState[], seed: number): readonly CrashState[] {
  const random = simRandom(seed);
  const picked = new Set<CrashState | undefined>([states.at(-1), states[0]]);
  for (let tries = 0; tries < 4 * STATES_PER_CUT && picked.size < STATES_PER_CUT; tries += 1) {
    picked.add(states[Math.floor(random.unit() * states.length)]);
  }
  return [...picked].filter((state) => state !== undefined);
}
