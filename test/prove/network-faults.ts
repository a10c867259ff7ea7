/**
 * T11: the real download from a server that misbehaves byte by byte, and from a good one beside it. Whatever the first one does, the
 * version is installed, whole, in bounded time and traffic.
 */
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  type Fault,
  type FaultRequest,
  startFaultServer,
} from '#/test/support/fault-server/fault-server.ts';
import { bundleOf, makeHost, offerOf } from '#/test/support/install/host.ts';
import { makeTree } from '#/test/support/install/payloads.ts';
import { treeDigest } from '#/test/support/lone-host/lone-host.ts';
import { drawn, type Family, type Finding, forEachParallel } from './family.ts';

/** Most of a case is waiting for a server that says nothing. */
const PARALLEL = 6;
const CI_CASES = 120;
const POSITIONS = 20;
const LIMIT_MS = 60_000;
/** The faulty server is asked a few times, the good one sends the file, and a little is fetched again. */
const MAX_REQUESTS = 40;

interface Case {
  readonly name: string;
  readonly fault: Fault;
  readonly strikes: (request: FaultRequest) => boolean;
}

const raw = (bytes: string): Fault => ({ do: 'raw', bytes });
const status = (code: number, headers: Record<string, string> = {}): Fault => ({
  do: 'status',
  status: code,
  headers,
});

/** Faults that strike at one byte. */
const atByte: Readonly<Record<string, (at: number) => Fault>> = {
  'connection ended': (after) => ({ do: 'cut', after, by: 'fin' }),
  'connection reset': (after) => ({ do: 'cut', after, by: 'rst' }),
  silence: (after) => ({ do: 'stall', after }),
  'flipped bit': (at) => ({ do: 'flip', at }),
  'body without a length, cut short': (bytes) => ({ do: 'length', text: null, bytes }),
};

/** Faults of a whole answer. */
const ofAnswer: Readonly<Record<string, Fault>> = {
  'Range ignored': { do: 'whole' },
  'one byte too much': { do: 'extra', bytes: 1 },
  'a body without end': { do: 'extra', bytes: 'endless' },
  'garbled Content-Range': { do: 'contentRange', text: 'bytes soon' },
  'Content-Range of other bytes': { do: 'contentRange', text: 'bytes 0-99/1000' },
  'Content-Range without an end': { do: 'contentRange', text: 'bytes 0-/*' },
  'another ETag': { do: 'etag', etag: '"second"' },
  'Content-Length too large': { do: 'length', text: '99999999' },
  'Content-Length too small': { do: 'length', text: '10' },
  'negative Content-Length': { do: 'length', text: '-1' },
  'gzip that nobody asked for': { do: 'gzip' },
  'a byte at a time': { do: 'drip', everyMs: 20 },
  'no answer': { do: 'noHead' },
  'captive portal': { do: 'html' },
  'no HTTP': raw('NOT HTTP AT ALL\r\n\r\n'),
  'closed without a word': raw(''),
  '10,000 headers': raw(`HTTP/1.1 206 OK\r\n${'x-junk: 1\r\n'.repeat(10_000)}\r\n`),
  'a header of 1 MiB': raw(`HTTP/1.1 206 OK\r\nx-junk: ${'x'.repeat(1024 * 1024)}\r\n\r\n`),
  'an empty 200': raw('HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n'),
  'length and chunks at once': raw(
    'HTTP/1.1 206 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n',
  ),
  'chunks cut short': raw('HTTP/1.1 206 OK\r\ntransfer-encoding: chunked\r\n\r\nffff\r\nhello'),
  '401': status(401),
  '404': status(404),
  '429 with Retry-After': status(429, { 'retry-after': '1' }),
  '500': status(500),
  '503': status(503),
  'redirect to a file': status(302, { location: 'file:///etc/passwd' }),
  'redirect elsewhere': status(302, { location: 'http://127.0.0.2:9/x' }),
  'redirect in a circle': status(307, { location: '/app.bundle' }),
};

const requests: Readonly<Record<string, (request: FaultRequest) => boolean>> = {
  'the first request': ({ number }) => number === 1,
  'the second request': ({ number }) => number === 2,
  'the third request': ({ number }) => number === 3,
  'every other request': ({ number }) => number % 2 === 0,
  'every request': () => true,
};

function casesFor(fileBytes: number): readonly Case[] {
  const positions = Array.from({ length: POSITIONS }, (_, at) =>
    Math.floor(((fileBytes - 1) * at) / (POSITIONS - 1)),
  );
  const faults: readonly (readonly [string, Fault])[] = [
    ...Object.entries(ofAnswer),
    ...Object.entries(atByte).flatMap(([name, make]) =>
      positions.map((at) => [`${name} at byte ${at}`, make(at)] as const),
    ),
  ];
  return Object.entries(requests).flatMap(([when, strikes]) =>
    faults.map(([name, fault]) => ({ name: `${name}, ${when}`, fault, strikes })),
  );
}

export const networkFaults: Family = {
  name: 'network faults',
  isLight: true,
  what: 'the real download from a server that lies, cuts, stalls or floods at any byte, beside a good one',
  async run({ seed, scale, match }) {
    const directory = await mkdtemp(join(tmpdir(), 'prove-network-'));
    try {
      const tree = join(directory, 'tree');
      await mkdir(tree);
      await makeTree(tree, { version: '1' });
      const out = join(directory, 'v1.bundle');
      const built = await bundleOf({ input: tree, out, version: '1', release: 1 });
      const file = await readFile(out);
      const expected = await treeDigest(tree);
      const all = casesFor(file.byteLength).filter(({ name }) => name.includes(match));
      const cases = scale === 'ci' ? drawn(all, CI_CASES, seed) : all;
      const findings: Finding[] = [];
      let struck = 0;
      let hosts = 0;
      await forEachParallel(cases, PARALLEL, async ({ name, fault, strikes }) => {
        hosts += 1;
        const root = join(directory, `host-${hosts}`);
        await mkdir(root);
        let wasHit = false;
        await using bad = await startFaultServer(file, (request) => {
          if (!strikes(request)) return null;
          wasHit = true;
          return fault;
        });
        await using good = await startFaultServer(file);
        const host = await makeHost(root, {
          settings: { attemptsPerSource: 3, headerTimeoutMs: 300 },
        });
        try {
          await host.download(offerOf(built, [bad.url, good.url]), AbortSignal.timeout(LIMIT_MS));
          await host.verify(offerOf(built));
        } catch (error) {
          findings.push({ fault: 'stuck', text: `${name}: ${String(error)}` });
        }
        const release = host.layout.release(built.artifactId);
        const found = await treeDigest(release);
        if (found !== expected && !found.startsWith('gone')) {
          findings.push({ fault: 'wrong', text: `${name}: ${found} was taken for the version` });
        }
        const asked = bad.requests.length + good.requests.length;
        if (asked > MAX_REQUESTS) {
          findings.push({ fault: 'stuck', text: `${name}: ${asked} requests` });
        }
        if (wasHit) struck += 1;
        await rm(root, { recursive: true, force: true });
      });
      return { cases: cases.length, states: struck, findings };
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  },
};
