/**
 * The contract as OpenAPI 3.1, printed from the routes. `openapi.json` beside this is its checked-in output
 * (`node packaging/docs/openapi.ts`); control serves that file, so the schema converter is needed only to make it.
 */
import type * as v from 'valibot';
import { type Route, routes, problemBody, DEFAULT_MAX_BODY_BYTES } from './api.ts';
import { errors } from './errors.ts';

type Json = Record<string, unknown>;

/** Converts a valibot schema to JSON Schema. */
export type ToJsonSchema = (schema: v.GenericSchema) => Json;

const RAW_TYPES = {
  bytes: 'application/octet-stream',
  events: 'text/event-stream',
  text: 'text/plain',
} as const;

function parametersOf(route: Route, schemaOf: ToJsonSchema): Json[] {
  const path = [...route.path.matchAll(/:([a-z]+)/gi)].map(([, name = '']) => ({
    name,
    in: 'path',
    required: true,
    schema: paramSchema(route, name, schemaOf),
  }));
  const rest = route.path.endsWith('*')
    ? [{ name: 'rest', in: 'path', required: true, schema: { type: 'string' } }]
    : [];
  const entries = (route.query as { entries?: Record<string, v.GenericSchema> } | undefined)
    ?.entries;
  const query = Object.entries(entries ?? {}).map(([name, schema]) => ({
    name,
    in: 'query',
    required: false,
    schema: schemaOf(schema),
  }));
  return [...path, ...rest, ...query];
}

function paramSchema(route: Route, name: string, schemaOf: ToJsonSchema): Json {
  const schema = route.params?.[name];
  return schema === undefined ? { type: 'string' } : schemaOf(schema);
}

function answerOf(route: Route, schemaOf: ToJsonSchema): Json {
  if (route.ok === null) return { description: 'Done.' };
  const content =
    typeof route.ok === 'string'
      ? { [RAW_TYPES[route.ok]]: {} }
      : { 'application/json': { schema: schemaOf(route.ok) } };
  return { description: 'Success.', content };
}

function operationOf(name: string, route: Route, schemaOf: ToJsonSchema): Json {
  const parameters = parametersOf(route, schemaOf);
  const body =
    route.body === undefined
      ? {}
      : {
          requestBody: {
            required: true,
            description: `At most ${route.maxBodyBytes ?? DEFAULT_MAX_BODY_BYTES} bytes.`,
            content:
              route.body === 'bytes'
                ? { 'application/octet-stream': {} }
                : { 'application/json': { schema: schemaOf(route.body) } },
          },
        };
  const failures = new Map<number, string[]>();
  for (const code of route.errors) {
    const status = errors[code].http;
    failures.set(status, [...(failures.get(status) ?? []), code]);
  }
  return {
    operationId: name,
    summary: route.summary,
    'x-plane': route.plane,
    'x-permission': route.permission,
    security:
      route.permission === 'none'
        ? []
        : [{ [route.permission === 'signature' ? 'signature' : 'bearer']: [] }],
    ...(parameters.length === 0 ? {} : { parameters }),
    ...body,
    responses: {
      [String(route.status ?? 200)]: answerOf(route, schemaOf),
      ...Object.fromEntries(
        [...failures]
          .sort(([a], [b]) => a - b)
          .map(([status, codes]) => [
            String(status),
            {
              description: codes.join(', '),
              content: { 'application/json': { schema: { $ref: '#/components/schemas/Problem' } } },
            },
          ]),
      ),
    },
  };
}

/** The whole document, in the order of the routes. */
export function openApi(schemaOf: ToJsonSchema): Json {
  const paths: Record<string, Json> = {};
  for (const [name, route] of Object.entries(routes) as [string, Route][]) {
    const path = route.path.replaceAll(/:([a-z]+)/gi, '{$1}').replace(/\*$/, '{rest}');
    paths[path] = {
      ...paths[path],
      [route.method.toLowerCase()]: operationOf(name, route, schemaOf),
    };
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Switchback control',
      version: '1',
      description:
        'Agent plane under /agent/v1, operator plane under /api/v1. Spec: docs/specs/protocol.md.',
    },
    paths,
    components: {
      schemas: { Problem: schemaOf(problemBody) },
      securitySchemes: {
        bearer: { type: 'http', scheme: 'bearer' },
        signature: {
          type: 'apiKey',
          in: 'header',
          name: 'Signature',
          description: 'HTTP message signature (RFC 9421) by the key of the host.',
        },
      },
    },
  };
}
