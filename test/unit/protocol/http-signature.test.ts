import { createHash, createPrivateKey, createPublicKey, sign, verify } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  base64Of,
  bytesOfBase64,
  formatParameters,
  readSignedRequest,
  signatureBase,
  signRequest,
  type SignedMessage,
} from '#/protocol/http-signature.ts';
import { formatInvitation, parseInvitation } from '#/protocol/join-token.ts';
import { signerOf } from '#/bundle/keys.ts';
import { verify as strictVerify } from '#/bundle/ed25519.ts';

/** RFC 9421, appendix B.1.4: test-key-ed25519. */
const RFC_PUBLIC = `-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=
-----END PUBLIC KEY-----`;
const RFC_PRIVATE = `-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF
-----END PRIVATE KEY-----`;

describe('RFC 9421, appendix B.2.6', () => {
  const message: SignedMessage = {
    method: 'POST',
    url: 'https://example.com/foo?param=Value&Pet=dog',
    headers: {
      host: 'example.com',
      date: 'Tue, 20 Apr 2021 02:07:55 GMT',
      'content-type': 'application/json',
      'content-length': '18',
    },
  };
  const components = ['date', '@method', '@path', '@authority', 'content-type', 'content-length'];
  const parameters = formatParameters(components, {
    created: 1618884473,
    keyid: 'test-key-ed25519',
  });
  const expected =
    'wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==';

  it('the parameters are those of the RFC', () => {
    expect(parameters).toBe(
      '("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519"',
    );
  });

  it('the base verifies with the signature of the RFC, and our signature is the same', () => {
    const base = signatureBase(message, components, parameters);
    expect(verify(null, base, createPublicKey(RFC_PUBLIC), Buffer.from(expected, 'base64'))).toBe(
      true,
    );
    expect(sign(null, base, createPrivateKey(RFC_PRIVATE)).toString('base64')).toBe(expected);
  });

  it('our own strict verifier takes the signature of the RFC', () => {
    const raw = createPublicKey(RFC_PUBLIC).export({ format: 'jwk' }).x ?? '';
    const base = signatureBase(message, components, parameters);
    expect(strictVerify(base, Buffer.from(expected, 'base64'), Buffer.from(raw, 'base64url'))).toBe(
      true,
    );
  });
});

const sha256 = (text: string): Uint8Array => createHash('sha256').update(text).digest();
const signer = signerOf(new Uint8Array(32).fill(7));
const key = { keyId: signer.key.keyId, sign: signer.sign };
const NOW = 1_800_000_000;
const BODY = '{"host":"h-1"}';
const request: SignedMessage = {
  method: 'POST',
  url: 'https://control.example:8443/agent/v1/token',
  headers: { 'content-type': 'application/json' },
};
function signed(body = BODY, nowS = NOW, message = request): SignedMessage {
  const added = signRequest(message, sha256(body), key, { nowS, nonce: 'ab'.repeat(16) });
  return { ...message, headers: { ...message.headers, ...added } };
}
const read = (message: SignedMessage, body = BODY, nowS = NOW) =>
  readSignedRequest(message, sha256(body), nowS);
const isValid = (message: SignedMessage, body = BODY, nowS = NOW): boolean => {
  try {
    const { base, signature, keyId } = read(message, body, nowS);
    return keyId === key.keyId && strictVerify(base, signature, signer.key.bytes);
  } catch (error) {
    expect(error).toMatchObject({ code: 'E_UNAUTHENTICATED' });
    return false;
  }
};
const edit = (
  message: SignedMessage,
  header: string,
  change: (text: string) => string,
): SignedMessage => ({
  ...message,
  headers: { ...message.headers, [header]: change(message.headers[header] ?? '') },
});

describe('the profile of hosts', () => {
  it('a signed request reads back and verifies', () => {
    expect(isValid(signed())).toBe(true);
    expect(read(signed()).nonce).toBe('ab'.repeat(16));
  });

  it('E01 a request without a signature is refused', () => {
    expect(isValid(request)).toBe(false);
  });

  it('E05 a changed body under the old digest is refused', () => {
    expect(isValid(signed(), '{"host":"h-2"}')).toBe(false);
  });

  it('E05 a changed body under its own new digest does not verify', () => {
    const other = signed('{"host":"h-2"}').headers['content-digest'] ?? '';
    expect(
      isValid(
        edit(signed(), 'content-digest', () => other),
        '{"host":"h-2"}',
      ),
    ).toBe(false);
  });

  it('E07 created more than two minutes from our clock is refused, on either side', () => {
    expect(isValid(signed(BODY, NOW + 120))).toBe(true);
    expect(isValid(signed(BODY, NOW - 120))).toBe(true);
    expect(isValid(signed(BODY, NOW + 600))).toBe(false);
    expect(isValid(signed(BODY, NOW - 600))).toBe(false);
  });

  it('E08 a signature that leaves out a component, or adds one, is refused', () => {
    for (const list of [
      '("@method" "@target-uri" "content-type")',
      '()',
      '("@method" "@target-uri" "content-type" "content-digest" "date")',
      '("@target-uri" "@method" "content-type" "content-digest")',
    ]) {
      expect(
        isValid(edit(signed(), 'signature-input', (text) => text.replace(/\(.*?\)/, list))),
      ).toBe(false);
    }
  });

  it('E08 another method, address or type does not verify', () => {
    expect(isValid({ ...signed(), method: 'PUT' })).toBe(false);
    expect(isValid({ ...signed(), url: 'https://control.example:8443/agent/v1/enroll' })).toBe(
      false,
    );
    expect(isValid({ ...signed(), url: 'https://other.example:8443/agent/v1/token' })).toBe(false);
    expect(isValid(edit(signed(), 'content-type', () => 'text/plain'))).toBe(false);
  });

  it('E09 another tag or algorithm is refused', () => {
    expect(
      isValid(edit(signed(), 'signature-input', (text) => text.replace('agent-v1', 'agent-v2'))),
    ).toBe(false);
    expect(
      isValid(
        edit(signed(), 'signature-input', (text) =>
          text.replace('alg="ed25519"', 'alg="hmac-sha256"'),
        ),
      ),
    ).toBe(false);
    expect(
      isValid(edit(signed(), 'signature-input', (text) => text.replace(';alg="ed25519"', ''))),
    ).toBe(false);
  });

  it('E10 two signatures, one of them good, are refused', () => {
    const two = edit(signed(), 'signature-input', (text) => `${text}, x${text}`);
    expect(isValid(two)).toBe(false);
    const both = edit(signed(), 'signature', (text) => `${text}, x${text}`);
    expect(isValid(both)).toBe(false);
  });

  it('E06 a parameter given twice is refused, so that a nonce cannot hide behind another', () => {
    expect(
      isValid(edit(signed(), 'signature-input', (text) => `${text};nonce="${'cd'.repeat(16)}"`)),
    ).toBe(false);
  });

  it('E12 any changed character of the signature headers is refused or does not verify', () => {
    const good = signed();
    fc.assert(
      fc.property(
        fc.constantFrom('signature-input', 'signature', 'content-digest'),
        fc.nat(400),
        fc.integer({ min: 33, max: 126 }),
        (header, position, character) => {
          const text = good.headers[header] ?? '';
          const at = position % text.length;
          const changed = `${text.slice(0, at)}${String.fromCharCode(character)}${text.slice(at + 1)}`;
          if (changed === text) return;
          expect(isValid(edit(good, header, () => changed))).toBe(false);
        },
      ),
      { numRuns: 400 },
    );
  });

  it('base64 reads back only in its canonical form', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => {
        expect(base64Of(bytes)).toBe(Buffer.from(bytes).toString('base64'));
        expect(bytesOfBase64(base64Of(bytes))).toEqual(Uint8Array.from(bytes));
      }),
    );
    expect(bytesOfBase64('AB==')).toBeNull();
    expect(bytesOfBase64('AA=')).toBeNull();
  });
});

describe('join text', () => {
  const invitation = {
    controlUrls: ['https://control.example:8443', 'http://10.0.0.1:8080'],
    token: `sbj_${'A'.repeat(22)}`,
    rootSha256: 'ab'.repeat(32),
    caPem: '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n',
  };
  it('reads back, also when a terminal broke it into lines', () => {
    const text = formatInvitation(invitation);
    expect(text).toMatch(/^sbj1\.[A-Za-z0-9_-]+$/);
    expect(parseInvitation(text)).toEqual(invitation);
    expect(parseInvitation(`  ${text.slice(0, 40)}\n${text.slice(40)}\n`)).toEqual(invitation);
    expect(parseInvitation(formatInvitation({ ...invitation, caPem: null })).caPem).toBeNull();
  });
  it('a text that was cut off, or is something else, is E_USAGE', () => {
    const text = formatInvitation(invitation);
    for (const wrong of [
      text.slice(0, -9),
      text.slice(5),
      '',
      'sbj1.',
      'sbj1.bm8',
      'x'.repeat(40_000),
    ]) {
      expect(() => parseInvitation(wrong)).toThrow(expect.objectContaining({ code: 'E_USAGE' }));
    }
    expect(() => formatInvitation({ ...invitation, controlUrls: ['ftp://x'] })).toThrow(
      expect.objectContaining({ code: 'E_USAGE' }),
    );
  });
});
