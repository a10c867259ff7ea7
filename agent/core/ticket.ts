/**
 * The ticket: the contract of one trial, written before the switch and removed after commit or verified rollback. The
 * guard, a shell script outside both slots, acts on it when the agent cannot (docs/specs/durable-state.md has the flat
 * form it reads). All that a rollback or a verdict needs stands in it, so that it outlives the journal.
 */
import * as v from 'valibot';
import { rolloutId, versionId, versionText } from '#/protocol/ids.ts';
import { slotId } from './facts.ts';

export const TICKET_SCHEMA = 'switchback.ticket/1';

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const shortText = v.pipe(v.string(), v.maxLength(1024));
const nameText = v.pipe(v.string(), v.maxLength(64));

/** What the verdict needs of a health check: all of it but how the check is carried out. */
export const checkRule = v.object({
  name: nameText,
  required: v.boolean(),
  timeoutMs: count,
  intervalMs: count,
  successesNeeded: count,
  failuresAllowed: count,
  baseline: v.picklist(['must-pass', 'not-worse']),
  startAfterMs: count,
});
export type CheckRule = Readonly<v.InferOutput<typeof checkRule>>;

/** How a trial of one artifact is judged. */
export const trialPlan = v.object({
  soakMs: count,
  deadlineMs: count,
  maxBoots: count,
  control: v.picklist(['offline-ok', 'must-reach']),
  /** The version changes data in a way that the one before it cannot read (F53): no automatic rollback after the switch. */
  oneWay: v.boolean(),
  checks: v.pipe(v.array(checkRule), v.maxLength(64), v.readonly()),
});
export type TrialPlan = Readonly<v.InferOutput<typeof trialPlan>>;

/** An error code with its message, as it stands in states, reports and the deny-list. */
export const reason = v.object({ code: nameText, message: shortText });

/** Run time: milliseconds in which the host was running, summed over boots. Never decreases, never restarts. */
export const runClock = v.object({
  runMs: count,
  /** The boot and its monotonic time at which `runMs` was read. */
  bootId: nameText,
  monotonicMs: count,
});
export type RunClock = Readonly<v.InferOutput<typeof runClock>>;

export const ticket = v.object({
  schema: v.literal(TICKET_SCHEMA),
  attempt: v.pipe(v.string(), v.regex(/^[0-9a-f]{32}$/)),
  kind: v.picklist(['install', 'rollback']),
  rolloutId: v.nullable(rolloutId),
  artifactId: versionId,
  version: versionText,
  class: nameText,
  release: count,
  retryGeneration: count,
  targetSlot: slotId,
  /** What the target is recognised by after the switch: its real path, or its partition UUID. */
  targetIdentity: v.pipe(v.string(), v.maxLength(4096)),
  /** Null: nothing was live before, a rollback leaves nothing live. */
  rollbackSlot: v.nullable(slotId),
  rollbackArtifact: v.nullable(versionId),
  /**
   * `open`: armed, or on trial once the target is live. `committed`: final, only cleanup is left. `rolling-back`:
   * decided, by agent or guard; whoever finds it completes it.
   */
  state: v.picklist(['open', 'committed', 'rolling-back']),
  reason: v.nullable(reason),
  maxBoots: count,
  bootsUsed: count,
  armBootId: nameText,
  /** The boot that was counted last; another one that finds the ticket adds one to `bootsUsed` and puts itself here. */
  lastBootId: nameText,
  /** Run time at which the trial is over. Fixed when the ticket is first written. */
  deadlineRunMs: count,
  /** Run time when the ticket was last written by the agent; the guard goes on from there. */
  clock: runClock,
  plan: trialPlan,
  /** Checks that passed before the switch. */
  baselinePassed: v.pipe(v.array(nameText), v.maxLength(64), v.readonly()),
});
export type Ticket = Readonly<v.InferOutput<typeof ticket>>;

/** A ticket from parsed JSON, or null when it is not one. */
export function parseTicket(json: unknown): Ticket | null {
  const parsed = v.safeParse(ticket, json);
  return parsed.success ? parsed.output : null;
}

/** So much of the deadline is gone before the switch that the trial would fail by it: a new ticket has to be made. */
export function isStale(of: Ticket, runMs: number): boolean {
  return of.deadlineRunMs - runMs < of.plan.deadlineMs / 2;
}
