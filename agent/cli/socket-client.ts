/** Asks the running agent over its socket. */
import { createRequire } from 'node:module';
import type * as Http from 'node:http';
import { errors, Problem, type ErrorCode, type JsonObject } from '#/protocol/errors.ts';
import type { LocalLine, LocalRequest } from '#/agent/local.ts';
import type { StatusView } from '#/agent/local-view.ts';

const http = createRequire(import.meta.url)('node:http') as typeof Http;

/** One line of an answer may be this long. */
const LINE_MAX = 4 * 1024 * 1024;

/**
 * Sends one request and gives back its result.
 * @throws the Problem that the agent answered with; E_UNAVAILABLE when no agent listens, `details.offline` is true then.
 */
export async function askAgent<T>(
  socket: string,
  request: LocalRequest,
  onProgress: (view: StatusView) => void = () => undefined,
  signal: AbortSignal | null = null,
): Promise<T> {
  const answer = await send(socket, JSON.stringify(request), signal);
  let rest = '';
  let result: { readonly value: T } | null = null;
  const take = (text: string): void => {
    if (text === '') return;
    const line = JSON.parse(text) as LocalLine;
    if ('progress' in line) onProgress(line.progress);
    else if ('problem' in line) throw problemOf(line.problem);
    else result = { value: line.result as T };
  };
  for await (const piece of answer as AsyncIterable<Buffer>) {
    const lines = (rest + piece.toString('utf8')).split('\n');
    rest = lines.pop() ?? '';
    if (rest.length > LINE_MAX) throw new Problem('E_TOOBIG', `line over ${LINE_MAX} characters`);
    for (const line of lines) take(line);
  }
  take(rest);
  const done = result as { readonly value: T } | null;
  if (done === null) throw new Problem('E_UNAVAILABLE', 'the agent ended before it had answered');
  return done.value;
}

function problemOf(problem: {
  readonly code: string;
  readonly message: string;
  readonly details: JsonObject;
}): Problem {
  const code = Object.hasOwn(errors, problem.code) ? (problem.code as ErrorCode) : 'E_HTTP';
  return new Problem(code, problem.message, problem.details);
}

function send(
  socket: string,
  body: string,
  signal: AbortSignal | null,
): Promise<Http.IncomingMessage> {
  return new Promise((resolve, reject) => {
    const options = { socketPath: socket, method: 'POST', path: '/v1' };
    const request = http.request(signal === null ? options : { ...options, signal }, resolve);
    request.once('error', (cause: NodeJS.ErrnoException) => {
      const isOffline = cause.code === 'ENOENT' || cause.code === 'ECONNREFUSED';
      const text = isOffline
        ? `no agent runs (${socket})`
        : `ask the agent at ${socket}: ${cause.code}`;
      reject(
        new Problem(
          cause.code === 'EACCES' ? 'E_FORBIDDEN' : 'E_UNAVAILABLE',
          text,
          { offline: isOffline },
          { cause },
        ),
      );
    });
    request.end(body);
  });
}
