/** The rules of the agent: strict Ed25519, digests everywhere, narrow role names. docs/specs/trust.md, section 5. */
import { isStrictPublicKey, PUBLIC_KEY_BYTES, SIGNATURE_BYTES, verify } from '../ed25519.ts';
import { bytesOfHex, type TufKey } from '../keys.ts';
import type { MetadataRules } from './role.ts';

/** Names of delegated roles that this system has: img-<class>, attest-<class>, grp-<group>, cfg-<scope>, policy. */
const ROLE_NAME = /^(?:(?:img|attest|grp|cfg)-[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?|policy)$/;

/** Key and signature in lower-case hex, scheme ed25519, strict. Anything else is not a signature. */
export function verifyEd25519(key: TufKey, message: Uint8Array, signature: string): boolean {
  const bytes = ed25519KeyOf(key);
  const sig = bytesOfHex(signature, SIGNATURE_BYTES);
  return bytes !== null && sig !== null && verify(message, sig, bytes);
}

/** The 32 bytes of an acceptable key, or null. */
export function ed25519KeyOf(key: TufKey): Uint8Array | null {
  if (key.keytype !== 'ed25519' || key.scheme !== 'ed25519') return null;
  const bytes = bytesOfHex(key.keyval.public, PUBLIC_KEY_BYTES);
  return bytes !== null && isStrictPublicKey(bytes) ? bytes : null;
}

export const agentRules: MetadataRules = {
  verifySignature: verifyEd25519,
  keyMaterial: (key) => (ed25519KeyOf(key) === null ? null : key.keyval.public),
  strictForms: true,
  isRoleName: (name) => ROLE_NAME.test(name),
};
