/** The health check over HTTP. A redirect is not followed: the service itself must answer. */
import type { HealthCheck } from '#/bundle/manifest.ts';
import type { Dispatcher } from 'undici';
import type { Sight } from './probe-contract.ts';

type HttpCheck = Extract<HealthCheck, { kind: 'http' }>;

/** So much of a body is searched for the expected text. */
const BODY_MAX_BYTES = 256 * 1024;
const HEADER_MAX_BYTES = 16 * 1024;

/** One GET. The signal ends it at any point. */
export async function probeHttp(check: HttpCheck, signal: AbortSignal): Promise<Sight> {
  const undici = await import('undici');
  // A connection of its own: a kept one would measure the past.
  const agent = new undici.Agent({
    pipelining: 0,
    maxHeaderSize: HEADER_MAX_BYTES,
    connect: { timeout: check.timeoutMs },
    headersTimeout: check.timeoutMs,
    bodyTimeout: check.timeoutMs,
  });
  try {
    const answer = await undici.request(check.url, {
      method: 'GET',
      dispatcher: agent,
      signal,
      headers: { 'user-agent': 'switchback-probe', 'accept-encoding': 'identity' },
    });
    return await judge(check, answer);
  } catch (error) {
    return { ok: false, detail: `GET ${check.url}: ${reasonOf(error)}` };
  } finally {
    await agent.destroy();
  }
}

async function judge(check: HttpCheck, answer: Dispatcher.ResponseData): Promise<Sight> {
  const { statusCode } = answer;
  const body = await readStart(answer.body);
  if (statusCode !== check.status) {
    return {
      ok: false,
      detail: `GET ${check.url}: status ${statusCode}, expected ${check.status}: ${body.slice(0, 200)}`,
    };
  }
  if (check.bodyIncludes !== undefined && !body.includes(check.bodyIncludes)) {
    return {
      ok: false,
      detail: `GET ${check.url}: the body does not contain "${check.bodyIncludes}": ${body.slice(0, 200)}`,
    };
  }
  return { ok: true, detail: `GET ${check.url}: status ${statusCode}` };
}

async function readStart(body: AsyncIterable<Buffer>): Promise<string> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of body) {
    parts.push(part);
    size += part.byteLength;
    if (size >= BODY_MAX_BYTES) break;
  }
  return Buffer.concat(parts).toString('utf8', 0, BODY_MAX_BYTES);
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const code = 'code' in error ? String(error.code) : error.name;
  return code === 'ECONNREFUSED' ? 'connection refused' : `${code} ${error.message}`;
}
