/** Signature primitives: B01-B06 of the list, and DSSE: C04-C06. */
import { createHash } from 'node:crypto';
import nacl from 'tweetnacl';
import { describe, expect, it } from 'vitest';
import {
  addSignatures,
  decodeEnvelope,
  encodeEnvelope,
  openEnvelope,
  pae,
  signEnvelope,
} from '#/bundle/dsse.ts';
import { generateKeyPair, isStrictPublicKey, sign, verify, verifyFast } from '#/bundle/ed25519.ts';
import { publicKeyOf } from '#/bundle/keys.ts';
import type { Envelope } from '#/protocol/documents.ts';
import { seedOf, signerNumber } from '#/test/support/trust-world.ts';

const L = 2n ** 252n + 27742317777372353535851937790883648493n;
const P = 2n ** 255n - 19n;

function littleEndian(value: bigint, sizeBytes = 32): Uint8Array {
  return Uint8Array.from({ length: sizeBytes }, (_, index) =>
    Number((value >> BigInt(8 * index)) & 0xffn),
  );
}

function numberOf(bytes: Uint8Array): bigint {
  return bytes.reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
}

function power(base: bigint, exponent: bigint): bigint {
  let result = 1n;
  let factor = base % P;
  for (let rest = exponent; rest > 0n; rest >>= 1n) {
    if (rest & 1n) result = (result * factor) % P;
    factor = (factor * factor) % P;
  }
  return result;
}

/** The y of a point of order 8, computed, not copied: d*y^4 ... solved by brute doubling of points found from x. */
const D = (-121665n * power(121666n, P - 2n)) % P;

interface Point {
  readonly x: bigint;
  readonly y: bigint;
}

function mod(value: bigint): bigint {
  return ((value % P) + P) % P;
}

function add(a: Point, b: Point): Point {
  const k = mod(D * a.x * b.x * a.y * b.y);
  return {
    x: mod((a.x * b.y + a.y * b.x) * power(mod(1n + k), P - 2n)),
    y: mod((a.y * b.y + a.x * b.x) * power(mod(1n - k), P - 2n)),
  };
}

function multiply(point: Point, scalar: bigint): Point {
  let result: Point = { x: 0n, y: 1n };
  let step = point;
  for (let rest = scalar; rest > 0n; rest >>= 1n) {
    if (rest & 1n) result = add(result, step);
    step = add(step, step);
  }
  return result;
}

/** The point of an y with even x, or null. */
function decompress(y: bigint): Point | null {
  const u = mod(y * y - 1n);
  const w = mod(D * y * y + 1n);
  const square = mod(u * power(w, P - 2n));
  let x = power(square, (P + 3n) / 8n);
  if (mod(x * x) !== square) x = mod(x * power(2n, (P - 1n) / 4n));
  if (mod(x * x) !== square) return null;
  return { x: x & 1n ? mod(-x) : x, y };
}

/** All points of small order: L times any point. */
function smallOrderPoints(): Point[] {
  const found = new Map<string, Point>();
  for (let y = 2n; found.size < 8; y += 1n) {
    const point = decompress(y);
    if (point === null) continue;
    const torsion = multiply(point, L);
    for (let count = 1n; count <= 8n; count += 1n) {
      const multiple = multiply(torsion, count);
      found.set(`${multiple.x},${multiple.y}`, multiple);
    }
  }
  return [...found.values()];
}

function encode(point: Point): Uint8Array {
  return littleEndian(point.y | ((point.x & 1n) << 255n));
}

const pair = generateKeyPair(seedOf(1));
const message = Buffer.from('what is signed');
const signature = sign(message, pair.secretKey);

it('B01 a signature with S + L for S is refused, though tweetnacl takes it', () => {
  const malleated = Uint8Array.from(signature);
  malleated.set(littleEndian(numberOf(signature.subarray(32)) + L), 32);
  expect(nacl.sign.detached.verify(message, malleated, pair.publicKey)).toBe(true);
  expect(verify(message, malleated, pair.publicKey)).toBe(false);
  expect(verifyFast(message, malleated, pair.publicKey)).toBe(false);
});

it('B02 the identity as key with a zero signature is refused, and not admitted as a key', () => {
  const identity = littleEndian(1n);
  const zero = new Uint8Array(64);
  zero[0] = 1;
  expect(nacl.sign.detached.verify(message, zero, identity)).toBe(true);
  expect(verify(message, zero, identity)).toBe(false);
  expect(verifyFast(message, zero, identity)).toBe(false);
  expect(() => publicKeyOf(identity)).toThrow(expect.objectContaining({ code: 'E_KEYID' }));
});

describe('B03 encodings', () => {
  const points = smallOrderPoints();

  it('B03 there are eight points of small order, and none is admitted as key or R', () => {
    expect(points.length).toBe(8);
    for (const point of points) {
      for (const sign of [0n, 1n]) {
        const bytes = littleEndian(point.y | (sign << 255n));
        expect(isStrictPublicKey(bytes)).toBe(false);
        const forged = Uint8Array.from(signature);
        forged.set(bytes, 0);
        expect(verify(message, forged, pair.publicKey)).toBe(false);
        expect(verifyFast(message, forged, pair.publicKey)).toBe(false);
      }
    }
    expect(points.map((point) => encode(point).length)).toEqual(Array(8).fill(32));
  });

  it('B03 a y of p or more is not canonical', () => {
    for (let extra = 0n; extra < 19n; extra += 1n) {
      for (const sign of [0n, 1n]) {
        expect(isStrictPublicKey(littleEndian((P + extra) | (sign << 255n)))).toBe(false);
      }
    }
    expect(isStrictPublicKey(littleEndian(P - 2n))).toBe(true);
  });

  it('B03 S of exactly L or above is refused, L - 1 is only a wrong signature', () => {
    for (const s of [L, L + 1n, 2n ** 256n - 1n]) {
      const forged = Uint8Array.from(signature);
      forged.set(littleEndian(s), 32);
      expect(verify(message, forged, pair.publicKey)).toBe(false);
    }
  });
});

it('B04 a signature of 63 or 65 bytes and a key of 31 or 33 are refused without an exception', () => {
  for (const check of [verify, verifyFast]) {
    expect(check(message, signature.subarray(0, 63), pair.publicKey)).toBe(false);
    expect(check(message, Buffer.concat([signature, Buffer.alloc(1)]), pair.publicKey)).toBe(false);
    expect(check(message, signature, pair.publicKey.subarray(0, 31))).toBe(false);
    expect(check(message, signature, Buffer.concat([pair.publicKey, Buffer.alloc(1)]))).toBe(false);
    expect(check(message, new Uint8Array(), new Uint8Array())).toBe(false);
  }
});

it('B06 tweetnacl and OpenSSL give one verdict over 10,000 mutated vectors', () => {
  const seed = Number(process.env['SEED'] ?? 1);
  const next = stream(seed);
  let accepted = 0;
  for (let round = 0; round < 10_000; round += 1) {
    const vector = mutate(round, next);
    const fast = verifyFast(vector.message, vector.signature, vector.publicKey);
    expect(
      verify(vector.message, vector.signature, vector.publicKey),
      `seed ${seed} ${round}`,
    ).toBe(fast);
    if (fast) accepted += 1;
  }
  expect(accepted).toBeGreaterThan(100);
  expect(accepted).toBeLessThan(5000);
}, 600_000);

/** Deterministic bytes of a seed. */
function stream(seed: number): (count: number) => Uint8Array {
  let block = 0;
  return (count) => {
    block += 1;
    return createHash('sha512').update(`${seed} ${block}`).digest().subarray(0, count);
  };
}

const keys = Array.from({ length: 8 }, (_, index) => generateKeyPair(seedOf(index + 50)));
const vectors = keys.flatMap((each, index) => {
  const text = Buffer.from(`message ${index}`);
  return [{ message: text, signature: sign(text, each.secretKey), publicKey: each.publicKey }];
});

function mutate(
  round: number,
  next: (count: number) => Uint8Array,
): { message: Uint8Array; signature: Uint8Array; publicKey: Uint8Array } {
  const vector = vectors[round % vectors.length]!;
  const signatureBytes = Uint8Array.from(vector.signature);
  const publicKey = Uint8Array.from(vector.publicKey);
  const text = Uint8Array.from(vector.message);
  const [kind = 0, a = 0, b = 0] = next(3);
  switch (kind % 10) {
    case 0:
      signatureBytes[a % 64]! ^= 1 << (b % 8);
      break;
    case 1:
      publicKey[a % 32]! ^= 1 << (b % 8);
      break;
    case 2:
      text[a % text.length]! ^= 1 << (b % 8);
      break;
    case 3:
      signatureBytes.set(littleEndian(numberOf(signatureBytes.subarray(32)) + L), 32);
      break;
    case 4:
      signatureBytes.set(next(32), (a % 2) * 32);
      break;
    case 5:
      publicKey.set(next(32));
      break;
    case 6:
      publicKey[31]! ^= 0x80;
      break;
    case 7:
      publicKey.set(littleEndian(P + BigInt(a % 19)));
      break;
    case 8:
      signatureBytes.set(littleEndian(BigInt(a % 3)), 0);
      break;
    case 9:
      break;
  }
  return { message: text, signature: signatureBytes, publicKey };
}

describe('envelopes', () => {
  const [one, two, three] = [signerNumber(1), signerNumber(2), signerNumber(3)];
  const payload = Buffer.from('{"a":1}');
  const trust = { keys: [one.key, two.key], threshold: 2, payloadType: 'x/y' };

  function codeOf(envelope: Envelope, changes: Partial<typeof trust> = {}): string {
    try {
      openEnvelope(envelope, { ...trust, ...changes });
      return 'accepted';
    } catch (error) {
      return (error as { code: string }).code;
    }
  }

  it('an envelope with enough signatures opens to the very payload', () => {
    const envelope = signEnvelope('x/y', payload, [one, two]);
    expect(Buffer.from(openEnvelope(envelope, trust)).toString()).toBe('{"a":1}');
    expect(decodeEnvelope(encodeEnvelope(envelope))).toMatchObject(envelope);
  });

  it('the encoding that is signed is that of the DSSE specification', () => {
    expect(
      Buffer.from(pae('http://example.com/HelloWorld', Buffer.from('hello world'))).toString(),
    ).toBe('DSSEv1 29 http://example.com/HelloWorld 11 hello world');
  });

  it('C04 another payload type is refused, also when the type in the envelope is changed back', () => {
    const envelope = signEnvelope('x/other', payload, [one, two]);
    expect(codeOf(envelope)).toBe('E_SIGS');
    expect(codeOf({ ...envelope, payloadType: 'x/y' })).toBe('E_SIGS');
  });

  it('C05 one signature of two, or one by a key that is not trusted, is refused', () => {
    expect(codeOf(signEnvelope('x/y', payload, [one]))).toBe('E_SIGS');
    expect(codeOf(signEnvelope('x/y', payload, [one, three]))).toBe('E_SIGS');
    const twin = { keyId: 'e'.repeat(64), bytes: one.key.bytes };
    const doubled = signEnvelope('x/y', payload, [one]);
    const again = { keyid: twin.keyId, sig: `${doubled.signatures[0]!.sig}` };
    expect(
      codeOf(
        { ...doubled, signatures: [...doubled.signatures, again] },
        {
          keys: [one.key, twin],
        },
      ),
    ).toBe('E_DUPSIG');
  });

  it('C05 a key that signed twice is refused', () => {
    const envelope = signEnvelope('x/y', payload, [one, one]);
    expect(codeOf(envelope)).toBe('E_DUPSIG');
  });

  it('C05 a threshold of zero opens nothing', () => {
    expect(codeOf(signEnvelope('x/y', payload, [one]), { threshold: 0 })).toBe('E_SIGS');
  });

  it('C06 a payload that was changed after signing is refused', () => {
    const envelope = signEnvelope('x/y', payload, [one, two]);
    const other = Buffer.from('{"a":2}').toString('base64');
    expect(codeOf({ ...envelope, payload: other })).toBe('E_SIGS');
  });

  it('B04 base64 in any but its canonical form is refused', () => {
    const envelope = signEnvelope('x/y', Buffer.from('>>>???>'), [one, two]);
    for (const variant of [
      envelope.payload.replaceAll('=', ''),
      envelope.payload.replaceAll('+', '-').replaceAll('/', '_'),
      `${envelope.payload}\n`,
    ]) {
      expect(variant).not.toBe(envelope.payload);
      expect(codeOf({ ...envelope, payload: variant })).toBe('E_SCHEMA');
    }
    const [first, second] = envelope.signatures;
    const unpadded = { ...first!, sig: first!.sig.replaceAll('=', '') };
    expect(codeOf({ ...envelope, signatures: [unpadded, second!] })).toBe('E_SIGS');
  });

  it('a second builder adds a signature over the same bytes', () => {
    const envelope = addSignatures(signEnvelope('x/y', payload, [one]), [two]);
    expect(codeOf(envelope)).toBe('accepted');
    expect(addSignatures(envelope, [two])).toEqual(envelope);
  });
});
