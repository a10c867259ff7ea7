/** Typed client over an injected `send`: used by the agent, the CLI and the dashboard. Does no I/O of its own. */
import * as v from 'valibot';
import {
  type Body,
  type Ok,
  type Params,
  problemBody,
  type Query,
  type RouteName,
  routeOf,
} from './api.ts';
import { type ErrorCode, errors, Problem } from './errors.ts';
import { safeParseNewer } from './newer.ts';

export interface WireRequest {
  readonly method: string;
  /** Path with query. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array | AsyncIterable<Uint8Array> | null;
}
export interface WireAnswer {
  readonly status: number;
  /** Lower-case names. */
  readonly headers: Readonly<Record<string, string>>;
  /** The body; `send` bounds how much of it is read. */
  readonly body: AsyncIterable<Uint8Array>;
}
export type Send = (request: WireRequest) => Promise<WireAnswer>;

export interface CallInput<N extends RouteName> {
  readonly params?: Params<N>;
  readonly query?: Query<N>;
  readonly body?: Body<N>;
  readonly headers?: Readonly<Record<string, string>>;
}
export interface CallAnswer<N extends RouteName> {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly ok: Ok<N>;
}

type NeedsParams<N extends RouteName> =
  Params<N> extends undefined ? object : { params: Params<N> };
type NeedsBody<N extends RouteName> = Body<N> extends undefined ? object : { body: Body<N> };
export type Call<N extends RouteName> = CallInput<N> & NeedsParams<N> & NeedsBody<N>;

export interface Client {
  /** The body of the answer. Throws the Problem that control answered with. */
  call<N extends RouteName>(route: N, input: Call<N>): Promise<Ok<N>>;
  /** The same, with status and headers; 304 is given as `ok: null`. */
  exchange<N extends RouteName>(
    route: N,
    input: Call<N>,
  ): Promise<
    CallAnswer<N> | (Omit<CallAnswer<N>, 'ok'> & { readonly ok: null; readonly status: 304 })
  >;
}

/** Answers that are JSON are never larger than this. */
const MAX_JSON_BYTES = 16 * 1024 * 1024;

async function readAll(body: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of body) {
    size += part.length;
    if (size > MAX_JSON_BYTES)
      throw new Problem('E_TOOBIG', `answer is larger than ${MAX_JSON_BYTES} bytes`);
    parts.push(part);
  }
  const all = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Path with its parameters and query filled in, each encoded. */
export function pathOf(
  route: RouteName,
  params: Readonly<Record<string, string>> | undefined,
  query: Readonly<Record<string, unknown>> | undefined,
): string {
  let path = routeOf(route).path.replaceAll(/:([a-z]+)/gi, (_, key: string) =>
    encodeURIComponent(params?.[key] ?? ''),
  );
  if (path.endsWith('*'))
    path =
      path.slice(0, -1) + (params?.['rest'] ?? '').split('/').map(encodeURIComponent).join('/');
  const pairs = Object.entries(query ?? {})
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => `${encodeURIComponent(key)}=${encodeURIComponent(String(value))}`);
  return pairs.length === 0 ? path : `${path}?${pairs.join('&')}`;
}

function parseJson(bytes: Uint8Array, what: string): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)) as unknown;
  } catch (cause) {
    throw new Problem('E_HTTP', `${what}: the body is not JSON`, {}, { cause });
  }
}

async function toProblem(route: RouteName, answer: WireAnswer): Promise<Problem> {
  const { method, path } = routeOf(route);
  const retryAfter = answer.headers['retry-after'];
  const more = {
    status: answer.status,
    ...(retryAfter === undefined ? {} : { retryAfterSeconds: Number(retryAfter) }),
  };
  const bytes = await readAll(answer.body);
  let parsed: unknown = null;
  try {
    parsed = parseJson(bytes, path);
  } catch {
    // A proxy answered, not control: the status below says all there is.
  }
  const body = v.safeParse(problemBody, parsed);
  if (!body.success || !Object.hasOwn(errors, body.output.code))
    return new Problem('E_HTTP', `${method} ${path} answered ${answer.status}`, more);
  const { code, message, requestId } = body.output;
  const details = body.output.details as Problem['details'];
  return new Problem(code as ErrorCode, message, { ...details, ...more, requestId });
}

/** A client of control. `headers` are added to every call (authorization, for example). */
export function createClient(send: Send, headers: Readonly<Record<string, string>> = {}): Client {
  const exchange = async <N extends RouteName>(
    name: N,
    input: CallInput<N>,
  ): Promise<CallAnswer<N> | (Omit<CallAnswer<N>, 'ok'> & { ok: null; status: 304 })> => {
    const route = routeOf(name);
    const isRaw = route.body === 'bytes';
    const hasBody = input.body !== undefined;
    const answer = await send({
      method: route.method,
      path: pathOf(name, input.params, input.query as Record<string, unknown> | undefined),
      headers: {
        ...(hasBody
          ? { 'content-type': isRaw ? 'application/octet-stream' : 'application/json' }
          : {}),
        ...headers,
        ...input.headers,
      },
      body: !hasBody
        ? null
        : isRaw
          ? (input.body as AsyncIterable<Uint8Array>)
          : new TextEncoder().encode(JSON.stringify(input.body)),
    });
    if (answer.status === 304) return { status: 304, headers: answer.headers, ok: null };
    if (answer.status < 200 || answer.status > 299) throw await toProblem(name, answer);
    const common = { status: answer.status, headers: answer.headers };
    if (route.ok === 'bytes' || route.ok === 'events')
      return { ...common, ok: answer.body as Ok<N> };
    const bytes = await readAll(answer.body);
    if (route.ok === null) return { ...common, ok: undefined as Ok<N> };
    if (route.ok === 'text') return { ...common, ok: new TextDecoder().decode(bytes) as Ok<N> };
    const parsed = safeParseNewer(route.ok, parseJson(bytes, route.path));
    if (!parsed.success)
      throw new Problem(
        'E_HTTP',
        `${route.method} ${route.path}: the answer has an unexpected shape: ${parsed.issues[0].message}`,
      );
    return { ...common, ok: parsed.output as Ok<N> };
  };
  return {
    exchange,
    async call(name, input) {
      const answer = await exchange(name, input);
      if (answer.ok === null)
        throw new Problem('E_HTTP', `${name} answered 304 without being asked`);
      return answer.ok;
    },
  };
}
