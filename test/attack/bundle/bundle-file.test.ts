import { createHash } from 'node:crypto';
import { open, readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { chunkAt } from '#/bundle/chunk-index.ts';
import { type Located, locateMembers, memberHeader, padding } from '#/bundle/container.ts';
import {
  decodeEnvelope,
  encodeEnvelope,
  MANIFEST_PAYLOAD_TYPE,
  openEnvelope,
  signEnvelope,
} from '#/bundle/dsse.ts';
import { encodeManifest } from '#/bundle/manifest.ts';
import { openBundle } from '#/control/cli/bundle/read.ts';
import { signBundle } from '#/control/cli/bundle/sign.ts';
import { verifyBundle } from '#/control/cli/bundle/verify.ts';
import {
  build,
  otherSigner,
  type Scratch,
  scratch,
  signer,
  trust,
  writeTree,
} from '#/test/support/bundle/build-sample.ts';
import { codeOfAsync } from '#/test/support/bundle/code-of.ts';
import { noise } from '#/test/support/bundle/noise.ts';

/** Two releases of one thing, good to the last byte, and a place for bad copies of them. */
let at: Scratch;
let good: Buffer;
let older: Buffer;
let located: Located;

beforeAll(async () => {
  at = await scratch();
  const root = join(at.path, 'in');
  await writeTree(root, {
    'bin/app': noise(300_000, 1),
    'lib/a.js': 'a = 1;\n'.repeat(2000),
    'lib/b.js': 'b = 2;\n',
  });
  await build(root, join(at.path, 'older.swb'));
  await writeFile(join(root, 'lib/b.js'), 'b = 3;\n');
  await build(root, join(at.path, 'good.swb'), {
    definitionChanges: { version: '2.0', release: 2 },
  });
  good = await readFile(join(at.path, 'good.swb'));
  older = await readFile(join(at.path, 'older.swb'));
  located = locate(good);
});
afterAll(() => at[Symbol.asyncDispose]());

function locate(bytes: Uint8Array): Located {
  const found = locateMembers(bytes);
  if ('needBytes' in found) throw new Error('bundle is short');
  return found;
}

async function verifyBytes(bytes: Uint8Array, keys = trust): Promise<string> {
  const path = join(at.path, 'bad.swb');
  await writeFile(path, bytes);
  return codeOfAsync(() => verifyBundle(path, keys));
}

/** The good bundle with other bytes in a member of the same size. */
function replaced(offset: number, bytes: Uint8Array): Buffer {
  const copy = Buffer.from(good);
  copy.set(bytes, offset);
  return copy;
}

/** The good bundle with members of any size in front of the index. */
function rebuilt(manifest: Uint8Array, envelope: Uint8Array): Buffer {
  const { attestations } = located;
  const from = attestations.offset - 512;
  const put = (name: 'manifest.json' | 'manifest.dsse.json', bytes: Uint8Array): Uint8Array[] => [
    memberHeader(name, bytes.byteLength, 1_700_000_000),
    bytes,
    padding(bytes.byteLength),
  ];
  return Buffer.concat([
    ...put('manifest.json', manifest),
    ...put('manifest.dsse.json', envelope),
    good.subarray(from),
  ]);
}

const member = (
  { offset, sizeBytes }: { offset: number; sizeBytes: number },
  bytes = good,
): Buffer => bytes.subarray(offset, offset + sizeBytes);

it('the good bundle is good', async () => {
  expect(await verifyBytes(good)).toBe('nothing');
  expect(await verifyBytes(rebuilt(member(located.manifest), member(located.envelope)))).toBe(
    'nothing',
  );
});

describe('chunks', () => {
  it('C01 one flipped bit anywhere in the data is found, and only that chunk is bad', async () => {
    const path = join(at.path, 'bad.swb');
    await using bundle = await openBundle(join(at.path, 'good.swb'), trust);
    const index = await bundle.index();
    for (const number of [0, 3, index.chunkCount - 1]) {
      const { offset, storedSize } = chunkAt(index, number);
      const position = located.dataOffset + offset + (storedSize >> 1);
      const damaged = replaced(position, Uint8Array.of((good[position] ?? 0) ^ 0x10));
      expect(await verifyBytes(damaged)).toBe('E_CHUNK');
      await using bad = await openBundle(path, trust);
      for (let other = 0; other < index.chunkCount; other += 1) {
        const code = await codeOfAsync(() => bad.readChunk(other));
        expect(code).toBe(other === number ? 'E_CHUNK' : 'nothing');
      }
    }
  });

  it('C02 two swapped chunks are found', async () => {
    await using bundle = await openBundle(join(at.path, 'good.swb'), trust);
    const index = await bundle.index();
    const first = chunkAt(index, 1);
    const second = chunkAt(index, 2);
    const swapped = Buffer.concat([
      await bundle.readData(second.offset, second.storedSize),
      await bundle.readData(first.offset, first.storedSize),
    ]);
    expect(await verifyBytes(replaced(located.dataOffset + first.offset, swapped))).toBe('E_CHUNK');
  });

  it('C02 the data of another release is found', async () => {
    const from = locate(older).dataOffset;
    const size = Math.min(older.byteLength - from, good.byteLength - located.dataOffset) - 1024;
    expect(await verifyBytes(replaced(located.dataOffset, older.subarray(from, from + size)))).toBe(
      'E_CHUNK',
    );
  });

  it('C02 the index of another release is found', async () => {
    const other = locate(older);
    expect(
      await verifyBytes(
        replaced(
          located.index.offset,
          member(other.index, older).subarray(0, located.index.sizeBytes),
        ),
      ),
    ).toBe('E_HASH');
  });
});

describe('manifest and envelope', () => {
  it('C03 another manifest that is signed as well does not fit this bundle', async () => {
    const other = locate(older);
    const swapped = rebuilt(member(other.manifest, older), member(other.envelope, older));
    expect(['E_SUBJECT', 'E_HASH', 'E_LENGTH', 'E_SIZE']).toContain(await verifyBytes(swapped));
  });

  it('C06 the manifest beside the envelope is never used: another one is refused', async () => {
    const other = locate(older);
    const swapped = rebuilt(member(other.manifest, older), member(located.envelope));
    expect(await verifyBytes(swapped)).toBe('E_ARTIFACT');
  });

  it('C06 what is opened is the signed payload', async () => {
    await using bundle = await openBundle(join(at.path, 'good.swb'), trust);
    const envelope = decodeEnvelope(member(located.envelope));
    const signed = openEnvelope(envelope, { ...trust, payloadType: MANIFEST_PAYLOAD_TYPE });
    expect(Buffer.compare(bundle.manifestBytes, signed)).toBe(0);
  });

  it('C04 an envelope of another type is refused, signed or not', async () => {
    const manifest = member(located.manifest);
    const envelope = encodeEnvelope(
      signEnvelope('application/vnd.in-toto+json', manifest, [signer]),
    );
    const path = join(at.path, 'bad.swb');
    expect(await verifyBytes(rebuilt(manifest, envelope))).toBe('E_SIGS');
    expect(await codeOfAsync(() => openBundle(path, null))).toBe('E_SIGS');
  });

  it('C05 an envelope with too few signatures is refused', async () => {
    const keys = [signer.key, otherSigner.key];
    expect(await verifyBytes(good, { keys, threshold: 2 })).toBe('E_SIGS');
    expect(await verifyBytes(good, { keys: [otherSigner.key], threshold: 1 })).toBe('E_SIGS');
    const manifest = member(located.manifest);
    const both = encodeEnvelope(
      signEnvelope(MANIFEST_PAYLOAD_TYPE, manifest, [signer, otherSigner]),
    );
    expect(await verifyBytes(rebuilt(manifest, both), { keys, threshold: 2 })).toBe('nothing');
  });

  it('a manifest with one more permission is another artifact, whoever signed the old one', async () => {
    await using bundle = await openBundle(join(at.path, 'good.swb'), trust);
    const payloads = bundle.manifest.payloads.map((payload) => ({ ...payload, allowSetuid: true }));
    const changed = encodeManifest({ ...bundle.manifest, payloads } as typeof bundle.manifest);
    expect(await verifyBytes(rebuilt(changed, member(located.envelope)))).toBe('E_ARTIFACT');
  });
});

describe('attestations', () => {
  const statement = (subject: unknown): Uint8Array =>
    Buffer.from(
      JSON.stringify({
        _type: 'https://in-toto.io/Statement/v1',
        predicateType: 'https://example.org/tests/v1',
        predicate: { passed: true, ratio: 0.5 },
        subject,
      }),
    );
  const attached = (type: string, payload: Uint8Array): Promise<string> => {
    const { manifest, envelope, index } = located;
    const line = Buffer.concat([
      encodeEnvelope(signEnvelope(type, payload, [signer])),
      Buffer.from('\n'),
    ]);
    const parts = [
      good.subarray(0, envelope.offset + Math.ceil(envelope.sizeBytes / 512) * 512),
      memberHeader('attestations.intoto.jsonl', line.byteLength, 1_700_000_000),
      line,
      padding(line.byteLength),
      good.subarray(index.offset - 512),
    ];
    expect(manifest.offset).toBe(512);
    return verifyBytes(Buffer.concat(parts));
  };
  const ofThis = (): string => createHash('sha256').update(member(located.manifest)).digest('hex');
  const intoto = 'application/vnd.in-toto+json';

  it('C07 an attestation of another artifact is refused', async () => {
    expect(await attached(intoto, statement([{ name: 'x', digest: { sha256: ofThis() } }]))).toBe(
      'nothing',
    );
    expect(
      await attached(intoto, statement([{ name: 'x', digest: { sha256: '0'.repeat(64) } }])),
    ).toBe('E_SUBJECT');
  });

  it('C16 an attestation without sha256 is refused', async () => {
    expect(await attached(intoto, statement([{ name: 'x', digest: {} }]))).toBe('E_HASHALG');
    expect(
      await attached(intoto, statement([{ name: 'x', digest: { md5: '0'.repeat(32) } }])),
    ).toBe('E_HASHALG');
  });

  it('what is no statement is refused', async () => {
    expect(await attached(intoto, statement([]))).toBe('E_SCHEMA');
    expect(await attached(intoto, Buffer.from('{"_type":1,"_type":2}'))).toBe('E_PARSE');
    expect(await attached('text/plain', statement([{ digest: { sha256: ofThis() } }]))).toBe(
      'E_SCHEMA',
    );
  });
});

describe('signing', () => {
  it('a second builder adds its signature and changes nothing else', async () => {
    const both = { keys: [signer.key, otherSigner.key], threshold: 2 };
    const path = join(at.path, 'signed.swb');
    await writeFile(path, good);
    const { artifactId, keyIds } = await signBundle(path, path, [otherSigner], null);
    expect(keyIds).toEqual([signer.key.keyId, otherSigner.key.keyId]);
    expect(await verifyBundle(path, both)).toMatchObject({ artifactId });
    expect(await codeOfAsync(() => verifyBundle(join(at.path, 'good.swb'), both))).toBe('E_SIGS');
    const again = await readFile(path);
    await signBundle(path, path, [otherSigner], artifactId);
    expect((await readFile(path)).equals(again)).toBe(true);
  });

  it('C17 a builder does not sign an artifact that differs from its own', async () => {
    const path = join(at.path, 'good.swb');
    const own = (await verifyBundle(join(at.path, 'older.swb'), trust)).artifactId;
    expect(
      await codeOfAsync(() => signBundle(path, join(at.path, 'never.swb'), [otherSigner], own)),
    ).toBe('E_ARTIFACT');
  });
});

describe('the file', () => {
  it('F5 a bundle that ends early is refused, wherever it ends', async () => {
    const path = join(at.path, 'short.swb');
    const { manifest, envelope, index, dataOffset } = located;
    const ends = [
      0,
      1,
      511,
      512,
      manifest.offset + 10,
      envelope.offset + 10,
      index.offset - 1,
      index.offset + 10,
      dataOffset - 1,
      dataOffset,
      dataOffset + 100_000,
      good.byteLength - 1024,
      good.byteLength - 1,
    ];
    for (const end of ends) {
      await writeFile(path, good);
      await truncate(path, end);
      expect(['E_LENGTH', 'E_SCHEMA'], `ends after ${end}`).toContain(
        await codeOfAsync(() => verifyBundle(path, trust)),
      );
    }
  });

  it('bytes that ride along are refused: behind the end and between the members', async () => {
    expect(await verifyBytes(Buffer.concat([good, Buffer.alloc(512, 1)]))).toBe('E_LENGTH');
    expect(await verifyBytes(replaced(good.byteLength - 1, Buffer.from('x')))).toBe('E_SCHEMA');
    const gap = located.manifest.offset + located.manifest.sizeBytes;
    expect(gap % 512).not.toBe(0);
    expect(await verifyBytes(replaced(gap, Buffer.from('x')))).toBe('E_SCHEMA');
  });

  it('F5 any single damaged byte in front of the data is refused or changes nothing that is trusted', async () => {
    const path = join(at.path, 'bad.swb');
    const attestations = located.attestations;
    await writeFile(path, good);
    await using file = await open(path, 'r+');
    for (let position = 0; position < located.dataOffset; position += 37) {
      const isAttestation =
        position >= attestations.offset && position < attestations.offset + attestations.sizeBytes;
      await file.write(Buffer.from([(good[position] ?? 0) ^ 0x41]), 0, 1, position);
      const code = await codeOfAsync(() => verifyBundle(path, trust));
      // Attestations carry their own signatures; they are no part of what makes a bundle good.
      if (!isAttestation) expect(code, `byte ${position}`).not.toBe('nothing');
      await file.write(good.subarray(position, position + 1), 0, 1, position);
    }
    expect(await codeOfAsync(() => verifyBundle(path, trust))).toBe('nothing');
  });
});
