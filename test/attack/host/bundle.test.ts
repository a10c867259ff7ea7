/** Attacks by what is in a bundle, and on signatures, against a host that runs. The forms one by one: ../bundle, ../ed25519.test.ts. */
import { closeSync, existsSync, openSync, readdirSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { canonicalDocument } from '#/bundle/canonical.ts';
import { locateMembers } from '#/bundle/container.ts';
import { encodeEnvelope, MANIFEST_PAYLOAD_TYPE, signEnvelope } from '#/bundle/dsse.ts';
import { hexOf, type Signer } from '#/bundle/keys.ts';
import type { Manifest } from '#/bundle/manifest.ts';
import { comparePaths, type TreeEntry } from '#/bundle/tree-entry.ts';
import { manifestEnvelopePath, manifestPath } from '#/bundle/trust/documents.ts';
import { publish, putTarget, readRoleDocument } from '#/control/trust/repository.ts';
import { revoke, setBuilders, setFloors } from '#/control/trust/targets.ts';
import type { ArtifactId } from '#/protocol/ids.ts';
import { type Attack, AttackedHost } from '#/test/support/attack/attacked-host.ts';
import { nameKey, plain } from '#/test/support/attack/forge.ts';
import { type Crafted, fileEntry, sha256Of } from '#/test/support/install/crafted-bundle.ts';
import { softwareLike } from '#/test/support/install/payloads.ts';
import { manifestFor, signerNumber } from '#/test/support/trust-world.ts';

/** One bit of the first chunk. */
function flipped(bundle: Uint8Array): Uint8Array {
  const located = locateMembers(bundle);
  if ('needBytes' in located) throw new Error('a bundle without data');
  return Uint8Array.from(bundle, (byte, at) => (at === located.dataOffset + 9 ? byte ^ 1 : byte));
}

/** As a local user could who got past the rights of the directory: the first byte of what was written changes. */
function damageStaging(slots: string, artifactId: string): void {
  try {
    const file = openSync(join(slots, 'releases', `.tmp-${artifactId}`, 'app'), 'r+');
    writeSync(file, Buffer.from([0xee]), 0, 1, 0);
    closeSync(file);
  } catch {
    // Not there yet, or moved away meanwhile.
  }
}

let host: AttackedHost;
beforeAll(async () => {
  host = await AttackedHost.start();
});
afterAll(() => host[Symbol.asyncDispose]());

const refused = (code: string) => ({ refused: code }) as const;
const owner = { uid: 0, gid: 0 } as const;
const directory = (path: string): TreeEntry => ({ kind: 'directory', path, mode: 0o755, ...owner });
const link = (path: string, target: string): TreeEntry => ({
  kind: 'symlink',
  path,
  target,
  mode: 0o777,
  ...owner,
});
type Listed = TreeEntry | [TreeEntry, Uint8Array];

/** A listing as an author without scruples would sign it. */
function listing(...listed: readonly Listed[]): Partial<Crafted> {
  const contents = new Map<string, Uint8Array>();
  const entries = listed.map((one) => {
    if (!Array.isArray(one)) return one as TreeEntry;
    contents.set(sha256Of(one[1]), one[1]);
    return one[0];
  });
  return { entries: entries.toSorted((a, b) => comparePaths(a.path, b.path)), contents };
}
const bigBytes = Buffer.from(softwareLike(60_000, 3));
const big = (): [TreeEntry, Uint8Array] => [
  {
    kind: 'file',
    path: 'app',
    mode: 0o644,
    ...owner,
    sizeBytes: bigBytes.length,
    sha256: sha256Of(bigBytes),
  },
  bigBytes,
];
const payload = (changes: object) => (manifest: Manifest) => ({
  ...manifest,
  payloads: manifest.payloads.map(
    (one) => ({ ...one, ...changes }) as (typeof manifest.payloads)[0],
  ),
});

/** The envelope of what is pinned, as somebody else would have it listed. */
function relist(attacked: AttackedHost, envelope: Uint8Array): void {
  const { world, v2 } = attacked;
  const document = readRoleDocument(world.repository(), 'img-web');
  const file = putTarget(document, manifestEnvelopePath(v2), envelope);
  world.publish(publish(world.repository(), new Map([['img-web', document]]), [file]));
}
const manifestBytes = ({ world, v2 }: AttackedHost): Uint8Array =>
  world.files.get(
    [...world.files.keys()].find((name) => name.endsWith(`${v2.artifactId}.manifest.json`))!,
  )!;

/** Releases, pins and offers a manifest that no check of ours has seen. */
function listRaw(attacked: AttackedHost, manifest: Manifest): void {
  const { world } = attacked;
  const bytes = canonicalDocument(manifest);
  const artifactId = sha256Of(bytes) as ArtifactId;
  const named = { artifactId, class: 'web', version: manifest.version, release: manifest.release };
  const ref = { ...named, path: manifestPath(named) };
  const document = readRoleDocument(world.repository(), 'img-web');
  const envelope = signEnvelope(MANIFEST_PAYLOAD_TYPE, bytes, [world.key('release')]);
  const files = [
    putTarget(document, ref.path, bytes, { ...named, arch: 'any', minAgent: 0 }),
    putTarget(document, manifestEnvelopePath(ref), encodeEnvelope(envelope)),
  ];
  world.publish(publish(world.repository(), new Map([['img-web', document]]), files));
  world.pin(ref, 5);
  attacked.offer(ref);
}

/** A timestamp by its own key, with the signature changed. */
const resigned =
  (change: (sig: string) => string) =>
  ({ forge, world }: AttackedHost): void =>
    forge.timestamp(undefined, [world.key('timestamp')], undefined, (signers, message) =>
      plain(signers, message).map(({ keyid, sig }) => ({ keyid, sig: change(sig) })),
    );
const L = 2n ** 252n + 27742317777372353535851937790883648493n;
function malleated(sig: string): string {
  const bytes = Buffer.from(sig, 'hex');
  let s = bytes.subarray(32).reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n) + L;
  for (let at = 32; at < 64; at += 1, s >>= 8n) bytes[at] = Number(s & 255n);
  return bytes.toString('hex');
}
/** The timestamp role is given a key of small order, and a signature of zeros that fits it. */
const smallOrder =
  (publicKey: string) =>
  ({ forge }: AttackedHost): void => {
    const keyId = 'e'.repeat(64);
    const signer = {
      key: { keyId, bytes: Buffer.from(publicKey, 'hex') },
      sign: () => Buffer.from(`${publicKey}${'00'.repeat(32)}`, 'hex'),
    } as unknown as Signer;
    forge.root((root) => {
      root.roles.timestamp.keyids = [];
      nameKey(root, 'timestamp', signer);
    });
    forge.timestamp(undefined, [signer]);
  };

const signatures: readonly (readonly [string, Attack])[] = [
  [
    'B01 S + L for S, which tweetnacl takes',
    { attack: resigned(malleated), ends: refused('E_SIGS') },
  ],
  [
    'B02 the identity as key, a signature of zeros',
    { attack: smallOrder(`01${'00'.repeat(31)}`), ends: refused('E_SIGS') },
  ],
  [
    'B03 a key of order two',
    { attack: smallOrder(`ec${'ff'.repeat(30)}7f`), ends: refused('E_SIGS') },
  ],
  [
    'B03 a key that is not written canonically',
    { attack: smallOrder(`ee${'ff'.repeat(30)}7f`), ends: refused('E_SIGS') },
  ],
  [
    'B04 a signature of 63 bytes',
    { attack: resigned((sig) => sig.slice(2)), ends: refused('E_SIGS') },
  ],
  [
    'B04 a signature of 65 bytes',
    { attack: resigned((sig) => `${sig}00`), ends: refused('E_SIGS') },
  ],
  [
    'B04 a signature in upper case',
    {
      attack: resigned((sig) => `${sig.slice(0, -2)}${sig.slice(-2)}`.toUpperCase()),
      ends: refused('E_SIGS'),
    },
  ],
  [
    'B06 a signature in which one bit of R and one bit of S are changed, on what both verifiers look at',
    {
      attack(attacked) {
        const envelope = signEnvelope(MANIFEST_PAYLOAD_TYPE, manifestBytes(attacked), [
          attacked.world.key('release'),
        ]);
        const [one] = envelope.signatures;
        const sig = Buffer.from(one!.sig, 'base64');
        sig[3]! ^= 4;
        sig[40]! ^= 4;
        relist(
          attacked,
          encodeEnvelope({ ...envelope, signatures: [{ ...one!, sig: sig.toString('base64') }] }),
        );
      },
      ends: refused('E_SIGS'),
    },
  ],
];

const artifacts: readonly (readonly [string, Attack])[] = [
  [
    'C01 one bit of a chunk at one source: only that is fetched again, from another',
    {
      attack(attacked) {
        const { control, v2 } = attacked;
        const bad = flipped(control.bundles.get(v2.artifactId)!);
        const elsewhere = 'f'.repeat(64);
        control.bundles.set(elsewhere, bad);
        attacked.offer(v2, [control.bundleUrl(elsewhere), control.bundleUrl(v2.artifactId)]);
      },
      ends: { taken: true },
      also: ({ ended }) => expect(ended?.evidence['failedSources']).toBe(1),
    },
  ],
  [
    'C01 one bit of a chunk, and no other source',
    {
      attack({ control, v2 }) {
        const bad = flipped(control.bundles.get(v2.artifactId)!);
        control.bundles.set(v2.artifactId, bad);
      },
      ends: refused('E_CHUNK'),
    },
  ],
  [
    'C02 chunks of another artifact at one source: the right ones come from the other',
    {
      async attack(attacked) {
        const { control } = attacked;
        const ref = await attacked.pinned({}, listing(big()));
        const right = control.bundles.get(ref.artifactId)!;
        const swapped = Uint8Array.from(right);
        swapped.set(swapped.slice(-40_000, -30_000), swapped.length - 20_000);
        expect(swapped).not.toEqual(right);
        const elsewhere = 'f'.repeat(64);
        control.bundles.set(elsewhere, swapped);
        attacked.offer(ref, [control.bundleUrl(elsewhere), control.bundleUrl(ref.artifactId)]);
      },
      ends: { taken: true },
      also: ({ ended }) => expect(ended?.evidence['failedSources']).toBe(1),
    },
  ],
  [
    'C03 the validly signed manifest of an older release in the envelope of this one',
    {
      attack(attacked) {
        const older = canonicalDocument(manifestFor(1));
        relist(
          attacked,
          encodeEnvelope(
            signEnvelope(MANIFEST_PAYLOAD_TYPE, older, [attacked.world.key('release')]),
          ),
        );
      },
      ends: refused('E_ARTIFACT'),
    },
  ],
  [
    'C04 an envelope of another type',
    {
      attack(attacked) {
        const type = 'application/vnd.in-toto+json';
        const key = attacked.world.key('release');
        relist(attacked, encodeEnvelope(signEnvelope(type, manifestBytes(attacked), [key])));
      },
      ends: refused('E_SIGS'),
    },
  ],
  [
    'C05 one builder of two',
    {
      attack({ world }) {
        const keys = [world.key('release'), signerNumber(4)].map((one) => hexOf(one.key.bytes));
        const classes = [{ class: 'web', threshold: 2, keys }];
        world.publish(
          setBuilders(world.repository(), { schema: 'switchback.builders/1', classes }),
        );
      },
      ends: refused('E_SIGS'),
    },
  ],
  [
    'C06 another manifest in the file than in the envelope: the signed one is used, the file is not of it',
    {
      attack({ control, v2 }) {
        const bytes = Buffer.from(control.bundles.get(v2.artifactId)!);
        const at = bytes.indexOf('"1.2.0"');
        bytes.write('"6.6.6"', at);
        control.bundles.set(v2.artifactId, bytes);
      },
      ends: refused('E_ARTIFACT'),
    },
  ],
  ...(
    [
      ['C11 a path with ../', [fileEntry('../escaped', 'x')], 'E_PATH'],
      ['C11 an absolute path', [fileEntry('/tmp/switchback-escaped', 'x')], 'E_PATH'],
      ['C11 a NUL in a path', [fileEntry('a\0b', 'x')], 'E_PATH'],
      ['C12 a symlink out of the slot', [link('escape', '../../../outside')], 'E_PATH'],
      [
        'C12 a file through a symlink',
        [link('a', 'b'), directory('b'), fileEntry('a/x', 'x')],
        'E_PATH',
      ],
      ['C12 setuid without permission', [fileEntry('su', 'x', 0o4755)], 'E_MODE'],
      ['C15 one path twice', [fileEntry('twice', 'a'), fileEntry('twice', 'b')], 'E_PATH'],
      [
        'C15 a file and a directory of one name',
        [fileEntry('both', 'a'), directory('both')],
        'E_PATH',
      ],
    ] as const satisfies readonly [string, Listed[], string][]
  ).map(
    ([title, listed, code]) =>
      [
        title,
        {
          attack: async (attacked: AttackedHost) => {
            await attacked.pinned({}, listing(fileEntry('app', 'x'), ...listed));
          },
          ends: refused(code),
          also(attacked: AttackedHost) {
            expect(existsSync('/tmp/switchback-escaped')).toBe(false);
            expect(readdirSync(attacked.slots).toSorted()).not.toContain('escaped');
          },
        },
      ] as const,
  ),
  [
    'C13 a listing of more files than there are',
    {
      attack: async (attacked) => {
        await attacked.pinned(
          {},
          { ...listing(big()), manifest: payload({ entryCount: 4_000_000 }) },
        );
      },
      ends: refused('E_SIZE'),
    },
  ],
  [
    'C13 a file that is bigger than declared',
    {
      attack: async (attacked) => {
        await attacked.pinned(
          {},
          {
            ...listing(big()),
            manifest: payload({ sizeBytes: bigBytes.length - 1 }),
          },
        );
      },
      ends: refused('E_SIZE'),
    },
  ],
  [
    'C14 sizes whose sum is beyond 2^53',
    {
      attack(attacked) {
        const manifest = manifestFor(3);
        const [one] = manifest.payloads;
        const sizeBytes = 2 ** 52;
        listRaw(attacked, {
          ...manifest,
          payloads: [
            { ...one!, sizeBytes },
            { ...one!, name: 'other', sizeBytes },
          ],
        });
      },
      ends: refused('E_SIZE'),
    },
  ],
  [
    'C16 a pin that is listed without any digest',
    {
      attack: ({ forge, world }) =>
        void forge.role(
          'grp-blue',
          (role) => {
            role.targets['groups/blue/desired.json']!.hashes = {};
          },
          [world.key('operator')],
        ),
      ends: refused('E_HASHALG'),
    },
  ],
  [
    'C18 a release of another architecture',
    {
      attack: async (attacked) => void (await attacked.pinned({ arch: 'arm64' })),
      ends: refused(process.arch === 'arm64' ? 'E_CHUNK' : 'E_CLASS'),
    },
  ],
  [
    'C19 a release below the floor',
    {
      attack: ({ world }) => world.publish(setFloors(world.repository(), { web: 3, db: 1 })),
      ends: refused('E_FLOOR'),
    },
  ],
  [
    'C20 a release that was revoked',
    {
      attack: ({ world, v2 }) =>
        world.publish(revoke(world.repository(), { artifacts: [v2.artifactId] })),
      ends: refused('E_REVOKED'),
    },
  ],
  [
    'C21 what was written changes on the disk before the switch, again and again',
    {
      async attack(attacked) {
        const large = Buffer.from(softwareLike(6_000_000, 4));
        const entry: TreeEntry = {
          kind: 'file',
          path: 'app',
          mode: 0o644,
          ...owner,
          sizeBytes: large.length,
          sha256: sha256Of(large),
        };
        const ref = await attacked.pinned({}, listing([entry, large]));
        attacked.meddle = () => damageStaging(attacked.slots, ref.artifactId);
      },
      ends: refused('E_SLOT'),
    },
  ],
  [
    'C22 there is no room for it',
    {
      attack: async (attacked) => {
        await attacked.pinned({}, { manifest: payload({ sizeBytes: 2 ** 50 }) });
      },
      ends: refused('E_SPACE'),
    },
  ],
];

it.each([...signatures, ...artifacts])('%s', (_title, attack) => host.suffers(attack));
