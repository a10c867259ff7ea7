/** Who asks: bearers of hosts, request signatures of hosts, api tokens of operators. */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import { verifyFast } from '#/bundle/ed25519.ts';
import { type JsonObject, Problem } from '#/protocol/errors.ts';
import { isFresh, type PresentedSignature, readSignedRequest } from '#/protocol/http-signature.ts';
import type { HostId } from '#/protocol/ids.ts';

export const BEARER_TTL_SECONDS = 3600;
/** A host with a wrong clock answers a challenge within this. */
const CHALLENGE_TTL_S = 60;
/** A (key id, nonce) is refused again for at least this long. */
const NONCE_MEMORY_MS = 300_000;
const MAX_NONCES = 200_000;

export interface Bearers {
  issue(host: HostId, keyId: string, nowMs: number): string;
  /** The host, or E_UNAUTHENTICATED. The caller checks that it still exists and still has that key. */
  check(token: string, nowMs: number): { readonly host: HostId; readonly keyId: string };
  /** Marks an ETag as ours, so that a made-up one from the future means nothing. */
  seal(text: string): string;
  /** A text that proves to us that who returns it asked a moment ago, by our clock. 32 hex digits. */
  challenge(keyId: string, nowMs: number): string;
  isChallenge(keyId: string, text: string, nowMs: number): boolean;
}

/** Bearers are `sbh_<host>.<key id, 16 digits>.<expiry>.<mac>`; no lookup is needed to check one. */
export function createBearers(key: Uint8Array): Bearers {
  const mac = (text: string): Buffer => createHmac('sha256', key).update(text).digest();
  /** `head`: until when, 10 hex digits, and a number of 6, so that two challenges of one second are two. */
  const challengeOf = (keyId: string, head: string): string =>
    head + mac(`challenge/${keyId}/${head}`).toString('hex').slice(0, 16);
  let issued = 0;
  return {
    issue(host, keyId, nowMs) {
      const text = `sbh_${host}.${keyId.slice(0, 16)}.${Math.floor(nowMs / 1000) + BEARER_TTL_SECONDS}`;
      return `${text}.${mac(text).toString('base64url')}`;
    },
    check(token, nowMs) {
      const match =
        /^(sbh_(h-[0-9a-f]{32})\.([0-9a-f]{16})\.(\d{1,12}))\.([A-Za-z0-9_-]{43})$/.exec(token);
      if (match === null) throw new Problem('E_UNAUTHENTICATED', 'the bearer is not one of a host');
      const [, text = '', host = '', keyId = '', expiry = '0', given = ''] = match;
      if (!timingSafeEqual(mac(text), Buffer.from(given, 'base64url')))
        throw new Problem('E_UNAUTHENTICATED', 'the bearer was not issued here');
      if (Number(expiry) * 1000 <= nowMs)
        throw new Problem('E_UNAUTHENTICATED', 'the bearer has expired; ask for a new one');
      return { host: host as HostId, keyId };
    },
    seal: (text) => mac(text).toString('hex').slice(0, 12),
    challenge(keyId, nowMs) {
      const untilS = Math.floor(nowMs / 1000) + CHALLENGE_TTL_S;
      issued = (issued + 1) % 0x1000000;
      const head = untilS.toString(16).padStart(10, '0') + issued.toString(16).padStart(6, '0');
      return challengeOf(keyId, head);
    },
    isChallenge(keyId, text, nowMs) {
      const untilS = Number.parseInt(text.slice(0, 10), 16);
      const nowS = Math.floor(nowMs / 1000);
      if (!(untilS > nowS && untilS <= nowS + CHALLENGE_TTL_S)) return false;
      return timingSafeEqual(Buffer.from(challengeOf(keyId, text.slice(0, 16))), Buffer.from(text));
    },
  };
}

export interface Nonces {
  /** @throws E_UNAUTHENTICATED for one that was seen (E06), E_RATE_LIMITED when too many are remembered */
  use(keyId: string, nonce: string, nowMs: number): void;
}

/** Two generations: each is kept for one to two times NONCE_MEMORY_MS. */
export function createNonces(): Nonces {
  let current = new Set<string>();
  let last = new Set<string>();
  let turnedMs = 0;
  return {
    use(keyId, nonce, nowMs) {
      if (nowMs - turnedMs >= NONCE_MEMORY_MS) {
        last = nowMs - turnedMs >= 2 * NONCE_MEMORY_MS ? new Set() : current;
        current = new Set();
        turnedMs = nowMs;
      }
      const key = `${keyId}/${nonce}`;
      if (current.has(key) || last.has(key))
        throw new Problem('E_UNAUTHENTICATED', 'this request was received before');
      if (current.size >= MAX_NONCES)
        throw new Problem('E_RATE_LIMITED', 'too many signed requests', { retryAfterSeconds: 60 });
      current.add(key);
    },
  };
}

/** Everything of a signed request but the signature itself and its time; `bytes` is the body as received. */
export function presented(
  request: Request,
  bytes: Uint8Array,
  publicUrl: string | null,
): PresentedSignature {
  const url = new URL(request.url);
  const target = publicUrl === null ? url : new URL(url.pathname + url.search, publicUrl);
  const headers: Record<string, string> = {};
  request.headers.forEach((value, name) => {
    headers[name] = value;
  });
  const digest = createHash('sha256').update(bytes).digest();
  const message = { method: request.method, url: target.href, headers };
  return readSignedRequest(message, digest, null);
}

/**
 * Refuses a signature that was seen before, or is not of now; a challenge of ours, once, stands in for the time (wrong clocks).
 * The signature itself was verified. @throws E_UNAUTHENTICATED, with a challenge, and signed time where `timeOf` gives it
 */
export function requireFresh(
  credentials: { readonly bearers: Bearers; readonly nonces: Nonces },
  signature: PresentedSignature,
  challenge: string | undefined,
  nowMs: number,
  timeOf: () => JsonObject,
): void {
  const { bearers, nonces } = credentials;
  const { keyId, createdS } = signature;
  if (!isFresh(createdS, Math.floor(nowMs / 1000))) {
    if (challenge === undefined || !bearers.isChallenge(keyId, challenge, nowMs))
      throw new Problem(
        'E_UNAUTHENTICATED',
        `signature was created ${Math.floor(nowMs / 1000) - createdS} s ago by our clock`,
        { challenge: bearers.challenge(keyId, nowMs), ...timeOf() },
      );
    nonces.use(keyId, `challenge/${challenge}`, nowMs);
  }
  nonces.use(keyId, signature.nonce, nowMs);
}

/** @throws E_UNAUTHENTICATED unless the key made the signature */
export function requireSignature(signature: PresentedSignature, publicKey: Uint8Array): void {
  if (!verifyFast(signature.base, signature.signature, publicKey))
    throw new Problem('E_UNAUTHENTICATED', `the signature is not by key ${signature.keyId}`);
}

/** The text behind `Bearer `. */
export function bearerOf(request: Request): string {
  const header = request.headers.get('authorization') ?? '';
  if (!header.startsWith('Bearer '))
    throw new Problem('E_UNAUTHENTICATED', 'the request has no bearer');
  return header.slice('Bearer '.length).trim();
}
