/** The health verdict over probe results (agent-machine, "Health verdict"). */
import type { CheckOutcome } from './effect.ts';
import { limits } from './limits.ts';
import type { CheckTally, Health } from './state.ts';
import type { CheckRule, TrialPlan } from './ticket.ts';

/** `passed`: everything required has passed, the soak too. `soaking`: passed, must hold now. */
export type Verdict =
  | { readonly is: 'checking' }
  | { readonly is: 'soaking' }
  | { readonly is: 'passed' }
  | { readonly is: 'failed'; readonly check: string; readonly detail: string };

/** Nothing seen yet; every check is due now. */
export function freshHealth(plan: TrialPlan, runMs: number): Health {
  return {
    sinceRunMs: runMs,
    tallies: plan.checks.map((check) => ({
      name: check.name,
      successes: 0,
      failures: 0,
      passed: false,
      nextRunMs: runMs,
      detail: '',
    })),
    controlReached: false,
    soakUntilRunMs: null,
    restarts: 0,
  };
}

/** Names of the checks that are due. */
export function dueChecks(health: Health, runMs: number): readonly string[] {
  return health.tallies.filter((tally) => tally.nextRunMs <= runMs).map((tally) => tally.name);
}

/** Run time at which the next check is due, or the soak is over. */
export function nextProbeRunMs(health: Health): number {
  const due = health.tallies.map((tally) => tally.nextRunMs);
  const soak = health.soakUntilRunMs;
  return Math.min(...due, soak ?? Number.MAX_SAFE_INTEGER);
}

/** Names of the checks that passed once, before the switch. */
export function baselineOf(results: readonly CheckOutcome[]): readonly string[] {
  return results.filter((result) => result.ok).map((result) => result.name);
}

export interface Round {
  readonly plan: TrialPlan;
  readonly baselinePassed: readonly string[];
  readonly results: readonly CheckOutcome[];
  readonly runMs: number;
  /** Restarts of what runs since it was activated, where they can be seen. */
  readonly restarts?: number;
}

/** Takes the results of one round into account. `control: must-reach` is part of the verdict of a trial only. */
export function judge(before: Health, round: Round): readonly [Health, Verdict] {
  const { plan, runMs } = round;
  const tallies = before.tallies.map((tally) => {
    const rule = plan.checks.find((check) => check.name === tally.name);
    const result = round.results.find((outcome) => outcome.name === tally.name);
    return rule === undefined || result === undefined
      ? tally
      : taken(tally, rule, result, runMs - before.sinceRunMs, runMs);
  });
  const health: Health = {
    ...before,
    tallies,
    restarts: Math.max(before.restarts, round.restarts ?? 0),
  };
  const failed = firstFailure(health, plan, round.baselinePassed);
  if (failed !== null) return [health, failed];
  if (health.restarts > limits.restarts) {
    const detail = `it was restarted ${health.restarts} times`;
    return [health, { is: 'failed', check: 'restarts', detail }];
  }
  return soak(health, plan, round);
}

function soak(health: Health, plan: TrialPlan, round: Round): readonly [Health, Verdict] {
  const holds =
    plan.checks.every((rule) => counts(rule, health, round.baselinePassed)) &&
    (plan.control === 'offline-ok' || health.controlReached);
  if (!holds) return [{ ...health, soakUntilRunMs: null }, { is: 'checking' }];
  const soakUntilRunMs = health.soakUntilRunMs ?? round.runMs + plan.soakMs;
  const soaked = { ...health, soakUntilRunMs };
  return [soaked, { is: round.runMs >= soakUntilRunMs ? 'passed' : 'soaking' }];
}

/** Has this check, as far as the trial needs it, passed, and did it not fail since? */
function counts(rule: CheckRule, health: Health, baselinePassed: readonly string[]): boolean {
  if (!rule.required || isForgiven(rule, baselinePassed)) return true;
  const tally = health.tallies.find((one) => one.name === rule.name);
  return tally !== undefined && tally.passed && tally.successes > 0;
}

/** It failed before the switch too, and that is no reason to go back (F45). */
function isForgiven(rule: CheckRule, baselinePassed: readonly string[]): boolean {
  return rule.baseline === 'not-worse' && !baselinePassed.includes(rule.name);
}

function firstFailure(
  health: Health,
  plan: TrialPlan,
  baselinePassed: readonly string[],
): Verdict | null {
  for (const rule of plan.checks) {
    const tally = health.tallies.find((one) => one.name === rule.name);
    if (tally === undefined || !rule.required || isForgiven(rule, baselinePassed)) continue;
    if (tally.failures > rule.failuresAllowed) {
      return { is: 'failed', check: rule.name, detail: tally.detail };
    }
  }
  return null;
}

function taken(
  tally: CheckTally,
  rule: CheckRule,
  result: CheckOutcome,
  ageMs: number,
  runMs: number,
): CheckTally {
  const nextRunMs = runMs + Math.max(rule.intervalMs, 1);
  const detail = result.detail.slice(0, 1024);
  if (result.ok) {
    const successes = tally.successes + 1;
    const passed = tally.passed || successes >= rule.successesNeeded;
    return { ...tally, successes, failures: 0, passed, nextRunMs, detail };
  }
  const forgiven = ageMs < rule.startAfterMs && !tally.passed;
  const failures = forgiven ? tally.failures : tally.failures + 1;
  return { ...tally, successes: 0, failures, nextRunMs, detail };
}
