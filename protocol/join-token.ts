/**
 * The join text that an operator gives to a host: where control is, the one-use token, the digest of the trust root, and the
 * authority of control's certificate. One word, so that it survives a copy. Version 1: `sbj1.` and base64url of JSON.
 */
import * as v from 'valibot';
import { Problem } from './errors.ts';
import { sha256Hex } from './ids.ts';

const PREFIX = 'sbj1.';
const MAX_LENGTH = 32 * 1024;

const joinText = v.strictObject({
  u: v.pipe(
    v.array(v.pipe(v.string(), v.maxLength(2048), v.regex(/^https?:\/\/[^\s/?#@]+$/))),
    v.minLength(1),
    v.maxLength(8),
  ),
  t: v.pipe(v.string(), v.regex(/^sbj_[A-Za-z0-9_-]{22,64}$/)),
  r: sha256Hex,
  /** PEM of the only authorities that may sign control's certificate. */
  c: v.optional(
    v.pipe(v.string(), v.maxLength(16 * 1024), v.startsWith('-----BEGIN CERTIFICATE-----')),
  ),
});

export interface Invitation {
  readonly controlUrls: readonly string[];
  readonly token: string;
  readonly rootSha256: string;
  readonly caPem: string | null;
}

/** The invitation as one word. E_USAGE when a part of it is not acceptable. */
export function formatInvitation(invitation: Invitation): string {
  const parsed = v.safeParse(joinText, {
    u: [...invitation.controlUrls],
    t: invitation.token,
    r: invitation.rootSha256,
    ...(invitation.caPem === null ? {} : { c: invitation.caPem }),
  });
  if (!parsed.success) throw notAcceptable(parsed.issues[0].message);
  const base64 = btoa(JSON.stringify(parsed.output));
  return PREFIX + base64.replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}

/** Reads an invitation; white space that a copy brought in is left out. E_USAGE when it is not one. */
export function parseInvitation(text: string): Invitation {
  const word = text.replaceAll(/\s+/g, '');
  if (!word.startsWith(PREFIX) || word.length > MAX_LENGTH)
    throw notAcceptable(`expected a text that begins with ${PREFIX}`);
  const parsed = v.safeParse(joinText, decode(word.slice(PREFIX.length)));
  if (!parsed.success) throw notAcceptable(parsed.issues[0].message);
  const { u, t, r, c } = parsed.output;
  return { controlUrls: u, token: t, rootSha256: r, caPem: c ?? null };
}

function decode(base64url: string): unknown {
  try {
    return JSON.parse(atob(base64url.replaceAll('-', '+').replaceAll('_', '/')));
  } catch {
    throw notAcceptable('it was cut off or changed');
  }
}

const notAcceptable = (why: string): Problem => new Problem('E_USAGE', `join text: ${why}`);
