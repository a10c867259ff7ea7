/** A small control for tests of the agent's line: real sockets, real signatures, and whatever answer a test wants. */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer, type Server as TlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { verify } from '#/bundle/ed25519.ts';
import { bytesOfHex, hexOf, publicKeyOf, type Signer, signerOf } from '#/bundle/keys.ts';
import { signEnvelope } from '#/bundle/dsse.ts';
import { HOST_STATEMENT_PAYLOAD_TYPE } from '#/protocol/agent-plane.ts';
import type { Envelope } from '#/protocol/documents.ts';
import { isProblem } from '#/protocol/errors.ts';
import { readSignedRequest } from '#/protocol/http-signature.ts';

export interface Seen {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  /** The key whose signature verified; null for an unsigned request. */
  readonly signedBy: string | null;
}
type Answer = {
  readonly status: number;
  readonly headers?: Record<string, string>;
  readonly body?: unknown;
};
export type Handler = (seen: Seen, response: ServerResponse) => Answer | null;

export interface ControlStub {
  readonly url: string;
  readonly seen: Seen[];
  /** Answers by `METHOD path`; the one for enrolment and the one for tokens are there. `*` is asked for all others. */
  readonly handlers: Map<string, Handler>;
  /** A statement for the keys of the last enrolment. */
  statement(host: string, group: string, seq?: number): Envelope;
  /** Another certificate from the next connection on; only with TLS. */
  useCertificate(tls: { cert: string; key: string }): void;
  close(): Promise<void>;
}

export const ROOT_TEXT = '{"signed":{"_type":"root"},"signatures":[]}';
export const ROOT_SHA256 = createHash('sha256').update(ROOT_TEXT).digest('hex');
export const enrolmentKey: Signer = signerOf(new Uint8Array(32).fill(9));

/** Starts it on a port of the system's choice. */
export async function startControlStub(tls?: {
  cert: string;
  key: string;
  maxVersion?: 'TLSv1.2';
}): Promise<ControlStub> {
  const seen: Seen[] = [];
  const handlers = new Map<string, Handler>();
  const keys = new Map<string, Uint8Array>();
  const listener = (request: IncomingMessage, response: ServerResponse): void => {
    void answer(request, response);
  };
  const server: Server =
    tls === undefined ? createServer(listener) : createTlsServer(tls, listener);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const url = `${tls === undefined ? 'http' : 'https'}://127.0.0.1:${port}`;
  let enrolled = { signKey: '', sealKey: '' };
  const statement = (host: string, group: string, seq = 1): Envelope =>
    signEnvelope(
      HOST_STATEMENT_PAYLOAD_TYPE,
      Buffer.from(
        JSON.stringify({
          schema: 'switchback.host-statement/1',
          host,
          group,
          class: 'web',
          arch: 'amd64',
          ...enrolled,
          seq,
          issuedAtMs: 1,
        }),
      ),
      [enrolmentKey],
    );
  const hostOf = (signKey: string): string =>
    `h-${publicKeyOf(bytesOfHex(signKey, 32)!).keyId.slice(0, 32)}`;

  handlers.set('POST /agent/v1/enroll', ({ body }) => {
    const { signKey, sealKey } = JSON.parse(body) as { signKey: string; sealKey: string };
    enrolled = { signKey, sealKey };
    const host = hostOf(signKey);
    return {
      status: 201,
      body: {
        host,
        group: 'web',
        class: 'web',
        statement: statement(host, 'web'),
        enrolmentKey: hexOf(enrolmentKey.key.bytes),
        root: ROOT_TEXT,
        rootSha256: ROOT_SHA256,
        serverTimeMs: Date.now(),
        pollAfterSeconds: 1,
      },
    };
  });
  let tokens = 0;
  handlers.set('POST /agent/v1/token', ({ body, signedBy }) => {
    const { host } = JSON.parse(body) as { host: string };
    if (signedBy === null) return problem(401, 'E_UNAUTHENTICATED');
    tokens += 1;
    return {
      status: 200,
      body: {
        token: `bearer-${tokens}`,
        expiresInSeconds: 3600,
        serverTimeMs: Date.now(),
        statement: statement(host, 'web'),
      },
    };
  });

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const parts: Buffer[] = [];
    for await (const part of request as AsyncIterable<Buffer>) parts.push(part);
    const body = Buffer.concat(parts);
    const headers = Object.fromEntries(
      Object.entries(request.headers).map(([name, value]) => [name, String(value)]),
    );
    const path = request.url ?? '';
    const one: Seen = {
      method: request.method ?? '',
      path,
      headers,
      body: body.toString('utf8'),
      signedBy: signerOfRequest(request.method ?? '', `${url}${path}`, headers, body, keys),
    };
    seen.push(one);
    const handler = handlers.get(`${one.method} ${path}`) ?? handlers.get('*');
    const wanted = handler?.(one, response) ?? null;
    if (response.writableEnded || response.headersSent || response.destroyed) return;
    if (wanted === null) return;
    response.writeHead(wanted.status, { 'content-type': 'application/json', ...wanted.headers });
    response.end(wanted.body === undefined ? '' : JSON.stringify(wanted.body));
  };
  return {
    url,
    seen,
    handlers,
    statement,
    useCertificate(other) {
      if ('setSecureContext' in server) (server as TlsServer).setSecureContext(other);
      server.closeAllConnections();
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

export const problem = (
  status: number,
  code: string,
  headers: Record<string, string> = {},
): Answer => ({
  status,
  headers,
  body: { code, message: 'as the test wants', details: {}, requestId: 'r1' },
});

/** The key id whose signature verifies; enrolment brings the key with it. */
function signerOfRequest(
  method: string,
  url: string,
  headers: Readonly<Record<string, string>>,
  body: Buffer,
  keys: Map<string, Uint8Array>,
): string | null {
  if (headers['signature'] === undefined) return null;
  try {
    const digest = createHash('sha256').update(body).digest();
    const presented = readSignedRequest(
      { method, url, headers },
      digest,
      Math.floor(Date.now() / 1000),
    );
    const { signKey } = JSON.parse(body.toString('utf8')) as { signKey?: string };
    if (signKey !== undefined) {
      const key = publicKeyOf(bytesOfHex(signKey, 32)!);
      keys.set(key.keyId, key.bytes);
    }
    const key = keys.get(presented.keyId);
    return key !== undefined && verify(presented.base, presented.signature, key)
      ? presented.keyId
      : null;
  } catch (error) {
    if (isProblem(error)) return null;
    throw error;
  }
}
