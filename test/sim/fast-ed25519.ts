/**
 * The one seam of the simulation in cryptography: Ed25519 by OpenSSL instead of tweetnacl, which takes 3 ms for a signature
 * and 7 ms to verify one. Keys, messages and signatures are the same bytes, and the strict checks before the equation
 * (bundle/ed25519.ts) stay in force; B06 holds both implementations to one verdict.
 */
import {
  createPrivateKey,
  createPublicKey,
  sign as signBytes,
  verify as verifyBytes,
  type KeyObject,
} from 'node:crypto';
import nacl from 'tweetnacl';

const MAX_KEYS = 4096;

/** Replaces the slow functions of tweetnacl in this process. Calling it again changes nothing more. */
export function useOpenSsl(): void {
  const { sign, box } = nacl;
  if ('isOpenSsl' in sign) return;
  const publicKeys = remembered((hex) => {
    const x = Buffer.from(hex, 'hex').toString('base64url');
    return createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' });
  });
  const privateKeys = remembered((hex) => {
    const bytes = Buffer.from(hex, 'hex');
    const d = bytes.subarray(0, 32).toString('base64url');
    const x = bytes.subarray(32).toString('base64url');
    return createPrivateKey({ key: { kty: 'OKP', crv: 'Ed25519', d, x }, format: 'jwk' });
  });
  const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
  const detached = Object.assign(
    (message: Uint8Array, secretKey: Uint8Array): Uint8Array =>
      new Uint8Array(signBytes(null, message, privateKeys(hexOf(secretKey)) as KeyObject)),
    {
      verify(message: Uint8Array, signature: Uint8Array, publicKey: Uint8Array): boolean {
        const key = publicKeys(hexOf(publicKey));
        return key !== null && verifyBytes(null, message, key, signature);
      },
    },
  );
  const fromSeed = remembered((hex) =>
    sign.keyPair.fromSeed(Uint8Array.from(Buffer.from(hex, 'hex'))),
  );
  const boxKey = remembered((hex) =>
    box.keyPair.fromSecretKey(Uint8Array.from(Buffer.from(hex, 'hex'))),
  );
  const signPair = Object.assign(() => sign.keyPair(), {
    ...sign.keyPair,
    fromSeed: (seed: Uint8Array) => fromSeed(hexOf(seed)),
  });
  const boxPair = Object.assign(() => box.keyPair(), {
    ...box.keyPair,
    fromSecretKey: (key: Uint8Array) => boxKey(hexOf(key)),
  });
  Object.assign(nacl, {
    sign: Object.assign(sign.bind(null), { ...sign, detached, keyPair: signPair, isOpenSsl: true }),
    box: Object.assign(box.bind(null), { ...box, keyPair: boxPair }),
  });
}

/** The value of each key, made once. Null: it cannot be made. */
function remembered<T>(make: (hex: string) => T): (hex: string) => T | null {
  const known = new Map<string, T | null>();
  return (hex) => {
    const found = known.get(hex);
    if (found !== undefined) return found;
    let made: T | null = null;
    try {
      made = make(hex);
    } catch {
      made = null;
    }
    if (known.size >= MAX_KEYS) known.clear();
    known.set(hex, made);
    return made;
  };
}
