/** Groups: hosts that share one pin and one rollout policy. */
import * as v from 'valibot';
import { groupName, rolloutId, versionId } from './ids.ts';
import { pinView } from './pin.ts';
import { atMs, percent, positive, shortText, whole } from './scalars.ts';
import { selectorText } from './selector.ts';

const seconds = (max: number) =>
  v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(max));
const day = 86_400;

/** How a rollout of this group goes forward. A rollout keeps the policy it started with. */
export const rolloutPolicy = v.strictObject({
  /** Hosts of the first stage, at most the whole group. 0: no canary stage. */
  canaryCount: v.optional(v.pipe(whole, v.maxValue(10_000)), 1),
  /** Hosts with these labels are canaries before others. */
  canarySelector: v.optional(selectorText, ''),
  /** Shares of the group that each later stage reaches, growing; the last must be 100. */
  wavePercents: v.optional(
    v.pipe(
      v.array(v.pipe(percent, v.minValue(0.001))),
      v.minLength(1),
      v.maxLength(31),
      v.check(
        (list) =>
          list.at(-1) === 100 && list.every((share, i) => i === 0 || share > (list[i - 1] ?? 0)),
        'expected growing percents that end with 100',
      ),
    ),
    [10, 50, 100],
  ),
  /** The bound: a stage passes while the failure rate is surely below, and the rollout stops once it is surely above. */
  maxFailurePercent: v.optional(v.pipe(percent, v.maxValue(50)), 5),
  /** Results needed before a stage can pass; at most what the stage has. */
  minSample: v.optional(v.pipe(positive, v.maxValue(100_000)), 1),
  /** Stop at this many failures among the first `stopWithin` results. */
  stopFailures: v.optional(v.pipe(positive, v.maxValue(1000)), 2),
  stopWithin: v.optional(v.pipe(positive, v.maxValue(10_000)), 20),
  /** Quiet time after the last confirm before the next stage opens. */
  soakSeconds: v.optional(seconds(30 * day), 60),
  /** Hosts of the group that may be in an attempt at one time. */
  maxInFlight: v.optional(v.pipe(positive, v.maxValue(100_000)), 50),
  /** An attempt that is not over after this counts as overdue. */
  healthyDeadlineSeconds: v.optional(v.pipe(seconds(30 * day), v.minValue(1)), 3600),
  /** A stage that cannot get its results within this is paused as inconclusive. 0: never. */
  stageDeadlineSeconds: v.optional(seconds(90 * day), 7 * day),
  /** Attempts per host and version that control starts by itself. */
  attemptBudget: v.optional(v.pipe(positive, v.maxValue(10)), 2),
});
export type RolloutPolicy = v.InferOutput<typeof rolloutPolicy>;

export const pollPolicy = v.strictObject({
  /** Polls per second that the whole fleet should make at most; the interval follows from it. */
  targetPollsPerSecond: v.optional(v.pipe(positive, v.maxValue(100_000)), 333),
  minSeconds: v.optional(v.pipe(positive, v.maxValue(3600)), 30),
  maxSeconds: v.optional(v.pipe(positive, v.maxValue(86_400)), 3600),
  /** For hosts of an open stage. */
  activeSeconds: v.optional(v.pipe(positive, v.maxValue(3600)), 30),
});
export type PollPolicy = v.InferOutput<typeof pollPolicy>;

/** PUT /groups/:group. Fields that are left out take their default on creation and stay on an update. */
export const groupRequest = v.strictObject({
  /** Hosts that enrol with a token without a group join the group of highest priority whose selector they match. */
  selector: v.optional(v.nullable(selectorText)),
  priority: v.optional(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000), v.maxValue(1000))),
  description: v.optional(shortText),
  rollout: v.optional(rolloutPolicy),
  poll: v.optional(pollPolicy),
  /** The revision that was read; a change in between is E_CONFLICT. Same as the header If-Match. */
  revision: v.optional(positive),
});
export type GroupRequest = v.InferOutput<typeof groupRequest>;

export const haltView = v.strictObject({
  scope: v.string(),
  reason: v.string(),
  actor: v.string(),
  atMs,
});
export type HaltView = v.InferOutput<typeof haltView>;

export const groupView = v.strictObject({
  name: groupName,
  selector: v.nullable(v.string()),
  priority: v.number(),
  description: v.string(),
  rollout: rolloutPolicy,
  poll: pollPolicy,
  revision: positive,
  pin: v.nullable(pinView),
  /** The highest seq of a pin in this group so far, of single hosts too; the next signed pin needs a higher one. */
  pinSeq: whole,
  /** The version of the last completed rollout: what late joiners get. */
  current: v.nullable(v.strictObject({ artifactId: versionId, version: v.string() })),
  activeRollout: v.nullable(rolloutId),
  halt: v.nullable(haltView),
  hosts: v.strictObject({
    total: whole,
    onTarget: whole,
    inFlight: whole,
    failed: whole,
    offline: whole,
  }),
  createdAtMs: atMs,
});
export type GroupView = v.InferOutput<typeof groupView>;
