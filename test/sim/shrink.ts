/** Makes the schedule of a failing history shorter, as long as it still fails: whole stretches of faults first, then single ones. */
import type { Fault } from './schedule.ts';
import { simulate, type Outcome, type SimulationOptions } from './simulation.ts';

export interface Shrunk {
  readonly outcome: Outcome;
  readonly faults: readonly Fault[];
  readonly runs: number;
  /** False: the time was over before no single fault could be left out any more. */
  readonly isMinimal: boolean;
}

/** `outcome` has failed. Tries for at most `limitMs` of real time. */
export async function shrink(outcome: Outcome, limitMs: number): Promise<Shrunk> {
  const untilMs = performance.now() + limitMs;
  let best = outcome;
  let faults = outcome.plan.faults;
  let runs = 0;
  const base: SimulationOptions = outcome.options;
  let size = Math.ceil(faults.length / 2);
  for (;;) {
    let hasRemoved = false;
    for (let from = 0; from < faults.length; ) {
      if (performance.now() > untilMs) return { outcome: best, faults, runs, isMinimal: false };
      const fewer = [...faults.slice(0, from), ...faults.slice(from + size)];
      const tried = await simulate({ ...base, faults: fewer });
      runs += 1;
      if (tried.violation === null) from += size;
      else {
        faults = fewer;
        best = tried;
        hasRemoved = true;
      }
    }
    if (size === 1 && !hasRemoved) return { outcome: best, faults, runs, isMinimal: true };
    size = Math.max(1, Math.floor(size / 2));
  }
}
