/** Who asks: bearers of hosts, request signatures of hosts, api tokens of operators. */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import { verifyFast } from '#/bundle/ed25519.ts';
import { Problem } from '#/protocol/errors.ts';
import { type PresentedSignature, readSignedRequest } from '#/protocol/http-signature.ts';
import type { HostId } from '#/protocol/ids.ts';

export const BEARER_TTL_SECONDS = 3600;
/** A (key id, nonce) is refused again for at least this long. */
const NONCE_MEMORY_MS = 300_000;
const MAX_NONCES = 200_000;

export interface Bearers {
  issue(host: HostId, keyId: string, nowMs: number): string;
  /** The host, or E_UNAUTHENTICATED. The caller checks that it still exists and still has that key. */
  check(token: string, nowMs: number): { readonly host: HostId; readonly keyId: string };
  /** Marks an ETag as ours, so that a made-up one from the future means nothing. */
  seal(text: string): string;
}

/** Bearers are `sbh_<host>.<key id, 16 digits>.<expiry>.<mac>`; no lookup is needed to check one. */
export function createBearers(key: Uint8Array): Bearers {
  const mac = (text: string): Buffer => createHmac('sha256', key).update(text).digest();
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

/** Everything of a signed request but the signature itself; `bytes` is the body as received. */
export function presented(
  request: Request,
  bytes: Uint8Array,
  publicUrl: string | null,
  nowMs: number,
): PresentedSignature {
  const url = new URL(request.url);
  const target = publicUrl === null ? url : new URL(url.pathname + url.search, publicUrl);
  const headers: Record<string, string> = {};
  request.headers.forEach((value, name) => {
    headers[name] = value;
  });
  const digest = createHash('sha256').update(bytes).digest();
  const message = { method: request.method, url: target.href, headers };
  return readSignedRequest(message, digest, Math.floor(nowMs / 1000));
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
