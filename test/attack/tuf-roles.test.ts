/** Attacks through delegations and targets: A05, A20-A25 of the list. */
import { describe, expect, it } from 'vitest';
import { findTarget } from '#/bundle/trust/client.ts';
import { matchesPattern } from '#/bundle/trust/delegation.ts';
import { addGroup } from '#/control/trust/delegations.ts';
import { decodeKeyFile, encodeKeyFile } from '#/control/trust/key-file.ts';
import { TrustWorld } from '#/test/support/trust-world.ts';
import { TufHost } from '#/test/support/tuf-client.ts';
import { edSigner, TufSimulator } from '#/test/support/tuf-simulator.ts';

async function ready(): Promise<{ sim: TufSimulator; host: TufHost }> {
  const sim = new TufSimulator();
  const host = new TufHost(sim);
  await host.refresh();
  return { sim, host };
}

it('A05 a key file whose key id is not the hash of its key is refused before anything is published', () => {
  const world = new TrustWorld();
  const text = Buffer.from(encodeKeyFile(world.keys.root)).toString();
  const [keyId] = /[0-9a-f]{64}/.exec(text.slice(text.indexOf('keyId'))) ?? [''];
  expect(() => decodeKeyFile(Buffer.from(text.replace(keyId, '0'.repeat(64))))).toThrow(
    expect.objectContaining({ code: 'E_KEYID' }),
  );
});

it('A20 a role that was verified under one delegator is not trusted under another', async () => {
  const { sim, host } = await ready();
  sim.delegate('targets', 'img-a', ['images/a/*']);
  sim.delegate('targets', 'img-b', ['images/b/*']);
  sim.delegate('img-a', 'img-c', ['images/a/*']);
  sim.addTarget('img-c', 'images/b/x', 'content');
  sim.bump('targets', 'img-a', 'img-b', 'img-c');
  const set = await host.refresh();
  // Verified under img-a, and in the cache.
  await host.refuses('E_NOTARGET', () => findTarget(set, 'images/a/none', host.session()));
  expect(host.store.files.has('role.img-c.json')).toBe(true);
  // img-b names other keys for the role of the same name.
  const signers = sim.signers.get('img-c')!;
  sim.delegate('img-b', 'img-c', ['images/b/*'], { signer: edSigner(9) });
  sim.signers.set('img-c', signers);
  sim.bump('img-b');
  await host.refuses('E_SIGS', () => host.find('images/b/x'));
});

describe('A21 delegations that lead nowhere', () => {
  it('A21 a cycle ends without a target', async () => {
    const { sim, host } = await ready();
    sim.delegate('targets', 'img-a', ['images/*']);
    sim.delegate('img-a', 'img-b', ['images/*']);
    sim.delegate('img-b', 'img-a', ['images/*'], { signer: sim.signers.get('img-a')![0]! });
    sim.bump('targets', 'img-a', 'img-b');
    await host.refuses('E_NOTARGET', () => host.find('images/x'));
  });

  it('A21 the 33rd role of a chain is not asked', async () => {
    const { sim, host } = await ready();
    let delegator = 'targets';
    const names: string[] = [];
    for (let depth = 1; depth <= 33; depth += 1) {
      const name = `img-d${depth}`;
      sim.delegate(delegator, name, ['images/*']);
      names.push(name);
      delegator = name;
    }
    sim.addTarget('img-d33', 'images/x', 'content');
    sim.addTarget('img-d32', 'images/y', 'content');
    sim.bump('targets', ...names);
    expect(await host.find('images/y')).toBe('img-d32');
    await host.refuses('E_NOTARGET', () => host.find('images/x'));
  });

  it('A21 nothing is asked after a terminating delegation', async () => {
    const { sim, host } = await ready();
    sim.delegate('targets', 'img-a', ['images/*'], { terminating: true });
    sim.delegate('targets', 'img-b', ['images/*']);
    sim.addTarget('img-b', 'images/x', 'content');
    sim.bump('targets', 'img-a', 'img-b');
    await host.refuses('E_NOTARGET', () => host.find('images/x'));
  });
});

it('A22 a target outside the paths of its role is not found', async () => {
  const { sim, host } = await ready();
  sim.delegate('targets', 'img-web', ['images/web/*/*'], { terminating: true });
  sim.addTarget('img-web', 'images/db/1/x', 'content');
  sim.addTarget('img-web', 'images/web/1/x', 'content');
  sim.bump('targets', 'img-web');
  expect(await host.find('images/web/1/x')).toBe('img-web');
  await host.refuses('E_NOTARGET', () => host.find('images/db/1/x'));
});

it('A23 a star does not cross a slash, and case matters', () => {
  expect(matchesPattern('images/*/x', 'images/web/x')).toBe(true);
  expect(matchesPattern('images/*', 'images/web/x')).toBe(false);
  expect(matchesPattern('*', 'a/b')).toBe(false);
  expect(matchesPattern('images/*', 'Images/x')).toBe(false);
  expect(matchesPattern('a?c', 'a/c')).toBe(false);
  expect(matchesPattern('a*b*c', 'aXbXbc')).toBe(true);
  expect(matchesPattern('[ab]', 'a')).toBe(false);
  expect(matchesPattern('.', 'x')).toBe(false);
});

it('A23 a pattern of many stars does not take long', () => {
  const pattern = `${'*a'.repeat(400)}b`;
  expect(matchesPattern(pattern, 'a'.repeat(1000))).toBe(false);
});

describe('names of roles', () => {
  it('A24 a role that is delegated twice is refused', async () => {
    const { sim, host } = await ready();
    sim.delegate('targets', 'img-a', ['images/a/*']);
    sim.delegate('targets', 'img-a', ['images/b/*']);
    sim.bump('targets', 'img-a');
    await host.refuses('E_SCHEMA');
  });

  it.each(['root', 'timestamp', 'snapshot', 'targets'])(
    'A24 delegating to %s is refused',
    async (name) => {
      const { sim, host } = await ready();
      sim.role('targets').delegations = {
        keys: {},
        roles: [{ name, keyids: [], threshold: 1, terminating: true, paths: ['*'] }],
      };
      sim.bump('targets');
      await host.refuses('E_SCHEMA');
    },
  );

  it.each(['../x', '%2e%2e', 'constructor', '__proto__', 'a'.repeat(300), 'img-é', 'IMG-web', ''])(
    'A25 a role with the name %s is refused and nothing is written for it',
    async (name) => {
      const { sim, host } = await ready();
      sim.delegate('targets', name, ['images/*']);
      sim.bump('targets', name);
      const before = [...host.store.files.keys()];
      await host.refuses('E_SCHEMA', () => host.find('images/x'));
      expect([...host.store.files.keys()]).toEqual(before);
    },
  );
});

it('a group that is added keeps the delegations of the others', async () => {
  const world = new TrustWorld();
  world.publish(addGroup(world.repository(), 'green'));
  const text = Buffer.from(world.files.get('metadata/3.targets.json')!).toString();
  expect(text).toContain('"grp-blue"');
  expect(text).toContain('"grp-green"');
});
