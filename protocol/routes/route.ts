/** What a route is, and the words that the tables of this folder share. */
import * as v from 'valibot';
import type { ErrorCode } from '../errors.ts';

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

/** A page of a longer list. */
export const page = <T extends Schema>(item: T) =>
  v.strictObject({ items: v.array(item), nextCursor: v.nullable(v.string()) });
export const KIB = 1024;

export const reading = ['E_UNAUTHENTICATED', 'E_FORBIDDEN', 'E_USAGE'] as const;
export const oneThing = [...reading, 'E_NOT_FOUND'] as const;
export const change = [...oneThing, 'E_SCHEMA', 'E_TOOBIG', 'E_CONFLICT', 'E_UNAVAILABLE'] as const;
