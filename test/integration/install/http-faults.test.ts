/** A bundle over HTTP from servers that misbehave: the install succeeds or ends with its code, and writes no wrong byte. */
import { execFile } from 'node:child_process';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { BuildResult } from '#/control/cli/bundle/build.ts';
import {
  type Fault,
  type FaultRequest,
  startFaultServer,
} from '#/test/support/fault-server/fault-server.ts';
import { bundleOf, type HostOptions, makeHost, offerOf } from '#/test/support/install/host.ts';
import { makeTree, scratch } from '#/test/support/install/payloads.ts';

let work: AsyncDisposable & { readonly path: string };
let built: BuildResult;
let file: Uint8Array;
let hosts = 0;

beforeAll(async () => {
  work = await scratch();
  await mkdir(join(work.path, 'v1'));
  await makeTree(join(work.path, 'v1'), { version: '1' });
  built = await bundleOf({
    input: join(work.path, 'v1'),
    out: join(work.path, 'v1.bundle'),
    version: '1',
    release: 1,
  });
  file = await readFile(built.path);
});
afterAll(async () => {
  await work[Symbol.asyncDispose]();
});

async function freshHost(options: HostOptions = {}) {
  hosts += 1;
  const root = join(work.path, `host-${hosts}`);
  await mkdir(root);
  return await makeHost(root, options);
}

async function expectInstalled(root: string): Promise<void> {
  const { stdout } = await promisify(execFile)('diff', [
    '-r',
    '--no-dereference',
    join(work.path, 'v1'),
    `${join(root, 'current')}/`,
  ]);
  expect(stdout).toBe('');
}

/** Installs from one server; the fault strikes at the requests that `when` picks. */
async function installThrough(
  fault: Fault,
  when: (request: FaultRequest) => boolean,
  options: HostOptions = {},
) {
  await using server = await startFaultServer(file, (request) => (when(request) ? fault : null));
  const host = await freshHost(options);
  const result = await host.install(offerOf(built, [server.url]));
  await expectInstalled(host.root);
  return { result, requests: server.requests, sentBytes: server.sentBytes() };
}

const first = ({ number }: FaultRequest): boolean => number === 1;
const inData = ({ range }: FaultRequest): boolean => range !== null && range[0] > 0;
const once = (when: (request: FaultRequest) => boolean) => {
  let struck = false;
  return (request: FaultRequest): boolean => {
    if (struck || !when(request)) return false;
    struck = true;
    return true;
  };
};
const always = (): boolean => true;

describe('faults that pass', () => {
  const ends = ['fin', 'rst'] as const;
  const offsets = [0, 1, 4096, 131_072, 700_000, 1_200_000];
  const cuts = ends.flatMap((by) => offsets.map((after) => [by, after] as const));
  it.for(cuts)(
    'F1 connection ends by %s after %i bytes of a range: goes on from there',
    async ([by, after]) => {
      const { result, sentBytes } = await installThrough({ do: 'cut', after, by }, once(inData));
      expect(sentBytes).toBeLessThan(file.length + 131_072 + 300_000);
      expect(result.fetchedBytes).toBeLessThanOrEqual(sentBytes);
    },
  );

  it.for(ends)('F1 connection ends by %s in the first bytes of the bundle', async (by) => {
    await installThrough({ do: 'cut', after: 700, by }, first);
  });

  it.for(ends)(
    'F1 every connection ends by %s after 200,000 bytes: each brings it further',
    async (by) => {
      const { sentBytes } = await installThrough({ do: 'cut', after: 200_000, by }, inData);
      expect(sentBytes).toBeLessThan(file.length * 2);
    },
  );

  const passing: readonly [string, Fault, (request: FaultRequest) => boolean][] = [
    ['F4 D06 garbled Content-Range once', { do: 'contentRange', text: 'bytes soon' }, once(inData)],
    [
      'F4 Content-Range of other bytes once',
      { do: 'contentRange', text: 'bytes 0-99/1000' },
      once(inData),
    ],
    ['F4 D06 another ETag in the middle', { do: 'etag', etag: '"second"' }, once(inData)],
    ['F5 D06 Content-Length too large', { do: 'length', text: '99999999' }, once(inData)],
    ['F5 D06 Content-Length too small', { do: 'length', text: '10' }, once(inData)],
    [
      'F5 body truncated with a correct status',
      { do: 'length', text: null, bytes: 5000 },
      once(inData),
    ],
    ['F7 one 503', { do: 'status', status: 503 }, once(inData)],
    ['F7 one 404', { do: 'status', status: 404 }, once(inData)],
    [
      'F7 429 with Retry-After',
      { do: 'status', status: 429, headers: { 'retry-after': '1' } },
      once(inData),
    ],
    ['D01 endless body once', { do: 'extra', bytes: 'endless' }, once(inData)],
    ['D01 one byte too much', { do: 'extra', bytes: 1 }, once(inData)],
    ['D02 silence in the middle of a body', { do: 'stall', after: 10_000 }, once(inData)],
    ['D02 silence instead of headers', { do: 'noHead' }, once(inData)],
    ['F8 C01 one flipped bit', { do: 'flip', at: 400_000 }, once(inData)],
    [
      'D10 garbage instead of a status line',
      { do: 'raw', bytes: 'NOT HTTP AT ALL\r\n\r\n' },
      once(inData),
    ],
    [
      'D10 10,000 headers',
      { do: 'raw', bytes: `HTTP/1.1 206 OK\r\n${'x-junk: 1\r\n'.repeat(10_000)}\r\n` },
      once(inData),
    ],
  ];
  it.for(passing)('%s: installed after another request', async ([, fault, when]) => {
    const { result } = await installThrough(fault, when);
    expect(result.failedSources).toHaveLength(1);
  });

  it('F3 server ignores Range: the whole file is streamed and cut', async () => {
    const { result, requests } = await installThrough({ do: 'whole' }, always);
    expect(result.failedSources).toEqual([]);
    expect(requests.length).toBeLessThan(6);
  });

  it('F3 server forgets Range in the middle: never appended, asked again', async () => {
    const { result } = await installThrough({ do: 'whole' }, once(inData));
    expect(result.failedSources[0]?.code).toBe('E_LENGTH');
  });

  it('F7 401 once: the credential is renewed once and the range asked again', async () => {
    await using server = await startFaultServer(file, ({ headers }) =>
      headers['authorization'] === 'Bearer new' ? null : { do: 'status', status: 401 },
    );
    const asked: boolean[] = [];
    let token = 'old';
    const host = await freshHost({
      requestHeaders: async (_request, refresh) => {
        asked.push(refresh);
        if (refresh) token = 'new';
        return { authorization: `Bearer ${token}` };
      },
    });
    await host.install(offerOf(built, [server.url]));
    await expectInstalled(host.root);
    expect(asked.filter(Boolean)).toHaveLength(1);
  });

  it('D03 redirect within the origin is followed', async () => {
    await using server = await startFaultServer(file, ({ path }) =>
      path === '/app.bundle'
        ? { do: 'status', status: 302, headers: { location: '/moved/app.bundle' } }
        : null,
    );
    const host = await freshHost();
    await host.install(offerOf(built, [server.url]));
    await expectInstalled(host.root);
  });
});

describe('faults that stay', () => {
  const lasting: readonly [string, Fault, string][] = [
    ['F6 captive portal', { do: 'html' }, 'E_ARTIFACT'],
    ['F7 404 for ever', { do: 'status', status: 404 }, 'E_HTTP'],
    ['F7 401 for ever', { do: 'status', status: 401 }, 'E_HTTP'],
    ['F7 403 for ever', { do: 'status', status: 403 }, 'E_HTTP'],
    [
      'F7 429 that asks for an hour',
      { do: 'status', status: 429, headers: { 'retry-after': '3600' } },
      'E_HTTP',
    ],
    ['F7 500 for ever', { do: 'status', status: 500 }, 'E_HTTP'],
    ['D01 endless body', { do: 'extra', bytes: 'endless' }, 'E_TOOBIG'],
    [
      'D03 redirect to another origin',
      { do: 'status', status: 302, headers: { location: 'http://127.0.0.2:9/x' } },
      'E_REDIRECT',
    ],
    [
      'D03 redirect to a file',
      { do: 'status', status: 301, headers: { location: 'file:///etc/passwd' } },
      'E_REDIRECT',
    ],
    [
      'D03 redirect in a circle',
      { do: 'status', status: 307, headers: { location: '/app.bundle' } },
      'E_REDIRECT',
    ],
    ['D04 gzip that nobody asked for', { do: 'gzip' }, 'E_ENCODING'],
    ['F4 Content-Range of other bytes', { do: 'contentRange', text: 'bytes 5-9/10' }, 'E_RANGE'],
    ['D06 Content-Length that lies', { do: 'length', text: '7' }, 'E_LENGTH'],
    ['D02 slow drip', { do: 'drip', everyMs: 20 }, 'E_TIMEOUT'],
    ['D02 no headers', { do: 'noHead' }, 'E_TIMEOUT'],
    [
      'D10 10,000 headers',
      { do: 'raw', bytes: `HTTP/1.1 206 OK\r\n${'x-junk: 1\r\n'.repeat(10_000)}\r\n` },
      'E_HTTP',
    ],
  ];
  it.for(lasting)(
    '%s: its code after bounded requests, no slot touched',
    async ([, fault, code]) => {
      await using server = await startFaultServer(file, () => fault);
      const host = await freshHost({ settings: { attemptsPerSource: 3, headerTimeoutMs: 300 } });
      await expect(host.download(offerOf(built, [server.url]))).rejects.toMatchObject({ code });
      expect(server.requests.length).toBeLessThanOrEqual(8);
      const { live, slots } = await host.slots.observe();
      expect(live).toBeNull();
      expect(slots.map(({ status }) => status)).toEqual(['writing']);
    },
  );

  it('F6 a server that honours Range but has another file: E_ARTIFACT', async () => {
    await using server = await startFaultServer(Buffer.alloc(file.length, '<html>'));
    const host = await freshHost();
    const download = host.download(offerOf(built, [server.url]));
    await expect(download).rejects.toMatchObject({ code: 'E_ARTIFACT' });
  });

  it('F9 C03 bundle swapped for another signed one: E_ARTIFACT', async () => {
    const other = await bundleOf({
      input: join(work.path, 'v1'),
      out: join(work.path, 'other.bundle'),
      version: '1',
      release: 9,
    });
    await using server = await startFaultServer(await readFile(other.path));
    const host = await freshHost();
    const download = host.download(offerOf(built, [server.url]));
    await expect(download).rejects.toMatchObject({ code: 'E_ARTIFACT' });
  });

  it('nobody listens: E_NETWORK', async () => {
    const server = await startFaultServer(file);
    await server[Symbol.asyncDispose]();
    const host = await freshHost({ settings: { attemptsPerSource: 2 } });
    const download = host.download(offerOf(built, [server.url]));
    await expect(download).rejects.toMatchObject({ code: 'E_NETWORK' });
  });

  it('F8 a chunk that is damaged in every source: E_CHUNK', async () => {
    await using server = await startFaultServer(file, () => ({ do: 'flip', at: 400_000 }));
    const host = await freshHost();
    const download = host.download(offerOf(built, [server.url]));
    await expect(download).rejects.toMatchObject({ code: 'E_CHUNK' });
  });
});

describe('several sources', () => {
  it('F8 D09 mirror A damages a chunk, B is good: installed via B, A reported', async () => {
    await using bad = await startFaultServer(file, () => ({ do: 'flip', at: 400_000 }));
    await using good = await startFaultServer(file);
    const host = await freshHost();
    const result = await host.install(offerOf(built, [bad.url, good.url]));
    await expectInstalled(host.root);
    expect(result.failedSources).toEqual([{ url: bad.url, code: 'E_CHUNK' }]);
  });

  it('F82 mirror A is gone, B truncates, C is good: installed via C, A and B reported', async () => {
    const gone = await startFaultServer(file);
    await gone[Symbol.asyncDispose]();
    await using short = await startFaultServer(file, () => ({ do: 'cut', after: 100, by: 'fin' }));
    await using good = await startFaultServer(file);
    const host = await freshHost({ settings: { attemptsPerSource: 2 } });
    const result = await host.install(offerOf(built, [gone.url, short.url, good.url]));
    await expectInstalled(host.root);
    expect(result.failedSources.map(({ code }) => code)).toEqual(['E_NETWORK', 'E_NETWORK']);
  });

  it('F82 mirror A has another bundle: not one byte of it is written', async () => {
    await using wrong = await startFaultServer(Buffer.alloc(file.length, 7));
    await using good = await startFaultServer(file);
    const host = await freshHost();
    const result = await host.install(offerOf(built, [wrong.url, good.url]));
    await expectInstalled(host.root);
    expect(result.failedSources).toEqual([{ url: wrong.url, code: 'E_ARTIFACT' }]);
  });
});
