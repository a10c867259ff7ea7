/** Hosts, as operators see them. */
import * as v from 'valibot';
import { attemptPhase } from './documents.ts';
import { groupName, hostId, name, rolloutId, versionId } from './ids.ts';
import { pinView } from './pin.ts';
import { attemptView } from './rollout.ts';
import { atMs, facts, reason, whole } from './scalars.ts';
import { labels } from './selector.ts';

/** The one word for a host in lists, worst first. */
export const hostConditions = [
  'quarantined',
  'needs-attention',
  'failed',
  'offline',
  'held',
  'updating',
  'behind',
  'current',
  'unpinned',
] as const;
export const hostCondition = v.picklist(hostConditions);
export type HostCondition = v.InferOutput<typeof hostCondition>;

export const hostView = v.strictObject({
  id: hostId,
  group: groupName,
  labels,
  class: name,
  arch: v.string(),
  condition: hostCondition,
  /** State of the agent's machine at its last report or poll. */
  state: v.string(),
  healthy: v.nullable(v.boolean()),
  running: v.nullable(versionId),
  runningVersion: v.nullable(v.string()),
  /** What control wants it to run, whether or not it is offered yet. */
  target: v.nullable(versionId),
  targetVersion: v.nullable(v.string()),
  phase: v.nullable(attemptPhase),
  rolloutId: v.nullable(rolloutId),
  isOnline: v.boolean(),
  lastSeenAtMs: v.nullable(atMs),
  hold: v.nullable(v.strictObject({ reason: v.string(), actor: v.string(), atMs })),
  isPinned: v.boolean(),
  generation: whole,
  agentVersion: v.string(),
  why: v.string(),
});
export type HostView = v.InferOutput<typeof hostView>;

export const hostDetail = v.strictObject({
  ...hostView.entries,
  keyId: v.string(),
  enrolledAtMs: atMs,
  facts,
  previous: v.nullable(versionId),
  bootId: v.nullable(v.string()),
  reportSeq: whole,
  pin: v.nullable(pinView),
  quarantine: v.nullable(v.strictObject({ reason: v.string(), atMs })),
  denied: v.array(v.strictObject({ artifactId: versionId, code: v.string() })),
  /** Newest first, at most 20. */
  attempts: v.array(attemptView),
});
export type HostDetail = v.InferOutput<typeof hostDetail>;

/** Precedence, rule by rule, in the order in which it is decided; the first that applies gives the answer. */
export const hostWhy = v.strictObject({
  host: hostId,
  answer: v.string(),
  target: v.nullable(versionId),
  isOffered: v.boolean(),
  /** What the host said of itself in its last report: empty before the first. */
  says: v.string(),
  /** Why the target failed on this host, when its last attempt of it did. */
  failed: v.nullable(
    v.strictObject({ version: v.string(), code: v.string(), message: v.string() }),
  ),
  steps: v.array(v.strictObject({ rule: v.string(), applies: v.boolean(), words: v.string() })),
  next: v.strictObject({ words: v.string(), atMs: v.nullable(atMs) }),
});
export type HostWhy = v.InferOutput<typeof hostWhy>;

export const timelineEntry = v.strictObject({
  id: v.string(),
  /** When control received or decided it. */
  atMs,
  /** The host's own clock, for events of the host. */
  hostAtMs: v.nullable(atMs),
  /** The kind of event: the phase of an attempt, or the type of an audit event. */
  kind: v.string(),
  attempt: v.nullable(v.string()),
  artifactId: v.nullable(versionId),
  /** The version of that artifact; the start of its id when control does not know it. */
  version: v.nullable(v.string()),
  code: v.nullable(v.string()),
  words: v.string(),
  evidence: v.record(v.string(), v.union([v.string(), v.number(), v.boolean()])),
});
export type TimelineEntry = v.InferOutput<typeof timelineEntry>;

export const holdRequest = v.strictObject({ reason });
export const labelsRequest = v.strictObject({ labels });

/**
 * retry: try the version again that failed here (clears the deny-list entry). rollback: go back to the previous slot.
 * forget: remove the host. re-enrol: one-use token for a new identity that takes the place of this one. move: to another group.
 */
export const hostActionRequest = v.variant('action', [
  v.strictObject({ action: v.literal('retry'), reason }),
  v.strictObject({ action: v.literal('rollback'), reason }),
  v.strictObject({ action: v.literal('forget'), reason }),
  v.strictObject({ action: v.literal('re-enrol'), reason }),
  v.strictObject({ action: v.literal('move'), reason, group: groupName }),
]);
export type HostActionRequest = v.InferOutput<typeof hostActionRequest>;
export const hostActionResult = v.strictObject({
  words: v.string(),
  /** The join token of `re-enrol`: shown once. */
  token: v.nullable(v.string()),
});
