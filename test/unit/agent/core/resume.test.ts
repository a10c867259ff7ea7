/** What the agent starts by itself after a power cut. That all of it holds in every state: test/model/agent. */
import { describe, expect, it } from 'vitest';
import { mayResume } from '#/agent/core/resume.ts';
import type { StateName } from '#/agent/core/state.ts';
import { factsOf, V1, V2, type World } from '#/test/model/agent/world.ts';
import { goTo, hostWith, memOf } from './hosts.ts';

function at(place: StateName | `${StateName}.${string}`): World {
  return goTo(hostWith('not-enabled', 'good'), place);
}

describe('what is live is started', () => {
  for (const place of ['downloading.fetch', 'arming.arm', 'committing.ticket'] as const) {
    it(`${place}: unless it is the target, whose boots are counted first`, () => {
      const world = at(place);
      const isTarget = world.live === V2;
      expect(mayResume(world.disk.ticket, memOf(world), factsOf(world))).toBe(!isTarget);
    });
  }

  it('committed: also with a ticket that is damaged, and with one of before', () => {
    const world = at('committed.mark-good');
    expect(world.live).toBe(V2);
    for (const ticket of ['damaged', world.disk.ticket, at('trial').disk.ticket] as const)
      expect(mayResume(ticket, memOf(world), factsOf(world))).toBe(true);
  });

  it('damaged ticket: by the journal', () => {
    const arming = at('arming.arm');
    expect(arming.live).toBe(V1);
    expect(mayResume('damaged', memOf(arming), factsOf(arming))).toBe(true);
    const trial = at('trial');
    expect(trial.live).toBe(V2);
    expect(mayResume('damaged', memOf(trial), factsOf(trial))).toBe(false);
    expect(mayResume('damaged', null, factsOf(arming))).toBe(false);
  });
});
