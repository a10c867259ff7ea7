/** The real process, ended with SIGKILL at random moments while it works. What it acknowledged must be there afterwards. */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import type { ArtifactId } from '#/protocol/ids.ts';
import { fetchSend, startWorld, type TestHost, type World } from '#/test/support/control/world.ts';
import { createClient } from '#/protocol/client.ts';

const MAIN = join(import.meta.dirname, '../../../control/main.ts');

interface Running {
  readonly child: ChildProcess;
  readonly url: string;
}

async function start(dataDir: string, children: ChildProcess[]): Promise<Running> {
  const child = spawn(
    process.execPath,
    [MAIN, 'serve', '--data', dataDir, '--listen', '127.0.0.1:0', '--log-level', 'info'],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  children.push(child);
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let text = '';
  child.stdout?.on('data', (bytes) => {
    if (text.length > 100_000) return;
    text += String(bytes);
    const url = /"url":"([^"]+)"/.exec(text)?.[1];
    if (url !== undefined) resolve(url);
  });
  child.once('exit', () => reject(new Error(`control ended: ${text}`)));
  return { child, url: await promise };
}

interface Ledger {
  /** Holds that were acknowledged, by host. */
  readonly holds: Map<string, string>;
  readonly offered: Map<string, string[]>;
  readonly confirmed: Set<string>;
  isHalted: boolean;
}

/** Everybody acts at once until control dies; what was acknowledged is written down. */
async function work(
  world: World,
  hosts: readonly TestHost[],
  ledger: Ledger,
  round: number,
): Promise<void> {
  const admin = createClient(fetchSend(world.control.url), {
    authorization: `Bearer ${world.adminToken}`,
  });
  const until = async (act: () => Promise<boolean>): Promise<void> => {
    for (;;)
      try {
        if (!(await act())) return;
      } catch {
        // The connection died with the process: nothing was acknowledged.
        return;
      }
  };
  let n = 0;
  const operator = until(async () => {
    const host = hosts[n % hosts.length];
    n += 1;
    if (host === undefined || n > 500) return false;
    const reason = `round ${round} hold ${n}`;
    await admin.call('hostHold', { params: { host: host.id }, body: { reason } });
    ledger.holds.set(host.id, reason);
    // From here on it may be gone: an order that was not acknowledged may have been carried out.
    ledger.holds.delete(host.id);
    await admin.call('hostUnhold', { params: { host: host.id } });
    return true;
  });
  const fleet = hosts.map((host) =>
    until(async () => {
      host.etag = null;
      const { status, body } = await host.poll();
      if (status !== 200) return status === 401;
      if (body.offer === null) {
        await new Promise((resolve) => setTimeout(resolve, 20));
        return true;
      }
      const list = ledger.offered.get(host.id) ?? [];
      const key = `${body.offer.artifactId}/${body.offer.rolloutId ?? '-'}/${body.offer.retryGeneration}`;
      if (list.at(-1) !== key) list.push(key);
      ledger.offered.set(host.id, list);
      await host.finish(body.offer, 'confirmed');
      ledger.confirmed.add(`${host.id}/${body.offer.artifactId}`);
      return true;
    }),
  );
  await Promise.all([operator, ...fleet]);
}

describe('control is killed', () => {
  const children: ChildProcess[] = [];
  afterEach(() => {
    for (const child of children) if (child.exitCode === null) child.kill('SIGKILL');
  });

  it('F71 SIGKILL at random moments loses no acknowledged change, counts no report twice, offers no lease twice', async () => {
    await using world = await startWorld();
    const group = await world.group('web', {
      canaryCount: 1,
      wavePercents: [50, 100],
      soakSeconds: 0,
    });
    const hosts: TestHost[] = [];
    for (let i = 0; i < 4; i += 1) hosts.push(await world.host(group));
    const releases: ArtifactId[] = [];
    for (let release = 1; release <= 6; release += 1) releases.push(await world.release(release));
    await world.control.stop();
    const ledger: Ledger = {
      holds: new Map(),
      offered: new Map(),
      confirmed: new Set(),
      isHalted: false,
    };
    for (const [round, artifactId] of releases.entries()) {
      const running = await start(world.dir, children);
      world.control = { ...world.control, url: running.url };
      for (const host of hosts) await host.authenticate();
      const admin = createClient(fetchSend(running.url), {
        authorization: `Bearer ${world.adminToken}`,
      });
      // What was acknowledged before the last kill is there.
      for (const [id, reason] of ledger.holds) {
        const detail = await admin.call('hostShow', { params: { host: id } });
        expect(detail.hold?.reason).toBe(reason);
        await admin.call('hostUnhold', { params: { host: id } });
      }
      ledger.holds.clear();
      if (ledger.isHalted) {
        expect((await admin.call('halts', {})).items).toHaveLength(1);
        for (const host of hosts) expect((await host.poll()).body.halted).toBe(true);
        await admin.call('lift', { body: { reason: 'go on' } });
        ledger.isHalted = false;
      }
      const pinned = await admin.call('groupPin', {
        params: { group },
        body: { artifactId, reason: `round ${round}` },
      });
      expect(pinned.pin.seq).toBe(round + 1);
      const working = work(world, hosts, ledger, round);
      await new Promise((resolve) => setTimeout(resolve, randomInt(50, 900)));
      if (round % 2 === 1) {
        await admin.call('halt', { body: { reason: 'stop' } }).then(
          () => {
            ledger.isHalted = true;
          },
          () => undefined,
        );
      }
      running.child.kill('SIGKILL');
      await once(running.child, 'exit');
      await working;
    }
    await world.control.stop();
    const last = await start(world.dir, children);
    world.control = { ...world.control, url: last.url };
    const admin = createClient(fetchSend(last.url), {
      authorization: `Bearer ${world.adminToken}`,
    });
    for (const host of hosts) {
      const detail = await admin.call('hostShow', { params: { host: host.id } });
      // One attempt per lease of a rollout (a lease that was withdrawn is over), each acknowledged confirm counted once.
      const attempts = detail.attempts
        .filter((a) => a.rolloutId !== null && a.outcome !== 'withdrawn')
        .map((a) => `${a.artifactId}/${a.rolloutId}`);
      expect(new Set(attempts).size).toBe(attempts.length);
      for (const key of ledger.confirmed) {
        const [id, artifactId] = key.split('/');
        if (id !== host.id) continue;
        const same = detail.attempts.filter(
          (a) => a.artifactId === artifactId && a.outcome === 'confirmed',
        );
        expect(same.length).toBeGreaterThan(0);
        const events = new Set(same.map((a) => a.agentAttempt));
        expect(events.size).toBe(same.length);
      }
      const offered = (ledger.offered.get(host.id) ?? []).filter((key) => !key.includes('/-/'));
      expect(new Set(offered).size).toBe(offered.length);
    }
    const audit = await admin.call('audit', { query: { limit: '1000' } });
    const ids = audit.items.map((entry) => entry.id);
    expect(ids).toEqual(ids.map((_, i) => i + 1));
    last.child.kill('SIGTERM');
    const [code] = (await once(last.child, 'exit')) as [number | null];
    expect(code).toBe(0);
  }, 110_000);
});
