/** Groups, pins and the stop for all. */
import * as v from 'valibot';
import { envelope } from '../documents.ts';
import { groupRequest, groupView, haltView } from '../group.ts';
import { artifactId, configId, groupName } from '../ids.ts';
import { haltRequest } from '../operator-plane.ts';
import { pinRequest, pinView } from '../pin.ts';
import { rolloutView } from '../rollout.ts';
import { reason } from '../scalars.ts';
import { page, reading, oneThing, change, type Route } from './route.ts';

export const groupRoutes = {
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
    body: v.strictObject({ artifactId, configId: v.optional(configId), reason }),
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
