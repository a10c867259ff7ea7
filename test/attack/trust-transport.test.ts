/** What a server may do to the fetcher of metadata: D01-D04, D08, A33 of the list. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { createTrustFetch } from '#/agent/adapters/trust-fetch.ts';
import { METADATA_MAX_BYTES } from '#/bundle/trust/metadata.ts';

let answer: (request: IncomingMessage, response: ServerResponse) => void;
const server = createServer((request, response) => answer(request, response));
let fetch: ReturnType<typeof createTrustFetch>;

beforeEach(async () => {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  fetch = createTrustFetch({
    url: `http://127.0.0.1:${port}`,
    limits: { headersTimeoutMs: 300, idleTimeoutMs: 300, totalTimeoutMs: 900 },
  });
});

afterEach(async () => {
  await fetch.close();
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

async function codeOf(maxBytes = 1000): Promise<string> {
  try {
    await fetch.metadata('timestamp.json', maxBytes);
    return 'accepted';
  } catch (error) {
    return (error as { code: string }).code;
  }
}

it('a file comes as it is, and what there is not comes as null', async () => {
  answer = (request, response) => {
    if (request.url === '/metadata/timestamp.json') response.end('{}');
    else if (request.url === '/targets/groups/a%20b/x') response.end('target');
    else
      response.writeHead(request.url === '/metadata/2.root.json' ? 404 : 403).end('no such page');
  };
  expect(Buffer.from((await fetch.metadata('timestamp.json', 10)) ?? '').toString()).toBe('{}');
  expect(Buffer.from((await fetch.target('groups/a b/x', 10)) ?? '').toString()).toBe('target');
  expect(await fetch.metadata('2.root.json', 10)).toBeNull();
  expect(await fetch.metadata('3.root.json', 10)).toBeNull();
});

it('D01 an endless body is cut at the limit', async () => {
  let sentBytes = 0;
  answer = (_request, response) => {
    const more = (): void => {
      while (response.write(Buffer.alloc(16_384))) sentBytes += 16_384;
    };
    response.on('drain', more);
    more();
  };
  expect(await codeOf()).toBe('E_TOOBIG');
  expect(sentBytes).toBeLessThan(64 * 1024 * 1024);
});

it('D02 headers that do not come, and a body that drips, end in a timeout', async () => {
  answer = () => undefined;
  expect(await codeOf()).toBe('E_TIMEOUT');
  answer = (_request, response) => {
    const timer = setInterval(() => response.write('x'), 50);
    response.on('close', () => clearInterval(timer));
  };
  expect(await codeOf()).toBe('E_TIMEOUT');
});

it.each(['http://127.0.0.1:1/x', 'file:///etc/passwd', '/metadata/other.json'])(
  'D03 a redirect to %s is not followed',
  async (location) => {
    const asked: string[] = [];
    answer = (request, response) => {
      asked.push(request.url ?? '');
      response.writeHead(302, { location }).end();
    };
    expect(await codeOf()).toBe('E_REDIRECT');
    expect(asked).toEqual(['/metadata/timestamp.json']);
  },
);

it('D04 a compressed body is refused, bomb or not', async () => {
  answer = (_request, response) => {
    response
      .writeHead(200, { 'content-encoding': 'gzip' })
      .end(gzipSync(Buffer.alloc(10 * 1024 * 1024)));
  };
  expect(await codeOf(1024 * 1024)).toBe('E_ENCODING');
});

it('D08 half a megabyte of unsigned junk for a root is refused by its announced size', async () => {
  let sentBytes = 0;
  answer = (_request, response) => {
    response.writeHead(200, { 'content-length': 502 * 1024 });
    sentBytes += 1024;
    response.write(Buffer.alloc(1024, '{'));
  };
  expect(await codeOf(METADATA_MAX_BYTES.root)).toBe('E_TOOBIG');
  expect(sentBytes).toBe(1024);
});

it('A33 an answer of 500 is an error, not an absent file', async () => {
  answer = (_request, response) => response.writeHead(500).end();
  expect(await codeOf()).toBe('E_HTTP');
});

it('a connection that is closed in the middle is an error', async () => {
  answer = (_request, response) => {
    response.writeHead(200, { 'content-length': 100 });
    response.write('x');
    setTimeout(() => response.destroy(), 20);
  };
  expect(await codeOf()).toMatch(/^E_(NETWORK|LENGTH)$/);
});
