/** Roles of operators against a real control: who may do what, in which group, and what a refusal leaves behind. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type RouteName, rolePermissions, routeOf, routes } from '#/protocol/api.ts';
import { isProblem } from '#/protocol/errors.ts';
import type { Role } from '#/protocol/operator-plane.ts';
import { startWorld, type TestHost, type World } from '#/test/support/control/world.ts';
import { Operator } from '#/test/support/trust/operator.ts';

let world: World;
let web: TestHost;
let db: TestHost;
let dir = '';
beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'sb-roles-'));
  world = await startWorld();
  await world.group('web');
  await world.group('db');
  [web, db] = [await world.host('web'), await world.host('db')];
});
afterAll(async () => {
  await world[Symbol.asyncDispose]();
  rmSync(dir, { recursive: true, force: true });
});

const tokenOf = async (role: Role, groups?: readonly string[]): Promise<string> =>
  (
    await world.admin.call('apiTokenCreate', {
      body: {
        name: `${role}-${groups?.join('-') ?? 'all'}`,
        role,
        ...(groups === undefined ? {} : { groups: groups as never }),
      },
    })
  ).token;
const codeOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => 'ok',
    (error: unknown) => (isProblem(error) ? error.code : String(error)),
  );

describe('roles', () => {
  it('F79 a role does what only another role may', async () => {
    const names = (Object.keys(routes) as RouteName[]).filter(
      (name) => routeOf(name).plane === 'operator' && name !== 'events',
    );
    for (const role of Object.keys(rolePermissions) as Role[]) {
      const token = await tokenOf(role);
      for (const name of names) {
        const { method, path, permission } = routeOf(name);
        const url = world.control.url + path.replaceAll(/:([a-z]+)/g, 'x');
        const answer = await fetch(url, {
          method,
          headers: { authorization: `Bearer ${token}` },
        });
        const granted = (rolePermissions[role] as readonly string[]).includes(permission);
        expect([role, name, answer.status === 403]).toEqual([role, name, !granted]);
        await answer.text();
      }
    }
    const { items } = await world.admin.call('audit', { query: { limit: '1000' } });
    const refused = items.filter((entry) => entry.type === 'access.refused');
    expect(refused.map((entry) => entry.actor)).toEqual(
      expect.arrayContaining(['viewer-all', 'operator-all', 'approver-all', 'auditor-all']),
    );
    // One token cannot fill the log with its refusals.
    expect(refused.filter((entry) => entry.actor === 'viewer-all')).toHaveLength(10);
  });

  it('E01 a route answers somebody without a credential, or with that of another plane', async () => {
    const ask = async (name: RouteName, bearer: string | null): Promise<number> => {
      const { method, path } = routeOf(name);
      const url = world.control.url + path.replaceAll(/:([a-z]+)/g, 'x').replace('*', 'x');
      const headers = bearer === null ? {} : { authorization: `Bearer ${bearer}` };
      const cut = new AbortController();
      const answer = await fetch(url, { method, headers, signal: cut.signal });
      cut.abort();
      return answer.status;
    };
    for (const name of Object.keys(routes) as RouteName[]) {
      const { plane, permission } = routeOf(name);
      const answers = [
        await ask(name, null),
        await ask(name, 'sbt_nonsense'),
        ...(plane === 'operator' ? [await ask(name, web.token)] : []),
        ...(permission === 'host' ? [await ask(name, world.adminToken)] : []),
      ];
      // What is served to anybody is public or signed; what carries a signature of its own is refused for lack of it.
      const isOpen = permission === 'none' || permission === 'signature';
      const refused = isOpen ? answers.filter((status) => status === 403) : answers;
      expect([name, refused]).toEqual([name, isOpen ? [] : answers.map(() => 401)]);
    }
    // The event stream, which stays open for whoever may see it.
    for (const role of Object.keys(rolePermissions) as Role[]) {
      const granted = (rolePermissions[role] as readonly string[]).includes(
        routeOf('events').permission,
      );
      expect([role, await ask('events', await tokenOf(role))]).toEqual([role, granted ? 200 : 403]);
    }
  });

  it('E16 an operator of one group changes another, or the fleet', async () => {
    const release = await world.release(1);
    const ann = world.operator(await tokenOf('operator', ['web']));
    const body = { artifactId: release, reason: 'x' };
    const reason = 'x';
    for (const [work, expected] of [
      [ann.call('groupPin', { params: { group: 'web' }, body }), 'ok'],
      [ann.call('groupPin', { params: { group: 'db' }, body }), 'E_FORBIDDEN'],
      [ann.call('hostHold', { params: { host: web.id }, body: { reason } }), 'ok'],
      [ann.call('hostHold', { params: { host: db.id }, body: { reason } }), 'E_FORBIDDEN'],
      [ann.call('halt', { body: { reason } }), 'E_FORBIDDEN'],
      [ann.call('halt', { body: { reason, group: 'db' as never } }), 'E_FORBIDDEN'],
      [ann.call('joinTokenCreate', { body: {} }), 'E_FORBIDDEN'],
      [ann.call('joinTokenCreate', { body: { group: 'web' as never } }), 'ok'],
      [
        ann.call('hostAction', {
          params: { host: web.id },
          body: { action: 'move', group: 'db' as never, reason },
        }),
        'E_FORBIDDEN',
      ],
      [ann.call('groupPut', { params: { group: 'new' }, body: {} }), 'E_FORBIDDEN'],
      [ann.call('groupList', {}), 'ok'],
    ] as const)
      expect(await codeOf(work)).toBe(expected);
    const rollouts = await world.admin.call('rolloutList', {});
    const bob = world.operator(await tokenOf('operator', ['db']));
    const params = { rollout: rollouts.items[0]!.id };
    expect(await codeOf(bob.call('rolloutPause', { params, body: { reason } }))).toBe(
      'E_FORBIDDEN',
    );
    expect(await codeOf(ann.call('rolloutPause', { params, body: { reason } }))).toBe('ok');
    const { items } = await world.admin.call('audit', { query: { limit: '1000' } });
    expect(
      items.filter((e) => e.type === 'access.refused' && e.actor === 'operator-db'),
    ).toHaveLength(1);
  });

  it('an approver of one group hands in what another group, or the policy, signed', async () => {
    const admin = new Operator(dir, () => world.control.url, world.adminToken);
    const ann = new Operator(dir, () => world.control.url, await tokenOf('approver', ['web']));
    for (const [args, expected] of [
      [['trust', 'renew', 'grp-web', '--reason', 'x'], 0],
      [['trust', 'renew', 'grp-db', '--reason', 'x'], 20],
      [['trust', 'floor', 'web', '1', '--reason', 'x'], 20],
    ] as const)
      expect([args[2], (await ann.run(...args)).exitCode]).toEqual([args[2], expected]);
    await admin.ok('trust', 'renew', 'grp-db', '--reason', 'x');
  });

  it('an admin or a release manager is bound to groups, which binds nothing', async () => {
    for (const role of ['admin', 'release-manager', 'auditor', 'viewer'] as const)
      await expect(tokenOf(role, ['web'])).rejects.toMatchObject({ code: 'E_USAGE' });
  });

  it('a token or its scope is lost in a restart, or its secret is on disk', async () => {
    const operator = new Operator(dir, () => world.control.url, world.adminToken);
    const made = JSON.parse(
      await operator.ok(
        'token',
        'create',
        'carl',
        '--role',
        'operator',
        '--groups',
        'db',
        '--ttl',
        '8h',
        '--json',
      ),
    ) as { id: string; token: string };
    await world.restart();
    const carl = world.operator(made.token);
    expect(await codeOf(carl.call('groupPut', { params: { group: 'web' }, body: {} }))).toBe(
      'E_FORBIDDEN',
    );
    expect(await codeOf(carl.call('groupPut', { params: { group: 'db' }, body: {} }))).toBe('ok');
    expect(await operator.ok('token', 'ls')).toMatch(/carl +operator +db/);
    await operator.ok('token', 'revoke', made.id);
    expect(await codeOf(carl.call('groupList', {}))).toBe('E_UNAUTHENTICATED');
    const store = new DatabaseSync(join(world.dir, 'control.db'), { readOnly: true });
    const rows = JSON.stringify(store.prepare('SELECT * FROM api_tokens').all());
    store.close();
    expect(rows).toContain(made.id);
    expect(rows).not.toContain(made.token);
  });
});
