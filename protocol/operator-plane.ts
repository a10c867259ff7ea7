/** Remaining documents of the operator plane: summary, tokens, halts, audit, events. */
import * as v from 'valibot';
import { groupView, haltView } from './group.ts';
import { hostCondition } from './host.ts';
import { groupName, hostId } from './ids.ts';
import { rolloutView } from './rollout.ts';
import { atMs, id, positive, reason, shortText, whole } from './scalars.ts';
import { labels } from './selector.ts';

/** One call for the first screen. */
export const summaryView = v.strictObject({
  asOfMs: atMs,
  epoch: positive,
  /** Set while control only observes after it was restored from a backup (F73). */
  observing: v.nullable(v.string()),
  /** Level of load shedding, 0 to 3. */
  shedLevel: whole,
  pollsPerMinute: whole,
  halts: v.array(haltView),
  hosts: v.record(hostCondition, whole),
  hostsTotal: whole,
  groups: v.array(groupView),
  rollouts: v.array(rolloutView),
  /** Things that need a person, worst first, each with what to do. */
  attention: v.array(v.strictObject({ words: v.string(), act: v.string(), link: v.string() })),
});
export type SummaryView = v.InferOutput<typeof summaryView>;

export const joinTokenRequest = v.strictObject({
  /** Without a group, the selectors of the groups decide over the labels. */
  group: v.optional(groupName),
  ttlSeconds: v.optional(v.pipe(positive, v.maxValue(86_400)), 3600),
  labels: v.optional(labels, {}),
  description: v.optional(shortText, ''),
});
export const joinTokenView = v.strictObject({
  id: id('jt'),
  group: v.nullable(groupName),
  labels,
  description: v.string(),
  createdAtMs: atMs,
  expiresAtMs: atMs,
  usedAtMs: v.nullable(atMs),
  usedBy: v.nullable(hostId),
  actor: v.string(),
});
export type JoinTokenView = v.InferOutput<typeof joinTokenView>;
export const joinTokenCreated = v.strictObject({
  ...joinTokenView.entries,
  /** Shown once; only its hash is kept. */
  token: v.string(),
  /** sha256 of the first root.json, to give to the host together with the token. */
  rootSha256: v.string(),
});

export const roles = [
  'viewer',
  'operator',
  'approver',
  'release-manager',
  'auditor',
  'admin',
] as const;
export const role = v.picklist(roles);
export type Role = v.InferOutput<typeof role>;
export const apiTokenRequest = v.strictObject({
  name: shortText,
  role,
  ttlSeconds: v.optional(v.pipe(positive, v.maxValue(10 * 365 * 86_400))),
  /** Only for operator and approver: what the token may change. Without it, every group. */
  groups: v.optional(v.pipe(v.array(groupName), v.minLength(1), v.maxLength(256))),
});
export const apiTokenView = v.strictObject({
  id: id('at'),
  name: v.string(),
  role,
  createdAtMs: atMs,
  expiresAtMs: v.nullable(atMs),
  revokedAtMs: v.nullable(atMs),
  groups: v.nullable(v.array(groupName)),
});
export type ApiTokenView = v.InferOutput<typeof apiTokenView>;
export const apiTokenCreated = v.strictObject({ ...apiTokenView.entries, token: v.string() });

/** Without a group: the whole fleet. */
export const haltRequest = v.strictObject({ group: v.optional(groupName), reason });

/** Entry of the audit log: every change, who made it, and why. Append-only. */
export const auditEntry = v.strictObject({
  id: positive,
  atMs,
  actor: v.string(),
  type: v.string(),
  /** What it is about: `group/web`, `host/h-…`, `rollout/r-…`, `release/…`. */
  subject: v.string(),
  details: v.record(v.string(), v.unknown()),
});
export type AuditEntry = v.InferOutput<typeof auditEntry>;

/** A report as its host signed it. */
export const hostReport = v.strictObject({
  host: hostId,
  seq: positive,
  /** The DSSE envelope as JSON text. */
  envelope: v.string(),
});

/** One message of GET /events (`id:` is the audit id, so that Last-Event-ID resumes). */
export type ControlEvent = AuditEntry;
