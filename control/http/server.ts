/**
 * The HTTP server: mounts the routes of protocol/api.ts. What is true of every request happens here once: id, limits, credential,
 * shape of body and query, and the form of an error.
 */
import { randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import { type Context, Hono } from 'hono';
import {
  type ParsedQuery,
  DEFAULT_MAX_BODY_BYTES,
  type Route,
  routeOf,
  type RouteName,
  routes,
} from '#/protocol/api.ts';
import { Problem } from '#/protocol/errors.ts';
import { authenticate } from '#/control/engine/tokens.ts';
import { pollIntervalSeconds, retryAfterSeconds } from '#/control/core/poll.ts';
import type { Host } from '#/control/core/model.ts';
import type { ApiToken } from '#/control/store/port.ts';
import { recordRefusal, requirePermission, requireScope } from './access.ts';
import { agentHandlers } from './agent-handlers.ts';
import { checked, JSON_BODY_DEADLINE_MS, jsonBody, readBody, uploadOf } from './body.ts';
import { bearerOf } from './credentials.ts';
import type { Handlers, Input, Services } from './handler.ts';
import { groupHandlers, hostHandlers } from './operator-handlers.ts';
import { problemAnswer } from './problem.ts';
import { releaseHandlers } from './release-handlers.ts';
import { systemHandlers } from './system-handlers.ts';
import { configHandlers } from './config-handlers.ts';
import { trustHandlers } from './trust-handlers.ts';

export const handlers: Handlers = {
  ...agentHandlers,
  ...hostHandlers,
  ...groupHandlers,
  ...releaseHandlers,
  ...systemHandlers,
  ...trustHandlers,
  ...configHandlers,
};

/** Refuses to serve a route that does not say who may call it. Called at start. */
export function checkRoutes(all: Readonly<Record<string, Partial<Route>>>): void {
  for (const [name, route] of Object.entries(all)) {
    if (route.plane === undefined || route.permission === undefined)
      throw new Problem(
        'E_CONFIG',
        `route ${name} has no ${route.plane === undefined ? 'plane' : 'permission'}`,
      );
    const isOpen =
      route.permission === 'none' ||
      route.permission === 'signature' ||
      route.permission === 'host';
    if (route.plane === 'operator' && isOpen)
      throw new Problem(
        'E_CONFIG',
        `route ${name} of the operator plane has permission ${route.permission}`,
      );
  }
}

type Env = { Bindings: { incoming?: { socket?: { remoteAddress?: string } } } };

/** The application. `app.fetch` serves it; tests may call it without a socket. */
export function createApp(services: Services): Hono<Env> {
  checkRoutes(routes);
  const app = new Hono<Env>();
  // Longest literal paths first, so that /releases/import is never taken for an artifact.
  const names = (Object.keys(routes) as RouteName[]).sort(
    (a, b) => specificity(b) - specificity(a),
  );
  for (const name of names) {
    const route = routeOf(name);
    app.on(route.method, route.path, (c) => serve(services, name, route, c));
  }
  app.notFound((c) => {
    const message = `${c.req.method} ${c.req.path} is not a route`;
    return problemAnswer(new Problem('E_NOT_FOUND', message), requestId());
  });
  app.onError((error) => {
    services.log.error({ err: error }, 'request failed outside of its handler');
    return problemAnswer(error, requestId());
  });
  return app;
}

function specificity(name: RouteName): number {
  const { path } = routeOf(name);
  return path
    .split('/')
    .reduce((sum, part) => sum * 2 + (part.startsWith(':') || part === '*' ? 0 : 1), 1);
}

const requestId = (): string => randomBytes(8).toString('hex');

async function serve(
  services: Services,
  name: RouteName,
  route: Route,
  c: Context<Env>,
): Promise<Response> {
  const id = requestId();
  const { gauge, log } = services;
  gauge.enter();
  let status = 500;
  try {
    const response = await answer(services, name, route, c, id);
    status = response.status;
    return response;
  } catch (error) {
    const isExpected = error instanceof Problem;
    if (!isExpected)
      log.error({ err: error, requestId: id, route: name }, 'request failed by a bug');
    else if (error.code === 'E_UNAVAILABLE')
      log.warn({ err: error, requestId: id, route: name }, 'request failed');
    else log.debug({ code: error.code, requestId: id, route: name }, error.message);
    if (isExpected) gauge.refused(`route="${name}",code="${error.code}"`);
    const response = problemAnswer(error, id);
    status = response.status;
    return response;
  } finally {
    gauge.leave();
    gauge.count(`route="${name}",status="${status}"`);
  }
}

/** Level 3: hosts are turned away before their credential is looked at; reports and operators never are (F76). */
function shed(services: Services, name: RouteName): void {
  if (services.gauge.level < 3) return;
  if (name !== 'desired' && name !== 'token' && name !== 'enroll') return;
  const { fleet } = services.desk.engine;
  const [group] = fleet.groups.values();
  const interval = group === undefined ? 60 : pollIntervalSeconds(fleet.hosts.size, group.poll);
  throw new Problem('E_UNAVAILABLE', 'control is busy', {
    retryAfterSeconds: retryAfterSeconds(interval, services.unit()),
  });
}

interface Caller {
  readonly operator: ApiToken | null;
  readonly host: Host | null;
  readonly actor: string;
}

function callerOf(services: Services, route: Route, request: Request, nowMs: number): Caller {
  const { permission } = route;
  switch (permission) {
    case 'none':
    case 'signature':
      return { operator: null, host: null, actor: '' };
    case 'host': {
      const { host: id, keyId } = services.bearers.check(bearerOf(request), nowMs);
      const host = services.desk.engine.fleet.hosts.get(id);
      if (host === undefined || !host.keyId.startsWith(keyId))
        throw new Problem('E_UNAUTHENTICATED', `host ${id} is not enrolled here`, {
          retryAfterSeconds: 3600,
        });
      services.hostLimit.use(id, nowMs);
      return { operator: null, host, actor: `host/${id}` };
    }
    case 'view':
    case 'operate':
    case 'release':
    case 'audit':
    case 'publish':
    case 'admin': {
      refuseBrowser(request);
      const operator = authenticate(services.desk, bearerOf(request));
      return { operator, host: null, actor: operator.name };
    }
  }
}

/** E20: a page of another site never speaks for an operator, even if a browser were to add the token. */
function refuseBrowser(request: Request): void {
  const origin = request.headers.get('origin');
  const isForeign = origin !== null && origin !== new URL(request.url).origin;
  const site = request.headers.get('sec-fetch-site');
  if (isForeign || site === 'cross-site')
    throw new Problem('E_FORBIDDEN', `requests from ${origin ?? 'another site'} are refused`);
}

function paramsOf(route: Route, c: Context<Env>): Record<string, unknown> {
  if (route.path.endsWith('*')) {
    const rest = decodeURIComponent(new URL(c.req.url).pathname.slice(route.path.length - 1));
    return { rest };
  }
  return Object.fromEntries(
    Object.entries(route.params ?? {}).map(([key, schema]) => {
      try {
        return [key, checked(key, schema, c.req.param(key))];
      } catch (cause) {
        const message = cause instanceof Error ? cause.message : key;
        throw new Problem('E_USAGE', `path: ${message}`, {}, { cause });
      }
    }),
  );
}

function queryOf(route: Route, c: Context<Env>): unknown {
  if (route.query === undefined) return undefined;
  try {
    return checked('query', route.query, c.req.query());
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : 'query';
    throw new Problem('E_USAGE', message, {}, { cause });
  }
}

async function answer(
  services: Services,
  name: RouteName,
  route: Route,
  c: Context<Env>,
  id: string,
): Promise<Response> {
  const request = c.req.raw;
  const nowMs = services.desk.engine.nowMs();
  shed(services, name);
  const caller = callerOf(services, route, request, nowMs);
  const { operator } = caller;
  const mayOrTrace = async (check: () => Promise<void> | void): Promise<void> => {
    try {
      await check();
    } catch (error) {
      if (operator !== null) await recordRefusal(services, operator, name, error);
      throw error;
    }
  };
  if (operator !== null) await mayOrTrace(() => requirePermission(operator, route.permission));
  const params = paramsOf(route, c);
  const query = queryOf(route, c) as ParsedQuery<RouteName>;
  const maxBytes = route.maxBodyBytes ?? DEFAULT_MAX_BODY_BYTES;
  const hasJson = route.body !== undefined && route.body !== 'bytes';
  const bytes = hasJson
    ? await readBody(request, maxBytes, JSON_BODY_DEADLINE_MS)
    : new Uint8Array();
  const body =
    route.body === 'bytes'
      ? uploadOf(request, maxBytes)
      : hasJson && route.body !== undefined
        ? jsonBody(
            request,
            bytes,
            route.body as Exclude<Route['body'], 'bytes' | undefined>,
            maxBytes,
          )
        : undefined;
  if (operator !== null)
    await mayOrTrace(() => requireScope(services, operator, name, route, { params, body }));
  const input = {
    services,
    request,
    params,
    query,
    body,
    bytes,
    ...caller,
    remote: c.env?.incoming?.socket?.remoteAddress ?? '-',
    nowMs,
  } as unknown as Input<never>;
  const handler = handlers[name] as (given: Input<never>) => unknown;
  const given = (await handler(input)) as Given;
  return toResponse(route, given, id);
}

interface Given {
  readonly ok: unknown;
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
}

function toResponse(route: Route, given: Given, id: string): Response {
  const status = given.status ?? route.status ?? 200;
  const headers: Record<string, string> = { 'x-request-id': id, ...given.headers };
  if (status === 204 || status === 304) return new Response(null, { status, headers });
  if (given.ok instanceof Readable) {
    const body = Readable.toWeb(given.ok) as ReadableStream;
    return new Response(body, { status, headers });
  }
  if (given.ok instanceof Uint8Array || typeof given.ok === 'string')
    return new Response(given.ok as Uint8Array<ArrayBuffer> | string, { status, headers });
  headers['content-type'] ??= 'application/json';
  headers['cache-control'] ??= 'no-store';
  return new Response(JSON.stringify(given.ok), { status, headers });
}
