/** Routes that agents call. */
import * as v from 'valibot';
import {
  enrollAnswer,
  enrollRequest,
  reportAnswer,
  rotateAnswer,
  rotateRequest,
  tokenAnswer,
  tokenRequest,
} from '../agent-plane.ts';
import { assignment, envelope } from '../documents.ts';
import { KIB, type Route } from './route.ts';

const agentErrors = ['E_UNAUTHENTICATED', 'E_FORKED', 'E_RATE_LIMITED', 'E_UNAVAILABLE'] as const;

export const agentRoutes = {
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
    summary:
      'A bundle, `<artifactId>.bundle`, or a patch to it, `<artifactId>.from-<artifactId>.patch`, with Range, If-Range and ETag.',
    params: {
      file: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}(?:\.bundle|\.from-[0-9a-f]{64}\.patch)$/)),
    },
    ok: 'bytes',
    errors: ['E_NOT_FOUND', 'E_RANGE'],
  },
} as const satisfies Record<string, Route>;
