/**
 * The agent's API on a Unix socket, for the commands of the operator of the host. One request, one answer: lines of JSON, of
 * which all but the last are progress. Spec: docs/specs/local-api.md.
 */
import { chmodSync, lstatSync, mkdirSync, unlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import type * as Http from 'node:http';
import * as v from 'valibot';
import { versionId } from '#/protocol/ids.ts';
import { isProblem, Problem, type JsonObject } from '#/protocol/errors.ts';
import type { Command } from '#/agent/core/event.ts';
import type { JournalEntry } from '#/agent/ports.ts';
import type { Logger } from './adapters/logging.ts';
import type { StatusView } from './local-view.ts';

/** How an attempt ended, for the one who waits for it. */
export interface AttemptEnd {
  readonly artifactId: string | null;
  readonly phase: string;
  readonly code: string | null;
  readonly message: string;
}

/** What the daemon answers with. Implemented over the runner (agent/local-agent.ts). */
export interface LocalAgent {
  status(): Promise<StatusView>;
  /** Hands an order to the machine; throws the Problem why it is not possible now. */
  order(command: Command): Promise<void>;
  /** Waits for the end of the attempt that the order began, telling each change on the way. */
  follow(onChange: (view: StatusView) => void, signal: AbortSignal): Promise<AttemptEnd>;
  explain(): Promise<readonly string[]>;
  history(count: number): Promise<readonly JournalEntry[]>;
  metricsText(): string;
  /** Trades the keys of the host for new ones now. @throws Problem E_UNAVAILABLE without control; those of the line to it */
  rotateKeys(): Promise<HostKeys>;
}

/** Who the host is from now on. */
export interface HostKeys {
  readonly host: string;
  readonly keyId: string;
  /** What secrets are sealed to, 64 hex digits. */
  readonly sealKey: string;
}

export const localRequest = v.variant('ask', [
  v.strictObject({ ask: v.literal('status') }),
  v.strictObject({ ask: v.literal('explain') }),
  v.strictObject({ ask: v.literal('metrics') }),
  v.strictObject({ ask: v.literal('rotate-keys') }),
  v.strictObject({
    ask: v.literal('history'),
    count: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(1000)),
  }),
  v.strictObject({
    ask: v.literal('order'),
    /** Answer when the attempt has ended, with progress on the way. */
    wait: v.boolean(),
    command: v.variant('kind', [
      v.strictObject({ kind: v.picklist(['check', 'pause', 'resume', 'rollback', 'clear']) }),
      v.strictObject({
        kind: v.literal('install-file'),
        path: v.pipe(v.string(), v.startsWith('/'), v.maxLength(4096)),
      }),
      v.strictObject({ kind: v.literal('retry'), artifactId: versionId }),
    ]),
  }),
]);
export type LocalRequest = v.InferOutput<typeof localRequest>;

/** One line of an answer. */
export type LocalLine =
  | { readonly progress: StatusView }
  | { readonly result: unknown }
  | {
      readonly problem: {
        readonly code: string;
        readonly message: string;
        readonly details: JsonObject;
      };
    };

export interface LocalServer {
  close(): Promise<void>;
}

const BODY_MAX_BYTES = 16 * 1024;
const CONNECTIONS_MAX = 16;
const REQUEST_TIMEOUT_MS = 10_000;
/** Progress is told at most so often. */
const PROGRESS_EVERY_MS = 100;

/** As CommonJS: an ES import of node:http costs 19 MB of memory. */
const http = createRequire(import.meta.url)('node:http') as typeof Http;

/** Listens on `socket` (0600, in a directory 0700). A socket that a dead agent left is taken over; a living one is E_BUSY. */
export async function serveLocal(options: {
  readonly socket: string;
  readonly agent: LocalAgent;
  readonly log: Logger;
}): Promise<LocalServer> {
  const { socket, agent, log } = options;
  await takeOver(socket);
  const server = http.createServer((request, response) => {
    answer(agent, request, response).catch((error: unknown) => {
      log.error({ event: 'local-request-failed', err: error }, 'answer on the local socket');
      response.destroy();
    });
  });
  server.maxConnections = CONNECTIONS_MAX;
  server.requestTimeout = REQUEST_TIMEOUT_MS;
  server.headersTimeout = REQUEST_TIMEOUT_MS;
  server.keepAliveTimeout = 1;
  await listen(server, socket);
  return {
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function takeOver(socket: string): Promise<void> {
  mkdirSync(dirname(socket), { recursive: true, mode: 0o700 });
  const found = lstatSync(socket, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket()) throw new Problem('E_CONFIG', `local.socket: ${socket} is something else`);
  if (await isAnswered(socket)) throw new Problem('E_BUSY', `an agent answers on ${socket}`);
  unlinkSync(socket);
}

function isAnswered(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(socket);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', () => resolve(false));
  });
}

function listen(server: Http.Server, socket: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    // Nobody else may connect in the moment between bind and chmod.
    const mask = process.umask(0o177);
    server.listen(socket, () => {
      chmodSync(socket, 0o600);
      server.removeListener('error', reject);
      resolve();
    });
    process.umask(mask);
  });
}

async function answer(
  agent: LocalAgent,
  request: Http.IncomingMessage,
  response: Http.ServerResponse,
): Promise<void> {
  const gone = new AbortController();
  response.once('close', () => gone.abort());
  const write = (line: LocalLine): void => {
    if (!response.destroyed) response.write(`${JSON.stringify(line)}\n`);
  };
  response.setHeader('content-type', 'application/x-ndjson');
  try {
    const wanted = await readRequest(request);
    write({ result: await perform(agent, wanted, write, gone.signal) });
  } catch (error) {
    if (gone.signal.aborted) return;
    if (!isProblem(error)) throw error;
    const { code, message, details } = error;
    write({ problem: { code, message, details } });
  } finally {
    // An order that was refused is followed no longer.
    gone.abort();
  }
  response.end();
}

async function readRequest(request: Http.IncomingMessage): Promise<LocalRequest> {
  if (request.method !== 'POST' || request.url !== '/v1')
    throw new Problem('E_NOT_FOUND', `${request.method} ${request.url}: only POST /v1 is answered`);
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of request as AsyncIterable<Buffer>) {
    size += part.byteLength;
    if (size > BODY_MAX_BYTES)
      throw new Problem('E_TOOBIG', `request over ${BODY_MAX_BYTES} bytes`);
    parts.push(part);
  }
  let json: unknown = null;
  try {
    json = JSON.parse(Buffer.concat(parts).toString('utf8'));
  } catch (cause) {
    throw new Problem('E_PARSE', 'the request is not JSON', {}, { cause });
  }
  const parsed = v.safeParse(localRequest, json);
  if (parsed.success) return parsed.output;
  throw new Problem('E_SCHEMA', `request: ${parsed.issues[0].message}`);
}

async function perform(
  agent: LocalAgent,
  wanted: LocalRequest,
  write: (line: LocalLine) => void,
  signal: AbortSignal,
): Promise<unknown> {
  switch (wanted.ask) {
    case 'status':
      return await agent.status();
    case 'explain':
      return await agent.explain();
    case 'metrics':
      return agent.metricsText();
    case 'rotate-keys':
      return await agent.rotateKeys();
    case 'history':
      return await agent.history(wanted.count);
    case 'order': {
      if (!wanted.wait) {
        await agent.order(wanted.command);
        return null;
      }
      let toldMs = Number.NEGATIVE_INFINITY;
      let told = '';
      // Followed first, so that an attempt that ends at once is not missed.
      const end = agent.follow((view) => {
        const key = `${view.state}/${view.step}`;
        if (key === told && performance.now() - toldMs < PROGRESS_EVERY_MS) return;
        [told, toldMs] = [key, performance.now()];
        write({ progress: view });
      }, signal);
      end.catch(() => undefined);
      await agent.order(wanted.command);
      return await end;
    }
  }
}

/** Serves the metrics where the settings say so; null for nowhere. */
export async function serveMetrics(
  where: string,
  text: () => string,
): Promise<(LocalServer & { readonly port: number | null }) | null> {
  if (where === '') return null;
  const server = http.createServer((request, response) => {
    if (request.method !== 'GET' || request.url !== '/metrics') {
      response.statusCode = 404;
      response.end();
      return;
    }
    response.setHeader('content-type', 'text/plain; version=0.0.4; charset=utf-8');
    response.end(text());
  });
  server.maxConnections = CONNECTIONS_MAX;
  server.requestTimeout = REQUEST_TIMEOUT_MS;
  if (where.startsWith('unix:')) {
    const socket = where.slice('unix:'.length);
    await takeOver(socket);
    await listen(server, socket);
  } else {
    const at = where.lastIndexOf(':');
    const host = where.slice(0, at).replaceAll(/[[\]]/g, '');
    await new Promise<void>((resolve, reject) => {
      server.once('error', (cause) =>
        reject(new Problem('E_CONFIG', `metrics.listen: ${where}`, {}, { cause })),
      );
      server.listen(Number(where.slice(at + 1)), host, resolve);
    });
  }
  const address = server.address();
  return {
    port: address === null || typeof address === 'string' ? null : address.port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
