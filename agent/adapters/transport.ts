/**
 * HTTP to control over undici: TLS 1.3 with the pinned authority, limits on everything, no redirects, no content encoding
 * (attacks D01-D05, D10). undici is loaded at the first request.
 */
import type { Agent, Dispatcher } from 'undici';
import { problemOfTransport } from '#/agent/install/transport-problem.ts';
import { Problem } from '#/protocol/errors.ts';

export interface TransportOptions {
  readonly caPem: string | null;
  readonly connectTimeoutMs: number;
  readonly headersTimeoutMs: number;
  readonly bodyTimeoutMs: number;
  readonly userAgent: string;
}

export interface TransportRequest {
  readonly method: 'GET' | 'POST';
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array | null;
  /** A larger body of the answer is E_TOOBIG. */
  readonly maxBytes: number;
}

export interface TransportAnswer {
  readonly status: number;
  /** Lower-case names. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
}

export interface Transport {
  /** One exchange. @throws Problem E_NETWORK, E_TIMEOUT, E_TLS, E_HTTP, E_REDIRECT, E_ENCODING, E_TOOBIG, E_LENGTH. */
  exchange(request: TransportRequest, signal?: AbortSignal): Promise<TransportAnswer>;
  close(): Promise<void>;
}

/** An idle connection is kept so long; a poll comes rarely, a report often follows another. */
const KEEP_ALIVE_MS = 10_000;
const HEADERS_MAX_BYTES = 16 * 1024;
/** Of the whole exchange, whatever drips. */
const TOTAL_TIMEOUT_MS = 120_000;

/** A transport with its own connections. */
export function createTransport(options: TransportOptions): Transport {
  let opened: Promise<{ agent: Agent; request: typeof import('undici').request }> | null = null;
  const open = (): NonNullable<typeof opened> => {
    opened ??= import('undici').then((undici) => ({
      agent: new undici.Agent(agentOptions(options)),
      request: undici.request,
    }));
    return opened;
  };
  return {
    async exchange(wanted, signal) {
      const { agent, request } = await open();
      const limit = AbortSignal.timeout(TOTAL_TIMEOUT_MS);
      const both = signal === undefined ? limit : AbortSignal.any([signal, limit]);
      const what = `${wanted.method} ${wanted.url}`;
      try {
        const answer = await request(wanted.url, {
          dispatcher: agent,
          method: wanted.method,
          headers: {
            'user-agent': options.userAgent,
            'accept-encoding': 'identity',
            ...wanted.headers,
          },
          body: wanted.body,
          signal: both,
        });
        return await answerOf(answer, wanted.maxBytes, what);
      } catch (error) {
        if (limit.aborted && signal?.aborted !== true)
          throw new Problem(
            'E_TIMEOUT',
            `${what}: not done after ${TOTAL_TIMEOUT_MS} ms`,
            {},
            { cause: error },
          );
        throw problemOfTransport(error, what, signal ?? limit);
      }
    },
    async close() {
      if (opened !== null) await (await opened).agent.destroy();
      opened = null;
    },
  };
}

function agentOptions(options: TransportOptions): Agent.Options {
  return {
    headersTimeout: options.headersTimeoutMs,
    bodyTimeout: options.bodyTimeoutMs,
    maxHeaderSize: HEADERS_MAX_BYTES,
    keepAliveTimeout: KEEP_ALIVE_MS,
    keepAliveMaxTimeout: KEEP_ALIVE_MS,
    pipelining: 1,
    connections: 2,
    connect: {
      timeout: options.connectTimeoutMs,
      minVersion: 'TLSv1.3',
      ...(options.caPem === null ? {} : { ca: options.caPem }),
    },
  };
}

async function answerOf(
  answer: Dispatcher.ResponseData,
  maxBytes: number,
  what: string,
): Promise<TransportAnswer> {
  const { statusCode: status, body } = answer;
  // A body that is given up is destroyed, and says so by an event that would end the process if nobody listened.
  body.on('error', () => undefined);
  const headers: Record<string, string> = {};
  for (const [header, value] of Object.entries(answer.headers)) {
    if (value !== undefined)
      headers[header.toLowerCase()] = Array.isArray(value) ? value.join(', ') : value;
  }
  try {
    if (status >= 300 && status < 400 && status !== 304)
      throw new Problem(
        'E_REDIRECT',
        `${what}: status ${status} to ${headers['location'] ?? 'nowhere'}`,
        { status },
      );
    const encoding = headers['content-encoding'];
    if (encoding !== undefined && encoding !== 'identity')
      throw new Problem('E_ENCODING', `${what}: content encoding ${encoding}`, { encoding });
    const announced = Number(headers['content-length'] ?? 0);
    if (announced > maxBytes)
      throw new Problem(
        'E_TOOBIG',
        `${what}: ${announced} bytes announced, at most ${maxBytes} are read`,
      );
    return { status, headers, body: await readAtMost(body, maxBytes, what) };
  } catch (error) {
    body.destroy();
    throw error;
  }
}

async function readAtMost(
  body: AsyncIterable<Uint8Array>,
  maxBytes: number,
  what: string,
): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of body) {
    size += part.byteLength;
    if (size > maxBytes)
      throw new Problem('E_TOOBIG', `${what}: more than ${maxBytes} bytes came`, { maxBytes });
    parts.push(part);
  }
  return Buffer.concat(parts, size);
}
