/** Requests whose signature is good and whose profile is not ours: only the profile can refuse them. */
import { describe, expect, it } from 'vitest';
import { sha256 } from '#/bundle/keys.ts';
import {
  base64Of,
  contentDigestOf,
  COVERED_COMPONENTS,
  formatParameters,
  readSignedRequest,
  SIGNATURE_TAG,
  type SignatureParameters,
  signatureBase,
} from '#/protocol/http-signature.ts';
import { signerNumber } from '#/test/support/trust-world.ts';

const NOW_S = 1_800_000_000;
const signer = signerNumber(5);
const digest = Buffer.from(sha256(Buffer.from('{}')), 'hex');

/** Reads a request that the key of the host signed with these parameters. */
function read(
  changes: Partial<SignatureParameters>,
  components: readonly string[] = COVERED_COMPONENTS,
): ReturnType<typeof readSignedRequest> {
  const parameters = formatParameters(components, {
    created: NOW_S,
    expires: NOW_S + 60,
    nonce: 'a'.repeat(32),
    keyid: signer.key.keyId,
    alg: 'ed25519',
    tag: SIGNATURE_TAG,
    ...changes,
  });
  const message = {
    method: 'POST',
    url: 'https://control.example/agent/v1/token',
    headers: { 'content-type': 'application/json', 'content-digest': contentDigestOf(digest) },
  };
  const signature = signer.sign(signatureBase(message, components, parameters));
  const headers = {
    ...message.headers,
    'signature-input': `sb=${parameters}`,
    signature: `sb=:${base64Of(signature)}:`,
  };
  return readSignedRequest({ ...message, headers }, digest, NOW_S);
}

describe('a signature by the right key', () => {
  it('is read when it is of our profile', () => {
    expect(read({}).keyId).toBe(signer.key.keyId);
  });

  it.each<[string, Partial<SignatureParameters>]>([
    ['E09 made for another application', { tag: 'other-agent-v1' }],
    ['E09 without a tag', { tag: undefined as never }],
    ['E09 that names another algorithm', { alg: 'hmac-sha256' }],
    ['E09 that names no algorithm', { alg: undefined as never }],
    ['E07 that is ten minutes old', { created: NOW_S - 600, expires: NOW_S - 540 }],
    ['E07 that holds for an hour', { expires: NOW_S + 3600 }],
    ['E07 that never expires', { expires: undefined as never }],
    ['E06 without a nonce', { nonce: undefined as never }],
  ])('%s', (_, changes) => {
    expect(() => read(changes)).toThrow(expect.objectContaining({ code: 'E_UNAUTHENTICATED' }));
  });

  it.each(COVERED_COMPONENTS.map((_, index) => index))(
    'E08 that leaves component %i out',
    (index) => {
      const components = COVERED_COMPONENTS.filter((__, at) => at !== index);
      expect(() => read({}, components)).toThrow(
        expect.objectContaining({ code: 'E_UNAUTHENTICATED' }),
      );
    },
  );
});
