/** One event to the agent of the explorer: the real step, its journal, and what it begins. Judges what every step has to keep. */
import type { Effect, PendingReport } from '#/agent/core/effect.ts';
import type { Event } from '#/agent/core/event.ts';
import type { State } from '#/agent/core/state.ts';
import { isTerminal } from '#/agent/core/turn.ts';
import { failureOf, type Machine, momentOf, Violation, type World } from './world.ts';

export type Undated = Event extends infer E ? (E extends Event ? Omit<E, 'now'> : never) : never;

/** Feeds one event to the agent: step, journal, effects. */
export function feed(world: World, machine: Machine, event: Undated): World {
  const { agent } = world;
  if (agent === null) return world;
  const dated = { ...event, now: momentOf(world) } as Event;
  const [next, effects] = machine.step(agent.mem, dated);
  checkClock(agent.mem, next);
  if (!machine.mustJournal(agent.mem, next)) return emit(named(world, next), next, effects);
  if (!world.disk.broken) {
    const journaled = { ...world, disk: { ...world.disk, journal: next } };
    return emit(noted(named(journaled, next), next), next, effects);
  }
  // The write failed: the step did not happen, its effects are not run.
  const failure = failureOf('E_READ_ONLY', 'damaged');
  const [observing, more] = machine.step(agent.mem, {
    type: 'store-failed',
    failure,
    now: momentOf(world),
  });
  return emit(world, observing, more);
}

function checkClock(before: State, after: State): void {
  if (after.run.runMs < before.run.runMs) throw new Violation('I10', 'the run clock went back');
}

/** A fresh id that became an attempt is used up. */
function named(world: World, next: State): World {
  const fresh = momentOf(world).freshId;
  const id = 'attempt' in next ? next.attempt.id : 'ref' in next ? next.ref?.id : null;
  return id === fresh ? { ...world, attempts: world.attempts + 1 } : world;
}

/** I5: the first durable terminal record of an attempt is its only one. */
function noted(world: World, state: State): World {
  let { ends } = world.ledger;
  for (const report of state.unreported) {
    if (!isTerminal(report.phase)) continue;
    const before = ends[report.attempt];
    if (before !== undefined && before !== report.phase) {
      throw new Violation('I5', `attempt ended ${before} and ${report.phase}`);
    }
    const isDenied = state.denied.some((entry) => entry.artifactId === report.artifactId);
    if (report.phase === 'rolled-back' && before === undefined && !isDenied) {
      throw new Violation('I7', 'rolled back, and not on the deny-list');
    }
    if (before === undefined) ends = { ...ends, [report.attempt]: report.phase };
  }
  checkLive(state, ends);
  return ends === world.ledger.ends ? world : { ...world, ledger: { ...world.ledger, ends } };
}

/** I4: what was confirmed stays live as long as its attempt is the last one. */
function checkLive(state: State, ends: Readonly<Record<string, string>>): void {
  if (!('attempt' in state) || ends[state.attempt.id] !== 'confirmed') return;
  if (state.at !== 'committed') {
    throw new Violation('I4', `a confirmed attempt went on as ${state.at}`);
  }
}

function emit(world: World, mem: State, effects: readonly Effect[]): World {
  const { agent } = world;
  if (agent === null) return world;
  let { running, wasApplied, polling } = agent;
  let reports: readonly PendingReport[] = agent.reports;
  for (const effect of effects) {
    if (effect.do === 'cancel') {
      if (running?.op === effect.op) running = null;
    } else if (effect.do === 'report') {
      reports = [...reports.filter((other) => other.key !== effect.report.key), effect.report];
    } else if (effect.do === 'poll') {
      polling = true;
    } else {
      if (running !== null) {
        throw new Violation('I11', `${effect.do} begins while ${running.do} runs`);
      }
      running = effect;
      wasApplied = false;
    }
  }
  return { ...world, agent: { mem, running, wasApplied, reports, polling } };
}
