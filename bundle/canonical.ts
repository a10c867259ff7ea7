/**
 * Canonical JSON: one value, one byte string. Keys in code point order, no spaces, integers only, UTF-8.
 *
 * Two spellings of control characters exist: OLPC canonical JSON, which TUF signs, leaves them as they are, so its output is
 * not always JSON; documents that are read again (manifests, pins) escape them as JSON must. For text without control
 * characters the two are the same. Rules: docs/specs/trust.md, section 2.
 */
import { Problem } from '#/protocol/errors.ts';

const encoder = new TextEncoder();

/**
 * OLPC canonical JSON, the bytes that TUF signatures and key ids are made over. `value` is JSON-like data: null, booleans,
 * safe integers, well-formed strings, arrays, objects; keys whose value is undefined are left out.
 * @throws Problem E_CANON for anything else.
 */
export function canonicalJson(value: unknown): Uint8Array<ArrayBuffer> {
  return encoder.encode(write(value, quoteRaw, 0));
}

/** Canonical JSON that is valid JSON for every value: the bytes of manifests, listings and signed documents. */
export function canonicalDocument(value: unknown): Uint8Array<ArrayBuffer> {
  return encoder.encode(write(value, JSON.stringify, 0));
}

const CANONICAL_MAX_DEPTH = 64;

function write(value: unknown, quote: (text: string) => string, depth: number): string {
  if (depth > CANONICAL_MAX_DEPTH) throw new Problem('E_CANON', 'value is too deep');
  if (value === null || value === true || value === false) return String(value);
  if (typeof value === 'number') {
    if (!Number.isSafeInteger(value) || Object.is(value, -0)) {
      throw new Problem('E_CANON', `number ${value} is not a safe integer`);
    }
    return String(value);
  }
  if (typeof value === 'string') {
    if (!value.isWellFormed()) throw new Problem('E_CANON', 'string has a lone surrogate');
    return quote(value);
  }
  if (Array.isArray(value)) {
    return `[${value.map((item) => write(item, quote, depth + 1)).join(',')}]`;
  }
  if (typeof value === 'object') return writeObject(value, quote, depth);
  throw new Problem('E_CANON', `a ${typeof value} has no canonical form`);
}

function writeObject(object: object, quote: (text: string) => string, depth: number): string {
  const members: string[] = [];
  for (const [key, member] of Object.entries(object).toSorted((a, b) => compare(a[0], b[0]))) {
    if (member === undefined) continue;
    if (!key.isWellFormed()) throw new Problem('E_CANON', 'key has a lone surrogate');
    members.push(`${quote(key)}:${write(member, quote, depth + 1)}`);
  }
  return `{${members.join(',')}}`;
}

function quoteRaw(text: string): string {
  return `"${text.replaceAll(/["\\]/g, '\\$&')}"`;
}

/**
 * Code point order, which is also the order of the UTF-8 bytes. Differs from JavaScript's own order only where a surrogate
 * stands against U+E000 to U+FFFF: shifting puts surrogates last.
 */
function compare(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i += 1) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x !== y) return rank(x) - rank(y);
  }
  return a.length - b.length;
}

function rank(unit: number): number {
  return unit >= 0xd800 && unit <= 0xdfff ? unit + 0x10000 : unit;
}
