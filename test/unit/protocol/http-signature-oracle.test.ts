/**
 * Our request signatures (RFC 9421) against a public implementation, `http-message-signatures`: what we sign it verifies, what it
 * signs in our profile we take, and both make the same bytes of the same request.
 */
import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { verifyFast as verify } from '#/bundle/ed25519.ts';
import { signerOf } from '#/bundle/keys.ts';
import {
  contentDigestOf,
  COVERED_COMPONENTS,
  readSignedRequest,
  SIGNATURE_LIFETIME_S,
  SIGNATURE_TAG,
  type SignedMessage,
  signRequest,
} from '#/protocol/http-signature.ts';

interface Message {
  readonly method: string;
  readonly url: string;
  readonly headers: Record<string, string>;
}
/** As much of the library as is used here. */
interface Library {
  readonly httpbis: {
    signMessage(config: object, message: Message): Promise<Message>;
    verifyMessage(config: object, message: Message): Promise<boolean | null>;
  };
}
const library: string = 'http-message-signatures';
const { httpbis } = (await import(library)) as Library;

const signer = signerOf(new Uint8Array(32).fill(7));
const other = signerOf(new Uint8Array(32).fill(8));
const key = { keyId: signer.key.keyId, sign: signer.sign };
const sha256 = (body: string): Uint8Array => createHash('sha256').update(body).digest();
const NONCE = 'ab'.repeat(16);

/** What the library says to a request. It has a clock of its own, so requests are of now. */
function theirVerdict(message: SignedMessage, publicKey = signer.key.bytes): Promise<boolean> {
  const config = {
    all: true,
    requiredParams: ['created', 'expires', 'nonce', 'keyid', 'alg', 'tag'],
    requiredFields: [...COVERED_COMPONENTS],
    keyLookup: async ({ keyid }: { keyid: string }) =>
      keyid !== signer.key.keyId
        ? null
        : {
            id: keyid,
            algs: ['ed25519'],
            verify: async (data: Buffer, signature: Buffer) => verify(data, signature, publicKey),
          },
  };
  const copy = { ...message, headers: { ...message.headers } };
  return httpbis.verifyMessage(config, copy).then(
    (isGood) => isGood === true,
    () => false,
  );
}

/** Signed by the library in our profile. */
async function theirs(message: Message, body: string, nowS: number): Promise<SignedMessage> {
  const headers = { ...message.headers, 'content-digest': contentDigestOf(sha256(body)) };
  const config = {
    name: 'sb',
    key: {
      id: signer.key.keyId,
      alg: 'ed25519',
      sign: async (data: Buffer) => Buffer.from(signer.sign(data)),
    },
    fields: [...COVERED_COMPONENTS],
    params: ['created', 'expires', 'nonce', 'keyid', 'alg', 'tag'],
    paramValues: {
      created: new Date(nowS * 1000),
      expires: new Date((nowS + SIGNATURE_LIFETIME_S) * 1000),
      nonce: NONCE,
      tag: SIGNATURE_TAG,
    },
  };
  const signed = await httpbis.signMessage(config, { ...message, headers });
  const named = Object.entries(signed.headers).map(([name, value]) => [name.toLowerCase(), value]);
  return { ...message, headers: Object.fromEntries(named) as Record<string, string> };
}

function ours(message: Message, body: string, nowS: number): SignedMessage {
  const added = signRequest(message, sha256(body), key, { nowS, nonce: NONCE });
  return { ...message, headers: { ...message.headers, ...added } };
}

const text = fc.string({ unit: 'grapheme-ascii', maxLength: 40 });
const requests = fc.record({
  method: fc.constantFrom('POST', 'PUT', 'GET', 'DELETE'),
  path: fc.webPath(),
  query: fc.webQueryParameters(),
  body: text,
});
const messageOf = (method: string, path: string, query: string): Message => ({
  method,
  url: new URL(`https://control.example:8443${path}${query === '' ? '' : `?${query}`}`).href,
  headers: { 'content-type': 'application/json', host: 'control.example:8443' },
});
const now = (): number => Math.floor(Date.now() / 1000);

describe('a public implementation of RFC 9421', () => {
  it('refuses what we sign, or takes it under another key, body, method or address', async () => {
    await fc.assert(
      fc.asyncProperty(requests, async ({ method, path, query, body }) => {
        const signed = ours(messageOf(method, path, query), body, now());
        expect(await theirVerdict(signed)).toBe(true);
        expect(await theirVerdict(signed, other.key.bytes)).toBe(false);
        expect(await theirVerdict({ ...signed, method: 'PATCH' })).toBe(false);
        expect(await theirVerdict({ ...signed, url: `${signed.url}x` })).toBe(false);
        const digest = contentDigestOf(sha256(`${body}x`));
        const changed = { ...signed, headers: { ...signed.headers, 'content-digest': digest } };
        expect(await theirVerdict(changed)).toBe(false);
      }),
      { numRuns: 50 },
    );
  });

  it('signs in our profile, and we refuse it, or make other bytes of the same request', async () => {
    await fc.assert(
      fc.asyncProperty(requests, async ({ method, path, query, body }) => {
        const nowS = now();
        const message = messageOf(method, path, query);
        const signed = await theirs(message, body, nowS);
        const { base, signature, keyId } = readSignedRequest(signed, sha256(body), nowS);
        expect([keyId, verify(base, signature, signer.key.bytes)]).toEqual([key.keyId, true]);
        const mine = ours(message, body, nowS);
        expect(mine.headers['signature-input']).toBe(signed.headers['signature-input']);
        expect(mine.headers['signature']).toBe(signed.headers['signature']);
      }),
      { numRuns: 50 },
    );
  });
});
