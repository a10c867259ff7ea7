/**
 * DSSE envelopes (secure-systems-lab/dsse, protocol 1.0.2) with strict Ed25519: manifests, reports, statements.
 * Encodings: payload and signatures in standard base64 with padding, canonical; nothing else is read (docs/specs/trust.md,
 * section 4).
 */
import * as v from 'valibot';
import { type Envelope, envelope as envelopeSchema } from '#/protocol/documents.ts';
import { Problem } from '#/protocol/errors.ts';
import { base64Of, bytesOfBase64 } from './base64.ts';
import { canonicalDocument } from './canonical.ts';
import { verify } from './ed25519.ts';
import type { PublicKey, Signer } from './keys.ts';
import { parseStrictJson } from './strict-json.ts';

/** The payload of a manifest envelope. */
export const MANIFEST_PAYLOAD_TYPE = 'application/vnd.switchback.manifest+json';

/** Larger envelopes are refused before they are parsed: the largest payload in base64, and its signatures. */
export const ENVELOPE_MAX_BYTES = 1_500_000;

/** Checks one signature; `verify` and `verifyFast` of ed25519.ts are of this form. */
export type Verify = (message: Uint8Array, signature: Uint8Array, publicKey: Uint8Array) => boolean;

export interface EnvelopeTrust {
  /** Keys that may sign. One key listed twice counts once. */
  readonly keys: readonly PublicKey[];
  /** How many distinct keys must have signed, at least 1. */
  readonly threshold: number;
  readonly payloadType: string;
  /** `verify` unless given. */
  readonly verify?: Verify;
}

/** The pre-authentication encoding: what is signed. */
export function pae(payloadType: string, payload: Uint8Array): Uint8Array {
  const type = Buffer.from(payloadType, 'utf8');
  return Buffer.concat([
    Buffer.from(`DSSEv1 ${type.length} `, 'utf8'),
    type,
    Buffer.from(` ${payload.length} `, 'utf8'),
    payload,
  ]);
}

/** An envelope over `payload`, signed by every signer. */
export function signEnvelope(
  payloadType: string,
  payload: Uint8Array,
  signers: readonly Signer[],
): Envelope {
  const message = pae(payloadType, payload);
  return {
    payloadType,
    payload: base64Of(payload),
    signatures: signers.map((signer) => ({
      keyid: signer.key.keyId,
      sig: base64Of(signer.sign(message)),
    })),
  };
}

/**
 * The same envelope with the signatures of more signers: how a second builder signs the same bytes. Signatures of a signer
 * that are there already are replaced.
 */
export function addSignatures(envelope: Envelope, signers: readonly Signer[]): Envelope {
  const added = signEnvelope(envelope.payloadType, payloadOf(envelope), signers);
  const ids = new Set(added.signatures.map((signature) => signature.keyid));
  const kept = envelope.signatures.filter((signature) => !ids.has(signature.keyid));
  return { ...envelope, signatures: [...kept, ...added.signatures] };
}

/** The bytes of an envelope as a file or a body: canonical, reproducible. */
export function encodeEnvelope(envelope: Envelope): Uint8Array {
  return canonicalDocument(envelope);
}

/** An envelope from bytes, nothing verified. @throws Problem E_TOOBIG, E_PARSE, E_CANON, E_SCHEMA. */
export function decodeEnvelope(bytes: Uint8Array): Envelope {
  const result = v.safeParse(
    envelopeSchema,
    parseStrictJson(bytes, { maxBytes: ENVELOPE_MAX_BYTES }),
  );
  if (!result.success) {
    const issue = result.issues[0];
    throw new Problem('E_SCHEMA', `envelope: ${v.getDotPath(issue) ?? ''}: ${issue.message}`);
  }
  return result.output;
}

/**
 * The payload of an envelope that enough trusted keys signed. Use these bytes, never bytes from elsewhere that should be the
 * same (C06).
 * @throws Problem E_SIGS (other payload type, too few valid signatures), E_DUPSIG (a key or a signature twice), E_SCHEMA.
 */
export function openEnvelope(envelope: Envelope, trust: EnvelopeTrust): Uint8Array {
  if (!Number.isSafeInteger(trust.threshold) || trust.threshold < 1) {
    throw new Problem('E_SIGS', `threshold ${trust.threshold} is not a positive number`);
  }
  if (envelope.payloadType !== trust.payloadType) {
    throw new Problem(
      'E_SIGS',
      `envelope of type ${envelope.payloadType}, expected ${trust.payloadType}`,
    );
  }
  refuseDuplicates(envelope);
  const payload = payloadOf(envelope);
  const message = pae(envelope.payloadType, payload);
  const check = trust.verify ?? verify;
  const trusted = new Map(trust.keys.map((key) => [key.keyId, key]));
  // Counted by key material: the same key under two ids is one signer.
  const signedBy = new Set<string>();
  for (const { keyid, sig } of envelope.signatures) {
    const key = trusted.get(keyid);
    const signature = bytesOfBase64(sig);
    if (key === undefined || signature === null) continue;
    if (check(message, signature, key.bytes)) signedBy.add(base64Of(key.bytes));
  }
  if (signedBy.size < trust.threshold) {
    throw new Problem(
      'E_SIGS',
      `envelope has ${signedBy.size} valid signatures by trusted keys, ${trust.threshold} needed`,
      {
        valid: signedBy.size,
        threshold: trust.threshold,
        signatures: envelope.signatures.map((signature) => signature.keyid),
      },
    );
  }
  return payload;
}

function refuseDuplicates(envelope: Envelope): void {
  const seen = new Set<string>();
  for (const { keyid, sig } of envelope.signatures) {
    if (seen.has(keyid) || seen.has(sig)) {
      throw new Problem('E_DUPSIG', `key ${keyid} signed more than once`, { keyId: keyid });
    }
    seen.add(keyid).add(sig);
  }
}

function payloadOf(envelope: Envelope): Uint8Array {
  const payload = bytesOfBase64(envelope.payload);
  if (payload === null) throw new Problem('E_SCHEMA', 'envelope payload is not canonical base64');
  return payload;
}
