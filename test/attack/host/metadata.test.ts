/** Metadata attacks on a host that runs: the agent as it is shipped, a control that lies. The forms one by one: ../tuf-*.test.ts. */
import { readdirSync } from 'node:fs';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { dateText } from '#/bundle/trust/shape.ts';
import { tufKeyOf } from '#/bundle/keys.ts';
import { refreshTimestamp } from '#/control/trust/delegations.ts';
import { type Attack, AttackedHost } from '#/test/support/attack/attacked-host.ts';
import { nameKey } from '#/test/support/attack/forge.ts';
import { DAY_MS, signerNumber } from '#/test/support/trust-world.ts';

let host: AttackedHost;
beforeAll(async () => {
  host = await AttackedHost.start();
});
afterAll(() => host[Symbol.asyncDispose]());

const refused = (code: string) => ({ refused: code }) as const;
const past = (): string => dateText(Math.floor(Date.now() / 1000) - 10);
const stranger = signerNumber(900);
/** The timestamp, signed as it should be, then changed as text. */
const asText =
  (change: (text: string) => string) =>
  ({ forge, world }: AttackedHost): void =>
    forge.timestamp(undefined, [world.key('timestamp')], change);

const cases: readonly (readonly [string, Attack])[] = [
  [
    'A01 a timestamp signed by an unknown key',
    { attack: ({ forge }) => forge.timestamp(undefined, [stranger]), ends: refused('E_SIGS') },
  ],
  [
    'A02 targets signed by one of two needed keys',
    {
      attack({ forge, world }) {
        forge.root((root) => {
          nameKey(root, 'targets', stranger);
          root.roles.targets.threshold = 2;
        });
        forge.role('targets', () => undefined, [world.key('targets')]);
      },
      ends: refused('E_SIGS'),
    },
  ],
  [
    'A03 one signature repeated',
    {
      attack: ({ forge, world }) =>
        forge.timestamp(undefined, [world.key('timestamp'), world.key('timestamp')]),
      ends: refused('E_DUPSIG'),
    },
  ],
  [
    'A04 one key under two ids, two of it needed',
    {
      attack({ forge, world }) {
        const targets = world.key('targets');
        const twin = { ...targets, key: { ...targets.key, keyId: 'f'.repeat(64) } };
        forge.root((root) => {
          nameKey(root, 'targets', targets, twin.key.keyId);
          root.roles.targets.threshold = 2;
        });
        forge.role('targets', () => undefined, [targets, twin]);
      },
      ends: refused('E_SIGS'),
    },
  ],
  [
    'A06 an older timestamp is replayed',
    {
      attack({ seen, world }) {
        world.files.set('metadata/timestamp.json', seen[1]!.get('metadata/timestamp.json')!);
      },
      ends: refused('E_ROLLBACK'),
    },
  ],
  [
    'A07 a newer timestamp that lists an older snapshot',
    {
      attack({ seen, forge }) {
        const older = forge.entryOf(seen[1]!, 'snapshot');
        forge.timestamp((timestamp) => {
          timestamp.meta = { 'snapshot.json': older };
        });
      },
      ends: refused('E_ROLLBACK'),
    },
  ],
  [
    'A08 a snapshot that lowers the version of one role',
    {
      attack({ seen, forge }) {
        const older = forge.entryOf(seen[0]!, 'policy');
        forge.snapshot((snapshot) => {
          snapshot.meta['policy.json'] = older;
        });
      },
      ends: refused('E_ROLLBACK'),
    },
  ],
  [
    'A09 a snapshot that drops a role',
    {
      attack: ({ forge }) =>
        forge.snapshot((snapshot) => {
          delete snapshot.meta['img-web.json'];
        }),
      ends: refused('E_ROLLBACK'),
    },
  ],
  [
    'A10 the timestamp that the host has, with other content: the old one is kept, and it is told',
    {
      attack({ seen, forge, world }) {
        world.files.set('metadata/timestamp.json', seen[3]!.get('metadata/timestamp.json')!);
        forge.timestamp((timestamp) => {
          timestamp.version -= 1;
          timestamp.expires = dateText(Math.floor(Date.now() / 1000) + 5 * 86_400);
        });
      },
      ends: { stays: true, notice: 'equivocation' },
    },
  ],
  [
    'A10 a role that was signed twice with one version: the one that is listed is used, and it is told',
    {
      attack: ({ forge, world }) => {
        forge.role(
          'targets',
          (targets) => {
            targets.version -= 1;
            targets['x-other'] = 1;
          },
          [world.key('targets')],
        );
      },
      ends: { taken: true, notice: 'equivocation' },
    },
  ],
  [
    'A11 an expired timestamp',
    {
      attack: ({ forge }) => forge.timestamp((timestamp) => (timestamp.expires = past())),
      ends: refused('E_EXPIRED'),
    },
  ],
  [
    'A11 an expired snapshot',
    {
      attack: ({ forge }) => forge.snapshot((snapshot) => (snapshot.expires = past())),
      ends: refused('E_EXPIRED'),
    },
  ],
  [
    'A11 an expired role',
    {
      attack: ({ forge, world }) =>
        void forge.role('grp-blue', (role) => (role.expires = past()), [world.key('operator')]),
      ends: refused('E_EXPIRED'),
    },
  ],
  [
    'A11 an expired root',
    {
      attack: ({ forge }) => forge.root((root) => (root.expires = past())),
      ends: refused('E_EXPIRED'),
    },
  ],
  ...['2030-01-01T00:00:00', '99999-01-01T00:00:00Z'].map(
    (expires) =>
      [
        `A12 the expiry ${expires}`,
        {
          attack: ({ forge }: AttackedHost) =>
            forge.timestamp((timestamp) => (timestamp.expires = expires)),
          ends: refused('E_EXPIRES'),
        },
      ] as const,
  ),
  ...['0', '1.5', '9007199254740993'].map(
    (version) =>
      [
        `A13 the version ${version}`,
        {
          attack: asText((text) => text.replace(/"version":\d+,"x-/, `"version":${version},"x-`)),
          ends: refused('E_VERSION'),
        },
      ] as const,
  ),
  [
    'A14 the pin role of another release under the name of this one',
    {
      attack({ forge, seen, world }) {
        const { version } = forge.entryOf(seen[1]!, 'grp-blue');
        const older = seen[1]!.get(`metadata/${version}.grp-blue.json`)!;
        world.files.set(forge.nameOf('grp-blue'), older);
      },
      ends: refused('E_HASH'),
    },
  ],
  [
    'A14 a snapshot of another version than the timestamp lists',
    {
      attack({ forge }) {
        forge.snapshot((snapshot) => (snapshot.version += 1));
        const name = forge.nameOf('snapshot');
        const version = Number(/(\d+)\.snapshot/.exec(name)?.[1]);
        host.world.files.set(`metadata/${version - 1}.snapshot.json`, host.world.files.get(name)!);
        forge.timestamp((timestamp) => (timestamp.meta['snapshot.json']!.version -= 1));
      },
      ends: refused('E_MIX'),
    },
  ],
  [
    'A15 a snapshot entry without digests',
    {
      attack: ({ forge }) =>
        forge.snapshot((snapshot) => {
          delete snapshot.meta['policy.json']!.hashes;
        }),
      ends: refused('E_SCHEMA'),
    },
  ],
  [
    'A16 root 3 offered as root 2',
    {
      attack({ forge, world }) {
        forge.root();
        forge.root();
        world.files.set('metadata/2.root.json', world.files.get('metadata/3.root.json')!);
      },
      ends: refused('E_ROLLBACK'),
    },
  ],
  ...(['old', 'new'] as const).map(
    (which) =>
      [
        `A17 a new root that only the ${which} keys signed`,
        {
          attack({ forge, world }: AttackedHost) {
            forge.root(
              (root) => {
                root.roles.root.keyids = [];
                nameKey(root, 'root', stranger);
              },
              [which === 'old' ? world.key('root') : stranger],
            );
          },
          ends: refused('E_SIGS'),
        },
      ] as const,
  ),
  [
    'A18 257 roots at once',
    {
      attack({ forge }) {
        for (let count = 0; count < 257; count += 1) forge.root();
      },
      ends: refused('E_ROOTS'),
    },
  ],
  [
    'A19 versions that were driven to the end of numbers are left behind once the keys are replaced',
    {
      async attack(attacked) {
        const { forge, world } = attacked;
        world.pin(attacked.v2, 5, { waves: [{ percent: 100, notBefore: 4_102_444_800 }] });
        forge.snapshot((snapshot) => (snapshot.version = Number.MAX_SAFE_INTEGER - 2));
        forge.timestamp((timestamp) => (timestamp.version = Number.MAX_SAFE_INTEGER - 1));
        await attacked.run(undefined, () =>
          attacked.cached('snapshot') === Number.MAX_SAFE_INTEGER - 2 ? true : null,
        );
        attacked.control.reports.length = 0;
        const [timestampKey, snapshotKey] = [signerNumber(901), signerNumber(902)];
        const { meta } = forge.read('snapshot') as { meta: Record<string, unknown> };
        forge.root((root) => {
          for (const [role, key] of [
            ['timestamp', timestampKey],
            ['snapshot', snapshotKey],
          ] as const) {
            root.roles[role].keyids = [];
            nameKey(root, role, key);
          }
        });
        for (const name of world.files.keys())
          if (name.endsWith('.snapshot.json')) world.files.delete(name);
        const first: Record<string, unknown> = { ...forge.read('timestamp'), version: 0 };
        const snapshot = {
          _type: 'snapshot',
          spec_version: '1.0.34',
          version: 0,
          expires: first['expires'],
          meta,
        };
        world.files.set('metadata/0.snapshot.json', forge.signed(snapshot, [snapshotKey]));
        world.files.set('metadata/timestamp.json', forge.signed(first, [timestampKey]));
        forge.snapshot(() => undefined, [snapshotKey]);
        forge.timestamp((timestamp) => (timestamp.version = 1), [timestampKey]);
        world.moreKeys.push(
          { use: 'timestamp', signer: timestampKey },
          { use: 'snapshot', signer: snapshotKey },
        );
        world.pin(attacked.v2, 6);
      },
      ends: { taken: true },
      keysReplaced: true,
    },
  ],
  [
    'A20 the pin role under keys that targets names no more',
    {
      attack({ forge }) {
        forge.delegation('grp-blue', (role, { keys }) => {
          keys[stranger.key.keyId] = tufKeyOf(stranger.key.bytes);
          role.keyids = [stranger.key.keyId];
        });
      },
      ends: refused('E_SIGS'),
    },
  ],
  [
    'A21 the release is only reached over a cycle of delegations',
    {
      attack({ forge, world }) {
        const release = world.key('release');
        forge.role(
          'img-web',
          (role) => {
            role.targets = {};
            role.delegations = {
              keys: { [release.key.keyId]: tufKeyOf(release.key.bytes) },
              roles: [
                {
                  name: 'img-web',
                  keyids: [release.key.keyId],
                  threshold: 1,
                  terminating: false,
                  paths: ['images/web/*/*'],
                },
              ],
            };
          },
          [release],
        );
      },
      ends: refused('E_NOTARGET'),
    },
  ],
  [
    'A22 the release is listed by a role of other paths',
    {
      attack({ forge, world, v2 }) {
        const release = world.key('release');
        forge.delegation('img-web', (role) => {
          role.paths = ['images/db/*/*'];
        });
        expect(v2.path).toMatch(/^images\/web\//);
        forge.role('img-web', () => undefined, [release]);
      },
      ends: refused('E_NOTARGET'),
    },
  ],
  ...['images/*', 'Images/web/*/*'].map(
    (pattern) =>
      [
        `A23 the role of the class is for ${pattern}, which does not match its paths`,
        {
          attack({ forge }: AttackedHost) {
            forge.delegation('img-web', (role) => {
              role.paths = [pattern];
            });
          },
          ends: refused('E_NOTARGET'),
        },
      ] as const,
  ),
  ...['img-web', 'timestamp', '../x', '__proto__', 'img-é'].map(
    (name, at) =>
      [
        `${at < 2 ? 'A24' : 'A25'} targets delegates to ${name.slice(0, 20)} as well`,
        {
          attack({ forge }: AttackedHost) {
            forge.delegation('img-web', (like, { roles }) => {
              roles.push({ ...like, name, paths: ['other/*'] });
            });
          },
          ends: refused('E_SCHEMA'),
          also(attacked: AttackedHost) {
            const names = [
              ...readdirSync(attacked.disk),
              ...readdirSync(attacked.stateDirectory),
              ...readdirSync(`${attacked.stateDirectory}/trust`),
            ];
            expect(names.filter((one) => /^x|2e|constructor|proto|aaa|é/.test(one))).toEqual([]);
          },
        },
      ] as const,
  ),
  ...(
    [
      ['a key twice', (text) => text.replace('"version":', '"version":9,"version":'), 'E_PARSE'],
      ['something after the end', (text) => `${text} x`, 'E_PARSE'],
      ['a byte order mark', (text) => `\u00ef\u00bb\u00bf${text}`, 'E_PARSE'],
      ['invalid UTF-8', (text) => text.replace('"_type"', '"\u00c3(":1,"_type"'), 'E_PARSE'],
      ['a lone surrogate', (text) => text.replace('"_type"', '"\\ud800":1,"_type"'), 'E_PARSE'],
      [
        'a depth of 5,000',
        (text) =>
          text.replace('"_type"', `"deep":${'['.repeat(5_000)}${']'.repeat(5_000)},"_type"`),
        'E_PARSE',
      ],
    ] as const satisfies readonly [string, (text: string) => string, string][]
  ).map(
    ([what, change, code]) =>
      [`A26 a timestamp with ${what}`, { attack: asText(change), ends: refused(code) }] as const,
  ),
  ...['1e3'].map(
    (number) =>
      [
        `A27 a timestamp with the number ${number}`,
        {
          attack: asText((text) => text.replace('"_type"', `"n":${number},"_type"`)),
          ends: refused('E_CANON'),
        },
      ] as const,
  ),
  [
    'A28 fields that nobody knows are accepted',
    {
      attack: ({ forge }) =>
        forge.timestamp((timestamp) => (timestamp['x-other'] = { a: [1, 'é\n'] })),
      ends: { taken: true },
    },
  ],
  [
    'A29 a timestamp of specification 2.0.0',
    {
      attack: ({ forge }) => forge.timestamp((timestamp) => (timestamp.spec_version = '2.0.0')),
      ends: refused('E_SPEC'),
    },
  ],
  [
    'A30 a snapshot in the place of the timestamp, signed by the right key',
    {
      attack({ forge, world }) {
        const bytes = forge.signed(forge.read('snapshot'), [world.key('timestamp')]);
        world.files.set('metadata/timestamp.json', bytes);
      },
      ends: refused('E_TYPE'),
    },
  ],
  ...['ecdsa-sha2-nistp256', 'none'].map(
    (scheme) =>
      [
        `A31 a timestamp key of scheme ${scheme}`,
        {
          attack({ forge }: AttackedHost) {
            forge.root((root) => {
              root.roles.timestamp.keyids = [];
              nameKey(root, 'timestamp', stranger);
              root.keys[stranger.key.keyId] = { ...tufKeyOf(stranger.key.bytes), scheme };
            });
            forge.timestamp(undefined, [stranger]);
          },
          ends: refused('E_SIGS'),
        },
      ] as const,
  ),
  [
    'A32 a newer root is withheld: what the old one vouches for is good',
    {
      attack({ control, forge }) {
        forge.root();
        control.interfere = ({ path }, response) => {
          if (!path.endsWith('.root.json')) return false;
          response.writeHead(403).end();
          return true;
        };
      },
      ends: { taken: true },
    },
  ],
  [
    'A32 a newer root is withheld for longer than the old one is good',
    {
      attack({ control, world }) {
        world.nowMs += 366 * DAY_MS;
        const keys = world.keys.control;
        world.publish(refreshTimestamp({ ...world.repository(), keys }));
        control.interfere = ({ path }, response) => {
          if (!path.endsWith('.root.json')) return false;
          response.writeHead(404).end();
          return true;
        };
      },
      clockOffMs: 366 * DAY_MS,
      ends: refused('E_EXPIRED'),
    },
  ],
  [
    'A33 an error in the place of the next root: tried again, never taken for its absence',
    {
      attack({ control }) {
        control.interfere = ({ path }, response) => {
          if (!path.endsWith('.root.json')) return false;
          response.writeHead(500).end();
          return true;
        };
      },
      ends: { told: 'E_HTTP' },
    },
  ],
];

it.each(cases)('%s', (_title, attack) => host.suffers(attack));

it('an attack that changes nothing ends with the version that is pinned', () =>
  host.suffers({ attack: () => undefined, ends: { taken: true } }));
