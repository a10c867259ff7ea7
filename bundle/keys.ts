/**
 * Keys and their ids. A key id is the sha256 of the canonical TUF key object, everywhere: in metadata, in envelopes, in key
 * files. docs/specs/trust.md, section 3.
 */
import { createHash } from 'node:crypto';
import { Problem } from '#/protocol/errors.ts';
import { canonicalJson } from './canonical.ts';
import { generateKeyPair, isStrictPublicKey, sign } from './ed25519.ts';

/** An Ed25519 public key under its id. */
export interface PublicKey {
  readonly keyId: string;
  readonly bytes: Uint8Array;
}

/** Something that signs with one key: held in memory, or somewhere else. */
export interface Signer {
  readonly key: PublicKey;
  readonly sign: (message: Uint8Array) => Uint8Array;
}

/** The key object of TUF metadata. */
export interface TufKey {
  readonly keytype: string;
  readonly scheme: string;
  readonly keyval: { readonly public: string };
}

/** Lower-case hex sha256 of some bytes. */
export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** The key under its id. @throws Problem E_KEYID for bytes that no strict verifier admits. */
export function publicKeyOf(bytes: Uint8Array): PublicKey {
  if (!isStrictPublicKey(bytes)) {
    throw new Problem(
      'E_KEYID',
      `public key ${hexOf(bytes).slice(0, 64)} is not a strict ed25519 key`,
    );
  }
  return { keyId: keyIdOf(tufKeyOf(bytes)), bytes };
}

/** The TUF key object of a public key. */
export function tufKeyOf(bytes: Uint8Array): TufKey {
  return { keytype: 'ed25519', scheme: 'ed25519', keyval: { public: hexOf(bytes) } };
}

/** sha256 of the canonical key object (unknown fields count). */
export function keyIdOf(key: TufKey): string {
  return sha256(canonicalJson(key));
}

/** A signer of a 32-byte seed. */
export function signerOf(seed: Uint8Array): Signer {
  const pair = generateKeyPair(seed);
  return {
    key: publicKeyOf(pair.publicKey),
    sign: (message) => sign(message, pair.secretKey),
  };
}

/** Lower-case hex. */
export function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}

/** Bytes of lower-case hex of exactly `sizeBytes` bytes, or null. */
export function bytesOfHex(text: string, sizeBytes: number): Uint8Array | null {
  if (text.length !== sizeBytes * 2 || !/^[0-9a-f]*$/.test(text)) return null;
  return Uint8Array.from(Buffer.from(text, 'hex'));
}
