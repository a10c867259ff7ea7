/** Attacks on metadata: A01-A19, A26-A33 of the list. Roles and targets: tuf-roles.test.ts. */
import { describe, expect, it } from 'vitest';
import { canonicalDocument } from '#/bundle/canonical.ts';
import { dateText } from '#/bundle/trust/shape.ts';
import { agentOf, memoryStore, NOW_MS, TrustWorld } from '#/test/support/trust-world.ts';
import { TufHost } from '#/test/support/tuf-client.ts';
import { ecdsaSigner, edSigner, TufSimulator } from '#/test/support/tuf-simulator.ts';

const NOW = NOW_MS / 1000;

async function ready(): Promise<{ sim: TufSimulator; host: TufHost }> {
  const sim = new TufSimulator();
  const host = new TufHost(sim);
  await host.refresh();
  return { sim, host };
}

/** Serves a timestamp that was signed as it should be, then changed as text. */
function tamperTimestamp(sim: TufSimulator, change: (text: string) => string): void {
  const text = Buffer.from(sim.sign(sim.timestamp, sim.signers.get('timestamp') ?? [])).toString();
  sim.files.set('metadata/timestamp.json', Buffer.from(change(text)));
}

describe('signatures', () => {
  it('A01 a timestamp signed by an unknown key is refused', async () => {
    const { sim, host } = await ready();
    sim.timestamp.version += 1;
    sim.signers.set('timestamp', [edSigner(1)]);
    sim.publishTimestamp();
    await host.refuses('E_SIGS');
  });

  it('A02 targets signed by one of two needed keys are refused', async () => {
    const { sim, host } = await ready();
    sim.bumpRoot(() => {
      sim.addKey('targets');
      sim.root.roles['targets']!.threshold = 2;
    });
    sim.signers.set('targets', sim.signers.get('targets')!.slice(0, 1));
    sim.bump('targets');
    await host.refuses('E_SIGS');
  });

  it('A03 one signature repeated is refused as such', async () => {
    const { sim, host } = await ready();
    const [signer] = sim.signers.get('timestamp')!;
    sim.timestamp.version += 1;
    sim.signers.set('timestamp', [signer!, signer!]);
    sim.publishTimestamp();
    await host.refuses('E_DUPSIG');
  });

  it('A04 one key under two ids does not make two signatures', async () => {
    const { sim, host } = await ready();
    const [signer] = sim.signers.get('targets')!;
    const twin = { ...signer!, keyId: 'f'.repeat(64) };
    sim.bumpRoot(() => {
      sim.addKey('targets', twin);
      sim.root.roles['targets']!.threshold = 2;
    });
    sim.bump('targets');
    await host.refuses('E_SIGS');
  });

  it('A31 keys of other schemes do not count', async () => {
    for (const scheme of ['ecdsa', 'rsassa-pss-sha256', 'none']) {
      const { sim, host } = await ready();
      const signer = scheme === 'ecdsa' ? ecdsaSigner() : edSigner(5);
      const key = scheme === 'ecdsa' ? signer.key : { ...signer.key, scheme };
      sim.bumpRoot(() => {
        sim.root.roles['timestamp']!.keyids = [];
        sim.signers.set('timestamp', []);
        sim.addKey('timestamp', { ...signer, key });
      });
      sim.publishTimestamp();
      await host.refuses('E_SIGS');
    }
  });

  it('B04 a hex signature in upper case, too long or too short is no signature', async () => {
    for (const change of [
      (sig: string) => sig.toUpperCase(),
      (sig: string) => `${sig}00`,
      (sig: string) => sig.slice(2),
      (sig: string) => Buffer.from(sig, 'hex').toString('base64'),
    ]) {
      const { sim, host } = await ready();
      const [signer] = sim.signers.get('timestamp')!;
      sim.timestamp.version += 1;
      sim.signers.set('timestamp', [{ ...signer!, sign: (m) => change(signer!.sign(m)) }]);
      sim.publishTimestamp();
      await host.refuses('E_SIGS');
    }
  });
});

describe('rollback and mixing', () => {
  it('A06 an older timestamp is refused', async () => {
    const { sim, host } = await ready();
    const old = sim.files.get('metadata/timestamp.json')!;
    sim.bump();
    await host.refresh();
    sim.files.set('metadata/timestamp.json', old);
    await host.refuses('E_ROLLBACK');
  });

  it('A07 a newer timestamp that lists an older snapshot is refused', async () => {
    const { sim, host } = await ready();
    sim.bump();
    await host.refresh();
    sim.snapshot.version = 1;
    sim.publishSnapshot();
    sim.timestamp.version += 1;
    sim.publishTimestamp();
    await host.refuses('E_ROLLBACK');
  });

  it('A08 a snapshot that lowers the version of one role is refused', async () => {
    const { sim, host } = await ready();
    sim.bump('targets');
    await host.refresh();
    sim.role('targets').version = 1;
    sim.publishRole('targets');
    sim.bump();
    await host.refuses('E_ROLLBACK');
  });

  it('A09 a snapshot that drops a role is refused', async () => {
    const { sim, host } = await ready();
    sim.delegate('targets', 'img-web', ['images/web/*/*']);
    sim.publishRole('img-web');
    sim.bump('targets');
    await host.refresh();
    delete sim.snapshot.meta['img-web.json'];
    sim.bump();
    await host.refuses('E_ROLLBACK');
  });

  it('A10 the same version with other content keeps the old one and is told', async () => {
    const { sim, host } = await ready();
    const kept = host.store.files.get('role.timestamp.json');
    sim.timestamp.expires = dateText(NOW + 86_400);
    sim.publishTimestamp();
    await host.refresh();
    expect(host.store.files.get('role.timestamp.json')).toEqual(kept);
    expect(host.equivocations).toEqual(['timestamp']);
  });

  it('A10 the same snapshot version with other content keeps the old one and is told', async () => {
    const { sim, host } = await ready();
    const kept = host.store.files.get('role.snapshot.json');
    sim.snapshot.expires = dateText(NOW + 86_400);
    sim.publishSnapshot();
    sim.timestamp.version += 1;
    sim.publishTimestamp();
    await host.refresh();
    expect(host.store.files.get('role.snapshot.json')).toEqual(kept);
    expect(host.equivocations).toEqual(['snapshot']);
  });

  it('A10 a role that was signed twice with one version is told', async () => {
    const { sim, host } = await ready();
    sim.role('targets').expires = dateText(NOW + 86_400);
    sim.publishRole('targets');
    sim.bump();
    await host.refresh();
    expect(host.equivocations).toEqual(['targets']);
  });

  it('A14 a snapshot of one release with targets of another is refused', async () => {
    const { sim, host } = await ready();
    const old = sim.files.get('metadata/1.targets.json')!;
    sim.bump('targets');
    sim.files.set('metadata/2.targets.json', old);
    await host.refuses('E_HASH');
  });

  it('A14 a snapshot of another version than the timestamp lists is refused', async () => {
    const { sim, host } = await ready();
    sim.snapshot.version = 3;
    sim.publishSnapshot();
    sim.timestamp.meta['snapshot.json'].version = 2;
    sim.files.set('metadata/2.snapshot.json', sim.files.get('metadata/3.snapshot.json')!);
    sim.timestamp.version += 1;
    sim.publishTimestamp();
    await host.refuses('E_MIX');
  });

  it.each(['timestamp', 'snapshot'])('A15 a %s entry without digests is refused', async (role) => {
    const { sim, host } = await ready();
    sim.digests = false;
    if (role === 'snapshot') sim.publishRole('targets');
    sim.digests = role === 'snapshot';
    sim.snapshot.version += 1;
    sim.publishSnapshot();
    sim.timestamp.version += 1;
    sim.publishTimestamp();
    await host.refuses('E_SCHEMA');
  });

  it('A15 a timestamp that lists anything beside the snapshot is refused', async () => {
    const { sim, host } = await ready();
    Object.assign(sim.timestamp.meta, { a: 1 });
    sim.timestamp.version += 1;
    sim.publishTimestamp();
    await host.refuses('E_SCHEMA');
  });

  it('A19 fast-forwarded versions are left behind after the keys were rotated', async () => {
    const { sim, host } = await ready();
    sim.timestamp.version = Number.MAX_SAFE_INTEGER - 1;
    sim.snapshot.version = Number.MAX_SAFE_INTEGER - 1;
    sim.bump();
    await host.refresh();
    sim.bumpRoot(() => {
      sim.rotate('timestamp');
      sim.rotate('snapshot');
    });
    sim.timestamp.version = 1;
    sim.snapshot.version = 1;
    sim.publish();
    const set = await host.refresh();
    expect(set.timestamp?.signed.version).toBe(1);
    expect(set.snapshot?.signed.version).toBe(1);
  });
});

describe('expiry', () => {
  it.each(['timestamp', 'snapshot', 'targets', 'root'] as const)(
    'A11 an expired %s is refused',
    async (role) => {
      const { sim, host } = await ready();
      const documents = {
        timestamp: sim.timestamp,
        snapshot: sim.snapshot,
        targets: sim.role('targets'),
        root: sim.root,
      };
      const expired = dateText(NOW);
      if (role === 'root') {
        sim.bumpRoot(() => {
          sim.root.expires = expired;
        });
      } else {
        documents[role].expires = expired;
      }
      sim.bump('targets');
      await host.refuses('E_EXPIRED');
    },
  );

  it('A11 a role that expired while it was in the cache is refused', async () => {
    const { sim, host } = await ready();
    const later = NOW + 20 * 86_400;
    sim.role('targets').expires = dateText(NOW + 10 * 86_400);
    sim.bump('targets');
    await host.refresh();
    await host.refuses('E_EXPIRED', () => host.refresh(later));
  });

  it.each([
    '2030-01-01T00:00:00',
    '2030-01-01 00:00:00Z',
    '2030-13-01T00:00:00Z',
    '2030-02-30T00:00:00Z',
    '99999-01-01T00:00:00Z',
    '2030-01-01T00:00:00.000Z',
    '2030-01-01T24:00:00Z',
    'never',
    4102444800,
  ])('A12 the expiry %s is refused', async (expires) => {
    const { sim, host } = await ready();
    sim.timestamp.version += 1;
    (sim.timestamp as unknown as Record<string, unknown>)['expires'] = expires;
    sim.publishTimestamp();
    await host.refuses('E_EXPIRES');
  });

  it('A32 a root that is withheld for ever is good until it expires', async () => {
    const world = new TrustWorld();
    const { trust } = agentOf(world);
    expect((await trust.refresh(world.nowMs)).rootVersion).toBe(1);
    const { rootExpires } = await trust.status();
    expect(rootExpires).toBe(NOW + 365 * 86_400);
    world.nowMs = rootExpires * 1000;
    await expect(trust.refresh(world.nowMs)).rejects.toMatchObject({ code: 'E_EXPIRED' });
  });
});

describe('form', () => {
  it.each([
    ['0', '0'],
    ['-1', '-1'],
    ['1.5', '1.5'],
    ['2^53+1', '9007199254740993'],
    ['"3"', '"3"'],
    ['null', 'null'],
  ])('A13 version %s is refused', async (_name, version) => {
    const { sim, host } = await ready();
    sim.timestamp.version = 777;
    tamperTimestamp(sim, (text) => text.replace('"version":777', `"version":${version}`));
    await host.refuses('E_VERSION');
  });

  it('A16 root N+2 offered as N+1 is refused', async () => {
    const { sim, host } = await ready();
    sim.root.version = 2;
    sim.files.set('metadata/2.root.json', sim.bumpRoot());
    sim.files.delete('metadata/3.root.json');
    await host.refuses('E_ROLLBACK');
  });

  it.each(['old', 'new'])('A17 a new root signed only by the %s keys is refused', async (which) => {
    const { sim, host } = await ready();
    const old = sim.signers.get('root')!;
    sim.root.version += 1;
    sim.rotate('root');
    sim.publishRoot(which === 'old' ? old : sim.signers.get('root'));
    await host.refuses('E_SIGS');
  });

  it('A18 more than 256 root rotations at once are refused', async () => {
    const { sim, host } = await ready();
    for (let count = 0; count < 257; count += 1) sim.bumpRoot();
    await host.refuses('E_ROOTS');
  });

  it.each([
    ['a duplicate key', (text: string) => text.replace('"version":', '"version":9,"version":')],
    ['trailing garbage', (text: string) => `${text} x`],
    ['a byte order mark', (text: string) => `\ufeff${text}`],
    ['a lone surrogate', (text: string) => text.replace('"_type"', '"\\ud800":1,"_type"')],
    [
      'depth 10,000',
      (text: string) =>
        text.replace('"_type"', `"deep":${'['.repeat(10_000)}${']'.repeat(10_000)},"_type"`),
    ],
  ])('A26 %s is refused', async (name, change) => {
    const { sim, host } = await ready();
    sim.timestamp.version += 1;
    tamperTimestamp(sim, change);
    await host.refuses(name === 'depth 10,000' ? 'E_TOOBIG' : 'E_PARSE');
  });

  it('A26 depth 33 and invalid UTF-8 are refused', async () => {
    const { sim, host } = await ready();
    tamperTimestamp(sim, (text) =>
      text.replace('"_type"', `"deep":${'['.repeat(33)}${']'.repeat(33)},"_type"`),
    );
    await host.refuses('E_PARSE');
    tamperTimestamp(sim, (text) => text.replace('"_type"', '"bad":"@@","_type"'));
    const bytes = Buffer.from(sim.files.get('metadata/timestamp.json')!);
    bytes.set([0xc3, 0x28], bytes.indexOf('@@'));
    sim.files.set('metadata/timestamp.json', bytes);
    await host.refuses('E_PARSE');
  });

  it.each(['1e3', '-0', '1.0', '1000000000000000000000e2'])(
    'A27 the number %s is refused',
    async (number) => {
      const { sim, host } = await ready();
      tamperTimestamp(sim, (text) => text.replace('"_type"', `"n":${number},"_type"`));
      await host.refuses('E_CANON');
    },
  );

  it('A27 a fraction in what is signed is refused', async () => {
    const { sim, host } = await ready();
    tamperTimestamp(sim, (text) => text.replace('"_type"', '"n":1.5,"_type"'));
    await host.refuses('E_CANON');
  });

  it('A28 unknown fields are accepted, and kept as they came', async () => {
    const { sim, host } = await ready();
    Object.assign(sim.timestamp, { 'x-other': { a: [1, 'é\n'] } });
    sim.timestamp.version += 1;
    sim.publishTimestamp();
    await host.refresh();
    expect(host.store.files.get('role.timestamp.json')).toEqual(
      Uint8Array.from(sim.files.get('metadata/timestamp.json')!),
    );
  });

  it.each(['2.0.0', '0.9', '1', 'x', '1.0.0.0'])('A29 spec_version %s is refused', async (spec) => {
    const { sim, host } = await ready();
    sim.timestamp.version += 1;
    sim.timestamp.spec_version = spec;
    sim.publishTimestamp();
    await host.refuses('E_SPEC');
  });

  it('A30 metadata of another type is refused, though the right key signed it', async () => {
    const { sim, host } = await ready();
    sim.signers.set('snapshot', sim.signers.get('timestamp')!);
    sim.files.set('metadata/timestamp.json', sim.sign(sim.snapshot, sim.signers.get('timestamp')!));
    await host.refuses('E_TYPE');
  });

  it('A33 a root that is answered with an error is tried again, not taken for absent', async () => {
    const world = new TrustWorld();
    const failing = {
      ...world.fetch(),
      metadata: async () => {
        throw Object.assign(new Error('500'), { name: 'Problem', code: 'E_HTTP' });
      },
    };
    const store = memoryStore();
    const { trust } = agentOf(world, store, { fetch: failing });
    await expect(trust.refresh(world.nowMs)).rejects.toMatchObject({ code: 'E_HTTP' });
    expect(store.files.size).toBe(0);
  });

  it('an empty object, an array and a text are refused', async () => {
    for (const value of [{}, [], 'x']) {
      const { sim, host } = await ready();
      sim.files.set('metadata/timestamp.json', canonicalDocument(value));
      await host.refuses('E_SCHEMA');
    }
  });
});
