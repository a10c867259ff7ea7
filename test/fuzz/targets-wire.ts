/** What control and agents read of each other over HTTP: bodies, queries and answers of every route, and what is signed inside them. */
import { checked, jsonBody } from '#/control/http/body.ts';
import { localRequest } from '#/agent/local.ts';
import { parseStrictJson } from '#/bundle/strict-json.ts';
import { hostStatement, keyChange, signedTime } from '#/protocol/agent-plane.ts';
import { problemBody, type Route, type RouteName, routeOf, routes } from '#/protocol/api.ts';
import { createClient } from '#/protocol/client.ts';
import { isProblem, type JsonValue, Problem } from '#/protocol/errors.ts';
import { reportDocument } from '#/protocol/documents.ts';
import type { GenericSchema } from 'valibot';
import type { FuzzTarget } from './run.ts';
import { samplesOf } from './sample.ts';

type Seeds = readonly Uint8Array[];
type JsonRoute = Route & { readonly body: GenericSchema };

/** As control has it. */
const REPORT_MAX_BYTES = 1024 * 1024;
const names = Object.keys(routes) as RouteName[];
const hasJson = (route: Route): route is JsonRoute =>
  route.body !== undefined && route.body !== 'bytes';

/** For each route with a JSON body, bodies that it takes. */
export function requestSamples(): Readonly<Record<string, readonly JsonValue[]>> {
  return Object.fromEntries(
    names.flatMap((name) => {
      const route: Route = routeOf(name);
      return hasJson(route) ? [[name, samplesOf(route.body)]] : [];
    }),
  );
}

/** A first line that names the route (or another word), then the bytes. */
const named = (word: string, value: JsonValue | string): Uint8Array =>
  Buffer.from(`${word}\n${typeof value === 'string' ? value : JSON.stringify(value)}`);
function split(bytes: Uint8Array): { readonly word: string; readonly rest: Uint8Array } {
  const end = bytes.indexOf(0x0a);
  if (end < 0) throw new Problem('E_PARSE', 'no first line');
  return { word: Buffer.from(bytes.subarray(0, end)).toString(), rest: bytes.subarray(end + 1) };
}
function routeNamed(word: string): { readonly name: RouteName; readonly route: Route } {
  if (!Object.hasOwn(routes, word)) throw new Problem('E_NOT_FOUND', 'no such route');
  return { name: word as RouteName, route: routeOf(word as RouteName) };
}

/** The targets of this file. */
export function wireBodyTargets(): readonly FuzzTarget[] {
  return [...requestTargets(), ...answerTargets(), ...payloadTargets()];
}

function requestTargets(): readonly FuzzTarget[] {
  const request = new Request('http://127.0.0.1/', {
    headers: { 'content-type': 'application/json' },
  });
  const samples = requestSamples();
  const seedsOf = (plane: Route['plane']): Seeds =>
    Object.entries(samples).flatMap(([name, values]) =>
      routeOf(name as RouteName).plane === plane ? values.map((value) => named(name, value)) : [],
    );
  const parse = (bytes: Uint8Array): unknown => {
    const { word, rest } = split(bytes);
    const { route } = routeNamed(word);
    if (!hasJson(route)) throw new Problem('E_NOT_FOUND', 'no body');
    return jsonBody(request, rest, route.body, route.maxBodyBytes ?? 256 * 1024);
  };
  const queries = names.flatMap((name) => {
    const { query }: Route = routeOf(name);
    return query === undefined
      ? []
      : samplesOf(query).map((value) =>
          named(name, new URLSearchParams(value as Record<string, string>).toString()),
        );
  });
  return [
    { name: 'body-of-agents', seeds: seedsOf('agent'), parse },
    { name: 'body-of-operators', seeds: seedsOf('operator'), parse },
    {
      name: 'query',
      seeds: queries,
      parse(bytes) {
        const { word, rest } = split(bytes);
        const { query } = routeNamed(word).route;
        if (query === undefined) throw new Problem('E_NOT_FOUND', 'no query');
        const text = new URLSearchParams(Buffer.from(rest).toString());
        return checked('query', query, Object.fromEntries(text));
      },
    },
    {
      name: 'local-request',
      seeds: samplesOf(localRequest).map((value) => Buffer.from(JSON.stringify(value))),
      parse: (bytes) =>
        checked('request', localRequest, parseStrictJson(bytes, { maxBytes: 64 * 1024 })),
    },
  ];
}

/** Answers of control, read by the client of agents and operators: `route status`, then the body. */
function answerTargets(): readonly FuzzTarget[] {
  const seedsOf = (plane: Route['plane']): Seeds =>
    names.flatMap((name) => {
      const { ok, plane: of }: Route = routeOf(name);
      if (of !== plane || ok === null || typeof ok === 'string') return [];
      return samplesOf(ok).map((value) => named(`${name} 200`, value));
    });
  const parse = async (bytes: Uint8Array): Promise<unknown> => {
    const { word, rest } = split(bytes);
    const [name = '', status = ''] = word.split(' ');
    const client = createClient(async () => ({
      status: Number(status) || 0,
      headers: { 'retry-after': status },
      body: (async function* () {
        yield rest;
      })(),
    }));
    return await client.exchange(routeNamed(name).name, {} as never);
  };
  return [
    { name: 'answer-to-agents', seeds: seedsOf('agent'), parse },
    { name: 'answer-to-operators', seeds: seedsOf('operator'), parse },
    {
      // An answer that says what failed is thrown as that Problem: here it is the value.
      name: 'answer-of-failure',
      seeds: samplesOf(problemBody).map((value) => named('desired 503', value)),
      parse: (bytes) =>
        parse(bytes).catch((error: unknown) =>
          isProblem(error) ? error.code : Promise.reject(error as Error),
        ),
    },
  ];
}

/** What a key signed, beneath the envelope. */
function payloadTargets(): readonly FuzzTarget[] {
  const shaped = (name: string, schema: GenericSchema, maxBytes: number): FuzzTarget => ({
    name,
    seeds: samplesOf(schema).map((value) => Buffer.from(JSON.stringify(value))),
    parse: (bytes) => checked(name, schema, parseStrictJson(bytes, { maxBytes })),
  });
  return [
    shaped('report', reportDocument, REPORT_MAX_BYTES),
    shaped('key-change', keyChange, 4096),
    shaped('signed-time', signedTime, 4096),
    shaped('host-statement', hostStatement, 16 * 1024),
  ];
}
