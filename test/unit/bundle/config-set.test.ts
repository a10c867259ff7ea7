import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import {
  type ConfigSet,
  CONFIG_PAYLOAD_TYPE,
  encodeSealed,
  encryptSecret,
  type KnownConfig,
  makeConfigSet,
  openConfigSet,
  openEntries,
  type OwnSecrets,
  ownSecrets,
  readConfigSet,
  readSealed,
  requireBoxes,
  requireConfigFor,
  type Sealed,
  sealFor,
} from '#/bundle/config-set.ts';
import { base64Of, bytesOfBase64 } from '#/bundle/base64.ts';
import { signEnvelope } from '#/bundle/dsse.ts';
import { signerOf } from '#/bundle/keys.ts';
import { requireConfigNamed } from '#/bundle/manifest.ts';
import { sealPublicKeyOf } from '#/bundle/seal.ts';
import type { ArtifactId, ConfigId, GroupName, HostId } from '#/protocol/ids.ts';
import { codeOf } from '#/test/support/bundle/code-of.ts';

const filled = (byte: number): Uint8Array => new Uint8Array(32).fill(byte);
const artifact = 'a'.repeat(64) as ArtifactId;
const otherArtifact = 'b'.repeat(64) as ArtifactId;
const host = `h-${'1'.repeat(32)}` as HostId;
const otherHost = `h-${'2'.repeat(32)}` as HostId;
const dataKey = filled(5);
const { box, listed } = encryptSecret('PASSWORD', Buffer.from('hunter2'), dataKey);
const boxes = { PASSWORD: base64Of(box) };
const base: ConfigSet = {
  schema: 'switchback.config/1',
  scope: 'web',
  version: 7,
  group: 'web' as GroupName,
  artifacts: [artifact, otherArtifact],
  configSchema: { id: 'web', version: 2 },
  created: 1_700_000_000,
  plain: { LOG_LEVEL: 'info' },
  secrets: { PASSWORD: listed },
};
const known = makeConfigSet(base);
let seeds = 100;
const randomSeed = (): Uint8Array => filled((seeds = (seeds + 1) % 250));
const sealedFor = (of: KnownConfig): Sealed => ({
  schema: 'switchback.sealed/1',
  configId: of.configId,
  boxes,
  hosts: {
    [host]: sealFor(
      { host, sealKey: sealPublicKeyOf(filled(7)) },
      of,
      new Map([['PASSWORD', dataKey]]),
      randomSeed,
    ),
  } as Sealed['hosts'],
});
let sealed: Sealed;
beforeAll(() => {
  sealed = sealedFor(known);
});
const open = (own: OwnSecrets, as = host, of = artifact, keys = [filled(7)], set = known) =>
  openEntries(set, own, as, of, keys).map(({ name, bytes, isSecret }) => [
    name,
    Buffer.from(bytes).toString(),
    isSecret,
  ]);

describe('config set', () => {
  it('comes back as it was made, under the digest of its bytes', () => {
    expect(readConfigSet(known.bytes)).toEqual(known);
    expect(known.configId).toBe('eb9e723080b0e75ca7914c2e085724342b03da5099a2d18b5aa5ac4d683e58b5');
  });

  it('makes one document of the same artifacts in any order', () => {
    const turned = makeConfigSet({ ...base, artifacts: [otherArtifact, artifact, artifact] });
    expect(turned.configId).toBe(known.configId);
  });

  const text = Buffer.from(known.bytes).toString();
  it.each([
    ['a space', text.replace('{', '{ '), 'E_CANON'],
    ['an unknown key', text.replace('"version":7', '"version":7,"x":1'), 'E_SCHEMA'],
    ['a key twice', text.replace('"version":7', '"version":7,"version":8'), 'E_PARSE'],
    ['version 0', text.replace('"version":7', '"version":0'), 'E_SCHEMA'],
    ['another schema', text.replace('config/1', 'config/2'), 'E_SCHEMA'],
    ['no artifact', text.replace(/"artifacts":\[.*?\]/, '"artifacts":[]'), 'E_SCHEMA'],
    ['artifacts in another order', text.replace(/\["(a+)","(b+)"\]/, '["$2","$1"]'), 'E_SCHEMA'],
    ['a name that is a path', text.replace('LOG_LEVEL', '../x'), 'E_SCHEMA'],
    ['a hidden name', text.replace('LOG_LEVEL', '.x'), 'E_SCHEMA'],
    ['the name constructor', text.replace('LOG_LEVEL', 'constructor'), 'E_CANON'],
    ['an entry both plain and secret', text.replace('LOG_LEVEL', 'PASSWORD'), 'E_SCHEMA'],
    ['a number as value', text.replace('"info"', '1'), 'E_SCHEMA'],
    ['a secret shorter than its tag', text.replace('"sizeBytes":23', '"sizeBytes":15'), 'E_SCHEMA'],
    ['bytes after it', `${text}\n`, 'E_CANON'],
    ['too many bytes', text.replace('"info"', `"${'a'.repeat(600_000)}"`), 'E_TOOBIG'],
  ])('is refused with %s', (_, changed, code) => {
    expect(changed).not.toBe(text);
    expect(codeOf(() => readConfigSet(Buffer.from(changed)))).toBe(code);
  });

  it('G09 nothing that is signed or published depends on the text of a secret, but its length', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 8, maxLength: 8 }), (secret) => {
        const encrypted = encryptSecret('PASSWORD', secret, randomSeed());
        const made = makeConfigSet({ ...base, secrets: { PASSWORD: encrypted.listed } });
        const all = Buffer.concat([made.bytes, encrypted.box]).toString('latin1');
        return !all.includes(Buffer.from(secret).toString('latin1'));
      }),
      { numRuns: 50 },
    );
    const once = encryptSecret('PASSWORD', Buffer.from('hunter2'), filled(1)).listed;
    const again = encryptSecret('PASSWORD', Buffer.from('hunter2'), filled(2)).listed;
    expect(once.sealedSha256).not.toBe(again.sealedSha256);
  });

  it('is opened only with the keys of its scope, and only as a config set', () => {
    const owner = signerOf(filled(1));
    const envelope = signEnvelope(CONFIG_PAYLOAD_TYPE, known.bytes, [owner]);
    const trust = { keys: [owner.key], threshold: 1 };
    expect(openConfigSet(envelope, trust).configId).toBe(known.configId);
    const stranger = { keys: [signerOf(filled(2)).key], threshold: 1 };
    expect(codeOf(() => openConfigSet(envelope, stranger))).toBe('E_SIGS');
    const other = { ...envelope, payloadType: 'application/vnd.switchback.manifest+json' };
    expect(codeOf(() => openConfigSet(other, trust))).toBe('E_SIGS');
  });
});

describe('sealed secrets', () => {
  it('come back as they were made, and open for the host', () => {
    const bytes = encodeSealed(sealed);
    expect(readSealed(bytes)).toEqual(sealed);
    requireBoxes(known, sealed.boxes);
    const own = ownSecrets(sealed, known, host, artifact);
    const expected = [
      ['LOG_LEVEL', 'info', false],
      ['PASSWORD', 'hunter2', true],
    ];
    expect(open(own)).toEqual(expected);
    // After a rotation the key of before still opens what was sealed to it.
    expect(open(own, host, artifact, [filled(9), filled(7)])).toEqual(expected);
  });

  it('G01 sealed for another host does not open', () => {
    expect(codeOf(() => ownSecrets(sealed, known, otherHost, artifact))).toBe('E_SEAL');
    const own = ownSecrets(sealed, known, host, artifact);
    expect(codeOf(() => open(own, otherHost))).toBe('E_SEAL');
    expect(codeOf(() => open(own, host, artifact, [filled(6)]))).toBe('E_SEAL');
  });

  it('G02 sealed for another artifact does not open', () => {
    const own = ownSecrets(sealed, known, host, otherArtifact);
    expect(codeOf(() => open(own))).toBe('E_SEAL');
  });

  it('G03 sealed for an older config set or version does not open', () => {
    const newer = makeConfigSet({ ...base, version: 8 });
    expect(codeOf(() => ownSecrets(sealed, newer, host, artifact))).toBe('E_CONFIG_SET');
    const own = ownSecrets(sealed, known, host, artifact);
    expect(codeOf(() => open(own, host, artifact, [filled(7)], newer))).toBe('E_SEAL');
    const sameId = { ...newer, configId: known.configId };
    expect(codeOf(() => open(own, host, artifact, [filled(7)], sameId))).toBe('E_SEAL');
  });

  it('G04 one bit of box or sealed key changed does not open', () => {
    const own = ownSecrets(sealed, known, host, artifact);
    const flip = (text: string | undefined, at: number): string => {
      const bytes = Uint8Array.from(bytesOfBase64(text ?? '') ?? []);
      bytes[at % bytes.length] = (bytes[at % bytes.length] ?? 0) ^ 4;
      return base64Of(bytes);
    };
    for (let at = 0; at < 80; at += 13) {
      const changedBox = { ...own, boxes: { PASSWORD: flip(own.boxes['PASSWORD'], at) } };
      expect(codeOf(() => open(changedBox))).toBe('E_SEAL');
      const changedKey = { ...own, keys: { PASSWORD: flip(own.keys['PASSWORD'], at) } };
      expect(codeOf(() => open(changedKey))).toBe('E_SEAL');
    }
  });

  it.each([
    ['a box that is missing', {}, 'E_SEAL'],
    ['a box of no secret', { ...boxes, OTHER: boxes.PASSWORD }, 'E_CONFIG_SET'],
    ['another box', { PASSWORD: base64Of(filled(3)) }, 'E_SEAL'],
  ])('%s is refused', (_, given, code) => {
    expect(codeOf(() => requireBoxes(known, given as Sealed['boxes']))).toBe(code);
  });

  it('B05 a host whose key is of small order is not sealed for', () => {
    const recipient = { host, sealKey: new Uint8Array(32) };
    const keys = new Map([['PASSWORD', dataKey]]);
    expect(codeOf(() => sealFor(recipient, known, keys, randomSeed))).toBe('E_SEAL');
  });

  it('a data key that is not at hand is told by the name of its secret', () => {
    const recipient = { host, sealKey: sealPublicKeyOf(filled(7)) };
    expect(codeOf(() => sealFor(recipient, known, new Map(), randomSeed))).toBe('E_CONFIG_SET');
  });
});

describe('a config set for an artifact', () => {
  const wanted = {
    configId: known.configId,
    scope: 'web',
    version: 7,
    group: 'web',
    artifactId: artifact,
    takes: { schema: 'web', version: 2 },
  };
  it('is taken when all of it fits', () => {
    requireConfigFor(known, wanted);
    requireConfigNamed(wanted.takes, true, artifact);
    requireConfigNamed(undefined, false, artifact);
  });

  it.each([
    ['G06 another config id', { configId: 'c'.repeat(64) as ConfigId }],
    ['another scope', { scope: 'db' }],
    ['another version', { version: 8 }],
    ['another group', { group: 'db' }],
    ['another artifact', { artifactId: 'd'.repeat(64) as ArtifactId }],
    ['an artifact of another config schema', { takes: { schema: 'db', version: 2 } }],
    ['an artifact of another schema version', { takes: { schema: 'web', version: 1 } }],
    ['an artifact that takes none', { takes: undefined }],
  ])('is refused for %s', (_, change) => {
    expect(codeOf(() => requireConfigFor(known, { ...wanted, ...change }))).toBe('E_CONFIG_SET');
  });

  it('an artifact that takes one is not run without', () => {
    expect(codeOf(() => requireConfigNamed(wanted.takes, false, artifact))).toBe('E_CONFIG_SET');
  });
});
