/** A bundle over HTTPS: the certificate must be the pinned authority's, for that name, and TLS 1.3 (D05). */
import { createServer, type TlsOptions } from 'node:tls';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createHttpSource } from '#/agent/install/source-http.ts';
import { testSettings } from '#/test/support/install/host.ts';
import { makeCertificate } from '#/test/support/tls/certificate.ts';

const authority = makeCertificate({ name: 'authority', isAuthority: true });
const content = Buffer.from('content of the bundle');

/** Answers every request with the whole range. */
async function startServer(
  options: TlsOptions,
): Promise<AsyncDisposable & { readonly url: string }> {
  const server = createServer(options, (socket) => {
    socket.on('error', () => undefined);
    socket.on('data', () => {
      socket.end(
        `HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 0-${content.length - 1}/${content.length}\r\ncontent-length: ${content.length}\r\n\r\n${content.toString()}`,
      );
    });
  });
  server.on('tlsClientError', () => undefined);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return {
    url: `https://127.0.0.1:${address.port}/app.bundle`,
    [Symbol.asyncDispose]: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
      }),
  };
}

async function readFrom(url: string, caPem: string | null): Promise<string> {
  const source = createHttpSource({
    url,
    settings: { ...testSettings, caPem },
    requestHeaders: null,
    nowMs: () => performance.now(),
  });
  const pieces: Uint8Array[] = [];
  try {
    const { signal } = new AbortController();
    for await (const piece of source.readRange(0, content.length, signal)) {
      pieces.push(Uint8Array.from(piece));
    }
  } finally {
    await source.close();
  }
  return Buffer.concat(pieces).toString();
}

let good: AsyncDisposable & { readonly url: string };
beforeAll(async () => {
  const { certPem, keyPem } = makeCertificate({ name: 'host', ip: '127.0.0.1', issuer: authority });
  good = await startServer({ cert: certPem, key: keyPem });
});
afterAll(async () => {
  await good[Symbol.asyncDispose]();
});

describe('a source over HTTPS', () => {
  it('with a certificate of the pinned authority is read', async () => {
    expect(await readFrom(good.url, authority.certPem)).toBe(content.toString());
  });

  it('D05 another authority than the pinned one: E_TLS', async () => {
    const other = makeCertificate({ name: 'other', isAuthority: true });
    await expect(readFrom(good.url, other.certPem)).rejects.toMatchObject({ code: 'E_TLS' });
  });

  it('D05 an authority that the system does not know: E_TLS', async () => {
    await expect(readFrom(good.url, null)).rejects.toMatchObject({ code: 'E_TLS' });
  });

  const certificates: readonly [string, Parameters<typeof makeCertificate>[0], TlsOptions][] = [
    ['the right authority, another name', { name: 'elsewhere.invalid' }, {}],
    [
      'an expired certificate',
      { name: 'host', ip: '127.0.0.1', notAfter: new Date(Date.now() - 86_400_000) },
      {},
    ],
    ['TLS 1.2', { name: 'host', ip: '127.0.0.1' }, { maxVersion: 'TLSv1.2' }],
  ];
  it.for(certificates)('D05 %s: E_TLS', async ([, request, options]) => {
    const { certPem, keyPem } = makeCertificate({ ...request, issuer: authority });
    await using server = await startServer({ cert: certPem, key: keyPem, ...options });
    const read = readFrom(server.url, authority.certPem);
    await expect(read).rejects.toMatchObject({ code: 'E_TLS' });
  });
});
