/** Histories that failed once. Every run replays them: a bug that was found stays found. */
import { readFileSync, writeFileSync } from 'node:fs';
import type { Fault } from './schedule.ts';
import type { SimulationOptions } from './simulation.ts';

export interface Regression extends SimulationOptions {
  /** What was wrong, in the words of the check that failed. */
  readonly what: string;
}

const path = new URL('./regressions.json', import.meta.url);

export function readRegressions(): readonly Regression[] {
  return JSON.parse(readFileSync(path, 'utf8')) as Regression[];
}

/** Adds a failing history, unless the same one is there. */
export function addRegression(
  options: SimulationOptions,
  faults: readonly Fault[],
  what: string,
): void {
  const { seed, hosts, hours } = options;
  const known = readRegressions();
  if (known.some((one) => one.seed === seed && one.what === what)) return;
  const next = [...known, { what, seed, hosts, hours, faults }];
  writeFileSync(path, `${JSON.stringify(next, null, 2)}\n`);
}
