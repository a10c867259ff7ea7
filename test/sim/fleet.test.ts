import { describe, expect, it } from 'vitest';
import { readRegressions } from './regressions.ts';
import { simulate } from './simulation.ts';
import { planOf, describeFault } from './schedule.ts';

/** Seeds of each run; `npm run sim` adds more, and fresh ones. */
const SEEDS = [1, 2, 3, 4, 5] as const;
const TIMEOUT_MS = 170_000;

describe('a fleet through faults of every kind', () => {
  it.each(SEEDS)(
    'history %i: no halt lost, nothing counted twice, one good version on every host, and all in order at the end',
    async (seed) => {
      const outcome = await simulate({ seed, hosts: 6, hours: 1 });
      expect(outcome.violation, outcome.lines.slice(-30).join('\n')).toBeNull();
      expect(outcome.tally.powerCuts + outcome.tally.kills).toBeGreaterThan(5);
      expect(outcome.tally.attempts).toBeGreaterThan(6);
    },
    TIMEOUT_MS,
  );

  it(
    'histories that failed once do not fail again',
    async () => {
      for (const regression of readRegressions()) {
        const outcome = await simulate(regression);
        expect(outcome.violation, `${regression.what} (seed ${regression.seed})`).toBeNull();
      }
    },
    TIMEOUT_MS,
  );

  it(
    'the same seed gives the same events to the last one, another seed does not',
    async () => {
      const options = { seed: 7, hosts: 4, hours: 1 };
      const first = await simulate(options);
      const again = await simulate(options);
      const other = await simulate({ ...options, seed: 8 });
      expect(again.hash).toBe(first.hash);
      expect(again.tally.events).toBe(first.tally.events);
      expect(other.hash).not.toBe(first.hash);
    },
    TIMEOUT_MS,
  );
});

describe('the schedule of faults', () => {
  it('has every kind of fault and order within a few seeds, so that no check runs on nothing', () => {
    const seen = new Set<string>();
    for (let seed = 1; seed <= 20; seed += 1)
      for (const fault of planOf(seed, 6, 2, 0).faults)
        seen.add(fault.kind === 'order' ? `order ${fault.order}` : fault.kind);
    expect([...seen].sort()).toEqual(
      [
        'kill',
        'power-cut',
        'restart-agent',
        'off',
        'disk',
        'weather',
        'clock',
        'snapshot',
        'rewind',
        'clone',
        'kill-control',
        'restore-control',
        ...['pin', 'unpin', 'pin-host', 'unpin-host', 'pause', 'resume', 'promote', 'abort'].map(
          (order) => `order ${order}`,
        ),
        ...['halt', 'lift', 'hold', 'unhold', 'retry', 'rollback', 'revoke'].map(
          (order) => `order ${order}`,
        ),
      ].sort(),
    );
  });

  it('is a list of values: what is left out changes nothing about the rest', () => {
    const { faults } = planOf(3, 6, 2, 0);
    expect(JSON.parse(JSON.stringify(faults))).toEqual(faults);
    expect(faults.map(describeFault).every((line) => line.includes(' min '))).toBe(true);
  });
});
