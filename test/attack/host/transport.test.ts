/** What a hostile network and a hostile mirror do to a host that runs. One by one: ../trust-transport.test.ts, test/integration/install. */
import type { ServerResponse } from 'node:http';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { signEnvelope } from '#/bundle/dsse.ts';
import { TIME_PAYLOAD_TYPE } from '#/protocol/agent-plane.ts';
import { type Attack, AttackedHost } from '#/test/support/attack/attacked-host.ts';
import { makeCertificate } from '#/test/support/tls/certificate.ts';

let host: AttackedHost;
beforeAll(async () => {
  host = await AttackedHost.start();
});
afterAll(() => host[Symbol.asyncDispose]());

/** Whoever asks for this is answered so. */
const at =
  (part: string, answer: (response: ServerResponse) => void) =>
  ({ control }: AttackedHost): void => {
    control.interfere = ({ path }, response) => {
      if (!path.includes(part)) return false;
      answer(response);
      return true;
    };
  };
const TIMESTAMP = 'timestamp.json';

const cases: readonly (readonly [string, Attack])[] = [
  [
    'D01 a timestamp without end',
    {
      attack: at(TIMESTAMP, (response) => {
        const more = (): void => {
          while (!response.destroyed && response.write(Buffer.alloc(16_384, '{')));
        };
        response.on('drain', more);
        more();
      }),
      ends: { refused: 'E_TOOBIG' },
    },
  ],
  [
    'D02 headers that do not come',
    { attack: at(TIMESTAMP, () => undefined), ends: { told: 'E_TIMEOUT' } },
  ],
  ...['http://127.0.0.1:1/x', 'file:///etc/passwd'].map(
    (location) =>
      [
        `D03 a redirect to ${location}`,
        {
          attack: at(TIMESTAMP, (response) => response.writeHead(302, { location }).end()),
          ends: { refused: 'E_REDIRECT' },
        },
      ] as const,
  ),
  [
    'D04 a gzip bomb for a timestamp',
    {
      attack: at(TIMESTAMP, (response) =>
        response
          .writeHead(200, { 'content-encoding': 'gzip' })
          .end(gzipSync(Buffer.alloc(10 * 1024 * 1024))),
      ),
      ends: { refused: 'E_ENCODING' },
    },
  ],
  [
    'D06 a Content-Length that is longer than what comes',
    {
      attack: at(TIMESTAMP, (response) => {
        response.writeHead(200, { 'content-length': 1000 });
        response.write('{');
        setTimeout(() => response.destroy(), 50);
      }),
      ends: { told: 'E_NETWORK' },
    },
  ],
  [
    'D08 half a megabyte of junk for the next root: refused by its announced size',
    {
      attack: at('.root.json', (response) => {
        response.writeHead(200, { 'content-length': 502 * 1024 });
        response.write(Buffer.alloc(1024, '{'));
      }),
      ends: { refused: 'E_TOOBIG' },
    },
  ],
  [
    'D09 a mirror that serves something else: the good one is used, the bad one counted',
    {
      attack(attacked) {
        const { control, v1, v2 } = attacked;
        const elsewhere = 'e'.repeat(64);
        control.bundles.set(elsewhere, control.bundles.get(v1.artifactId)!);
        attacked.offer(v2, [control.bundleUrl(elsewhere), control.bundleUrl(v2.artifactId)]);
      },
      ends: { taken: true },
      also: ({ ended }) => expect(ended?.evidence['failedSources']).toBe(1),
    },
  ],
  [
    'D10 ten thousand headers',
    {
      attack: at(TIMESTAMP, (response) => {
        for (let n = 0; n < 10_000; n += 1) response.setHeader(`x-${n}`, 'y'.repeat(20));
        response.end('{}');
      }),
      ends: { told: 'E_HTTP' },
    },
  ],
];

it.each(cases)('%s', (_title, attack) => host.suffers(attack));

describe('the line to control itself', () => {
  it('D07 the answer to another host is refused as a whole; the next one is asked for', async () => {
    let replays = 0;
    await host.suffers({
      attack({ control }) {
        replays = 0;
        control.changeToken = (body) => {
          replays += 1;
          if (replays > 1) return body;
          const time = {
            schema: 'switchback.time/1',
            host: `h-${'9'.repeat(32)}`,
            nonce: 'n',
            atMs: 1,
          };
          const payload = Buffer.from(JSON.stringify(time));
          return {
            ...body,
            time: signEnvelope(TIME_PAYLOAD_TYPE, payload, [control.enrolmentKey]),
          };
        };
      },
      ends: { taken: true, line: 'E_NONCE' },
    });
    expect(replays).toBeGreaterThan(1);
  });

  it('D05 a certificate of somebody else: nothing is said to it; back at the right one it is told', async () => {
    const authority = makeCertificate({ name: 'fleet', isAuthority: true });
    const own = makeCertificate({ name: 'control', ip: '127.0.0.1', issuer: authority });
    const other = makeCertificate({ name: 'thief', isAuthority: true });
    const theirs = makeCertificate({ name: 'control', ip: '127.0.0.1', issuer: other });
    const server = { cert: own.certPem, key: own.keyPem };
    await using secure = await AttackedHost.start({ tls: { server, caPem: authority.certPem } });
    await secure.suffers({
      attack({ control }) {
        control.useCertificate({ cert: theirs.certPem, key: theirs.keyPem });
        setTimeout(() => control.useCertificate(server), 5_000);
      },
      ends: { taken: true, line: 'E_TLS' },
    });
  });
});
