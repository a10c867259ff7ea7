/** HTTP for the operator's program, as the `Send` of the typed client. undici is loaded when the first request is made. */
import { Readable } from 'node:stream';
import type { Send, WireAnswer, WireRequest } from '#/protocol/client.ts';
import { Problem } from '#/protocol/errors.ts';

const CONNECT_TIMEOUT_MS = 10_000;
const HEADERS_TIMEOUT_MS = 30_000;
/** The longest silence inside an answer; control's keep-alive lines on event streams come well inside it. */
const BODY_TIMEOUT_MS = 60_000;

export interface SendOptions {
  /** Base address, without a slash at the end. */
  readonly url: string;
  readonly signal: AbortSignal;
  /** For requests whose answer takes its time: a large bundle is verified before the answer begins. */
  readonly headersTimeoutMs?: number;
}

/** Throws E_NETWORK, E_TIMEOUT or E_TLS; an answer with any status is an answer. */
export function httpSend(options: SendOptions): Send {
  return async (request) => {
    const { Agent, request: send } = await import('undici');
    const dispatcher = new Agent({ connect: { timeout: CONNECT_TIMEOUT_MS }, pipelining: 1 });
    try {
      const answer = await send(options.url + request.path, {
        dispatcher,
        method: request.method,
        headers: request.headers,
        body: isChunked(request.body) ? Readable.from(request.body) : request.body,
        signal: options.signal,
        headersTimeout: options.headersTimeoutMs ?? HEADERS_TIMEOUT_MS,
        bodyTimeout: BODY_TIMEOUT_MS,
      });
      return {
        status: answer.statusCode,
        headers: joinedHeaders(answer.headers),
        body: closing(answer.body, () => dispatcher.close(), options, request),
      };
    } catch (error) {
      await dispatcher.destroy();
      throw asNetworkProblem(error, options, request);
    }
  };
}

function isChunked(body: WireRequest['body']): body is AsyncIterable<Uint8Array> {
  return body !== null && Symbol.asyncIterator in body;
}

function joinedHeaders(
  headers: Readonly<Record<string, string | string[] | undefined>>,
): Readonly<Record<string, string>> {
  const joined: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined) joined[name] = Array.isArray(value) ? value.join(', ') : value;
  }
  return joined;
}

/** The chunks of a body; its connection is closed with it, or the process would linger. */
async function* closing(
  body: AsyncIterable<Uint8Array>,
  close: () => Promise<void>,
  options: SendOptions,
  request: WireRequest,
): WireAnswer['body'] & AsyncGenerator<Uint8Array, void, undefined> {
  try {
    yield* body;
  } catch (error) {
    throw asNetworkProblem(error, options, request);
  } finally {
    await close();
  }
}

function asNetworkProblem(error: unknown, options: SendOptions, request: WireRequest): unknown {
  if (error instanceof Problem || options.signal.aborted) return error;
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  const what = `${request.method} ${options.url}${request.path}`;
  if (code.includes('TIMEOUT') || code === 'ETIMEDOUT') {
    return new Problem('E_TIMEOUT', `${what}: no answer in time`, {}, { cause: error });
  }
  if (/CERT|TLS|SSL|SELF_SIGNED/.test(code)) {
    return new Problem('E_TLS', `${what}: certificate refused`, {}, { cause: error });
  }
  return new Problem('E_NETWORK', `${what}: no connection`, {}, { cause: error });
}
