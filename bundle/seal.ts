/**
 * Sealing of secrets, strict. The only file that imports tweetnacl for encryption.
 *
 * A sealed box is an ephemeral X25519 public key and a box (XSalsa20-Poly1305) whose nonce is derived from both public keys and
 * a context. The nonce is not sent: whoever opens it derives it from what he believes the context to be, so a box that was made
 * for another host, artifact, config set, version or name does not open. Rules: docs/specs/config-sets.md, section 3.
 */
import { createHash } from 'node:crypto';
import nacl from 'tweetnacl';
import { Problem } from '#/protocol/errors.ts';

export const SEAL_KEY_BYTES = 32;
/** What sealing adds: the ephemeral key and the tag. */
export const SEAL_OVERHEAD_BYTES = 48;
/** What encryption under a data key adds: the tag. */
export const BOX_OVERHEAD_BYTES = 16;

const NONCE_BYTES = 24;
const SEAL_LABEL = 'switchback.seal/1';
const BOX_LABEL = 'switchback.secret/1';

/** The public half of a 32-byte secret. */
export function sealPublicKeyOf(secretKey: Uint8Array): Uint8Array {
  requireLength('secret key', secretKey);
  return nacl.box.keyPair.fromSecretKey(plain(secretKey)).publicKey;
}

/**
 * A key that can be sealed to: 32 bytes, canonical (below 2^255 - 19), and not of small order: with such a key the shared
 * secret is zero, and anybody could open the box (B05).
 * @throws Problem E_SEAL
 */
export function requireSealKey(publicKey: Uint8Array): void {
  requireLength('public key', publicKey);
  if (!isBelowPrime(publicKey)) {
    throw new Problem('E_SEAL', 'the X25519 key is not in its canonical form');
  }
  // Scalars are multiples of 8: a point of small order gives zero with any of them (RFC 7748, section 6.1).
  const product = nacl.scalarMult(PROBE_SCALAR, plain(publicKey));
  if (product.every((byte) => byte === 0)) {
    throw new Problem('E_SEAL', 'the X25519 key is of small order: what is sealed to it is open');
  }
}

/**
 * Seals to a key that `requireSealKey` admitted. `ephemeralSecret` is 32 fresh random bytes, never used twice. `context` is
 * canonical (lengthPrefixed).
 */
export function seal(
  message: Uint8Array,
  publicKey: Uint8Array,
  context: Uint8Array,
  ephemeralSecret: Uint8Array,
): Uint8Array {
  const ephemeral = sealPublicKeyOf(ephemeralSecret);
  const nonce = sealNonce(ephemeral, publicKey, context);
  const box = nacl.box(plain(message), nonce, plain(publicKey), plain(ephemeralSecret));
  return Buffer.concat([ephemeral, box]);
}

/** What was sealed to the key of `secretKey` in this context; null when it was not, or when a bit of it changed. */
export function openSealed(
  sealed: Uint8Array,
  secretKey: Uint8Array,
  context: Uint8Array,
): Uint8Array | null {
  requireLength('secret key', secretKey);
  if (sealed.length < SEAL_OVERHEAD_BYTES) return null;
  const ephemeral = sealed.subarray(0, SEAL_KEY_BYTES);
  try {
    requireSealKey(ephemeral);
  } catch {
    return null;
  }
  const nonce = sealNonce(ephemeral, sealPublicKeyOf(secretKey), context);
  const box = plain(sealed.subarray(SEAL_KEY_BYTES));
  return nacl.box.open(box, nonce, plain(ephemeral), plain(secretKey));
}

/**
 * Encrypts a secret under a data key that encrypts nothing else: 32 fresh random bytes. The name goes into the nonce, so that a
 * box under another name does not open.
 */
export function boxSecret(secret: Uint8Array, name: string, dataKey: Uint8Array): Uint8Array {
  requireLength('data key', dataKey);
  return nacl.secretbox(plain(secret), boxNonce(name), plain(dataKey));
}

/** The secret of a box, or null when key, name or a bit is another one. */
export function openBox(box: Uint8Array, name: string, dataKey: Uint8Array): Uint8Array | null {
  requireLength('data key', dataKey);
  if (box.length < BOX_OVERHEAD_BYTES) return null;
  return nacl.secretbox.open(plain(box), boxNonce(name), plain(dataKey));
}

/** Texts as one byte string that can be read in one way only: each with its length (32 bits, big-endian) before it. */
export function lengthPrefixed(parts: readonly (string | Uint8Array)[]): Uint8Array {
  return Buffer.concat(
    parts.flatMap((part) => {
      const bytes = typeof part === 'string' ? Buffer.from(part, 'utf8') : part;
      const length = Buffer.alloc(4);
      length.writeUInt32BE(bytes.length);
      return [length, bytes];
    }),
  );
}

function sealNonce(ephemeral: Uint8Array, host: Uint8Array, context: Uint8Array): Uint8Array {
  return digestNonce([SEAL_LABEL, ephemeral, host, context]);
}

function boxNonce(name: string): Uint8Array {
  return digestNonce([BOX_LABEL, name]);
}

function digestNonce(parts: readonly (string | Uint8Array)[]): Uint8Array {
  const digest = createHash('sha512').update(lengthPrefixed(parts)).digest();
  return plain(digest.subarray(0, NONCE_BYTES));
}

function requireLength(what: string, key: Uint8Array): void {
  if (key.length !== SEAL_KEY_BYTES) {
    throw new Problem('E_SEAL', `${what} of ${key.length} bytes, expected ${SEAL_KEY_BYTES}`);
  }
}

/** Little-endian, the top bit counts: X25519 ignores it, so it would be a second spelling. */
function isBelowPrime(key: Uint8Array): boolean {
  if ((key[31] ?? 0) !== 0x7f) return (key[31] ?? 0) < 0x7f;
  for (let index = 30; index >= 1; index -= 1) if (key[index] !== 0xff) return true;
  return (key[0] ?? 0) < 0xed;
}

/** tweetnacl accepts only plain Uint8Array instances. */
function plain(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

const PROBE_SCALAR = new Uint8Array(SEAL_KEY_BYTES).fill(0x5a);
