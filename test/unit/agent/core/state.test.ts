import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fullJitterMs } from '#/agent/core/backoff.ts';
import { mustJournal, step, wakeInMs } from '#/agent/core/machine.ts';
import { initialState, parseState, stateSummary } from '#/agent/core/state.ts';
import { parseTicket } from '#/agent/core/ticket.ts';
import { samples } from '#/test/model/agent/transitions.ts';
import { momentOf } from '#/test/model/agent/world.ts';
import { goTo, hostWith, memOf } from './hosts.ts';

describe('the durable state', () => {
  it('F66 a state is not the same after it was written and read', () => {
    for (const world of samples().values()) {
      const mem = memOf(world);
      expect(parseState(JSON.parse(JSON.stringify(mem)))).toEqual(mem);
    }
  });

  it('F48 F66 fields that a newer agent added keep an older one from reading the state', () => {
    const mem = memOf(goTo(hostWith('directory', 'good'), 'trial.checks'));
    const newer = JSON.parse(JSON.stringify(mem)) as Record<string, unknown>;
    newer['addedLater'] = { anything: 1 };
    (newer['ticket'] as Record<string, unknown>)['addedLater'] = true;
    expect(parseState(newer)).toEqual(mem);
    const ticket = (newer['ticket'] as Record<string, unknown>) ?? {};
    expect(parseTicket(ticket)?.attempt).toBe('attempt' in mem ? mem.attempt.id : '');
  });

  it('F30 a damaged state is taken for a good one', () => {
    const mem = memOf(goTo(hostWith('directory', 'good'), 'staged'));
    for (const damage of [
      null,
      [],
      'idle',
      {},
      { ...mem, at: 'elsewhere' },
      { ...mem, attempt: undefined },
      { ...mem, schema: 'switchback.agent-state/2' },
      { ...mem, run: { ...mem.run, runMs: -1 } },
    ]) {
      expect(parseState(damage)).toBeNull();
    }
  });

  it('the summary leaves out which version an attempt is about', () => {
    const mem = memOf(goTo(hostWith('directory', 'good'), 'trial.checks'));
    expect(stateSummary(mem)).toMatchObject({ at: 'trial', step: 'checks', version: '2' });
    expect(stateSummary(initialState())).toMatchObject({ at: 'idle', attempt: null });
  });
});

describe('what is journalled', () => {
  it('a quiet poll costs writes', () => {
    let mem = memOf(goTo(hostWith('directory', 'good'), 'idle'));
    const world = hostWith('directory', 'good');
    const at = (monotonicMs: number) => ({ ...momentOf(world), monotonicMs });
    const [checking, effects] = step(mem, { type: 'ticked', now: at(100_000_000) });
    expect([checking.at, effects.map((effect) => effect.do)]).toEqual(['checking', ['poll']]);
    expect(mustJournal(mem, checking)).toBe(false);
    const assignment = {
      generation: 1,
      group: 'web' as never,
      offer: null,
      halted: false,
      rollbackGeneration: 0,
      why: '',
    };
    const now = at(100_000_100);
    [mem] = step(checking, { type: 'polled', assignment, pollAfterMs: 30_000, now });
    expect([mem.at, mustJournal(checking, mem)]).toEqual(['idle', false]);
    expect(wakeInMs(mem, at(100_000_100))).toBe(30_000);
  });

  it('I11 a change of the state is not journalled', () => {
    for (const world of samples().values()) {
      const mem = memOf(world);
      const { op } = mem;
      const next = { ...mem, op: op === null ? null : { ...op, tries: op.tries + 1 } };
      const isPolling = mem.at === 'checking';
      if (op !== null && !isPolling) expect(mustJournal(mem, next)).toBe(true);
      expect(mustJournal(mem, JSON.parse(JSON.stringify(mem)))).toBe(false);
    }
  });
});

describe('backoff', () => {
  it('F59 F68 waits longer than its cap, not at all, or in step with others', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 1000 }),
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        (failures, random) => {
          const waitMs = fullJitterMs(5000, 900_000, failures, random);
          expect(waitMs).toBeGreaterThanOrEqual(1);
          expect(waitMs).toBeLessThanOrEqual(Math.min(900_000, 5000 * 2 ** (failures - 1)));
        },
      ),
    );
    expect(fullJitterMs(5000, 900_000, 3, 0.25)).not.toBe(fullJitterMs(5000, 900_000, 3, 0.5));
  });
});
