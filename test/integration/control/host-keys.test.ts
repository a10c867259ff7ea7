/** New keys of a host, against a real control with the agent's own line and identity on disk. */
import { randomBytes } from 'node:crypto';
import { copyFileSync, existsSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { watchKeys } from '#/agent/trust-watch.ts';
import { makeKeys, publicKeysOf } from '#/agent/adapters/identity.ts';
import { systemRandom } from '#/agent/adapters/random.ts';
import { canonicalDocument } from '#/bundle/canonical.ts';
import { signEnvelope } from '#/bundle/dsse.ts';
import { hexOf, type Signer, signerOf } from '#/bundle/keys.ts';
import { sealPublicKeyOf } from '#/bundle/seal.ts';
import { KEY_CHANGE_PAYLOAD_TYPE } from '#/protocol/agent-plane.ts';
import { signedHeaders, startWorld, TestHost, type World } from '#/test/support/control/world.ts';
import { MACHINE, RealHost } from '#/test/support/trust/real-host.ts';

let world: World;
beforeAll(async () => {
  world = await startWorld();
  await world.group('web');
});
afterAll(() => world[Symbol.asyncDispose]());

const keyIdOf = async (host: RealHost): Promise<string> =>
  world.control.engine.fleet.hosts.get(host.identity.host)?.keyId ?? '';
const postRotate = async (body: object, by: Signer) => {
  const url = `${world.control.url}/agent/v1/rotate`;
  const bytes = Buffer.from(JSON.stringify(body));
  const headers = signedHeaders(url, 'POST', bytes, by);
  const answer = await fetch(url, { method: 'POST', body: bytes, headers });
  return [answer.status, ((await answer.json()) as { code?: string }).code];
};
const changeOf = (host: TestHost, next: Signer, signers: readonly Signer[], more: object = {}) =>
  signEnvelope(
    KEY_CHANGE_PAYLOAD_TYPE,
    canonicalDocument({
      schema: 'switchback.key-change/1',
      host: host.id,
      oldKeyId: host.signer.key.keyId,
      signKey: hexOf(next.key.bytes),
      sealKey: hexOf(sealPublicKeyOf(randomBytes(32))),
      ...more,
    }),
    signers,
  );

describe('key rotation of a host', () => {
  it('the host and control go on with the new keys, the old key is nobody’s, across restarts', async () => {
    await using host = await RealHost.enrol(world);
    const old = publicKeysOf((await host.store().keys.read())!).signer;
    const { host: id } = host.identity;
    await host.line.poll(null, 'idle');
    await host.line.rotateKeys();
    expect(host.identity.keyId).not.toBe(old.key.keyId);
    expect(await keyIdOf(host)).toBe(host.identity.keyId);
    expect((await host.line.poll(null, 'idle')).kind).toBe('assignment');
    await host.start();
    expect(host.identity.host).toBe(id);
    expect((await host.line.poll(null, 'idle')).kind).toBe('assignment');
    // E03 for what was stolen before.
    const thief = new TestHost(world, old, id);
    expect((await thief.authenticate()).status).toBe(401);
    const { items } = await world.admin.call('audit', {
      query: { subject: `host/${id}`, limit: '1000' },
    });
    expect(items.at(-1)).toMatchObject({
      type: 'host.rotate-key',
      details: { from: old.key.keyId, keyId: host.identity.keyId },
    });
  });

  it('a rotation whose answer was lost, or that was cut off by a crash, is ended at the next start', async () => {
    await using host = await RealHost.enrol(world);
    const file = (name: string): string => join(host.directory, 'identity', name);
    // Control took the new key; the host died before it wrote anything but the keys on their way.
    copyFileSync(file('keys'), file('keys.old'));
    copyFileSync(file('host'), file('host.old'));
    const next = makeKeys(systemRandom(), MACHINE, Date.now());
    await host.store().nextKeys.write(next);
    copyFileSync(file('next-keys'), file('next.old'));
    await host.line.rotateKeys();
    expect(host.identity.keyId).toBe(publicKeysOf(next).signer.key.keyId);
    await host.stop();
    copyFileSync(file('keys.old'), file('keys'));
    copyFileSync(file('host.old'), file('host'));
    copyFileSync(file('next.old'), file('next-keys'));
    await host.start();
    const stop = new AbortController();
    const said: unknown[] = [];
    await watchKeys({
      link: host.line,
      identity: host.identity,
      maxAgeMs: 90 * 86_400_000,
      clock: { ...host.clock, sleep: () => Promise.resolve(false) },
      log: {
        info: (...all: unknown[]) => said.push(all),
        warn: (...all: unknown[]) => said.push(all),
      } as never,
      signal: stop.signal,
    });
    expect(said).toMatchObject([[{ event: 'keys-rotated' }, expect.anything()]]);
    expect(existsSync(file('next-keys'))).toBe(false);
    expect((await host.line.poll(null, 'idle')).kind).toBe('assignment');
    // Cut off between the keys and the record: the statement of now is taken with the next token.
    await host.stop();
    copyFileSync(file('host.old'), file('host'));
    await host.start();
    expect((await host.line.poll(null, 'idle')).kind).toBe('assignment');
  });

  it('keys that are old are not replaced by themselves, or young ones are', async () => {
    await using host = await RealHost.enrol(world);
    const before = host.identity.keyId;
    const watch = (maxAgeMs: number) =>
      watchKeys({
        link: host.line,
        identity: host.identity,
        maxAgeMs,
        clock: { ...host.clock, sleep: () => Promise.resolve(false) },
        log: { info: () => undefined, warn: () => undefined } as never,
        signal: new AbortController().signal,
      });
    await watch(60_000);
    expect(host.identity.keyId).toBe(before);
    host.offsetMs = 61_000;
    await watch(60_000);
    expect(host.identity.keyId).not.toBe(before);
  });

  it('E15 a rotation signed only by the new key, only by the old one, or for another host', async () => {
    const [host, other] = [await world.host('web'), await world.host('web')];
    const next = signerOf(randomBytes(32));
    const { signer } = host;
    const both = changeOf(host, next, [signer, next]);
    for (const [body, by, expected] of [
      [{ host: host.id, change: both }, next, [401, 'E_UNAUTHENTICATED']],
      [{ host: host.id, change: changeOf(host, next, [next]) }, signer, [422, 'E_SIGS']],
      [{ host: host.id, change: changeOf(host, next, [signer]) }, signer, [422, 'E_SIGS']],
      [{ host: host.id, change: both }, other.signer, [403, 'E_FORBIDDEN']],
      [{ host: other.id, change: both }, other.signer, [422, 'E_SIGS']],
      [
        { host: host.id, change: changeOf(host, next, [signer, next], { host: other.id }) },
        signer,
        [403, 'E_FORBIDDEN'],
      ],
      [
        {
          host: host.id,
          change: changeOf(host, other.signer, [signer, other.signer]),
        },
        signer,
        [409, 'E_CONFLICT'],
      ],
    ] as const)
      expect([(await postRotate(body, by)).join(' ')]).toEqual([expected.join(' ')]);
    expect((await host.authenticate()).status).toBe(200);
    expect(world.control.engine.fleet.hosts.get(host.id)?.keyId).toBe(signer.key.keyId);
    expect(await postRotate({ host: host.id, change: both }, signer)).toEqual([200, undefined]);
    expect((await host.authenticate()).status).toBe(401);
  });
});
