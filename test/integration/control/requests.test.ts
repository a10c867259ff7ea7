/** Requests to control as attackers and broken clients make them. */
import { randomBytes } from 'node:crypto';
import { createConnection } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { signerOf } from '#/bundle/keys.ts';
import { checkRoutes } from '#/control/http/server.ts';
import { type RouteName, routeOf, routes } from '#/protocol/api.ts';
import { isProblem } from '#/protocol/errors.ts';
import {
  enrolWith,
  signedHeaders,
  startWorld,
  type TestHost,
  type World,
} from '#/test/support/control/world.ts';

let world: World;
let host: TestHost;
beforeAll(async () => {
  world = await startWorld();
  await world.group('web');
  await world.group('db');
  host = await world.host('web');
});
afterAll(() => world[Symbol.asyncDispose]());

const joinToken = async (group = 'web', ttlSeconds = 60): Promise<string> =>
  (await world.admin.call('joinTokenCreate', { body: { group: group as never, ttlSeconds } }))
    .token;
const codeOf = async (answer: Response): Promise<unknown> =>
  ((await answer.json()) as { code: string }).code;
const tokenUrl = (): string => `${world.control.url}/agent/v1/token`;
const tokenBody = (id: string = host.id): Uint8Array<ArrayBuffer> =>
  Buffer.from(JSON.stringify({ host: id, bootId: 'b' }));
const postToken = (headers: Record<string, string>, body = tokenBody()): Promise<Response> =>
  fetch(tokenUrl(), { method: 'POST', headers, body });

describe('request signatures', () => {
  it('E01 no signature is 401', async () => {
    const answer = await postToken({ 'content-type': 'application/json' });
    expect([answer.status, await codeOf(answer)]).toEqual([401, 'E_UNAUTHENTICATED']);
  });

  it('E02 an unknown key is 401', async () => {
    const stranger = signerOf(randomBytes(32));
    const answer = await postToken(signedHeaders(tokenUrl(), 'POST', tokenBody(), stranger));
    expect(answer.status).toBe(401);
  });

  it('E03 the key of a host that was forgotten is 401, its bearer too', async () => {
    const gone = await world.host('web');
    await world.admin.call('hostAction', {
      params: { host: gone.id },
      body: { action: 'forget', reason: 'sold' },
    });
    expect((await gone.authenticate()).status).toBe(401);
    expect((await gone.poll()).status).toBe(401);
  });

  it('E04 the key of host A for host B is 403', async () => {
    const other = await world.host('web');
    const answer = await postToken(
      signedHeaders(tokenUrl(), 'POST', tokenBody(other.id), host.signer),
      tokenBody(other.id),
    );
    expect([answer.status, await codeOf(answer)]).toEqual([403, 'E_FORBIDDEN']);
  });

  it('E05 a changed body with the old digest is 401', async () => {
    const headers = signedHeaders(tokenUrl(), 'POST', tokenBody(), host.signer);
    const answer = await postToken(
      headers,
      Buffer.from(JSON.stringify({ host: host.id, bootId: 'c' })),
    );
    expect(answer.status).toBe(401);
  });

  it('E06 a replayed request is 401', async () => {
    const headers = signedHeaders(tokenUrl(), 'POST', tokenBody(), host.signer);
    expect((await postToken(headers)).status).toBe(200);
    expect((await postToken(headers)).status).toBe(401);
  });

  it.each([-600, 600])('E07 created %i s off is 401', async (off) => {
    const at = { nowS: Math.floor(Date.now() / 1000) + off };
    expect(
      (await postToken(signedHeaders(tokenUrl(), 'POST', tokenBody(), host.signer, at))).status,
    ).toBe(401);
  });

  it('E08 a covered component that is missing is 401', async () => {
    const headers = signedHeaders(tokenUrl(), 'POST', tokenBody(), host.signer);
    const input = headers['signature-input'] ?? '';
    const answer = await postToken({
      ...headers,
      'signature-input': input.replace(' "content-digest"', ''),
    });
    expect(answer.status).toBe(401);
  });

  it.each([
    ['alg="ed25519"', 'alg="hmac-sha256"'],
    ['switchback-agent-v1', 'another-tag'],
  ])('E09 another tag or alg is 401: %s', async (from, to) => {
    const headers = signedHeaders(tokenUrl(), 'POST', tokenBody(), host.signer);
    const input = (headers['signature-input'] ?? '').replace(from, to);
    expect((await postToken({ ...headers, 'signature-input': input })).status).toBe(401);
  });

  it('E10 two signatures, one of them bad, is 401', async () => {
    const headers = signedHeaders(tokenUrl(), 'POST', tokenBody(), host.signer);
    const input = `${headers['signature-input']}, x=("@method");created=1;keyid="a"`;
    const signature = `${headers['signature']}, x=:AAAA:`;
    expect((await postToken({ ...headers, 'signature-input': input, signature })).status).toBe(401);
  });

  it('E12 a malleated signature is 401', async () => {
    const headers = signedHeaders(tokenUrl(), 'POST', tokenBody(), host.signer);
    const bytes = Buffer.from((headers['signature'] ?? '').slice(4, -1), 'base64');
    // S + L: the same equation, another text.
    const order = BigInt('0x1000000000000000000000000000000014def9dea2f79cd65812631a5cf5d3ed');
    let s = 0n;
    for (let i = 63; i >= 32; i -= 1) s = (s << 8n) | BigInt(bytes[i] ?? 0);
    s += order;
    for (let i = 32; i < 64; i += 1) {
      bytes[i] = Number(s & 0xffn);
      s >>= 8n;
    }
    const answer = await postToken({ ...headers, signature: `sb=:${bytes.toString('base64')}:` });
    expect(answer.status).toBe(401);
  });
});

describe('enrolment', () => {
  it('E13 a join token that was used is refused to another key, and answered again to the same', async () => {
    const token = await joinToken();
    const first = signerOf(randomBytes(32));
    const once = await enrolWith(world, first, { token });
    expect(once.status).toBe(201);
    const again = await enrolWith(world, first, { token });
    expect(again.status).toBe(201);
    expect(JSON.parse(again.text).host).toBe(JSON.parse(once.text).host);
    const thief = await enrolWith(world, signerOf(randomBytes(32)), { token });
    expect([thief.status, JSON.parse(thief.text).code]).toEqual([401, 'E_TOKEN']);
  });

  it('E13 a token that expired, or was never made, is refused', async () => {
    const token = await joinToken('web', 1);
    await new Promise((resolve) => setTimeout(resolve, 1100));
    expect(
      JSON.parse((await enrolWith(world, signerOf(randomBytes(32)), { token })).text).code,
    ).toBe('E_TOKEN');
    const made = `sbj_${randomBytes(16).toString('base64url')}`;
    expect(
      JSON.parse((await enrolWith(world, signerOf(randomBytes(32)), { token: made })).text).code,
    ).toBe('E_TOKEN');
  });

  it('E13 a token lets into its group only, whatever the host says', async () => {
    const token = await joinToken('db');
    const answer = await enrolWith(world, signerOf(randomBytes(32)), { token });
    expect(JSON.parse(answer.text).group).toBe('db');
  });

  it('E13 a second token does not replace a host that exists', async () => {
    const answer = await enrolWith(world, host.signer, { token: await joinToken() });
    expect([answer.status, JSON.parse(answer.text).code]).toEqual([409, 'E_CONFLICT']);
  });

  it('E14 without proof of possession nobody is enrolled', async () => {
    const other = signerOf(randomBytes(32));
    const answer = await enrolWith(
      world,
      signerOf(randomBytes(32)),
      { token: await joinToken() },
      { signedBy: other },
    );
    expect([answer.status, JSON.parse(answer.text).code]).toEqual([401, 'E_UNAUTHENTICATED']);
  });
});

describe('reports', () => {
  it('a report of another host is refused', async () => {
    const other = await world.host('web');
    const envelope = other.sign(other.document([]));
    const answer = await host.send(envelope);
    expect(answer.status).toBeGreaterThanOrEqual(400);
    expect(['E_SIGS', 'E_FORBIDDEN']).toContain(answer.body['code']);
  });

  it('a report signed by the host in the name of another is E_FORBIDDEN', async () => {
    const other = await world.host('web');
    const answer = await host.send(host.sign(host.document([], { host: other.id })));
    expect([answer.status, answer.body['code']]).toEqual([403, 'E_FORBIDDEN']);
  });
});

describe('operators', () => {
  it('E20 a request from a page of another site is refused', async () => {
    const answer = await fetch(`${world.control.url}/api/v1/halt`, {
      method: 'POST',
      headers: {
        authorization: `Bearer ${world.adminToken}`,
        origin: 'https://evil.invalid',
        'content-type': 'application/json',
      },
      body: '{"reason":"x"}',
    });
    expect([answer.status, await codeOf(answer)]).toEqual([403, 'E_FORBIDDEN']);
  });

  it.each([
    '{"__proto__":{"reason":"x"}}',
    '{"reason":"x","constructor":{"prototype":{}}}',
    '{"labels":{"__proto__":"x"}}',
  ])('E20 keys that mean something to JavaScript are refused: %s', async (body) => {
    const answer = await fetch(`${world.control.url}/api/v1/halt`, {
      method: 'POST',
      headers: { authorization: `Bearer ${world.adminToken}`, 'content-type': 'application/json' },
      body,
    });
    expect(answer.status).toBe(422);
    expect(({} as Record<string, unknown>)['reason']).toBeUndefined();
    expect((await world.admin.call('halts', {})).items).toEqual([]);
  });

  it('a viewer reads and may not change anything', async () => {
    const made = await world.admin.call('apiTokenCreate', {
      body: { name: 'eve', role: 'viewer' },
    });
    const viewer = world.operator(made.token);
    await viewer.call('summary', {});
    const error = await viewer.call('halt', { body: { reason: 'x' } }).catch((e: unknown) => e);
    expect(isProblem(error, 'E_FORBIDDEN')).toBe(true);
    await world.admin.call('apiTokenRevoke', { params: { id: made.id } });
    const after = await viewer.call('summary', {}).catch((e: unknown) => e);
    expect(isProblem(after, 'E_UNAUTHENTICATED')).toBe(true);
  });

  it('F78 a change made for an older revision of a group is E_CONFLICT', async () => {
    const group = await world.group('raced');
    const { revision } = await world.admin.call('groupShow', { params: { group } });
    await world.admin.call('groupPut', {
      params: { group },
      body: { description: 'mine', revision },
    });
    const error = await world.admin
      .call('groupPut', { params: { group }, body: { description: 'theirs', revision } })
      .catch((e: unknown) => e);
    expect(isProblem(error, 'E_CONFLICT')).toBe(true);
  });
});

/** Bodies that no route may take. */
const hostile: readonly (readonly [string, string | Uint8Array<ArrayBuffer>])[] = [
  ['empty', ''],
  ['not JSON', '{"a":'],
  ['not UTF-8', Buffer.from([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x7d])],
  ['deep', '['.repeat(5000) + ']'.repeat(5000)],
  ['an array', '[]'],
  ['a number', '7'],
  [
    'wrong types',
    '{"reason":7,"artifactId":{},"token":[],"host":null,"payload":1,"labels":3,"name":1,"manifest":2,"action":9,"selector":4,"ttlSeconds":"x"}',
  ],
  ['a key twice', '{"reason":"a","reason":"b"}'],
];
const samples: Readonly<Record<string, string>> = {
  host: `h-${'0'.repeat(32)}`,
  group: 'web',
  rollout: `r-${'0'.repeat(16)}`,
  artifact: '0'.repeat(64),
  id: 'jt-0000000000000000',
};

describe('F81 malformed bodies', () => {
  const withBody = (Object.keys(routes) as RouteName[]).filter(
    (name) => routeOf(name).body !== undefined && routeOf(name).body !== 'bytes',
  );

  const bearerFor = (name: RouteName): string => {
    const { permission } = routeOf(name);
    return permission === 'host' ? host.token : world.adminToken;
  };
  const send = (name: RouteName, body: string | Uint8Array<ArrayBuffer>): Promise<Response> => {
    const route = routeOf(name);
    const path = route.path.replaceAll(/:([a-z]+)/g, (_, key: string) => samples[key] ?? 'x');
    return fetch(world.control.url + path, {
      method: route.method,
      headers: { authorization: `Bearer ${bearerFor(name)}`, 'content-type': 'application/json' },
      body,
    });
  };

  it.each(withBody)('F81 %s refuses each with a 4xx and a code', async (name) => {
    for (const [what, body] of hostile) {
      const answer = await send(name, body);
      const text = await answer.text();
      expect([what, answer.status >= 400 && answer.status < 500]).toEqual([what, true]);
      expect(JSON.parse(text).code).toMatch(/^E_/);
    }
  });

  it.each(['rollout', 'poll'])(
    'F81 an array stands for a %s policy inside a body: refused, not read as an empty one',
    async (field) => {
      const answer = await send('groupPut', JSON.stringify({ [field]: [] }));
      expect(answer.status).toBe(422);
      expect(await answer.json()).toMatchObject({ code: 'E_SCHEMA', details: { field } });
    },
  );

  it.each(withBody)('F81 %s refuses a body above its limit', async (name) => {
    const limit = routeOf(name).maxBodyBytes ?? 256 * 1024;
    const answer = await send(name, Buffer.alloc(limit + 1, 0x20)).catch(() => null);
    // The connection may be cut before the answer is read: then nothing was taken either.
    if (answer !== null) expect(answer.status).toBe(413);
  });

  it('F81 a body that drips is ended by the deadline, and holds up nobody', async () => {
    const socket = createConnection(world.control.port, '127.0.0.1');
    socket.write(
      `POST /api/v1/halt HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${world.adminToken}\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{`,
    );
    await world.admin.call('summary', {});
    const answer = await new Promise<string>((resolve) => {
      let text = '';
      socket.on('data', (bytes) => (text += String(bytes)));
      socket.on('close', () => resolve(text));
      socket.on('error', () => resolve(text));
      setTimeout(() => socket.end(), 25_000);
    });
    expect(answer).toContain('408');
    expect((await world.admin.call('halts', {})).items).toEqual([]);
  });

  it('F81 headers that never end are cut off', async () => {
    const socket = createConnection(world.control.port, '127.0.0.1');
    socket.write('GET /healthz HTTP/1.1\r\nhost: x\r\nx-a: ');
    const closed = await new Promise<boolean>((resolve) => {
      socket.on('close', () => resolve(true));
      socket.on('error', () => resolve(true));
      socket.resume();
      setTimeout(() => resolve(false), 30_000);
    });
    expect(closed).toBe(true);
  });

  it('F81 ten thousand headers, and a path with an encoded slash', async () => {
    const headers = new Headers();
    for (let i = 0; i < 500; i += 1) headers.set(`x-${i}`, 'a'.repeat(100));
    const many = await fetch(`${world.control.url}/healthz`, { headers });
    expect(many.status).toBe(431);
    await many.text();
    const odd = await fetch(
      `${world.control.url}/agent/v1/trust/metadata/..%2f..%2fkeys%2ftrust.json`,
    );
    expect(odd.status).toBe(400);
    const other = await fetch(
      `${world.control.url}/agent/v1/trust/targets/..%2f..%2fkeys/trust.json`,
    );
    expect(other.status).toBe(404);
  });
});

describe('routes', () => {
  it('a route without plane or permission keeps control from starting', () => {
    const { plane: _, ...noPlane } = routeOf('halt');
    const { permission: __, ...noPermission } = routeOf('halt');
    expect(() => checkRoutes({ halt: noPlane })).toThrow(/plane/);
    expect(() => checkRoutes({ halt: noPermission })).toThrow(/permission/);
    expect(() => checkRoutes({ halt: { ...routeOf('halt'), permission: 'none' } })).toThrow(
      /operator plane/,
    );
    expect(() => checkRoutes(routes)).not.toThrow();
  });

  it('every route of the operator plane is 401 without a credential', async () => {
    for (const name of Object.keys(routes) as RouteName[]) {
      const route = routeOf(name);
      if (route.plane !== 'operator') continue;
      const path = route.path.replaceAll(/:([a-z]+)/g, (_, key: string) => samples[key] ?? 'x');
      const answer = await fetch(world.control.url + path, { method: route.method });
      expect([name, answer.status]).toEqual([name, 401]);
      await answer.text();
    }
  });
});
