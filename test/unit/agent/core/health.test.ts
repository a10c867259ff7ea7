import { describe, expect, it } from 'vitest';
import type { CheckOutcome } from '#/agent/core/effect.ts';
import {
  dueChecks,
  freshHealth,
  judge,
  nextProbeRunMs,
  type Verdict,
} from '#/agent/core/health.ts';
import type { Health } from '#/agent/core/state.ts';
import type { CheckRule, TrialPlan } from '#/agent/core/ticket.ts';

const rule: CheckRule = {
  name: 'web',
  required: true,
  timeoutMs: 1000,
  intervalMs: 1000,
  successesNeeded: 3,
  failuresAllowed: 1,
  baseline: 'must-pass',
  startAfterMs: 0,
};
const plan = (change: Partial<CheckRule> = {}, trial: Partial<TrialPlan> = {}): TrialPlan => ({
  soakMs: 5000,
  deadlineMs: 60_000,
  maxBoots: 2,
  control: 'offline-ok',
  oneWay: false,
  checks: [{ ...rule, ...change }],
  ...trial,
});

/** Rounds one second apart: `+` is a success, `-` a failure. */
function verdicts(
  of: TrialPlan,
  rounds: string,
  baselinePassed: readonly string[] = ['web'],
  start: Health = freshHealth(of, 0),
): readonly Verdict['is'][] {
  let health = start;
  const seen: Verdict['is'][] = [];
  for (const [index, sign] of rounds.split('').entries()) {
    const results: readonly CheckOutcome[] = [
      { name: 'web', ok: sign === '+', durationMs: 1, detail: 'seen' },
    ];
    const [next, verdict] = judge(health, {
      plan: of,
      baselinePassed,
      results,
      runMs: index * 1000,
    });
    health = next;
    seen.push(verdict.is);
  }
  return seen;
}

describe('the verdict on a trial', () => {
  it('one success too few is taken for a pass', () => {
    expect(verdicts(plan(), '+++')).toEqual(['checking', 'checking', 'soaking']);
  });

  it('F44 a flaky check: a forgiven failure costs its successes, not the trial', () => {
    expect(verdicts(plan(), '++-+++')).toEqual([
      'checking',
      'checking',
      'checking',
      'checking',
      'checking',
      'soaking',
    ]);
  });

  it('F43 F44 more failures in a row than are allowed do not end the trial', () => {
    expect(verdicts(plan(), '+--')).toEqual(['checking', 'checking', 'failed']);
  });

  it('F47 a failure in the soak is forgotten: it begins anew, and a second one fails', () => {
    expect(verdicts(plan(), '+++-')).toEqual(['checking', 'checking', 'soaking', 'checking']);
    expect(verdicts(plan(), '+++--').at(-1)).toBe('failed');
    // After the failure at 3 s the soak of 5 s is over at 9 s, not at 7 s.
    expect(verdicts(plan(), '+++-+++++').at(-1)).toBe('soaking');
    expect(verdicts(plan(), '+++-++++++').at(-1)).toBe('passed');
  });

  it('F47 a version that is restarted again and again passes', () => {
    const of = plan({ successesNeeded: 1 });
    const [, verdict] = judge(freshHealth(of, 0), {
      plan: of,
      baselinePassed: ['web'],
      results: [{ name: 'web', ok: true, durationMs: 1, detail: '' }],
      runMs: 0,
      restarts: 4,
    });
    expect(verdict).toEqual({
      is: 'failed',
      check: 'restarts',
      detail: 'it was restarted 4 times',
    });
  });

  it('F45 a check that failed before the switch too rolls the version back', () => {
    const forgiving = plan({ baseline: 'not-worse' }, { soakMs: 0 });
    expect(verdicts(forgiving, '---', [])).toEqual(['passed', 'passed', 'passed']);
    expect(verdicts(forgiving, '--', ['web'])).toEqual(['checking', 'failed']);
    expect(verdicts(plan(), '--', [])).toEqual(['checking', 'failed']);
  });

  it('a wanted check rolls the version back', () => {
    expect(verdicts(plan({ required: false }, { soakMs: 0 }), '---')).not.toContain('failed');
  });

  it('failures before the start time count', () => {
    expect(verdicts(plan({ startAfterMs: 3500 }), '----++')).not.toContain('failed');
    expect(verdicts(plan({ startAfterMs: 3500 }), '------').at(-1)).toBe('failed');
  });

  it('F46 F49 must-reach: passes although control was not reached from the new version', () => {
    const strict = plan({ successesNeeded: 1 }, { control: 'must-reach', soakMs: 0 });
    expect(verdicts(strict, '++')).toEqual(['checking', 'checking']);
    const reached = { ...freshHealth(strict, 0), controlReached: true };
    expect(verdicts(strict, '+', ['web'], reached)).toEqual(['passed']);
  });

  it('a version without checks never passes, or passes before its soak', () => {
    const bare = plan({}, { checks: [] });
    const [health, first] = judge(freshHealth(bare, 0), {
      plan: bare,
      baselinePassed: [],
      results: [],
      runMs: 0,
    });
    expect([first.is, nextProbeRunMs(health)]).toEqual(['soaking', 5000]);
    const [, last] = judge(health, { plan: bare, baselinePassed: [], results: [], runMs: 5000 });
    expect(last.is).toBe('passed');
  });

  it('a check is run before its interval is over', () => {
    const of = plan();
    const [health] = judge(freshHealth(of, 0), {
      plan: of,
      baselinePassed: [],
      results: [{ name: 'web', ok: true, durationMs: 1, detail: '' }],
      runMs: 0,
    });
    expect([dueChecks(health, 999), dueChecks(health, 1000)]).toEqual([[], ['web']]);
  });
});
