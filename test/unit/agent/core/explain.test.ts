import { describe, expect, it } from 'vitest';
import { explain } from '#/agent/core/explain.ts';
import { samples } from '#/test/model/agent/transitions.ts';
import { fail, goTo, goToEnd, hear, hostWith, memOf, order } from './hosts.ts';

describe('every state says why, and what happens next', () => {
  it('a state has nothing to say', () => {
    for (const [name, world] of samples()) {
      const mem = memOf(world);
      const { why, next } = explain(mem, mem.run.runMs);
      expect([name, why.length > 5, next.length > 5]).toEqual([name, true, true]);
    }
  });

  it('a failed trial does not name the check that failed', () => {
    const mem = memOf(goTo(hostWith('directory', 'unhealthy'), 'rolling-back.boot'));
    expect(explain(mem, 0).why).toMatch(/rolled back: E_UNHEALTHY: check check/);
  });

  it('a trial does not say how long it may still take', () => {
    const mem = memOf(goTo(hostWith('directory', 'good'), 'trial.checks'));
    const { next } = explain(mem, mem.run.runMs);
    expect(next).toBe('rolled back in 6 s if it does not pass');
  });

  it('a host that is paused, halted or blind looks like one that goes on', () => {
    const staged = goTo(hostWith('directory', 'good'), 'staged');
    const paused = memOf(order(staged, { kind: 'pause' }));
    expect(explain(paused, 0).why).toMatch(/^paused by the operator of this host: version 2/);
    expect(explain(memOf(hear({ ...staged, control: 'halted' })), 0).why).toMatch(/^halted/);
    const blind = { ...paused, modes: { ...paused.modes, observeOnly: true } };
    expect(explain(blind, 0).why).toMatch(/cannot be written/);
  });

  it('F60 a drain hook that runs, or failed, looks like one that is done', () => {
    const draining = goTo(hostWith('directory', 'good'), 'waiting.drain');
    const { why, next } = explain(memOf(draining), 0);
    expect([why, next]).toEqual([
      'the drain hook runs before version 2 (111111111111)',
      'the switch',
    ]);
    const hung = memOf(fail(draining, 'E_HOOK', 'unavailable'));
    expect(explain(hung, hung.run.runMs).why).toMatch(/, 1 tries failed, the next in \d+ s$/);
  });

  it('an aborted download does not say when it is tried again', () => {
    const full = fail(
      goTo(hostWith('directory', 'good'), 'downloading.fetch'),
      'E_SPACE',
      'exhausted',
    );
    const mem = memOf(goToEnd(full));
    const { why, next } = explain(mem, mem.run.runMs);
    expect(why).toMatch(/aborted E_SPACE/);
    expect(next).toMatch(/^tried again in 30 s at the earliest \(failed 1 times\)$/);
  });
});
