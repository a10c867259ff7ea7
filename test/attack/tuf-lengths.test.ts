import { describe, expect, it } from 'vitest';
import { sha256 } from '#/bundle/keys.ts';
import { requireDigests } from '#/bundle/trust/trusted-set.ts';

describe('what is listed about a file', () => {
  const bytes = Buffer.from('content');
  const hashes = new Map([['sha256', sha256(bytes)]]);

  it('A14 bytes with the signed digest and another length than the signed one', () => {
    requireDigests('x', bytes, { length: bytes.length, hashes });
    for (const length of [0, bytes.length - 1, bytes.length + 1])
      expect(() => requireDigests('x', bytes, { length, hashes })).toThrow(
        expect.objectContaining({ code: 'E_HASH' }),
      );
  });

  it('A14 bytes with one of two signed digests', () => {
    const both = new Map([...hashes, ['sha512', '0'.repeat(128)]]);
    expect(() => requireDigests('x', bytes, { length: null, hashes: both })).toThrow(
      expect.objectContaining({ code: 'E_HASH' }),
    );
  });
});
