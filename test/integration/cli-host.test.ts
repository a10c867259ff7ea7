/** The commands about one host and about who may join, against a control with a host that is enrolled and runs a version. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ArtifactId } from '#/protocol/ids.ts';
import { startWorld, type TestHost, type World } from '#/test/support/control/world.ts';
import { Operator } from '#/test/support/trust/operator.ts';

let world: World;
let operator: Operator;
let host: TestHost;
let first: ArtifactId;
const dir = mkdtempSync(join(tmpdir(), 'sb-cli-host-'));

beforeAll(async () => {
  world = await startWorld();
  operator = new Operator(dir, () => world.control.url, world.adminToken);
  const group = await world.group('web', { canaryCount: 0, wavePercents: [100], soakSeconds: 0 });
  host = await world.host(group);
  first = await world.release(1);
  await operator.ok('pin', 'web', '1.1.0', '--reason', 'first');
  await host.follow();
  await world.control.engine.settled();
});
afterAll(async () => {
  await world[Symbol.asyncDispose]();
  rmSync(dir, { recursive: true, force: true });
});

const json = async <T>(...args: readonly string[]): Promise<T> =>
  JSON.parse(await operator.ok(...args, '--json')) as T;
const why = (): Promise<string> => operator.ok('host', 'why', host.id);

describe('one host', () => {
  it('is not listed, or not with what it runs', async () => {
    const { items } = await json<{ items: unknown[] }>('host', 'ls');
    expect(items).toMatchObject([{ id: host.id, group: 'web', running: first }]);
    expect(await operator.ok('host', 'show', host.id)).toContain(host.id);
    expect(await operator.ok('host', 'show', host.id.slice(0, 8))).toContain(host.id);
  });

  it('its timeline lacks the attempt that ended', async () => {
    const seen = await operator.ok('host', 'timeline', host.id);
    expect(seen).toContain('confirmed');
  });

  it('a hold is not the answer to why, or cannot be ended', async () => {
    await operator.ok('host', 'hold', host.id, '--reason', 'being debugged');
    expect(await why()).toContain('being debugged');
    await operator.ok('host', 'unhold', host.id);
    expect(await why()).not.toContain('being debugged');
  });

  it('a pin of its own is not offered to it, or does not end', async () => {
    const second = await world.release(2);
    await operator.ok('pin', host.id, '1.2.0', '--host', '--reason', 'compare');
    expect(await why()).toContain('compare');
    host.etag = null;
    expect((await host.poll()).body.offer?.artifactId).toBe(second);
    await operator.ok('unpin', host.id, '--host');
    expect(await why()).toContain('no pin of its own');
  });

  it('a version that the host took back is not offered once more after a retry', async () => {
    const third = await world.release(3);
    await operator.ok('pin', host.id, '1.3.0', '--host', '--reason', 'try it here');
    host.etag = null;
    const before = (await host.poll()).body.offer;
    await host.follow('rolled-back', 'E_UNHEALTHY');
    await world.control.engine.settled();
    expect(await operator.ok('host', 'timeline', host.id)).toContain('rolled-back');
    const said = await operator.ok('host', 'retry', host.id, '--reason', 'disk was replaced');
    expect(said).toContain('1.3.0 may be tried again');
    host.etag = null;
    const { offer } = (await host.poll()).body;
    expect(offer?.artifactId).toBe(third);
    // Above what its deny-list remembers.
    expect(offer?.retryGeneration).toBeGreaterThan(before?.retryGeneration ?? 99);
    const unknown = await operator.run('host', 'retry', `h-${'0'.repeat(32)}`, '--reason', 'none');
    expect(unknown.stderr).toMatch(/^E_NOT_FOUND/);
  });
});

describe('join tokens', () => {
  it('one that was taken back still lets a host in, or is not shown', async () => {
    const made = await json<{ id: string; token: string }>(
      'host',
      'token',
      'web',
      '--description',
      'rack 7',
    );
    expect(await operator.ok('join', 'ls')).toMatch(
      new RegExp(`${made.id} .*web .*good until.*rack 7`),
    );
    expect(await operator.ok('join', 'ls', '--json')).not.toContain(made.token);
    await operator.ok('join', 'revoke', made.id);
    const { items } = await json<{ items: { id: string }[] }>('join', 'ls');
    expect(items.map(({ id }) => id)).not.toContain(made.id);
    expect((await operator.run('join', 'revoke', made.id)).stderr).toMatch(/^E_NOT_FOUND/);
  });
});

describe('groups', () => {
  it('one with hosts is removed, or an empty one is not', async () => {
    const refused = await operator.run('group', 'rm', 'web');
    expect(refused.stderr).toMatch(/^E_NOT_ALLOWED_NOW.*1 hosts/s);
    await world.group('spare');
    expect(await json('group', 'rm', 'spare')).toEqual({ removed: 'spare' });
    expect((await operator.run('group', 'rm', 'spare')).stderr).toMatch(/^E_NOT_FOUND/);
  });
});
