/**
 * HTTP message signatures (RFC 9421) with Ed25519, and Content-Digest (RFC 9530): the profile in which hosts sign requests.
 * Hashing and signing are arguments. Spec: docs/specs/protocol.md, section "Request signatures".
 */
import { Problem } from './errors.ts';

/** What a request says of itself; header names in lower case. */
export interface SignedMessage {
  readonly method: string;
  /** Absolute URL as the client used it. */
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
}

export interface SignatureParameters {
  /** Seconds since 1970. */
  readonly created: number;
  readonly expires?: number;
  readonly nonce?: string;
  readonly keyid: string;
  readonly alg?: string;
  readonly tag?: string;
}

/** Covered by each request of a host, in this order. */
export const COVERED_COMPONENTS = [
  '@method',
  '@target-uri',
  'content-type',
  'content-digest',
] as const;
export const SIGNATURE_TAG = 'switchback-agent-v1';
export const SIGNATURE_LIFETIME_S = 60;
/** How far `created` may be from the clock of control. */
export const SIGNATURE_TOLERANCE_S = 120;
const LABEL = 'sb';
const HEADER_MAX = 4096;

/** Bytes of standard base64 with padding. */
export function base64Of(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

/** Bytes of canonical standard base64, or null. */
export function bytesOfBase64(text: string): Uint8Array | null {
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(text) || text.length % 4 !== 0) return null;
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return base64Of(bytes) === text ? bytes : null;
}

/** Value of Content-Digest for a body with this sha256 (32 bytes). */
export function contentDigestOf(sha256: Uint8Array): string {
  return `sha-256=:${base64Of(sha256)}:`;
}

/** The parameters as they stand in Signature-Input and in the signature base (RFC 8941 inner list). */
export function formatParameters(
  components: readonly string[],
  parameters: SignatureParameters,
): string {
  const list = `(${components.map((component) => quoted(component)).join(' ')})`;
  const { created, expires, nonce, keyid, alg, tag } = parameters;
  return [
    list,
    `created=${created}`,
    ...(expires === undefined ? [] : [`expires=${expires}`]),
    ...(nonce === undefined ? [] : [`nonce=${quoted(nonce)}`]),
    `keyid=${quoted(keyid)}`,
    ...(alg === undefined ? [] : [`alg=${quoted(alg)}`]),
    ...(tag === undefined ? [] : [`tag=${quoted(tag)}`]),
  ].join(';');
}

function quoted(text: string): string {
  if (!/^[\x20-\x7e]*$/.test(text)) throw unauthenticated(`not printable ASCII: ${text}`);
  return `"${text.replaceAll(/[\\"]/g, String.raw`\$&`)}"`;
}

/** The bytes that are signed (RFC 9421, section 2.5). `parameters` is the text of `formatParameters`, as it was sent. */
export function signatureBase(
  message: SignedMessage,
  components: readonly string[],
  parameters: string,
): Uint8Array {
  const lines = components.map((component) => `"${component}": ${componentOf(message, component)}`);
  return new TextEncoder().encode([...lines, `"@signature-params": ${parameters}`].join('\n'));
}

function componentOf(message: SignedMessage, component: string): string {
  const url = new URL(message.url);
  switch (component) {
    case '@method':
      return message.method;
    case '@target-uri':
      return url.href;
    case '@authority':
      return url.host;
    case '@path':
      return url.pathname;
    case '@query':
      return url.search === '' ? '?' : url.search;
  }
  const value = Object.hasOwn(message.headers, component) ? message.headers[component] : undefined;
  if (component.startsWith('@') || value === undefined)
    throw unauthenticated(`the request has no ${component}, which its signature covers`);
  return value.trim().replaceAll(/\s*\r?\n\s*/g, ' ');
}

export interface SigningKey {
  readonly keyId: string;
  readonly sign: (message: Uint8Array) => Uint8Array;
}

/** The headers that make a request a signed one. `bodySha256` is of the exact bytes of the body. */
export function signRequest(
  message: SignedMessage,
  bodySha256: Uint8Array,
  key: SigningKey,
  moment: { readonly nowS: number; readonly nonce: string },
): Readonly<Record<string, string>> {
  const contentDigest = contentDigestOf(bodySha256);
  const full = { ...message, headers: { ...message.headers, 'content-digest': contentDigest } };
  const parameters = formatParameters(COVERED_COMPONENTS, {
    created: moment.nowS,
    expires: moment.nowS + SIGNATURE_LIFETIME_S,
    nonce: moment.nonce,
    keyid: key.keyId,
    alg: 'ed25519',
    tag: SIGNATURE_TAG,
  });
  const signature = key.sign(signatureBase(full, COVERED_COMPONENTS, parameters));
  return {
    'content-digest': contentDigest,
    'signature-input': `${LABEL}=${parameters}`,
    signature: `${LABEL}=:${base64Of(signature)}:`,
  };
}

/** A request whose signature has the right form; whose key it is and whether it verifies is asked next. */
export interface PresentedSignature {
  readonly keyId: string;
  readonly nonce: string;
  readonly createdS: number;
  /** The bytes to verify `signature` over. */
  readonly base: Uint8Array;
  readonly signature: Uint8Array;
}

/**
 * Checks everything about a signed request but the signature itself (E05, E07-E10): exactly one signature, exactly our
 * components, tag and algorithm, digest of the received bytes, fresh by `nowS` unless that is null: then the caller judges
 * `createdS` (isFresh). E_UNAUTHENTICATED says which rule failed. The caller looks the key up, verifies `signature` over
 * `base`, and refuses a (key id, nonce) that it saw within five minutes.
 */
export function readSignedRequest(
  message: SignedMessage,
  bodySha256: Uint8Array,
  nowS: number | null,
): PresentedSignature {
  const input = headerOf(message, 'signature-input');
  const match =
    /^sb=(\((?:"[a-z@-]+"(?: "[a-z@-]+")*)?\)(?:;[a-z]+=(?:\d{1,15}|"[\x20\x21\x23-\x5b\x5d-\x7e]*"))*)$/.exec(
      input,
    );
  const text = match?.[1];
  if (text === undefined) throw unauthenticated('signature-input is not one signature of our form');
  const close = text.indexOf(')');
  if (text.slice(1, close) !== COVERED_COMPONENTS.map((component) => `"${component}"`).join(' '))
    throw unauthenticated(`the signature covers ${text.slice(0, close + 1)}`);
  const parameters = readParameters(text.slice(close + 1));
  const { created, expires, nonce, keyid } = parameters;
  if (parameters.alg !== 'ed25519' || parameters.tag !== SIGNATURE_TAG)
    throw unauthenticated(`signature with alg ${parameters.alg} and tag ${parameters.tag}`);
  if (!/^[0-9a-f]{32}$/.test(nonce ?? '')) throw unauthenticated('nonce is not 16 bytes in hex');
  if (nowS !== null && !isFresh(created, nowS))
    throw unauthenticated(`signature was created ${nowS - created} s ago by our clock`);
  if (expires === undefined || expires < created || expires > created + SIGNATURE_LIFETIME_S)
    throw unauthenticated('signature has no acceptable expiry');
  if (headerOf(message, 'content-digest') !== contentDigestOf(bodySha256))
    throw unauthenticated('content-digest is not that of the body');
  const signature = /^sb=:([A-Za-z0-9+/=]+):$/.exec(headerOf(message, 'signature'))?.[1];
  const bytes = signature === undefined ? null : bytesOfBase64(signature);
  if (bytes?.length !== 64) throw unauthenticated('signature is not one Ed25519 signature');
  return {
    keyId: keyid,
    nonce: nonce ?? '',
    createdS: created,
    base: signatureBase(message, COVERED_COMPONENTS, text),
    signature: bytes,
  };
}

/** True when a signature of this time is near enough to our clock. */
export function isFresh(createdS: number, nowS: number): boolean {
  return Math.abs(nowS - createdS) <= SIGNATURE_TOLERANCE_S;
}

function headerOf(message: SignedMessage, name: string): string {
  const value = Object.hasOwn(message.headers, name) ? message.headers[name] : undefined;
  if (value === undefined) throw unauthenticated(`the request has no ${name}`);
  if (value.length > HEADER_MAX) throw unauthenticated(`${name} is longer than ${HEADER_MAX}`);
  return value;
}

function readParameters(text: string): SignatureParameters {
  const values = new Map<string, string>();
  for (const part of text.split(';').slice(1)) {
    const equals = part.indexOf('=');
    const key = part.slice(0, equals);
    if (values.has(key)) throw unauthenticated(`signature parameter ${key} stands twice`);
    values.set(key, part.slice(equals + 1));
  }
  const number = (key: string): number | undefined => {
    const value = values.get(key);
    return value !== undefined && /^\d+$/.test(value) ? Number(value) : undefined;
  };
  const string = (key: string): string | undefined => /^"(.*)"$/.exec(values.get(key) ?? '')?.[1];
  const [created, keyid] = [number('created'), string('keyid')];
  if (created === undefined || keyid === undefined)
    throw unauthenticated('signature without created or keyid');
  const optional = {
    expires: number('expires'),
    nonce: string('nonce'),
    alg: string('alg'),
    tag: string('tag'),
  };
  return {
    created,
    keyid,
    ...(optional.expires === undefined ? {} : { expires: optional.expires }),
    ...(optional.nonce === undefined ? {} : { nonce: optional.nonce }),
    ...(optional.alg === undefined ? {} : { alg: optional.alg }),
    ...(optional.tag === undefined ? {} : { tag: optional.tag }),
  };
}

const unauthenticated = (message: string): Problem => new Problem('E_UNAUTHENTICATED', message);
