import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  bundleBytes,
  checkDataHeader,
  type Located,
  locateMembers,
  memberHeader,
  type MemberName,
  memberNames,
  padding,
} from '#/bundle/container.ts';
import { codeOf } from '#/test/support/bundle/code-of.ts';

const GiB = 2 ** 30;
const contents: Readonly<Record<MemberName, Buffer>> = {
  'manifest.json': Buffer.from('{"m":1}'),
  'manifest.dsse.json': Buffer.from('{"e":1}'.repeat(100)),
  'attestations.intoto.jsonl': Buffer.from(''),
  'chunks.index': Buffer.alloc(512, 'i'),
  'chunks.data': Buffer.from('data'),
};

function archive(
  changes: Partial<Record<MemberName, Buffer>> = {},
  names: readonly MemberName[] = memberNames,
): Buffer {
  const all = { ...contents, ...changes };
  const parts = names.flatMap((name) => [
    memberHeader(name, all[name].byteLength, 1_700_000_000),
    all[name],
    padding(all[name].byteLength),
  ]);
  return Buffer.concat([...parts, Buffer.alloc(1024)]);
}

function located(bytes: Uint8Array): Located {
  const found = locateMembers(bytes);
  if ('needBytes' in found) throw new Error(`needs ${found.needBytes} bytes`);
  return found;
}

it('finds every member where it is', () => {
  const bytes = archive();
  const found = located(bytes);
  const at = ({ offset, sizeBytes }: { offset: number; sizeBytes: number }): Buffer =>
    bytes.subarray(offset, offset + sizeBytes);
  expect(at(found.manifest)).toEqual(contents['manifest.json']);
  expect(at(found.envelope)).toEqual(contents['manifest.dsse.json']);
  expect(at(found.attestations)).toEqual(contents['attestations.intoto.jsonl']);
  expect(at(found.index)).toEqual(contents['chunks.index']);
  checkDataHeader(at(found.dataHeader), 4);
  expect(at({ offset: found.dataOffset, sizeBytes: 4 })).toEqual(contents['chunks.data']);
  expect(bundleBytes(found, 4)).toBe(bytes.byteLength);
});

it('asks for more leading bytes until it has what it needs, and never for more than the file has', () => {
  const bytes = archive({ 'attestations.intoto.jsonl': Buffer.alloc(300_000, 'a') });
  let size = 1;
  for (let turn = 0; turn < 10; turn += 1) {
    const found = locateMembers(bytes.subarray(0, size));
    if (!('needBytes' in found)) break;
    expect(found.needBytes).toBeGreaterThan(size);
    size = found.needBytes;
  }
  const found = located(bytes.subarray(0, size));
  expect(size).toBe(found.index.offset);
  expect(size).toBeLessThan(bytes.byteLength);
});

it('is listed and unpacked by ordinary tar', () => {
  const folder = mkdtempSync(join(tmpdir(), 'bundle-tar-'));
  try {
    const path = join(folder, 'x.tar');
    writeFileSync(path, archive());
    const list = execFileSync('tar', ['-tf', path], { encoding: 'utf8' });
    expect(list.trim().split('\n')).toEqual([...memberNames]);
    for (const name of memberNames) {
      expect(execFileSync('tar', ['-xOf', path, name])).toEqual(contents[name]);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});

describe('F14 sizes beyond 32 bits', () => {
  it.each([
    2 * GiB,
    2 * GiB + 1,
    4 * GiB,
    4 * GiB + 1,
    8 * GiB - 1,
    8 * GiB,
    8 * GiB + 1,
    3 * 1024 * GiB,
  ])('writes and reads back a member of %i bytes', (size) => {
    const header = memberHeader('chunks.data', size, 0);
    expect(codeOf(() => checkDataHeader(header, size))).toBe('nothing');
    expect(codeOf(() => checkDataHeader(header, size - 1))).toBe('E_SIZE');
    expect(codeOf(() => checkDataHeader(header, size + 1))).toBe('E_SIZE');
  });

  it('ordinary tar reads a size of 3 TiB from the header', () => {
    const folder = mkdtempSync(join(tmpdir(), 'bundle-tar-'));
    try {
      const path = join(folder, 'x.tar');
      writeFileSync(path, memberHeader('chunks.data', 3 * 1024 * GiB, 0));
      // The content is missing, so tar fails at the end, after it printed what it had read.
      const printed = execFileSync('sh', ['-c', 'tar -tvf "$0" 2>/dev/null || true', path], {
        encoding: 'utf8',
      });
      expect(printed).toContain(String(3 * 1024 * GiB));
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('C14 refuses a member of 2^53 bytes or more', () => {
    const header = Buffer.from(memberHeader('chunks.data', 8 * GiB, 0));
    for (const value of [2n ** 53n, 2n ** 63n, 2n ** 64n - 1n]) {
      header.writeBigUInt64BE(value, 128);
      expect(codeOf(() => checkDataHeader(header, 8 * GiB))).toBe('E_SIZE');
    }
  });
});

describe('anything but a bundle', () => {
  it.each([
    [
      'members in another order',
      archive({}, [
        'manifest.dsse.json',
        'manifest.json',
        'attestations.intoto.jsonl',
        'chunks.index',
        'chunks.data',
      ]),
    ],
    [
      'a member left out',
      archive({}, ['manifest.json', 'manifest.dsse.json', 'chunks.index', 'chunks.data']),
    ],
    [
      'one member twice',
      archive({}, [
        'manifest.json',
        'manifest.json',
        'manifest.dsse.json',
        'attestations.intoto.jsonl',
        'chunks.index',
      ]),
    ],
    ['zeros', Buffer.alloc(10_240)],
    ['text', Buffer.from('<html>not found</html>'.padEnd(2048))],
  ])('is refused: %s', (_, bytes) => {
    expect(codeOf(() => locateMembers(bytes))).toBe('E_SCHEMA');
  });

  it('C13 refuses a manifest, envelope or attestations over their limits', () => {
    for (const name of [
      'manifest.json',
      'manifest.dsse.json',
      'attestations.intoto.jsonl',
      'chunks.index',
    ] as const) {
      const bytes = archive();
      const at = bytes.indexOf(name);
      const claimed = Buffer.from(memberHeader('chunks.data', 2 * GiB, 1_700_000_000)).subarray(
        124,
        136,
      );
      claimed.copy(bytes, at + 124);
      expect(
        codeOf(() => locateMembers(bytes)),
        name,
      ).toBe('E_SIZE');
    }
  });

  it('every changed byte of a header is refused', () => {
    const header = memberHeader('manifest.json', 7, 1_700_000_000);
    for (let at = 0; at < 512; at += 1) {
      for (const flip of [1, 0x20, 0x80]) {
        const bytes = archive();
        bytes[at] = (header[at] ?? 0) ^ flip;
        const code = codeOf(() => locateMembers(bytes));
        expect(['E_SCHEMA', 'E_SIZE'], `byte ${at}`).toContain(code);
      }
    }
  });

  it('F5 random leading bytes never do anything but fail with a code or ask for more', () => {
    const bytes = archive();
    fc.assert(
      fc.property(
        fc.nat(bytes.byteLength - 1),
        fc.uint8Array({ minLength: 1, maxLength: 40 }),
        (at, noise) => {
          const damaged = Buffer.from(bytes);
          damaged.set(noise.subarray(0, damaged.byteLength - at), at);
          const code = codeOf(() => locateMembers(damaged));
          expect(['nothing', 'E_SCHEMA', 'E_SIZE']).toContain(code);
        },
      ),
      { numRuns: 1000 },
    );
  });
});
