/**
 * Attacks on config sets and sealed secrets against a host that runs: every version takes a config set, and a real service reads
 * it. The forms one by one: ../config-sets.test.ts; the operator's side and control: ../control/config.test.ts.
 */
import {
  chmodSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { base64Of, bytesOfBase64 } from '#/bundle/base64.ts';
import { canonicalDocument } from '#/bundle/canonical.ts';
import type { Sealed } from '#/bundle/config-set.ts';
import { sha256 } from '#/bundle/keys.ts';
import { sealPublicKeyOf } from '#/bundle/seal.ts';
import { desiredPath } from '#/bundle/trust/documents.ts';
import { addScope } from '#/control/trust/delegations.ts';
import { publish, putTarget, readRoleDocument } from '#/control/trust/repository.ts';
import { launcher } from '#/packaging/deb/common-files.ts';
import type { ArtifactRef } from '#/protocol/documents.ts';
import type { ConfigId, GroupName, HostId } from '#/protocol/ids.ts';
import { type Attack, AttackedHost, type Beginning } from '#/test/support/attack/attacked-host.ts';
import {
  filesWith,
  formsIn,
  formsOf,
  processesWith,
  processTree,
  readProcess,
} from '#/test/support/attack/secret-scan.ts';
import {
  forge,
  listConfig,
  makeConfig,
  type MadeConfig,
  SECRET,
  TAKES,
} from '#/test/support/config-world.ts';
import { seedOf, signerNumber } from '#/test/support/trust-world.ts';

/** A file system in memory: what is opened of a config set is never on a disk. */
const memory = mkdtempSync('/dev/shm/attacked-config-');
const made = new Map<string, MadeConfig>();
let versions = 0;
let host: AttackedHost;

const self = ({ id, sealKey }: AttackedHost) => ({ host: id, sealKey });
const next = (
  attacked: AttackedHost,
  artifacts: readonly ArtifactRef[] = [attacked.v2],
  changes: Parameters<typeof makeConfig>[2] = {},
  to = self(attacked),
): MadeConfig => makeConfig(artifacts, (versions += 1), changes, to);
const level = (attacked: AttackedHost): string =>
  readFileSync(join(attacked.directory, 'level'), 'utf8');
/** What the running version finds as its config. */
const link = (attacked: AttackedHost): string =>
  readlinkSync(join(attacked.directory, 'run', 'config'));
const configOf = ({ artifactId }: ArtifactRef): MadeConfig => made.get(artifactId)!;

const beginning: Beginning = {
  settings: () => `[config]\ndirectory = "${memory}"\n[activation]\nstop_with_agent = true\n`,
  // The service writes down what it was told. What it finds is looked at by the check itself: the service may start late.
  manifest: ({ directory }) => ({
    config: TAKES,
    activation: {
      kind: 'process',
      argv: [
        ...['/bin/sh', '-c'],
        `test -s "$SWITCHBACK_CONFIG_DIR/DB_PASSWORD" && cat "$SWITCHBACK_CONFIG_DIR/LEVEL" > ${directory}/level; exec sleep 3600`,
      ],
      stopTimeoutMs: 1000,
    },
    health: [
      {
        name: 'level',
        kind: 'exec',
        argv: ['/bin/sh', '-c', `! grep -q broken ${directory}/run/config/LEVEL`],
        required: true,
        ...{ timeoutMs: 10_000, intervalMs: 50, successesNeeded: 1, failuresAllowed: 0 },
        ...{ baseline: 'must-pass', startAfterMs: 200 },
      },
    ],
  }),
  pinned(artifact, attacked) {
    const known = made.get(artifact.artifactId) ?? next(attacked, [artifact]);
    if (!made.has(artifact.artifactId)) listConfig(attacked.world, known);
    made.set(artifact.artifactId, known);
    attacked.configs.set(artifact.artifactId, known.known.configId);
    return { config: known.ref };
  },
};

beforeAll(async () => {
  host = await AttackedHost.start(beginning);
});
afterAll(async () => {
  await host?.[Symbol.asyncDispose]();
  rmSync(memory, { recursive: true, force: true });
});

const refused = (code: string) => ({ refused: code }) as const;

/** Version 2 is rightly pinned with this config set, whatever it is, and offered with it. */
function pinWith(attacked: AttackedHost, { ref, known }: MadeConfig, artifact = attacked.v2): void {
  attacked.pin(artifact, 5, { config: ref });
  offerWith(attacked, known.configId, artifact);
}
function offerWith(attacked: AttackedHost, configId: ConfigId | null, artifact = attacked.v2) {
  if (configId === null) attacked.configs.delete(artifact.artifactId);
  else attacked.configs.set(artifact.artifactId, configId);
  attacked.offer(artifact);
}
/** In the place of what is pinned: other documents, under its names, listed with the keys of the scope. */
function replace(
  attacked: AttackedHost,
  sealed: Sealed,
  payload = configOf(attacked.v2).known.bytes,
  signers = [attacked.world.key('config')],
): void {
  forge(attacked.world, configOf(attacked.v2).ref, { payload, signers, sealed });
}
function flipped(text: string | undefined, bit = 1): string {
  const bytes = Uint8Array.from(bytesOfBase64(text ?? '') ?? []);
  bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ bit;
  return base64Of(bytes);
}
/** What is sealed for this host, with a change to the sealed data key. */
function rekeyed(attacked: AttackedHost, change: (sealed: string) => string): Sealed {
  const { sealed } = configOf(attacked.v2);
  const { artifactId } = attacked.v2;
  const key = sealed.hosts[attacked.id]?.[artifactId]?.['DB_PASSWORD'] ?? '';
  const hosts = { [attacked.id]: { [artifactId]: { DB_PASSWORD: change(key) } } };
  return { ...sealed, hosts } as Sealed;
}

function program(attacked: AttackedHost, name: string, text: string): void {
  writeFileSync(join(attacked.directory, name), text);
  chmodSync(join(attacked.directory, name), 0o755);
}

const stranger = {
  host: `h-${'9'.repeat(32)}` as HostId,
  sealKey: sealPublicKeyOf(seedOf(501)),
};

const attacks: readonly (readonly [string, Attack])[] = [
  [
    'G01 secrets that are sealed for another host alone',
    {
      attack(attacked) {
        const config = next(attacked, [attacked.v2], {}, stranger);
        listConfig(attacked.world, config);
        pinWith(attacked, config);
      },
      ends: refused('E_SEAL'),
    },
  ],
  [
    'G01 what is sealed for another host under the name of this one',
    {
      attack(attacked) {
        const config = next(attacked, [attacked.v2], {}, stranger);
        const hosts = { [attacked.id]: config.sealed.hosts[stranger.host] } as Sealed['hosts'];
        listConfig(attacked.world, { ...config, sealed: { ...config.sealed, hosts } });
        pinWith(attacked, config);
      },
      ends: refused('E_SEAL'),
    },
  ],
  [
    'G02 a data key that is sealed for another artifact',
    {
      attack(attacked) {
        const config = next(
          attacked,
          [attacked.v1, attacked.v2].toSorted((a, b) => (a.artifactId < b.artifactId ? -1 : 1)),
        );
        const own = config.sealed.hosts[attacked.id] ?? {};
        const moved = { ...own, [attacked.v2.artifactId]: own[attacked.v1.artifactId] };
        const hosts = { [attacked.id]: moved } as Sealed['hosts'];
        listConfig(attacked.world, { ...config, sealed: { ...config.sealed, hosts } });
        pinWith(attacked, config);
      },
      ends: refused('E_SEAL'),
    },
  ],
  [
    'G02 a config set that is for other artifacts',
    {
      attack(attacked) {
        const config = next(attacked, [attacked.v1]);
        listConfig(attacked.world, config);
        pinWith(attacked, config);
      },
      ends: refused('E_CONFIG_SET'),
    },
  ],
  [
    'G03 data keys that were sealed for an older config set',
    {
      attack(attacked) {
        const { sealed, known } = configOf(attacked.v2);
        const newer = next(attacked, [attacked.v2], { secrets: known.set.secrets });
        const again = { ...sealed, configId: newer.known.configId };
        listConfig(attacked.world, { ...newer, sealed: again });
        pinWith(attacked, newer);
      },
      ends: refused('E_SEAL'),
    },
  ],
  [
    'G03 an older config set, rightly signed, under the name of the pinned one',
    {
      attack(attacked) {
        const newer = next(attacked);
        const older = configOf(attacked.v2);
        listConfig(attacked.world, newer);
        pinWith(attacked, newer);
        const signers = [attacked.world.key('config')];
        const payload = older.known.bytes;
        forge(attacked.world, newer.ref, { payload, signers, sealed: older.sealed });
      },
      ends: refused('E_CONFIG_SET'),
    },
  ],
  [
    'G03 control offers the version with an older config set than the pinned one',
    {
      attack(attacked) {
        const older = configOf(attacked.v2).known.configId;
        const newer = next(attacked);
        listConfig(attacked.world, newer);
        pinWith(attacked, newer);
        offerWith(attacked, older);
      },
      ends: refused('E_PIN'),
    },
  ],
  [
    'G04 one bit of an encrypted secret',
    {
      attack(attacked) {
        const { sealed } = configOf(attacked.v2);
        const boxes = { DB_PASSWORD: flipped(sealed.boxes['DB_PASSWORD']) };
        replace(attacked, { ...sealed, boxes });
      },
      ends: refused('E_SEAL'),
    },
  ],
  [
    'G04 one bit of a sealed data key',
    {
      attack: (attacked) =>
        replace(
          attacked,
          rekeyed(attacked, (key) => flipped(key)),
        ),
      ends: refused('E_SEAL'),
    },
  ],
  ...(
    [
      ['zero', new Uint8Array(32)],
      ['one', Uint8Array.from({ length: 32 }, (_, at) => (at === 0 ? 1 : 0))],
      [
        '2^255 - 20, of order two',
        Uint8Array.from({ length: 32 }, (_, at) => (at === 0 ? 0xec : at === 31 ? 0x7f : 0xff)),
      ],
    ] as const
  ).map(
    ([name, point]) =>
      [
        `B05 a data key under the ephemeral key ${name}`,
        {
          attack: (attacked: AttackedHost) =>
            replace(
              attacked,
              rekeyed(attacked, (key) => {
                const bytes = Uint8Array.from(bytesOfBase64(key) ?? []);
                bytes.set(point);
                return base64Of(bytes);
              }),
            ),
          ends: refused('E_SEAL'),
        },
      ] as const,
  ),
  [
    'G05 a config set that a stranger signed',
    {
      attack: (attacked) =>
        replace(attacked, configOf(attacked.v2).sealed, undefined, [signerNumber(3)]),
      ends: refused('E_SIGS'),
    },
  ],
  [
    'G05 a config set signed by the release key, which is no key of its scope',
    {
      attack: (attacked) =>
        replace(attacked, configOf(attacked.v2).sealed, undefined, [attacked.world.key('release')]),
      ends: refused('E_SIGS'),
    },
  ],
  [
    'G05 a config set that the role of another scope lists',
    {
      attack(attacked) {
        const { world, v2 } = attacked;
        const config = next(attacked);
        world.publish(addScope(world.repository(), 'db'));
        const signers = [world.key('config')];
        const parts = { payload: config.known.bytes, signers, sealed: config.sealed };
        forge(world, config.ref, parts, 'cfg-db');
        // The thief of the keys of the group does not ask whether it is listed.
        const document = readRoleDocument(world.repository(), 'grp-blue');
        const pin = { schema: 'switchback.desired/1', group: 'blue', seq: 5, artifact: v2 };
        const bytes = canonicalDocument({ ...pin, config: config.ref, reason: 'x', waves: [] });
        const file = putTarget(document, desiredPath('blue'), bytes);
        world.publish(publish(world.repository(), new Map([['grp-blue', document]]), [file]));
        offerWith(attacked, config.known.configId);
      },
      ends: refused('E_NOTARGET'),
    },
  ],
  [
    'G05 a config set of another group',
    {
      attack(attacked) {
        const config = next(attacked, [attacked.v2], { group: 'red' as GroupName });
        listConfig(attacked.world, config);
        pinWith(attacked, config);
      },
      ends: refused('E_CONFIG_SET'),
    },
  ],
  [
    'G06 control offers another config set, rightly listed, than the pin names',
    {
      attack(attacked) {
        const other = next(attacked);
        listConfig(attacked.world, other);
        offerWith(attacked, other.known.configId);
      },
      ends: refused('E_PIN'),
    },
  ],
  [
    'G06 control offers the version without its config set',
    { attack: (attacked) => offerWith(attacked, null), ends: refused('E_PIN') },
  ],
  [
    'G06 the pin names no config set for a version that takes one',
    {
      attack(attacked) {
        attacked.pin(attacked.v2, 5, { config: undefined as never });
        offerWith(attacked, null);
      },
      ends: refused('E_CONFIG_SET'),
    },
  ],
  [
    'G06 the pin names a config set of another schema than the version takes',
    {
      attack(attacked) {
        const config = next(attacked, [attacked.v2], { configSchema: { id: 'web', version: 1 } });
        listConfig(attacked.world, config);
        pinWith(attacked, config);
      },
      ends: refused('E_CONFIG_SET'),
    },
  ],
  [
    'G07 a version that fails its trial is taken back together with its config set',
    {
      attack(attacked) {
        const config = next(attacked, [attacked.v2], { plain: { LEVEL: 'broken' } });
        listConfig(attacked.world, config);
        pinWith(attacked, config);
      },
      ends: { rolledBack: 'E_UNHEALTHY' },
      until: isBackOnFirst,
    },
  ],
  [
    'G07 a config set that breaks the version that runs is taken back alone',
    {
      attack(attacked) {
        const config = next(attacked, [attacked.v1], { plain: { LEVEL: 'broken' } });
        listConfig(attacked.world, config);
        pinWith(attacked, config, attacked.v1);
      },
      ends: { rolledBack: 'E_UNHEALTHY' },
      until: isBackOnFirst,
    },
  ],
  [
    'G09 a config set that holds the digest of a secret, signed by its owners',
    {
      attack(attacked) {
        const { known, sealed, ref } = configOf(attacked.v2);
        const [secret] = Object.values(known.set.secrets);
        const secrets = { DB_PASSWORD: { ...secret, sha256: sha256(Buffer.from(SECRET)) } };
        const payload = canonicalDocument({ ...known.set, secrets } as never);
        const configId = sha256(payload) as ConfigId;
        const named = { ...ref, configId, path: ref.path.replace(ref.configId, configId) };
        const signers = [attacked.world.key('config')];
        forge(attacked.world, named, { payload, signers, sealed: { ...sealed, configId } });
        attacked.pin(attacked.v2, 5, { config: named });
        offerWith(attacked, configId);
      },
      ends: refused('E_SCHEMA'),
    },
  ],
];

/** Everything that the service is told is that of version 1, and nothing of another config set is there any more. */
function isBackOnFirst(attacked: AttackedHost): boolean {
  const { known } = configOf(attacked.v1);
  return (
    link(attacked) === join(memory, known.configId) &&
    level(attacked) === known.set.plain['LEVEL'] &&
    readdirSync(memory).join() === known.configId
  );
}

it.each(attacks)('%s', (_title, attack) => host.suffers(attack));

describe('secrets while a version with them is tried and runs', () => {
  const forms = (attacked: AttackedHost) => [
    ...formsOf('secret', Buffer.from(SECRET)),
    ...[attacked.v1, attacked.v2].flatMap((artifact) =>
      formsOf('data key', configOf(artifact).dataKey),
    ),
  ];

  it('G08 a secret on the disk, in a log, a report, an argument, an environment, or readable by others', () =>
    host.suffers({
      attack: () => undefined,
      ends: { taken: true },
      until(attacked) {
        const config = configOf(attacked.v2).known.configId;
        if (level(attacked) !== 'v2' || readdirSync(memory).join() !== config) return false;
        const place = join(memory, config);
        // The one place, and the proof that the search finds it.
        expect(filesWith(memory, forms(attacked))).toEqual([
          `${join(place, 'DB_PASSWORD')}: secret plain`,
        ]);
        expect(statSync(place).mode & 0o777).toBe(0o700);
        expect(statSync(join(place, 'DB_PASSWORD')).mode & 0o777).toBe(0o400);
        expect(filesWith(attacked.directory, forms(attacked))).toEqual([]);
        expect(processTree(attacked.agent.pid).length).toBeGreaterThan(1);
        expect(processesWith(attacked.agent.pid, forms(attacked))).toEqual([]);
        const said = JSON.stringify([attacked.control.stub.seen, attacked.control.reports]);
        expect(formsIn(Buffer.from(said), forms(attacked))).toEqual([]);
        return true;
      },
      also(attacked) {
        // Also in what is left once all has ended.
        expect(filesWith(attacked.directory, forms(attacked))).toEqual([]);
      },
    }));

  it('G08 a dump of the memory of the agent: its launcher allows none', () =>
    host.suffers({
      attack(attacked) {
        const text = launcher('switchback', [], 'agent.mjs')
          .replace('/usr/lib/switchback/node', process.execPath)
          .replace('/usr/lib/switchback/agent.mjs', attacked.agent.program);
        program(attacked, 'switchback-agent', text);
        // Started where dumps of any size are wanted.
        const shipped = join(attacked.directory, 'switchback-agent');
        program(attacked, 'dumping', `#!/bin/sh\nulimit -S -c unlimited\nexec ${shipped} "$@"\n`);
      },
      launcher: (attacked) => join(attacked.directory, 'dumping'),
      ends: { taken: true },
      until(attacked) {
        if (level(attacked) !== 'v2') return false;
        const tree = processTree(attacked.agent.pid);
        expect(tree.length).toBeGreaterThan(1);
        for (const pid of tree)
          expect(readProcess(pid, 'limits').toString()).toMatch(/^Max core file size +0 /m);
        return true;
      },
    }));
});
