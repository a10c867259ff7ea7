/** Rollouts, as operators see them. */
import * as v from 'valibot';
import { rolloutPolicy } from './group.ts';
import { groupName, hostId, rolloutId, versionId } from './ids.ts';
import { atMs, positive, whole } from './scalars.ts';

/**
 * `running`; `paused` by an operator or for want of results; `halted` by the failure bound; then one of the ends:
 * `done`, `aborted`, `superseded` by a newer pin.
 */
export const rolloutStates = [
  'running',
  'paused',
  'halted',
  'done',
  'aborted',
  'superseded',
] as const;
export const rolloutState = v.picklist(rolloutStates);
export type RolloutState = v.InferOutput<typeof rolloutState>;

export const stageState = v.picklist(['pending', 'open', 'soaking', 'passed']);
export type StageState = v.InferOutput<typeof stageState>;

export const counts = v.strictObject({
  members: whole,
  /** Attempts that are not over. */
  inFlight: whole,
  confirmed: whole,
  failed: whole,
  /** After the switch and past the deadline without a result; they count as failed. */
  overdue: whole,
  /** Not seen lately and therefore not offered. */
  offline: whole,
  /** Members that run the version. */
  onTarget: whole,
});
export type Counts = v.InferOutput<typeof counts>;

export const stageView = v.strictObject({
  index: whole,
  name: v.string(),
  percent: v.nullable(v.number()),
  state: stageState,
  openedAtMs: v.nullable(atMs),
  passedAtMs: v.nullable(atMs),
  counts,
  /** What it waits for, in words. */
  words: v.string(),
});
export type StageView = v.InferOutput<typeof stageView>;

export const decisionView = v.strictObject({
  id: positive,
  atMs,
  kind: v.string(),
  host: v.nullable(hostId),
  stage: v.nullable(whole),
  words: v.string(),
});
export type DecisionView = v.InferOutput<typeof decisionView>;

export const rolloutView = v.strictObject({
  id: rolloutId,
  group: groupName,
  artifactId: versionId,
  version: v.string(),
  previous: v.nullable(v.strictObject({ artifactId: versionId, version: v.string() })),
  state: rolloutState,
  reason: v.string(),
  /** What happens next, or what is needed, in words. */
  words: v.string(),
  actor: v.string(),
  policy: rolloutPolicy,
  stages: v.array(stageView),
  counts,
  startedAtMs: atMs,
  endedAtMs: v.nullable(atMs),
});
export type RolloutView = v.InferOutput<typeof rolloutView>;

export const attemptView = v.strictObject({
  /** `<hostId>/<n>`: n counts the attempts of the host. */
  id: v.string(),
  n: positive,
  /** The agent's own id of the attempt, once it reported. */
  agentAttempt: v.nullable(v.string()),
  rolloutId: v.nullable(rolloutId),
  artifactId: versionId,
  version: v.string(),
  phase: v.string(),
  outcome: v.picklist(['open', 'confirmed', 'failed', 'inconclusive', 'withdrawn']),
  code: v.nullable(v.string()),
  message: v.string(),
  offeredAtMs: atMs,
  endedAtMs: v.nullable(atMs),
});
export type AttemptView = v.InferOutput<typeof attemptView>;
