/**
 * Ed25519, strict. The only file that imports tweetnacl for signing.
 *
 * tweetnacl accepts S + L for S, and it and OpenSSL accept the identity as a key with a zero signature. So before the equation
 * is looked at, this refuses: S >= L, keys and R that are not the canonical encoding of a point, keys and R of small order.
 * After these checks both implementations compute the same thing: encode([S]B - [h]A) == R (docs/decisions/, strict Ed25519).
 */
import { createPublicKey, verify as verifyWithOpenSsl } from 'node:crypto';
import nacl from 'tweetnacl';
import { Problem } from '#/protocol/errors.ts';

export const SEED_BYTES = 32;
export const PUBLIC_KEY_BYTES = 32;
export const SECRET_KEY_BYTES = 64;
export const SIGNATURE_BYTES = 64;

export interface KeyPair {
  readonly publicKey: Uint8Array;
  /** 64 bytes: the seed, then the public key. */
  readonly secretKey: Uint8Array;
}

/** The key pair of a 32-byte seed of random bytes. Deterministic; the caller brings the randomness. */
export function generateKeyPair(seed: Uint8Array): KeyPair {
  if (seed.length !== SEED_BYTES) {
    throw new Problem('E_KEYID', `seed of ${seed.length} bytes, expected ${SEED_BYTES}`);
  }
  const pair = nacl.sign.keyPair.fromSeed(plain(seed));
  return { publicKey: pair.publicKey, secretKey: pair.secretKey };
}

/** The 64-byte signature of `message`. `secretKey` is the 64 bytes of `generateKeyPair`. */
export function sign(message: Uint8Array, secretKey: Uint8Array): Uint8Array {
  if (secretKey.length !== SECRET_KEY_BYTES) {
    throw new Problem('E_KEYID', `secret key of ${secretKey.length} bytes, expected 64`);
  }
  return nacl.sign.detached(plain(message), plain(secretKey));
}

/** True only for a signature that every strict verifier accepts. Never throws for bytes of any length. */
export function verify(message: Uint8Array, signature: Uint8Array, publicKey: Uint8Array): boolean {
  if (!isStrictSignature(signature) || !isStrictPublicKey(publicKey)) return false;
  return nacl.sign.detached.verify(plain(message), plain(signature), plain(publicKey));
}

/**
 * The same verdict as `verify`, by OpenSSL: for servers that check many signatures. B06 in test/attack holds the two to the
 * same answers over mutated vectors.
 */
export function verifyFast(
  message: Uint8Array,
  signature: Uint8Array,
  publicKey: Uint8Array,
): boolean {
  if (!isStrictSignature(signature) || !isStrictPublicKey(publicKey)) return false;
  const x = Buffer.from(publicKey).toString('base64url');
  try {
    const key = createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' });
    return verifyWithOpenSsl(null, message, key, signature);
  } catch {
    // OpenSSL refuses to load a key that is no point of the curve; tweetnacl answers false.
    return false;
  }
}

/** Admission of a key: 32 bytes, canonical, not of small order. Whether it is on the curve shows at the first signature. */
export function isStrictPublicKey(publicKey: Uint8Array): boolean {
  return publicKey.length === PUBLIC_KEY_BYTES && isStrictPoint(publicKey);
}

function isStrictSignature(signature: Uint8Array): boolean {
  if (signature.length !== SIGNATURE_BYTES) return false;
  return isStrictPoint(signature.subarray(0, 32)) && isBelow(signature.subarray(32), ORDER);
}

function isStrictPoint(encoded: Uint8Array): boolean {
  const y = Uint8Array.from(encoded);
  y[31] = (y[31] ?? 0) & 0x7f;
  if (!isBelow(y, PRIME)) return false;
  return !SMALL_ORDER_Y.some((small) => y.every((byte, index) => byte === small[index]));
}

/** a < b, both 32 bytes little-endian. Public data: no need for constant time. */
function isBelow(a: Uint8Array, b: Uint8Array): boolean {
  for (let index = 31; index >= 0; index -= 1) {
    const x = a[index] ?? 0;
    const y = b[index] ?? 0;
    if (x !== y) return x < y;
  }
  return false;
}

/** tweetnacl accepts only plain Uint8Array instances. */
function plain(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function littleEndian(bigEndianHex: string): Uint8Array {
  return Uint8Array.from(Buffer.from(bigEndianHex, 'hex')).reverse();
}

/** L = 2^252 + 27742317777372353535851937790883648493, the order of the base point. */
const ORDER = littleEndian('1000000000000000000000000000000014def9dea2f79cd65812631a5cf5d3ed');
/** p = 2^255 - 19 */
const PRIME = littleEndian('7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffed');
/** The y of the eight points of small order: 0 (order 4), 1 (order 1), -1 (order 2), and the two of order 8. */
const SMALL_ORDER_Y = [
  littleEndian('0000000000000000000000000000000000000000000000000000000000000000'),
  littleEndian('0000000000000000000000000000000000000000000000000000000000000001'),
  littleEndian('7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffec'),
  littleEndian('7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7'),
  littleEndian('05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826'),
];
