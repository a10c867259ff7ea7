/**
 * Metadata and targets over HTTP, as plain as can be: GET, no redirects, no content encoding, hard limits on bytes and time
 * (attacks D01-D04, D08). Integrity never depends on it; TLS and the pinned authority keep the traffic private.
 */
import type { Agent } from 'undici';
import { problemOfTransport } from '#/agent/install/transport-problem.ts';
import type { TrustFetch } from '#/bundle/trust/client.ts';
import { Problem } from '#/protocol/errors.ts';

export interface TrustFetchOptions {
  /** `metadata/…` and `targets/…` are below it. */
  readonly url: string;
  /** Where they are elsewhere than there. */
  readonly metadataUrl?: string;
  readonly targetsUrl?: string;
  /** PEM of the only authorities whose certificates are accepted. */
  readonly ca?: string;
  readonly limits?: Partial<Record<keyof typeof trustFetchLimits, number>>;
}

export const trustFetchLimits = {
  connectTimeoutMs: 10_000,
  headersTimeoutMs: 10_000,
  /** Longest silence between two pieces of a body. */
  idleTimeoutMs: 10_000,
  totalTimeoutMs: 60_000,
  headersMaxBytes: 16 * 1024,
} as const;

/** What is read of the page that comes with a 404, so that the connection can be used again. */
const DUMP_MAX_BYTES = 64 * 1024;

/** A fetcher and its end. undici is loaded at the first request. */
export function createTrustFetch(
  options: TrustFetchOptions,
): TrustFetch & { close(): Promise<void> } {
  const limits = { ...trustFetchLimits, ...options.limits };
  const metadataUrl = withSlash(options.metadataUrl ?? `${withSlash(options.url)}metadata/`);
  const targetsUrl = withSlash(options.targetsUrl ?? `${withSlash(options.url)}targets/`);
  let agent: Promise<Agent> | null = null;
  const open = (): Promise<Agent> => {
    agent ??= import('undici').then(
      (undici) =>
        new undici.Agent({
          headersTimeout: limits.headersTimeoutMs,
          bodyTimeout: limits.idleTimeoutMs,
          maxHeaderSize: limits.headersMaxBytes,
          pipelining: 1,
          connections: 2,
          connect: {
            timeout: limits.connectTimeoutMs,
            minVersion: 'TLSv1.3',
            ...(options.ca === undefined ? {} : { ca: options.ca }),
          },
        }),
    );
    return agent;
  };
  const get = async (url: string, maxBytes: number): Promise<Uint8Array | null> =>
    getBytes(await open(), url, maxBytes, limits.totalTimeoutMs);
  return {
    metadata: (name, maxBytes) => get(`${metadataUrl}${name}`, maxBytes),
    target: (name, maxBytes) =>
      get(`${targetsUrl}${name.split('/').map(encodeURIComponent).join('/')}`, maxBytes),
    log: (path, maxBytes) => get(`${withSlash(options.url)}log/${path}`, maxBytes),
    close: async () => {
      if (agent !== null) await (await agent).destroy();
    },
  };
}

async function getBytes(
  agent: Agent,
  url: string,
  maxBytes: number,
  totalTimeoutMs: number,
): Promise<Uint8Array | null> {
  const target = new URL(url);
  const timeout = new Problem('E_TIMEOUT', `${url}: no whole answer in ${totalTimeoutMs} ms`, {
    url,
  });
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(timeout), totalTimeoutMs);
  try {
    const answer = await agent.request({
      origin: target.origin,
      path: `${target.pathname}${target.search}`,
      method: 'GET',
      headers: { accept: '*/*', 'accept-encoding': 'identity' },
      signal: controller.signal,
    });
    const { body, headers, statusCode } = answer;
    // A body that is given up is destroyed, and says so by an event that would end the process if nobody listened.
    body.on('error', () => undefined);
    try {
      if (statusCode === 404 || statusCode === 403) {
        await body.dump({ limit: DUMP_MAX_BYTES, signal: controller.signal });
        return null;
      }
      checkAnswer(url, statusCode, headers);
      return await readBody(url, body, headers['content-length'], maxBytes);
    } finally {
      body.destroy();
    }
  } catch (error) {
    throw problemOfTransport(error, url, controller.signal);
  } finally {
    clearTimeout(timer);
  }
}

function checkAnswer(
  url: string,
  status: number,
  headers: Readonly<Record<string, string | string[] | undefined>>,
): void {
  if (status >= 300 && status < 400) {
    throw new Problem('E_REDIRECT', `${url} redirects to ${String(headers['location'])}`, {
      status,
    });
  }
  if (status !== 200) throw new Problem('E_HTTP', `${url} answered ${status}`, { status });
  const encoding = headers['content-encoding'];
  if (encoding !== undefined && encoding !== 'identity') {
    throw new Problem('E_ENCODING', `${url} answered in encoding ${String(encoding)}`);
  }
}

async function readBody(
  url: string,
  body: AsyncIterable<Uint8Array>,
  announced: string | string[] | undefined,
  maxBytes: number,
): Promise<Uint8Array> {
  const tooBig = (sizeBytes: number): Problem =>
    new Problem('E_TOOBIG', `${url}: ${sizeBytes} bytes or more, at most ${maxBytes}`, {
      sizeBytes,
      maxBytes,
    });
  const length = Number(announced ?? 0);
  if (length > maxBytes) throw tooBig(length);
  const pieces: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const piece of body) {
    sizeBytes += piece.length;
    if (sizeBytes > maxBytes) throw tooBig(sizeBytes);
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}

function withSlash(url: string): string {
  return url.endsWith('/') ? url : `${url}/`;
}
