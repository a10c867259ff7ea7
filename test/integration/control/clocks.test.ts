/** Hosts whose clocks are wrong, and answers of control that are not the answer to their question. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readMemory } from '#/agent/adapters/trust-state.ts';
import { createTrustStore } from '#/agent/adapters/trust-store.ts';
import { nodeFiles } from '#/agent/adapters/file-port.ts';
import { type Freshness, watchFreshness } from '#/agent/freshness.ts';
import { signTime } from '#/control/engine/statements.ts';
import { signerOf } from '#/bundle/keys.ts';
import { refreshTrust } from '#/control/jobs/clockwork.ts';
import type { HostId } from '#/protocol/ids.ts';
import {
  hex,
  signedHeaders,
  startWorld,
  type TestHost,
  type World,
} from '#/test/support/control/world.ts';
import { RealHost } from '#/test/support/trust/real-host.ts';
import { randomBytes } from 'node:crypto';

const DAY_MS = 86_400_000;
/** 1970 and 2039 as distances from now. */
const TO_1970_MS = -Date.now();
const TO_2039_MS = Date.UTC(2039, 0, 1) - Date.now();

let world: World;
/** The clock of control is ahead by this. */
let aheadMs = 0;
beforeAll(async () => {
  world = await startWorld({ nowMs: () => Date.now() + aheadMs });
  await world.group('web');
});
afterAll(() => world[Symbol.asyncDispose]());

const floorOf = async (host: RealHost): Promise<number> => {
  const store = createTrustStore(nodeFiles(), join(host.directory, 'trust'));
  return (await readMemory(store, host.identity.host))?.timeFloor ?? 0;
};

describe('hosts whose clock is wrong', () => {
  it.each([
    ['1970', TO_1970_MS],
    ['2039', TO_2039_MS],
  ])(
    'H04 a host that believes it is %s cannot enrol, poll, or tell the time',
    async (_, offsetMs) => {
      await using host = await RealHost.enrol(world, 'web', offsetMs);
      expect((await host.line.poll(null, 'idle')).kind).toBe('assignment');
      // It was told the real time, signed, as the answer to its own question.
      expect(Math.abs((host.signedTimes.at(-1) ?? 0) - Date.now())).toBeLessThan(60_000);
      await host.trust.status();
      expect(Math.abs((await floorOf(host)) - Date.now() / 1000)).toBeLessThan(60);
      if (offsetMs > 0) expect(host.notices.map((n) => n.kind)).toContain('clock-ahead');
      // With the clock of 1970 metadata is judged by the floor: nothing expired long ago is taken for fresh.
      else
        expect((await host.trust.refresh(host.clock.wallMs())).timestampVersion).toBeGreaterThan(0);
    },
  );

  it('H04 a clock that jumps to 2039 in the middle raises the floor, so that the host is lost for ever', async () => {
    await using host = await RealHost.enrol(world);
    await host.trust.refresh(host.clock.wallMs());
    const before = await floorOf(host);
    host.offsetMs = TO_2039_MS;
    await expect(host.trust.refresh(host.clock.wallMs())).rejects.toMatchObject({
      code: 'E_EXPIRED',
    });
    host.offsetMs = 0;
    expect(await floorOf(host)).toBeLessThan(before + 60);
    await host.trust.refresh(host.clock.wallMs());
  });

  it('H03 H05 trust state that is damaged, or restored from a snapshot, is begun anew with the floors of the policy', async () => {
    await using host = await RealHost.enrol(world);
    await host.line.poll(null, 'idle');
    await host.trust.refresh(host.clock.wallMs());
    await host.stop();
    await writeFile(join(host.directory, 'trust', 'memory'), 'not a state file');
    await host.start();
    await host.line.poll(null, 'idle');
    await host.trust.refresh(host.clock.wallMs());
    expect(host.notices).toContainEqual(
      expect.objectContaining({ kind: 'state-rebuilt', code: 'E_STATE' }),
    );
    expect(Math.abs((await floorOf(host)) - Date.now() / 1000)).toBeLessThan(60);
  });
});

describe('answers to another question', () => {
  const answerOf = async (host: RealHost, nonce: string, id: HostId = host.identity.host) =>
    signTime(world.control.desk.enrolment, id, nonce, Date.now() + 400 * DAY_MS);

  it('D07 the time that was signed for another host, or for an earlier question, is E_NONCE', async () => {
    await using host = await RealHost.enrol(world);
    const nonce = hex(16);
    const { identity } = host;
    expect(identity.openTime(await answerOf(host, nonce), nonce)).toBeGreaterThan(Date.now());
    const other = `h-${'1'.repeat(32)}` as HostId;
    for (const [answer, asked] of [
      [await answerOf(host, nonce, other), nonce],
      [await answerOf(host, hex(16)), nonce],
    ] as const)
      expect(() => identity.openTime(answer, asked)).toThrow(
        expect.objectContaining({ code: 'E_NONCE' }),
      );
    const forged = signTime(signerOf(randomBytes(32)), identity.host, nonce, 1);
    expect(() => identity.openTime(forged, nonce)).toThrow(
      expect.objectContaining({ code: 'E_SIGS' }),
    );
  });

  it('D07 a whole token answer that was recorded is refused, and moves no floor', async () => {
    const { createServer } = await import('node:http');
    await using host = await RealHost.enrol(world);
    const url = `${world.control.url}/agent/v1/token`;
    const body = Buffer.from(
      JSON.stringify({ host: host.identity.host, bootId: 'b', nonce: hex(16) }),
    );
    // What the attacker recorded, an answer to another request of this host.
    const { signer } = await keysOf(host);
    const recorded = await (
      await fetch(url, { method: 'POST', body, headers: signedHeaders(url, 'POST', body, signer) })
    ).text();
    const server = createServer((request, response) => {
      request.resume();
      request.on('end', () =>
        response.writeHead(200, { 'content-type': 'application/json' }).end(recorded),
      );
    });
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    const { port } = server.address() as { port: number };
    const before = host.signedTimes.length;
    const { createControlLink } = await import('#/agent/adapters/control-link.ts');
    const { systemRandom } = await import('#/agent/adapters/random.ts');
    const { settingsFrom } = await import('#/agent/config.ts');
    const text = `[control]\nurls = ["http://127.0.0.1:${port}"]\n`;
    const line = createControlLink({
      settings: settingsFrom([{ file: 'test', text }]).settings,
      identity: host.identity,
      clock: host.clock,
      random: systemRandom(),
      agentVersion: '0.1.0',
      standing: () => ({ running: null, healthy: true, seq: 0, factsHash: null }),
      onSignedTime: (ms) => host.signedTimes.push(ms),
    });
    await expect(line.poll(null, 'idle')).rejects.toMatchObject({ code: 'E_NONCE' });
    expect(host.signedTimes).toHaveLength(before);
    await line.close();
    server.close();
  });

  it('E07 a challenge is taken twice, from another key, or after its minute', async () => {
    const host = await world.host('web');
    const url = `${world.control.url}/agent/v1/token`;
    const ask = async (who: TestHost, more: object) => {
      const body = Buffer.from(JSON.stringify({ host: who.id, bootId: 'b', ...more }));
      const headers = signedHeaders(url, 'POST', body, who.signer, { nowS: 1000 });
      const answer = await fetch(url, { method: 'POST', body, headers });
      return { status: answer.status, body: (await answer.json()) as { details?: object } };
    };
    const first = await ask(host, { nonce: hex(16) });
    expect(first.status).toBe(401);
    const { challenge, time } = first.body.details as { challenge: string; time: unknown };
    expect(time).toBeDefined();
    const other = await world.host('web');
    expect((await ask(other, { challenge })).status).toBe(401);
    expect((await ask(host, { challenge: hex(16) })).status).toBe(401);
    expect((await ask(host, { challenge })).status).toBe(200);
    expect((await ask(host, { challenge })).status).toBe(401);
    const late = (await ask(host, {})).body.details as { challenge: string };
    aheadMs = 61_000;
    expect((await ask(host, { challenge: late.challenge })).status).toBe(401);
    aheadMs = 0;
  });

  async function keysOf(host: RealHost) {
    const { publicKeysOf } = await import('#/agent/adapters/identity.ts');
    const keys = await host.store().keys.read();
    if (keys === null) throw new Error('no keys');
    return publicKeysOf(keys);
  }
});

describe('a control that is silent or frozen', () => {
  it('X03 F11 a freeze of a day is not told by the host itself', async () => {
    await using host = await RealHost.enrol(world);
    const looks: Freshness[] = [];
    const stop = new AbortController();
    // Sleeps are jumps of the clock of the host: hours pass at once.
    const clock = {
      ...host.clock,
      sleep: async (ms: number) => {
        host.offsetMs += ms;
        if (looks.length >= 40) stop.abort();
        return !stop.signal.aborted;
      },
    };
    await watchFreshness({
      trust: host.trust,
      clock,
      random: { hex, unit: () => 0.5 },
      intervalMs: 3_600_000,
      signal: stop.signal,
      onLook: (freshness) => looks.push(freshness),
    });
    const staleFrom = looks.findIndex((look) => look.stale);
    expect(looks[0]).toMatchObject({ stale: false, code: null });
    expect(staleFrom).toBeGreaterThan(10);
    expect(staleFrom).toBeLessThanOrEqual(25);
    expect(looks.slice(staleFrom).every((look) => look.stale && look.code === 'E_EXPIRED')).toBe(
      true,
    );
    // Control works again: the host is fresh at its next look.
    aheadMs = host.offsetMs;
    await refreshTrust(world.control.desk);
    expect((await host.trust.refresh(host.clock.wallMs())).timestampExpires).toBeGreaterThan(
      host.clock.wallMs() / 1000,
    );
    aheadMs = 0;
  });
});
