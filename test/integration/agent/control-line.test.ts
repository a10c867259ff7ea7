import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '#/agent/adapters/clock.ts';
import {
  createControlLink,
  firstPollDelayMs,
  type HostControlLink,
} from '#/agent/adapters/control-link.ts';
import { enrol, type EnrolOptions } from '#/agent/adapters/enrol.ts';
import { nodeFiles } from '#/agent/adapters/file-port.ts';
import { identityStore, loadIdentity, type HostIdentity } from '#/agent/adapters/identity.ts';
import { systemRandom } from '#/agent/adapters/random.ts';
import { createTransport, type Transport } from '#/agent/adapters/transport.ts';
import { defaultSettings, settingsFrom } from '#/agent/config.ts';
import { openEnvelope, signEnvelope } from '#/bundle/dsse.ts';
import { publicKeyOf, bytesOfHex, signerOf } from '#/bundle/keys.ts';
import { HOST_STATEMENT_PAYLOAD_TYPE, parseAgentState } from '#/protocol/agent-plane.ts';
import { REPORT_PAYLOAD_TYPE } from '#/protocol/documents.ts';
import {
  problem,
  ROOT_SHA256,
  ROOT_TEXT,
  startControlStub,
  type ControlStub,
} from '#/test/support/control-stub/control-stub.ts';
import { makeCertificate } from '#/test/support/tls/certificate.ts';

const MACHINE = 'ab'.repeat(32);
let directory = '';
const open: { close(): Promise<unknown> }[] = [];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'switchback-line-'));
});
afterEach(async () => {
  for (const one of open.splice(0)) await one.close();
  await rm(directory, { recursive: true, force: true });
});

async function control(tls?: Parameters<typeof startControlStub>[0]): Promise<ControlStub> {
  const stub = await startControlStub(tls);
  open.push(stub);
  return stub;
}
function transport(
  caPem: string | null = null,
  limits: Partial<Parameters<typeof createTransport>[0]> = {},
): Transport {
  const one = createTransport({
    caPem,
    connectTimeoutMs: 2_000,
    headersTimeoutMs: 1_000,
    bodyTimeoutMs: 1_000,
    userAgent: 'switchback-agent/test',
    ...limits,
  });
  open.push(one);
  return one;
}
const store = () => identityStore(nodeFiles(), directory);
const enrolment = (url: string, change: Partial<EnrolOptions> = {}): EnrolOptions => ({
  invitation: {
    controlUrls: [url],
    token: `sbj_${'t'.repeat(22)}`,
    rootSha256: ROOT_SHA256,
    caPem: null,
  },
  store: store(),
  transport: transport(change.invitation?.caPem ?? null),
  random: systemRandom(),
  wallMs: () => Date.now(),
  machine: MACHINE,
  class: 'web',
  arch: 'amd64',
  agentVersion: '0.1.0',
  facts: { hostname: 'test' },
  replace: false,
  ...change,
});
function link(identity: HostIdentity, toml = '[poll]\nmin_interval_ms = 100\n'): HostControlLink {
  const one = createControlLink({
    settings: settingsFrom([{ file: 'test', text: toml }]).settings,
    identity,
    clock: systemClock(),
    random: systemRandom(),
    agentVersion: '0.1.0',
    standing: () => ({ running: 'c'.repeat(64), healthy: true, seq: 7, factsHash: null }),
  });
  open.push(one);
  return one;
}
const assignment = {
  generation: 3,
  group: 'web',
  offer: null,
  halted: false,
  rollbackGeneration: 0,
  why: 'no pin',
};

describe('enrolment', () => {
  it('E14 keys are made here, their possession is proven, and nothing but root can read them', async () => {
    const stub = await control();
    const identity = await enrol(enrolment(stub.url));
    expect(stub.seen[0]).toMatchObject({ path: '/agent/v1/enroll', signedBy: identity.keyId });
    expect(identity.host).toBe(`h-${identity.keyId.slice(0, 32)}`);
    expect(Buffer.from(identity.rootBytes).toString()).toBe(ROOT_TEXT);
    for (const file of await readdir(join(directory, 'identity')))
      expect((await stat(join(directory, 'identity', file))).mode & 0o777).toBe(0o600);
    expect((await stat(join(directory, 'identity'))).mode & 0o777).toBe(0o700);
    const sent = JSON.stringify(stub.seen);
    const { signSeed, sealSeed } = (await store().keys.read())!;
    expect(sent).not.toContain(signSeed);
    expect(sent).not.toContain(sealSeed);
  });

  it('E13 the answer is lost: the same keys ask again with the same token', async () => {
    const stub = await control();
    const good = stub.handlers.get('POST /agent/v1/enroll')!;
    stub.handlers.set('POST /agent/v1/enroll', (_seen, response) => {
      response.destroy();
      return null;
    });
    await expect(enrol(enrolment(stub.url))).rejects.toMatchObject({ code: 'E_NETWORK' });
    stub.handlers.set('POST /agent/v1/enroll', good);
    await enrol(enrolment(stub.url));
    const [first, second] = stub.seen.map(
      (one) => (JSON.parse(one.body) as { signKey: string }).signKey,
    );
    expect(second).toBe(first);
  });

  it('E13 a token that was used is E_TOKEN, and the host stays without identity', async () => {
    const stub = await control();
    stub.handlers.set('POST /agent/v1/enroll', () => problem(401, 'E_TOKEN'));
    await expect(enrol(enrolment(stub.url))).rejects.toMatchObject({ code: 'E_TOKEN' });
    expect(await loadIdentity(store(), MACHINE, systemRandom())).toBeNull();
  });

  it('a control with another trust root than the join text names is refused', async () => {
    const stub = await control();
    stub.handlers.set('GET /agent/v1/trust/metadata/1.root.json', () => ({
      status: 200,
      body: { evil: true },
    }));
    const invitation = { ...enrolment(stub.url).invitation, rootSha256: '00'.repeat(32) };
    await expect(enrol(enrolment(stub.url, { invitation }))).rejects.toMatchObject({
      code: 'E_HASH',
    });
    expect(await loadIdentity(store(), MACHINE, systemRandom())).toBeNull();
  });

  it('the root was rotated since the join text was made: the first one is fetched and checked', async () => {
    const stub = await control();
    const good = stub.handlers.get('POST /agent/v1/enroll')!;
    stub.handlers.set('POST /agent/v1/enroll', (seen, response) => {
      const answer = good(seen, response)!;
      return { ...answer, body: { ...(answer.body as object), root: '{"newer":2}' } };
    });
    stub.handlers.set('GET /agent/v1/trust/metadata/1.root.json', (_seen, response) => {
      response.end(ROOT_TEXT);
      return null;
    });
    const identity = await enrol(enrolment(stub.url));
    expect(Buffer.from(identity.rootBytes).toString()).toBe(ROOT_TEXT);
  });

  it('a host that is enrolled keeps its identity unless it is told to give it up', async () => {
    const stub = await control();
    const first = await enrol(enrolment(stub.url));
    await expect(enrol(enrolment(stub.url))).rejects.toMatchObject({ code: 'E_CONFLICT' });
    const second = await enrol(enrolment(stub.url, { replace: true }));
    expect(second.host).not.toBe(first.host);
  });

  it('F62 a clone has no identity, says whose clone it is, and gets new keys when it is enrolled', async () => {
    const stub = await control();
    const first = await enrol(enrolment(stub.url));
    const clone = 'cd'.repeat(32);
    await expect(loadIdentity(store(), clone, systemRandom())).rejects.toMatchObject({
      code: 'E_FORKED',
      message: expect.stringContaining(first.host),
    });
    const second = await enrol(enrolment(stub.url, { machine: clone }));
    expect(second.keyId).not.toBe(first.keyId);
  });

  it('the first address is down: the next one is asked', async () => {
    const stub = await control();
    const dead = await control();
    await dead.close();
    const invitation = { ...enrolment(stub.url).invitation, controlUrls: [dead.url, stub.url] };
    await expect(enrol(enrolment(stub.url, { invitation }))).resolves.toMatchObject({
      group: 'web',
    });
  });

  it('keys that rotted on disk are E_STATE, not a crash', async () => {
    const stub = await control();
    await enrol(enrolment(stub.url));
    const path = join(directory, 'identity', 'keys');
    const bytes = await readFile(path);
    bytes[bytes.length - 5] = (bytes[bytes.length - 5] ?? 0) ^ 1;
    await writeFile(path, bytes);
    await expect(loadIdentity(store(), MACHINE, systemRandom())).rejects.toMatchObject({
      code: 'E_STATE',
    });
  });
});

describe('polls and reports', () => {
  it('a poll carries bearer, ETag and the state; the answer and Poll-After come back', async () => {
    const stub = await control();
    const line = link(await enrol(enrolment(stub.url)));
    stub.handlers.set('GET /agent/v1/desired', ({ headers }) =>
      headers['if-none-match'] === '"e1.g3"'
        ? { status: 304, headers: { etag: '"e1.g3"', 'poll-after': '42' } }
        : { status: 200, headers: { etag: '"e1.g3"', 'poll-after': '0.5' }, body: assignment },
    );
    expect(await line.poll(null, 'idle')).toEqual({
      kind: 'assignment',
      assignment,
      etag: '"e1.g3"',
      pollAfterMs: 500,
    });
    expect(await line.poll('"e1.g3"', 'downloading')).toEqual({
      kind: 'unchanged',
      pollAfterMs: 42_000,
    });
    const polls = stub.seen.filter((one) => one.path === '/agent/v1/desired');
    expect(polls.map((one) => one.headers['authorization'])).toEqual([
      'Bearer bearer-1',
      'Bearer bearer-1',
    ]);
    expect(parseAgentState(polls[1]!.headers['agent-state']!)).toMatchObject({
      state: 'downloading',
      running: 'c'.repeat(16),
      healthy: true,
      seq: 7,
    });
    expect(stub.seen.filter((one) => one.path === '/agent/v1/token')).toHaveLength(1);
  });

  it('F59 Poll-After is obeyed only inside the bounds of the host, and its absence is jittered', async () => {
    const stub = await control();
    const toml = '[poll]\nmin_interval_ms = 1000\nmax_interval_ms = 60000\ninterval_ms = 20000\n';
    const line = link(await enrol(enrolment(stub.url)), toml);
    const wanted = new Map<string, (ms: number) => void>([
      ['0', (ms) => expect(ms).toBe(1000)],
      ['99999', (ms) => expect(ms).toBe(60_000)],
      ['soon', (ms) => expect(ms).toBeGreaterThanOrEqual(18_000)],
      ['-5', (ms) => expect(ms).toBeLessThanOrEqual(22_000)],
    ]);
    for (const [header, check] of wanted) {
      stub.handlers.set('GET /agent/v1/desired', () => ({
        status: 200,
        headers: { etag: '"a"', 'poll-after': header },
        body: assignment,
      }));
      check((await line.poll(null, 'idle')).pollAfterMs);
    }
  });

  it('F67 a bearer that was revoked is replaced once', async () => {
    const stub = await control();
    const line = link(await enrol(enrolment(stub.url)));
    stub.handlers.set('GET /agent/v1/desired', ({ headers }) =>
      headers['authorization'] === 'Bearer bearer-2'
        ? { status: 200, headers: { etag: '"a"', 'poll-after': '9' }, body: assignment }
        : problem(401, 'E_UNAUTHENTICATED'),
    );
    await expect(line.poll(null, 'idle')).resolves.toMatchObject({ kind: 'assignment' });
  });

  it('F7 a control that refuses every bearer is a visible failure after one more try, with its Retry-After', async () => {
    const stub = await control();
    const line = link(await enrol(enrolment(stub.url)));
    stub.handlers.set('GET /agent/v1/desired', () =>
      problem(401, 'E_UNAUTHENTICATED', { 'retry-after': '3600' }),
    );
    await expect(line.poll(null, 'idle')).rejects.toMatchObject({
      code: 'E_UNAUTHENTICATED',
      details: expect.objectContaining({ retryAfterMs: 3_600_000 }),
    });
    expect(stub.seen.filter((one) => one.path === '/agent/v1/desired')).toHaveLength(2);
  });

  it.each([
    [429, 'E_RATE_LIMITED'],
    [503, 'E_UNAVAILABLE'],
  ])('F7 status %i says how long to wait', async (status, code) => {
    const stub = await control();
    const line = link(await enrol(enrolment(stub.url)));
    stub.handlers.set('GET /agent/v1/desired', () =>
      problem(status, code, { 'retry-after': '211' }),
    );
    await expect(line.poll(null, 'idle')).rejects.toMatchObject({
      code,
      details: expect.objectContaining({ retryAfterMs: 211_000 }),
    });
  });

  it('F57 a report arrives as signed, and its acknowledgement comes back', async () => {
    const stub = await control();
    const identity = await enrol(enrolment(stub.url));
    const line = link(identity);
    stub.handlers.set('POST /agent/v1/report', () => ({
      status: 202,
      body: { ackSeq: 8, wantFacts: true, pollAfterSeconds: 5 },
    }));
    const payload = Buffer.from('{"hello":1}');
    const answer = await line.report(identity.sign(REPORT_PAYLOAD_TYPE, payload));
    expect(answer).toEqual({ ackSeq: 8, wantFacts: true });
    const sent = JSON.parse(stub.seen.at(-1)!.body) as Parameters<typeof openEnvelope>[0];
    const { signKey } = JSON.parse(stub.seen[0]!.body) as { signKey: string };
    const key = publicKeyOf(bytesOfHex(signKey, 32)!);
    expect(
      Buffer.from(
        openEnvelope(sent, { keys: [key], threshold: 1, payloadType: REPORT_PAYLOAD_TYPE }),
      ),
    ).toEqual(payload);
  });

  it('a host that control moved to another group keeps the new statement for its next start', async () => {
    const stub = await control();
    const identity = await enrol(enrolment(stub.url));
    stub.handlers.set('POST /agent/v1/token', () => ({
      status: 200,
      body: {
        token: 'x',
        expiresInSeconds: 60,
        serverTimeMs: 1,
        statement: stub.statement(identity.host, 'db'),
      },
    }));
    stub.handlers.set('GET /agent/v1/desired', () => ({ status: 304, headers: { etag: '"a"' } }));
    await link(identity).poll('"a"', 'idle');
    expect((await loadIdentity(store(), MACHINE, systemRandom()))?.group).toBe('db');
  });

  it('an older statement, or one by another key, is not taken', async () => {
    const stub = await control();
    const identity = await enrol(enrolment(stub.url));
    await identity.keepStatement(stub.statement(identity.host, 'db', 5));
    const newer = (await loadIdentity(store(), MACHINE, systemRandom()))!;
    await expect(
      newer.keepStatement(stub.statement(identity.host, 'web', 4)),
    ).rejects.toMatchObject({
      code: 'E_ROLLBACK',
    });
    const forged = signEnvelope(
      HOST_STATEMENT_PAYLOAD_TYPE,
      Buffer.from(stub.statement(identity.host, 'evil', 9).payload, 'base64'),
      [signerOf(new Uint8Array(32).fill(1))],
    );
    await expect(newer.keepStatement(forged)).rejects.toMatchObject({ code: 'E_SIGS' });
    expect((await loadIdentity(store(), MACHINE, systemRandom()))?.group).toBe('db');
  });

  it('the statement of another host is not taken', async () => {
    const stub = await control();
    const identity = await enrol(enrolment(stub.url));
    stub.handlers.set('POST /agent/v1/token', () => ({
      status: 200,
      body: {
        token: 'x',
        expiresInSeconds: 60,
        serverTimeMs: 1,
        statement: stub.statement(`h-${'0'.repeat(32)}`, 'db'),
      },
    }));
    await expect(link(identity).poll(null, 'idle')).rejects.toMatchObject({ code: 'E_FORKED' });
    expect((await loadIdentity(store(), MACHINE, systemRandom()))?.group).toBe('web');
  });

  it('F68 one address is down: the other one answers, and stays in use', async () => {
    const stub = await control();
    const dead = await control();
    await dead.close();
    const identity = await enrol(enrolment(stub.url));
    stub.handlers.set('GET /agent/v1/desired', () => ({
      status: 304,
      headers: { etag: '"a"', 'poll-after': '9' },
    }));
    const line = link(identity, `[control]\nurls = ["${dead.url}", "${stub.url}"]\n`);
    await line.poll('"a"', 'idle');
    expect(line.controlUrl()).toBe(stub.url);
  });

  it('a bearer goes to control alone, never to another source', async () => {
    const stub = await control();
    const line = link(await enrol(enrolment(stub.url)));
    expect(await line.sourceHeaders(`${stub.url}/artifacts/x.bundle`)).toEqual({
      authorization: 'Bearer bearer-1',
    });
    expect(await line.sourceHeaders('http://mirror.example/x.bundle')).toEqual({});
    expect(await line.sourceHeaders(`${stub.url}.evil.example/x`)).toEqual({});
  });

  it('F59 the first polls of many hosts after one outage are spread over the whole time', () => {
    const { poll } = defaultSettings();
    const delays = Array.from({ length: 1000 }, (_, host) =>
      firstPollDelayMs(createHash('sha256').update(`host ${host}`).digest('hex'), poll),
    );
    expect(Math.max(...delays)).toBeLessThan(120_000);
    const perTenth = Array.from(
      { length: 10 },
      (_, tenth) => delays.filter((ms) => Math.floor(ms / 12_000) === tenth).length,
    );
    for (const count of perTenth) expect(count).toBeGreaterThan(50);
  });
});

describe('transport', () => {
  const get = (url: string, one = transport(), maxBytes = 1000) =>
    one.exchange({ method: 'GET', url, headers: {}, body: null, maxBytes });

  it('D05 only the pinned authority, the right name, a certificate in time, and TLS 1.3 are accepted', async () => {
    const authority = makeCertificate({ name: 'authority', isAuthority: true });
    const other = makeCertificate({ name: 'other', isAuthority: true });
    const serve = async (
      request: Parameters<typeof makeCertificate>[0],
      maxVersion?: 'TLSv1.2',
    ) => {
      const { certPem, keyPem } = makeCertificate(request);
      return (await control({ cert: certPem, key: keyPem, ...(maxVersion ? { maxVersion } : {}) }))
        .url;
    };
    const good = await serve({ name: 'good', ip: '127.0.0.1', issuer: authority });
    const pinned = transport(authority.certPem);
    const answered = startAnswer(open.at(-2) as unknown as ControlStub);
    expect((await get(`${good}${answered}`, pinned)).status).toBe(200);
    const wrong = {
      'other authority': await serve({ name: 'x', ip: '127.0.0.1', issuer: other }),
      'wrong name': await serve({ name: 'elsewhere.example', issuer: authority }),
      expired: await serve({
        name: 'x',
        ip: '127.0.0.1',
        issuer: authority,
        notAfter: new Date(Date.now() - 86_400_000),
      }),
      'self-signed': await serve({ name: 'x', ip: '127.0.0.1' }),
      'TLS 1.2': await serve({ name: 'x', ip: '127.0.0.1', issuer: authority }, 'TLSv1.2'),
    };
    for (const [what, url] of Object.entries(wrong))
      await expect(get(`${url}/x`, pinned), what).rejects.toMatchObject({ code: 'E_TLS' });
    await expect(get(`${good}/x`, transport(null)), 'no pin').rejects.toMatchObject({
      code: 'E_TLS',
    });
  });

  it('D10 headers without end are E_HTTP', async () => {
    const stub = await control();
    stub.handlers.set('GET /x', (_seen, response) => {
      for (let n = 0; n < 10_000; n += 1) response.setHeader(`x-${n}`, 'y');
      response.end();
      return null;
    });
    await expect(get(`${stub.url}/x`)).rejects.toMatchObject({ code: 'E_HTTP' });
  });

  it('D10 an answer with two lengths, or with length and chunks, is E_HTTP or E_LENGTH', async () => {
    for (const head of [
      'Content-Length: 3\r\nContent-Length: 4',
      'Content-Length: 3\r\nTransfer-Encoding: chunked',
    ]) {
      const server = createServer((socket) => {
        socket.on('error', () => undefined);
        socket.once('data', () => socket.end(`HTTP/1.1 200 OK\r\n${head}\r\n\r\nabc`));
      });
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      open.push({ close: () => new Promise((resolve) => server.close(resolve)) });
      const { port } = server.address() as { port: number };
      await expect(get(`http://127.0.0.1:${port}/x`)).rejects.toMatchObject({
        code: expect.stringMatching(/^E_(?:HTTP|LENGTH)$/),
      });
    }
  });

  it('D02 a redirect is not followed', async () => {
    const stub = await control();
    stub.handlers.set('GET /x', () => ({ status: 302, headers: { location: `${stub.url}/y` } }));
    await expect(get(`${stub.url}/x`)).rejects.toMatchObject({ code: 'E_REDIRECT' });
    expect(stub.seen.map((one) => one.path)).toEqual(['/x']);
  });

  it('a body over its limit is E_TOOBIG, announced or not', async () => {
    const stub = await control();
    stub.handlers.set('GET /announced', () => ({ status: 200, body: 'x'.repeat(5000) }));
    stub.handlers.set('GET /endless', (_seen, response) => {
      response.flushHeaders();
      const timer = setInterval(() => response.write('x'.repeat(1000)), 5);
      response.on('close', () => clearInterval(timer));
      return null;
    });
    await expect(get(`${stub.url}/announced`)).rejects.toMatchObject({ code: 'E_TOOBIG' });
    await expect(get(`${stub.url}/endless`)).rejects.toMatchObject({ code: 'E_TOOBIG' });
  });

  it('D07 a content encoding that was not asked for is refused', async () => {
    const stub = await control();
    stub.handlers.set('GET /x', () => ({
      status: 200,
      headers: { 'content-encoding': 'gzip' },
      body: 1,
    }));
    await expect(get(`${stub.url}/x`)).rejects.toMatchObject({ code: 'E_ENCODING' });
  });

  it('an answer that never begins, and one that stops in the middle, are E_TIMEOUT', async () => {
    const stub = await control();
    stub.handlers.set('GET /never', () => null);
    stub.handlers.set('GET /half', (_seen, response) => {
      response.writeHead(200, { 'content-length': '10' });
      response.write('abc');
      return null;
    });
    const quick = transport(null, { headersTimeoutMs: 300, bodyTimeoutMs: 300 });
    await expect(get(`${stub.url}/never`, quick)).rejects.toMatchObject({ code: 'E_TIMEOUT' });
    await expect(get(`${stub.url}/half`, quick)).rejects.toMatchObject({ code: 'E_TIMEOUT' });
  });

  it('H11 a proxy in the environment is not used', async () => {
    const stub = await control();
    const proxy = await control();
    stub.handlers.set('GET /x', () => ({ status: 200, body: 1 }));
    process.env['HTTP_PROXY'] = process.env['http_proxy'] = proxy.url;
    expect((await get(`${stub.url}/x`)).status).toBe(200);
    delete process.env['HTTP_PROXY'];
    delete process.env['http_proxy'];
    expect(proxy.seen).toEqual([]);
  });
});

/** A path that this stub answers with 200. */
function startAnswer(stub: ControlStub): string {
  stub.handlers.set('GET /fine', () => ({ status: 200, body: 1 }));
  return '/fine';
}
