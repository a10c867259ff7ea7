/** One world for each state, and what each kind of event makes of it: the rows of the transition table. */
import type { Event, EventType, Succeeded } from '#/agent/core/event.ts';
import { step, wakeInMs } from '#/agent/core/machine.ts';
import type { State, StateName } from '#/agent/core/state.ts';
import { explore } from './explore.ts';
import { perform } from './perform.ts';
import {
  assignmentOf,
  failureOf,
  momentOf,
  realMachine,
  startFactsOf,
  type World,
} from './world.ts';

/** The first world in which each state is reached, in a partition host with an unhealthy version. */
export function samples(): ReadonlyMap<StateName, World> {
  const from = [
    explore({ kind: 'partition', nature: 'unhealthy', disturbances: 0 }, realMachine),
    explore({ kind: 'partition', nature: 'good', disturbances: 0 }, realMachine),
    explore({ kind: 'partition', nature: 'unhealthy', disturbances: 1 }, realMachine),
  ];
  const found = new Map<StateName, World>();
  for (const { samples: some } of from) {
    for (const [name, world] of some) if (!found.has(name)) found.set(name, world);
  }
  const idle = found.get('idle');
  if (idle !== undefined) found.set('adrift', adrift(idle));
  return found;
}

/** A slot is armed, and nobody knows why. */
function adrift(idle: World): World {
  const armed: World = { ...idle, boot: { ...idle.boot, trial: { slot: 'b', triesLeft: 2 } } };
  const now = momentOf(armed);
  const { agent } = armed;
  if (agent === null) return armed;
  const [mem, effects] = step(agent.mem, { type: 'started', ...startFactsOf(armed), now });
  const running = effects.find((effect) => effect.do === 'disarm') ?? null;
  return { ...armed, disk: { ...armed.disk, journal: mem }, agent: { ...agent, mem, running } };
}

/** The event of each type as it comes to this world; null when the state waits for no operation. */
export function eventOf(type: EventType, world: World): Event | null {
  const { agent } = world;
  if (agent === null) return null;
  const now = momentOf(world);
  const { running } = agent;
  switch (type) {
    case 'started':
      return { type, ...startFactsOf(world), now };
    case 'ticked': {
      const waitMs = wakeInMs(agent.mem, now) ?? 0;
      return { type, now: { ...now, monotonicMs: now.monotonicMs + waitMs } };
    }
    case 'succeeded': {
      if (running === null) return null;
      const done = perform(world, running);
      const { do: name, op } = running;
      return 'failure' in done
        ? null
        : ({ type, do: name, op, result: done.result, now } as Succeeded);
    }
    case 'failed':
      if (running === null) return null;
      return { type, do: running.do, op: running.op, failure: failureOf('E_IO', 'damaged'), now };
    case 'polled': {
      const assignment = assignmentOf({ ...world, control: 'recalled' });
      return { type, assignment, pollAfterMs: 60_000, now };
    }
    case 'poll-failed':
      return { type, failure: failureOf('E_NETWORK', 'unavailable'), now };
    case 'reported':
      return { type, key: agent.mem.unreported[0]?.key ?? 'none', now };
    case 'rewound':
      return { type, now };
    case 'store-failed':
      return { type, failure: failureOf('E_READ_ONLY', 'damaged'), now };
    case 'commanded':
      return { type, command: { kind: 'pause' }, now };
  }
}

/** What became of the state: `same` (by reference), or its name and step, with a mark for a changed mode. */
export function outcome(before: State, after: State): string {
  if (before === after) return 'same';
  const name = 'step' in after ? `${after.at}.${after.step}` : after.at;
  const marks = [
    after.modes.observeOnly && !before.modes.observeOnly ? ' observe-only' : '',
    after.modes.paused && !before.modes.paused ? ' paused' : '',
  ];
  return `${name}${marks.join('')}`;
}
