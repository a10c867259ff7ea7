import fc from 'fast-check';
import nacl from 'tweetnacl';
import { describe, expect, it } from 'vitest';
import { hexOf } from '#/bundle/keys.ts';
import {
  boxSecret,
  lengthPrefixed,
  openBox,
  openSealed,
  requireSealKey,
  seal,
  SEAL_OVERHEAD_BYTES,
  sealPublicKeyOf,
} from '#/bundle/seal.ts';
import { codeOf } from '#/test/support/bundle/code-of.ts';

const filled = (byte: number, length = 32): Uint8Array => new Uint8Array(length).fill(byte);
const bytesOf = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, 'hex'));
const bytes32 = fc.uint8Array({ minLength: 32, maxLength: 32 });
const context = lengthPrefixed(['h-1', 'artifact', 'config', '7', 'NAME']);

/** The eight encodings of points of small order below 2^255, and the same with the top bit. */
const smallOrder = [
  '0000000000000000000000000000000000000000000000000000000000000000',
  '0100000000000000000000000000000000000000000000000000000000000000',
  'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800',
  '5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157',
  'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b880',
];

describe('sealing', () => {
  it('gives the bytes that are written down in config-sets.md', () => {
    expect(hexOf(lengthPrefixed(['ab', 'c']))).toBe('0000000261620000000163');
    const host = sealPublicKeyOf(filled(7));
    expect(hexOf(host)).toBe('13be4feaeaf204c7fd3358fc9c00721881d174278128227ec674f37f7fe97b6d');
    const sealed = seal(filled(9), host, context, filled(8));
    expect(hexOf(sealed)).toBe(
      '31d4ab6aceec961137917037936e60716fac573afe94d9da84a8020448dfc112298bbe4bdcedf9486eece2a57ae23859821526172da6770ff71f1aa343c0e70b71d0a6d984ab030b6a037a9fedeb26d1',
    );
    const box = boxSecret(Buffer.from('hunter2'), 'NAME', filled(9));
    expect(hexOf(box)).toBe('2e94e79a4832efea81703a39bd10ffe11c02ada389d105');
  });

  it('is a box of tweetnacl under the derived nonce, 48 bytes longer than its content', () => {
    const sealed = seal(filled(9), sealPublicKeyOf(filled(7)), context, filled(8));
    expect(sealed.length).toBe(32 + SEAL_OVERHEAD_BYTES);
    expect(sealed.slice(0, 32)).toEqual(Buffer.from(nacl.scalarMult.base(filled(8))));
  });

  it('opens with the right key and context, and with nothing else', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 200 }),
        bytes32,
        bytes32,
        bytes32,
        fc.string(),
        fc.string(),
        (message, secret, other, ephemeral, mine, theirs) => {
          fc.pre(hexOf(sealPublicKeyOf(secret)) !== hexOf(sealPublicKeyOf(other)));
          const here = lengthPrefixed([mine]);
          const sealed = seal(message, sealPublicKeyOf(secret), here, ephemeral);
          expect(openSealed(sealed, secret, here)).toEqual(message);
          expect(openSealed(sealed, other, here)).toBeNull();
          if (mine !== theirs)
            expect(openSealed(sealed, secret, lengthPrefixed([theirs]))).toBeNull();
        },
      ),
      { numRuns: 25 },
    );
  });

  it('does not open with any one bit changed, cut or lengthened', () => {
    const sealed = seal(filled(9), sealPublicKeyOf(filled(7)), context, filled(8));
    for (let bit = 0; bit < sealed.length * 8; bit += 7) {
      const changed = Uint8Array.from(sealed);
      changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      expect(openSealed(changed, filled(7), context)).toBeNull();
    }
    for (const length of [0, 31, 32, 47, 48, sealed.length - 1])
      expect(openSealed(sealed.slice(0, length), filled(7), context)).toBeNull();
    expect(openSealed(Buffer.concat([sealed, filled(0, 1)]), filled(7), context)).toBeNull();
  });

  it('a box of a secret opens under its own key and name alone', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 500 }), bytes32, (secret, key) => {
        const box = boxSecret(secret, 'A', key);
        expect(openBox(box, 'A', key)).toEqual(secret);
        expect(openBox(box, 'B', key)).toBeNull();
        const other = Uint8Array.from(key);
        other[0] = (other[0] ?? 0) ^ 1;
        expect(openBox(box, 'A', other)).toBeNull();
        const changed = Uint8Array.from(box);
        changed[changed.length - 1] = (changed.at(-1) ?? 0) ^ 0x80;
        expect(openBox(changed, 'A', key)).toBeNull();
      }),
      { numRuns: 25 },
    );
    expect(openBox(new Uint8Array(15), 'A', filled(1))).toBeNull();
  });

  it('lengths stand before texts, so that two lists are never the same bytes', () => {
    expect(lengthPrefixed(['ab', 'c'])).not.toEqual(lengthPrefixed(['a', 'bc']));
    expect(lengthPrefixed(['', 'a'])).not.toEqual(lengthPrefixed(['a', '']));
  });

  it.each(smallOrder)('B05 a key of small order or of another spelling is no key: %s', (hex) => {
    expect(codeOf(() => requireSealKey(bytesOf(hex)))).toBe('E_SEAL');
    // What a host is sent is not opened by such an ephemeral key either.
    const forged = Buffer.concat([bytesOf(hex), filled(0, 48)]);
    expect(openSealed(forged, filled(7), context)).toBeNull();
  });

  it.each([
    ['of 31 bytes', filled(9, 31)],
    ['of 33 bytes', filled(9, 33)],
    ['with the top bit set', bytesOf(`${'09'.repeat(31)}89`)],
    ['at 2^255 - 1', bytesOf(`${'ff'.repeat(31)}7f`)],
  ])('B05 a key %s is refused', (_, key) => {
    expect(codeOf(() => requireSealKey(key))).toBe('E_SEAL');
  });

  it('every honest key is admitted', () => {
    fc.assert(
      fc.property(bytes32, (secret) => requireSealKey(sealPublicKeyOf(secret))),
      { numRuns: 25 },
    );
  });
});
