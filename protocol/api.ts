/**
 * Every route of control, as data. The server mounts these, the typed client calls them, OpenAPI is printed from them.
 * A route without plane or permission keeps the server from starting (control/http/server.ts).
 */
import * as v from 'valibot';
import { agentRoutes } from './routes/agents.ts';
import { configRoutes } from './routes/configs.ts';
import { groupRoutes } from './routes/groups.ts';
import { hostRoutes } from './routes/hosts.ts';
import { releaseRoutes } from './routes/releases.ts';
import { systemRoutes } from './routes/system.ts';
import { trustRoutes } from './routes/trust.ts';
import { KIB, type Permission, type Route, type Schema } from './routes/route.ts';

export type { Permission, Plane, RawBody, Route, Schema } from './routes/route.ts';

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

export const routes = {
  ...agentRoutes,
  ...configRoutes,
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
