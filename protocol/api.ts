/**
 * Every route of control, as data. The server mounts these, the typed client calls them, OpenAPI is printed from them.
 * A route without plane or permission keeps the server from starting (control/http/server.ts).
 */
import * as v from 'valibot';
import {
  enrollAnswer,
  enrollRequest,
  reportAnswer,
  rotateAnswer,
  rotateRequest,
  tokenAnswer,
  tokenRequest,
} from './agent-plane.ts';
import { assignment, envelope } from './documents.ts';
import type { ErrorCode } from './errors.ts';
import { groupRequest, groupView, haltView } from './group.ts';
import {
  holdRequest,
  hostActionRequest,
  hostActionResult,
  hostCondition,
  hostDetail,
  hostView,
  hostWhy,
  labelsRequest,
  timelineEntry,
} from './host.ts';
import { artifactId, groupName, hostId, rolloutId } from './ids.ts';
import {
  apiTokenCreated,
  apiTokenRequest,
  apiTokenView,
  auditEntry,
  hostReport,
  haltRequest,
  joinTokenCreated,
  joinTokenRequest,
  joinTokenView,
  summaryView,
} from './operator-plane.ts';
import { pinRequest, pinView } from './pin.ts';
import { heldKeys, PROPOSAL_MAX_BYTES, proposalAnswer, proposalDocument } from './proposal.ts';
import { attestRequest, referenceRequest, releaseView } from './release.ts';
import { decisionView, rolloutState, rolloutView } from './rollout.ts';
import { cursorQuery, id, limitQuery, reason, shortText } from './scalars.ts';
import { selectorText } from './selector.ts';

export type Plane = 'agent' | 'operator' | 'public';
/**
 * none: anyone (what is served is public or signed). signature: RFC 9421 by the key in question. host: bearer of a host.
 * view, operate, release, audit, publish, admin: api tokens, see `rolePermissions`.
 */
export type Permission =
  | 'none'
  | 'signature'
  | 'host'
  | 'view'
  | 'operate'
  | 'release'
  | 'audit'
  | 'publish'
  | 'admin';
export type Schema = v.GenericSchema;

/** Bodies that are not JSON. `bytes`: streamed. `events`: server-sent events. `text`: plain text. */
export type RawBody = 'bytes' | 'events' | 'text';

export interface Route {
  readonly method: 'GET' | 'PUT' | 'POST' | 'DELETE';
  /** `:name` is one segment; a trailing `*` is the rest of the path. */
  readonly path: string;
  readonly plane: Plane;
  readonly permission: Permission;
  readonly summary: string;
  readonly params?: Readonly<Record<string, Schema>>;
  readonly query?: v.GenericSchema<Record<string, unknown>, Record<string, unknown>>;
  readonly body?: Schema | 'bytes';
  readonly maxBodyBytes?: number;
  /** Status on success; 200 unless given. */
  readonly status?: 200 | 201 | 202 | 204;
  readonly ok: Schema | RawBody | null;
  readonly errors: readonly ErrorCode[];
}

/** What each role may do. */
export const rolePermissions = {
  viewer: ['view'],
  auditor: ['view', 'audit'],
  /** Hands in what others signed; can itself do nothing else. */
  approver: ['view', 'publish'],
  operator: ['view', 'operate', 'publish'],
  'release-manager': ['view', 'release', 'publish'],
  admin: ['view', 'operate', 'release', 'audit', 'publish', 'admin'],
} as const satisfies Record<string, readonly Permission[]>;

const page = <T extends Schema>(item: T) =>
  v.strictObject({ items: v.array(item), nextCursor: v.nullable(v.string()) });
const KIB = 1024;

const reading = ['E_UNAUTHENTICATED', 'E_FORBIDDEN', 'E_USAGE'] as const;
const oneThing = [...reading, 'E_NOT_FOUND'] as const;
const change = [...oneThing, 'E_SCHEMA', 'E_TOOBIG', 'E_CONFLICT', 'E_UNAVAILABLE'] as const;
const agentErrors = ['E_UNAUTHENTICATED', 'E_FORKED', 'E_RATE_LIMITED', 'E_UNAVAILABLE'] as const;

const agentRoutes = {
  enroll: {
    method: 'POST',
    path: '/agent/v1/enroll',
    plane: 'agent',
    permission: 'signature',
    summary: 'Enrol a host with a one-use join token and its new key.',
    body: enrollRequest,
    maxBodyBytes: 64 * KIB,
    status: 201,
    ok: enrollAnswer,
    errors: [
      'E_TOKEN',
      'E_UNAUTHENTICATED',
      'E_CONFLICT',
      'E_SCHEMA',
      'E_TOOBIG',
      'E_RATE_LIMITED',
      'E_UNAVAILABLE',
    ],
  },
  token: {
    method: 'POST',
    path: '/agent/v1/token',
    plane: 'agent',
    permission: 'signature',
    summary: 'Trade a signature by the host key for a bearer that is good for an hour.',
    body: tokenRequest,
    maxBodyBytes: 4 * KIB,
    ok: tokenAnswer,
    errors: [...agentErrors, 'E_FORBIDDEN', 'E_SCHEMA'],
  },
  rotate: {
    method: 'POST',
    path: '/agent/v1/rotate',
    plane: 'agent',
    permission: 'signature',
    summary: 'Trade the keys of a host for new ones: signed by the old key, the change by both.',
    body: rotateRequest,
    maxBodyBytes: 8 * KIB,
    ok: rotateAnswer,
    errors: [...agentErrors, 'E_FORBIDDEN', 'E_SCHEMA', 'E_PARSE', 'E_SIGS', 'E_CONFLICT'],
  },
  desired: {
    method: 'GET',
    path: '/agent/v1/desired',
    plane: 'agent',
    permission: 'host',
    summary:
      'The poll. Headers: If-None-Match, Agent-State. Answer: 304 or 200, with ETag and Poll-After.',
    ok: assignment,
    errors: agentErrors,
  },
  report: {
    method: 'POST',
    path: '/agent/v1/report',
    plane: 'agent',
    permission: 'host',
    summary: 'A DSSE envelope over a report, signed by the host key.',
    body: envelope,
    maxBodyBytes: 1536 * KIB,
    status: 202,
    ok: reportAnswer,
    errors: [
      ...agentErrors,
      'E_FORBIDDEN',
      'E_SIGS',
      'E_SCHEMA',
      'E_PARSE',
      'E_TOOBIG',
      'E_REPORT_SEQUENCE',
    ],
  },
  trustMetadata: {
    method: 'GET',
    path: '/agent/v1/trust/metadata/:file',
    plane: 'agent',
    permission: 'none',
    summary: 'A TUF metadata file: timestamp.json, N.root.json, N.snapshot.json, N.<role>.json.',
    params: { file: v.pipe(v.string(), v.regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}\.json$/)) },
    ok: 'bytes',
    errors: ['E_NOT_FOUND'],
  },
  trustTarget: {
    method: 'GET',
    path: '/agent/v1/trust/targets/*',
    plane: 'agent',
    permission: 'none',
    summary: 'A TUF target, with its hash in front of its file name (consistent snapshots).',
    ok: 'bytes',
    errors: ['E_NOT_FOUND'],
  },
  trustLog: {
    method: 'GET',
    path: '/agent/v1/trust/log/*',
    plane: 'agent',
    permission: 'none',
    summary:
      'The audit log as C2SP tlog-tiles: `checkpoint`, hashes as `tile/…`, proofs of pins as `proof/<path>`.',
    ok: 'bytes',
    errors: ['E_NOT_FOUND'],
  },
  artifact: {
    method: 'GET',
    path: '/artifacts/:file',
    plane: 'agent',
    permission: 'none',
    summary: 'A bundle, `<artifactId>.bundle`, with Range, If-Range and ETag.',
    params: { file: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}\.bundle$/)) },
    ok: 'bytes',
    errors: ['E_NOT_FOUND', 'E_RANGE'],
  },
} as const satisfies Record<string, Route>;

const hostRoutes = {
  summary: {
    method: 'GET',
    path: '/api/v1/summary',
    plane: 'operator',
    permission: 'view',
    summary: 'The fleet on one screen.',
    ok: summaryView,
    errors: reading,
  },
  hostList: {
    method: 'GET',
    path: '/api/v1/hosts',
    plane: 'operator',
    permission: 'view',
    summary: 'Hosts, filtered, in the order of their ids.',
    query: v.strictObject({
      group: v.optional(groupName),
      selector: v.optional(selectorText),
      condition: v.optional(hostCondition),
      running: v.optional(artifactId),
      cursor: cursorQuery,
      limit: limitQuery(1000, 100),
    }),
    ok: page(hostView),
    errors: reading,
  },
  hostShow: {
    method: 'GET',
    path: '/api/v1/hosts/:host',
    plane: 'operator',
    permission: 'view',
    summary: 'One host.',
    params: { host: hostId },
    ok: hostDetail,
    errors: oneThing,
  },
  hostWhy: {
    method: 'GET',
    path: '/api/v1/hosts/:host/why',
    plane: 'operator',
    permission: 'view',
    summary: 'Why this host is offered what it is offered, and what happens next.',
    params: { host: hostId },
    ok: hostWhy,
    errors: oneThing,
  },
  hostTimeline: {
    method: 'GET',
    path: '/api/v1/hosts/:host/timeline',
    plane: 'operator',
    permission: 'view',
    summary: 'Everything that happened to this host, newest first.',
    params: { host: hostId },
    query: v.strictObject({ cursor: cursorQuery, limit: limitQuery(500, 100) }),
    ok: page(timelineEntry),
    errors: oneThing,
  },
  hostHold: {
    method: 'PUT',
    path: '/api/v1/hosts/:host/hold',
    plane: 'operator',
    permission: 'operate',
    summary: 'Hold a host: nothing is offered to it.',
    params: { host: hostId },
    body: holdRequest,
    ok: hostDetail,
    errors: change,
  },
  hostUnhold: {
    method: 'DELETE',
    path: '/api/v1/hosts/:host/hold',
    plane: 'operator',
    permission: 'operate',
    summary: 'End the hold of a host.',
    params: { host: hostId },
    ok: hostDetail,
    errors: change,
  },
  hostPin: {
    method: 'PUT',
    path: '/api/v1/hosts/:host/pin',
    plane: 'operator',
    permission: 'operate',
    summary: 'Pin one host; goes before the pin of its group.',
    params: { host: hostId },
    body: pinRequest,
    ok: pinView,
    errors: [...change, 'E_CLASS', 'E_REVOKED'],
  },
  hostUnpin: {
    method: 'DELETE',
    path: '/api/v1/hosts/:host/pin',
    plane: 'operator',
    permission: 'operate',
    summary: 'Remove the pin of one host; it follows its group again.',
    params: { host: hostId },
    ok: null,
    status: 204,
    errors: change,
  },
  hostAction: {
    method: 'POST',
    path: '/api/v1/hosts/:host/actions',
    plane: 'operator',
    permission: 'operate',
    summary: 'retry, rollback, forget, re-enrol, move.',
    params: { host: hostId },
    body: hostActionRequest,
    ok: hostActionResult,
    errors: [...change, 'E_NOT_ALLOWED_NOW'],
  },
  hostLabels: {
    method: 'PUT',
    path: '/api/v1/hosts/:host/labels',
    plane: 'operator',
    permission: 'operate',
    summary: 'Replace the labels of a host.',
    params: { host: hostId },
    body: labelsRequest,
    ok: hostDetail,
    errors: change,
  },
  joinTokenCreate: {
    method: 'POST',
    path: '/api/v1/join-tokens',
    plane: 'operator',
    permission: 'operate',
    summary: 'A one-use token with which one host can enrol.',
    body: joinTokenRequest,
    status: 201,
    ok: joinTokenCreated,
    errors: change,
  },
  joinTokenList: {
    method: 'GET',
    path: '/api/v1/join-tokens',
    plane: 'operator',
    permission: 'view',
    summary: 'Join tokens, without their secrets.',
    ok: page(joinTokenView),
    errors: reading,
  },
  joinTokenRevoke: {
    method: 'DELETE',
    path: '/api/v1/join-tokens/:id',
    plane: 'operator',
    permission: 'operate',
    summary: 'Take a join token back before it is used.',
    params: { id: id('jt') },
    status: 204,
    ok: null,
    errors: change,
  },
} as const satisfies Record<string, Route>;

const groupRoutes = {
  groupList: {
    method: 'GET',
    path: '/api/v1/groups',
    plane: 'operator',
    permission: 'view',
    summary: 'All groups.',
    ok: page(groupView),
    errors: reading,
  },
  groupShow: {
    method: 'GET',
    path: '/api/v1/groups/:group',
    plane: 'operator',
    permission: 'view',
    summary: 'One group. The ETag is its revision.',
    params: { group: groupName },
    ok: groupView,
    errors: oneThing,
  },
  groupPut: {
    method: 'PUT',
    path: '/api/v1/groups/:group',
    plane: 'operator',
    permission: 'operate',
    summary: 'Create or change a group. If-Match, or `revision`, guards against lost changes.',
    params: { group: groupName },
    body: groupRequest,
    ok: groupView,
    errors: change,
  },
  groupDelete: {
    method: 'DELETE',
    path: '/api/v1/groups/:group',
    plane: 'operator',
    permission: 'operate',
    summary: 'Remove a group that has no hosts and no pin.',
    params: { group: groupName },
    status: 204,
    ok: null,
    errors: [...change, 'E_NOT_ALLOWED_NOW'],
  },
  groupPin: {
    method: 'PUT',
    path: '/api/v1/groups/:group/pin',
    plane: 'operator',
    permission: 'operate',
    summary: 'Pin a group to a release. Starts a rollout; it never jumps the fleet.',
    params: { group: groupName },
    body: pinRequest,
    status: 201,
    ok: v.strictObject({ pin: pinView, rollout: v.nullable(rolloutView) }),
    errors: [...change, 'E_CLASS', 'E_REVOKED', 'E_GATE', 'E_BUILDER', 'E_SUBJECT'],
  },
  groupVerdict: {
    method: 'POST',
    path: '/api/v1/groups/:group/verdict',
    plane: 'operator',
    permission: 'publish',
    summary:
      'Ask the policy gates, for a pin that is signed elsewhere: the verdicts that it carries.',
    params: { group: groupName },
    body: v.strictObject({ artifactId, reason }),
    ok: v.strictObject({ verdicts: v.array(envelope) }),
    errors: [...change, 'E_GATE', 'E_BUILDER', 'E_SUBJECT'],
  },
  groupUnpin: {
    method: 'DELETE',
    path: '/api/v1/groups/:group/pin',
    plane: 'operator',
    permission: 'operate',
    summary: 'Remove the pin of a group: its hosts stay where they are, its rollout is aborted.',
    params: { group: groupName },
    status: 204,
    ok: null,
    errors: change,
  },
  halt: {
    method: 'POST',
    path: '/api/v1/halt',
    plane: 'operator',
    permission: 'operate',
    summary:
      'Emergency stop of the fleet or of one group: no offers, no switches. One call, no approval.',
    body: haltRequest,
    ok: haltView,
    errors: change,
  },
  halts: {
    method: 'GET',
    path: '/api/v1/halt',
    plane: 'operator',
    permission: 'view',
    summary: 'Halts in force.',
    ok: page(haltView),
    errors: reading,
  },
  lift: {
    method: 'POST',
    path: '/api/v1/halt/lift',
    plane: 'operator',
    permission: 'operate',
    summary: 'Lift a halt.',
    body: haltRequest,
    status: 204,
    ok: null,
    errors: change,
  },
} as const satisfies Record<string, Route>;

const releaseRoutes = {
  releaseList: {
    method: 'GET',
    path: '/api/v1/releases',
    plane: 'operator',
    permission: 'view',
    summary: 'Releases, newest first.',
    query: v.strictObject({
      class: v.optional(v.string()),
      cursor: cursorQuery,
      limit: limitQuery(500, 100),
    }),
    ok: page(releaseView),
    errors: reading,
  },
  releaseShow: {
    method: 'GET',
    path: '/api/v1/releases/:artifact',
    plane: 'operator',
    permission: 'view',
    summary: 'One release.',
    params: { artifact: artifactId },
    ok: releaseView,
    errors: oneThing,
  },
  releaseImport: {
    method: 'POST',
    path: '/api/v1/releases/import',
    plane: 'operator',
    permission: 'release',
    summary:
      'Upload a bundle (the body is the file). It is verified in full before it is admitted; importing it again is no change.',
    body: 'bytes',
    maxBodyBytes: 64 * KIB * KIB * KIB,
    status: 201,
    ok: releaseView,
    errors: [
      ...change,
      'E_SIGS',
      'E_HASH',
      'E_CHUNK',
      'E_PARSE',
      'E_SIZE',
      'E_LENGTH',
      'E_SPACE',
      'E_REVOKED',
    ],
  },
  releaseReference: {
    method: 'POST',
    path: '/api/v1/releases/reference',
    plane: 'operator',
    permission: 'release',
    summary: 'Admit a bundle that is held elsewhere: manifest, signature, addresses.',
    body: referenceRequest,
    maxBodyBytes: 3 * KIB * KIB,
    status: 201,
    ok: releaseView,
    errors: [...change, 'E_SIGS', 'E_HASH', 'E_PARSE', 'E_REVOKED'],
  },
  releaseAttest: {
    method: 'POST',
    path: '/api/v1/releases/:artifact/attestations',
    plane: 'operator',
    permission: 'publish',
    summary: 'Add signed in-toto statements about a release: tests, scans, approvals.',
    params: { artifact: artifactId },
    body: attestRequest,
    maxBodyBytes: 4 * 1024 * 1024,
    ok: releaseView,
    errors: [...change, 'E_SUBJECT', 'E_BUILDER', 'E_SIGS', 'E_HASHALG'],
  },
  releaseRevoke: {
    method: 'POST',
    path: '/api/v1/releases/:artifact/revoke',
    plane: 'operator',
    permission: 'release',
    summary: 'Never offer this release again; hosts that run it are shown, rollouts of it halt.',
    params: { artifact: artifactId },
    body: v.strictObject({ reason }),
    ok: releaseView,
    errors: change,
  },
  rolloutList: {
    method: 'GET',
    path: '/api/v1/rollouts',
    plane: 'operator',
    permission: 'view',
    summary: 'Rollouts, newest first.',
    query: v.strictObject({
      group: v.optional(groupName),
      state: v.optional(rolloutState),
      cursor: cursorQuery,
      limit: limitQuery(200, 50),
    }),
    ok: page(rolloutView),
    errors: reading,
  },
  rolloutShow: {
    method: 'GET',
    path: '/api/v1/rollouts/:rollout',
    plane: 'operator',
    permission: 'view',
    summary: 'One rollout, with the last 200 decisions of its log, oldest first.',
    params: { rollout: rolloutId },
    ok: v.strictObject({ ...rolloutView.entries, decisions: v.array(decisionView) }),
    errors: oneThing,
  },
  rolloutDecisions: {
    method: 'GET',
    path: '/api/v1/rollouts/:rollout/decisions',
    plane: 'operator',
    permission: 'view',
    summary: 'The decision log, oldest first.',
    params: { rollout: rolloutId },
    query: v.strictObject({ cursor: cursorQuery, limit: limitQuery(1000, 200) }),
    ok: page(decisionView),
    errors: oneThing,
  },
  rolloutPause: {
    method: 'POST',
    path: '/api/v1/rollouts/:rollout/pause',
    plane: 'operator',
    permission: 'operate',
    summary: 'No new offers; attempts that run go on.',
    params: { rollout: rolloutId },
    body: v.strictObject({ reason }),
    ok: rolloutView,
    errors: [...change, 'E_NOT_ALLOWED_NOW'],
  },
  rolloutResume: {
    method: 'POST',
    path: '/api/v1/rollouts/:rollout/resume',
    plane: 'operator',
    permission: 'operate',
    summary:
      'Go on with a paused or halted rollout; failures up to now are accepted and no longer counted.',
    params: { rollout: rolloutId },
    body: v.strictObject({ reason }),
    ok: rolloutView,
    errors: [...change, 'E_NOT_ALLOWED_NOW', 'E_HALTED', 'E_REVOKED'],
  },
  rolloutAbort: {
    method: 'POST',
    path: '/api/v1/rollouts/:rollout/abort',
    plane: 'operator',
    permission: 'operate',
    summary:
      'End it. Offers that were not switched are taken back; with `revert`, hosts return to the previous version.',
    params: { rollout: rolloutId },
    body: v.strictObject({ reason, revert: v.optional(v.boolean(), false) }),
    ok: rolloutView,
    errors: [...change, 'E_NOT_ALLOWED_NOW'],
  },
  rolloutPromote: {
    method: 'POST',
    path: '/api/v1/rollouts/:rollout/promote',
    plane: 'operator',
    permission: 'operate',
    summary: 'Open the next stage now, without waiting for soak or sample.',
    params: { rollout: rolloutId },
    body: v.strictObject({ reason }),
    ok: rolloutView,
    errors: [...change, 'E_NOT_ALLOWED_NOW', 'E_HALTED'],
  },
} as const satisfies Record<string, Route>;

const systemRoutes = {
  events: {
    method: 'GET',
    path: '/api/v1/events',
    plane: 'operator',
    permission: 'view',
    summary: 'Server-sent events: one per audit entry; Last-Event-ID or `after` resumes.',
    query: v.strictObject({ after: v.optional(v.pipe(v.string(), v.regex(/^\d{1,15}$/))) }),
    ok: 'events',
    errors: reading,
  },
  audit: {
    method: 'GET',
    path: '/api/v1/audit',
    plane: 'operator',
    permission: 'view',
    summary: 'The audit log, oldest first, after an id.',
    query: v.strictObject({
      after: v.optional(v.pipe(v.string(), v.regex(/^\d{1,15}$/))),
      subject: v.optional(shortText),
      limit: limitQuery(1000, 100),
    }),
    ok: page(auditEntry),
    errors: reading,
  },
  auditReports: {
    method: 'GET',
    path: '/api/v1/audit/reports',
    plane: 'operator',
    permission: 'view',
    summary: 'The newest signed report of each host, as its envelope: what hosts saw of the log.',
    query: v.strictObject({ cursor: cursorQuery, limit: limitQuery(500, 100) }),
    ok: page(hostReport),
    errors: reading,
  },
  apiTokenCreate: {
    method: 'POST',
    path: '/api/v1/api-tokens',
    plane: 'operator',
    permission: 'admin',
    summary: 'A token for a person or a script; shown once.',
    body: apiTokenRequest,
    status: 201,
    ok: apiTokenCreated,
    errors: change,
  },
  apiTokenList: {
    method: 'GET',
    path: '/api/v1/api-tokens',
    plane: 'operator',
    permission: 'admin',
    summary: 'Api tokens, without their secrets.',
    ok: page(apiTokenView),
    errors: reading,
  },
  apiTokenRevoke: {
    method: 'DELETE',
    path: '/api/v1/api-tokens/:id',
    plane: 'operator',
    permission: 'admin',
    summary: 'Revoke an api token.',
    params: { id: id('at') },
    status: 204,
    ok: null,
    errors: change,
  },
  metrics: {
    method: 'GET',
    path: '/metrics',
    plane: 'operator',
    permission: 'view',
    summary: 'Prometheus metrics.',
    ok: 'text',
    errors: reading,
  },
  healthz: {
    method: 'GET',
    path: '/healthz',
    plane: 'public',
    permission: 'none',
    summary: '200 while control serves and its store can be written.',
    ok: v.strictObject({ ok: v.literal(true), version: v.string() }),
    errors: ['E_UNAVAILABLE'],
  },
  openapi: {
    method: 'GET',
    path: '/openapi.json',
    plane: 'public',
    permission: 'none',
    summary: 'This contract as OpenAPI 3.1.',
    ok: 'text',
    errors: [],
  },
} as const satisfies Record<string, Route>;

const trustRoutes = {
  trustKeys: {
    method: 'GET',
    path: '/api/v1/trust/keys',
    plane: 'operator',
    permission: 'view',
    summary: 'The public halves of the keys that control holds.',
    ok: heldKeys,
    errors: reading,
  },
  trustPublish: {
    method: 'POST',
    path: '/api/v1/trust/proposals',
    plane: 'operator',
    permission: 'publish',
    summary:
      'Publish a change of the trust repository that was signed elsewhere; control adds its own signatures where its keys are still listed.',
    body: proposalDocument,
    maxBodyBytes: PROPOSAL_MAX_BYTES,
    ok: proposalAnswer,
    errors: [
      ...change,
      'E_SIGS',
      'E_HASH',
      'E_EXPIRED',
      'E_PARSE',
      'E_CLASS',
      'E_REVOKED',
      'E_PIN',
    ],
  },
} as const satisfies Record<string, Route>;

export const routes = {
  ...agentRoutes,
  ...hostRoutes,
  ...groupRoutes,
  ...releaseRoutes,
  ...systemRoutes,
  ...trustRoutes,
} as const;
export type Routes = typeof routes;
export type RouteName = keyof Routes;

/** Bodies above this are refused unless the route says otherwise. */
export const DEFAULT_MAX_BODY_BYTES = 256 * KIB;

/** Body of every answer that is not a success. */
export const problemBody = v.strictObject({
  code: v.string(),
  message: v.string(),
  details: v.record(v.string(), v.unknown()),
  requestId: v.string(),
});
export type ProblemBody = v.InferOutput<typeof problemBody>;

type Get<R, K extends string> = R extends { readonly [P in K]: infer T } ? T : undefined;
type Input<S> = S extends Schema ? v.InferInput<S> : undefined;
type Output<S> = S extends Schema ? v.InferOutput<S> : undefined;

export type Params<N extends RouteName> =
  Get<Routes[N], 'params'> extends infer P extends Record<string, Schema>
    ? { readonly [K in keyof P]: string }
    : Routes[N]['path'] extends `${string}*`
      ? { readonly rest: string }
      : undefined;
export type ParsedParams<N extends RouteName> =
  Get<Routes[N], 'params'> extends infer P extends Record<string, Schema>
    ? { readonly [K in keyof P]: v.InferOutput<P[K]> }
    : Routes[N]['path'] extends `${string}*`
      ? { readonly rest: string }
      : undefined;
export type Query<N extends RouteName> = Input<Get<Routes[N], 'query'>>;
export type ParsedQuery<N extends RouteName> = Output<Get<Routes[N], 'query'>>;
export type Body<N extends RouteName> =
  Get<Routes[N], 'body'> extends 'bytes'
    ? AsyncIterable<Uint8Array>
    : Input<Get<Routes[N], 'body'>>;
export type ParsedBody<N extends RouteName> =
  Get<Routes[N], 'body'> extends 'bytes'
    ? AsyncIterable<Uint8Array>
    : Output<Get<Routes[N], 'body'>>;
/** What a caller gets. Raw bodies (`bytes`, `events`) come as chunks, `text` as a string. */
export type Ok<N extends RouteName> = Routes[N]['ok'] extends 'bytes' | 'events'
  ? AsyncIterable<Uint8Array>
  : Routes[N]['ok'] extends 'text'
    ? string
    : Routes[N]['ok'] extends null
      ? undefined
      : Output<Routes[N]['ok']>;

/** A route as the general type, for code that walks over all of them. */
export function routeOf(of: RouteName): Route {
  return routes[of];
}
