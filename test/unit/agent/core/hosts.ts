/** Hosts of the explorer, driven by hand: for tests that tell one story each. */
import type { Command, Succeeded } from '#/agent/core/event.ts';
import type { State, StateName } from '#/agent/core/state.ts';
import type { ErrorCode } from '#/protocol/errors.ts';
import { actions, reboot } from '#/test/model/agent/actions.ts';
import { feed } from '#/test/model/agent/feed.ts';
import {
  assignmentOf,
  failureOf,
  firstWorld,
  type Kind,
  type Nature,
  realMachine,
  type World,
} from '#/test/model/agent/world.ts';

export function hostWith(kind: Kind, nature: Nature): World {
  return firstWorld(kind, nature, 0);
}

export function memOf(world: World): State {
  if (world.agent === null) throw new Error('the agent is dead');
  return world.agent.mem;
}

/** Name and step of the state. */
export function placeOf(world: World): string {
  const mem = memOf(world);
  return 'step' in mem ? `${mem.at}.${mem.step}` : mem.at;
}

/** Goes the undisturbed way until the host is at this state (and step), with its operation and its report still to come. */
export function goTo(world: World, place: StateName | `${StateName}.${string}`): World {
  let now = world;
  for (let steps = 0; steps < 400; steps += 1) {
    const { agent } = now;
    if (agent !== null) {
      const at = agent.mem.at === place || placeOf(now) === place;
      if (at && steps > 0) return now;
    }
    const next = actions(now, realMachine).next();
    if (next.done === true) break;
    now = next.value.next;
  }
  throw new Error(`${place} was not reached, the host is at ${placeOf(now)}`);
}

/** Goes on until this attempt has ended and the host rests. */
export function goToEnd(world: World): World {
  let now = world;
  for (let steps = 0; steps < 400; steps += 1) {
    const { agent } = now;
    const at = agent?.mem.at;
    const isEnd = at === 'idle' || placeOfOrNull(now) === 'needs-attention.rest';
    if (
      isEnd &&
      agent?.running === null &&
      agent.reports.length === 0 &&
      agent.mem.lastEnd !== null
    ) {
      return now;
    }
    const next = actions(now, realMachine).next();
    if (next.done === true) return now;
    now = next.value.next;
  }
  throw new Error(`no end was reached, the host is at ${placeOf(now)}`);
}

function placeOfOrNull(world: World): string | null {
  return world.agent === null ? null : placeOf(world);
}

export function endOf(world: World): readonly [string | null, string | null] {
  const { lastEnd } = memOf(world);
  return [lastEnd?.phase ?? null, lastEnd?.code ?? null];
}

/** The running operation fails. */
export function fail(
  world: World,
  code: ErrorCode,
  kind: 'refused' | 'unavailable' | 'exhausted' | 'damaged',
): World {
  const { agent } = world;
  if (agent?.running == null) throw new Error('no operation is under way');
  const { do: name, op } = agent.running;
  const settled: World = { ...world, agent: { ...agent, running: null } };
  return feed(settled, realMachine, {
    type: 'failed',
    do: name,
    op,
    failure: failureOf(code, kind),
  });
}

/** The running operation succeeds with this result. */
export function succeed(world: World, result: object): World {
  const { agent } = world;
  if (agent?.running == null) throw new Error('no operation is under way');
  const { do: name, op } = agent.running;
  const settled: World = { ...world, agent: { ...agent, running: null } };
  const event = { type: 'succeeded', do: name, op, result } as Omit<Succeeded, 'now'>;
  return feed(settled, realMachine, event as Parameters<typeof feed>[2]);
}

/** Control knows newer reports of this host than the host itself. */
export function rewound(world: World): World {
  return feed(world, realMachine, { type: 'rewound' });
}

export function order(world: World, command: Command): World {
  return feed(world, realMachine, { type: 'commanded', command });
}

/** Control answers as the world has it. */
export function hear(world: World): World {
  return feed(world, realMachine, {
    type: 'polled',
    assignment: assignmentOf(world),
    pollAfterMs: 3_600_000,
  });
}

export function pass(world: World, ms: number): World {
  const later = { ...world, monotonicMs: world.monotonicMs + ms, wallMs: world.wallMs + ms };
  return feed(later, realMachine, { type: 'ticked' });
}

export function kill(world: World): World {
  return { ...world, agent: null };
}

export { reboot };
