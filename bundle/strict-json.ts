/**
 * The strict JSON reader for bytes from outside: one reading for one text, or a refusal.
 *
 * Stricter than JSON.parse: no duplicate keys, no byte order mark, no invalid UTF-8, no lone surrogates, bounded size and
 * depth, numbers only in their shortest form. Objects have no prototype, so that no key of a document (`__proto__`,
 * `constructor`) can mean anything but itself. Rules: docs/specs/trust.md, section 2.
 */
import { type JsonValue, Problem } from '#/protocol/errors.ts';

/** Deeper documents are refused; none of ours is deeper than 10. */
export const JSON_MAX_DEPTH = 32;

export interface StrictJsonLimits {
  /** Longer input is refused before it is decoded. */
  readonly maxBytes: number;
  readonly maxDepth?: number;
  /**
   * `integers` (default): every number is a safe integer. `shortest`: also fractions in their shortest form and integers
   * beyond 2^53 (rounded: the caller must check with Number.isSafeInteger).
   */
  readonly numbers?: 'integers' | 'shortest';
}

/**
 * Reads strict JSON.
 * @throws Problem E_TOOBIG (over `maxBytes`), E_PARSE (not strict JSON), E_CANON (a number that is not in canonical form).
 */
export function parseStrictJson(bytes: Uint8Array, limits: StrictJsonLimits): JsonValue {
  if (bytes.length > limits.maxBytes) {
    throw new Problem('E_TOOBIG', `json of ${bytes.length} bytes, at most ${limits.maxBytes}`, {
      sizeBytes: bytes.length,
      maxBytes: limits.maxBytes,
    });
  }
  const reader: Reader = {
    text: decodeUtf8(bytes),
    at: 0,
    maxDepth: limits.maxDepth ?? JSON_MAX_DEPTH,
    integersOnly: (limits.numbers ?? 'integers') === 'integers',
  };
  const value = readValue(reader, 1);
  skipSpace(reader);
  if (reader.at < reader.text.length) fail(reader, 'text after the value');
  return value;
}

interface Reader {
  readonly text: string;
  at: number;
  readonly maxDepth: number;
  readonly integersOnly: boolean;
}

function decodeUtf8(bytes: Uint8Array): string {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new Problem('E_PARSE', 'json is not valid utf-8', {}, { cause });
  }
  if (text.charCodeAt(0) === 0xfeff) throw new Problem('E_PARSE', 'json has a byte order mark');
  return text;
}

function fail(reader: Reader, what: string): never {
  throw new Problem('E_PARSE', `json at character ${reader.at}: ${what}`, { position: reader.at });
}

function skipSpace(reader: Reader): void {
  for (;;) {
    const code = reader.text.charCodeAt(reader.at);
    if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return;
    reader.at += 1;
  }
}

function readValue(reader: Reader, depth: number): JsonValue {
  if (depth > reader.maxDepth) fail(reader, `deeper than ${reader.maxDepth}`);
  skipSpace(reader);
  const char = reader.text[reader.at];
  if (char === '{') return readObject(reader, depth);
  if (char === '[') return readArray(reader, depth);
  if (char === '"') return readString(reader);
  if (char === 't') return readWord(reader, 'true', true);
  if (char === 'f') return readWord(reader, 'false', false);
  if (char === 'n') return readWord(reader, 'null', null);
  return readNumber(reader);
}

function readWord<T extends boolean | null>(reader: Reader, word: string, value: T): T {
  if (!reader.text.startsWith(word, reader.at)) fail(reader, 'expected a value');
  reader.at += word.length;
  return value;
}

function readObject(reader: Reader, depth: number): JsonValue {
  const object: Record<string, JsonValue> = Object.create(null);
  reader.at += 1;
  skipSpace(reader);
  if (reader.text[reader.at] === '}') {
    reader.at += 1;
    return object;
  }
  for (;;) {
    skipSpace(reader);
    if (reader.text[reader.at] !== '"') fail(reader, 'expected a key');
    const key = readString(reader);
    if (key in object) fail(reader, `duplicate key ${JSON.stringify(key.slice(0, 64))}`);
    skipSpace(reader);
    if (reader.text[reader.at] !== ':') fail(reader, 'expected :');
    reader.at += 1;
    object[key] = readValue(reader, depth + 1);
    skipSpace(reader);
    const next = reader.text[reader.at];
    reader.at += 1;
    if (next === '}') return object;
    if (next !== ',') {
      reader.at -= 1;
      fail(reader, 'expected , or }');
    }
  }
}

function readArray(reader: Reader, depth: number): JsonValue {
  const array: JsonValue[] = [];
  reader.at += 1;
  skipSpace(reader);
  if (reader.text[reader.at] === ']') {
    reader.at += 1;
    return array;
  }
  for (;;) {
    array.push(readValue(reader, depth + 1));
    skipSpace(reader);
    const next = reader.text[reader.at];
    reader.at += 1;
    if (next === ']') return array;
    if (next !== ',') {
      reader.at -= 1;
      fail(reader, 'expected , or ]');
    }
  }
}

/** The text between two quotes. Escapes are left to JSON.parse once the token is known to be well formed. */
function readString(reader: Reader): string {
  const { text } = reader;
  const start = reader.at;
  let at = start + 1;
  let escaped = false;
  for (;;) {
    const code = text.charCodeAt(at);
    if (code === 0x22) break;
    if (code === 0x5c) {
      escaped = true;
      at += 1;
      const escape = text[at];
      if (escape === 'u') {
        if (!/^[0-9a-fA-F]{4}$/.test(text.slice(at + 1, at + 5))) {
          reader.at = at;
          fail(reader, 'bad \\u escape');
        }
        at += 4;
      } else if (escape === undefined || !'"\\/bfnrt'.includes(escape)) {
        reader.at = at;
        fail(reader, 'bad escape');
      }
    } else if (!(code >= 0x20)) {
      // Also true for the NaN of the end of the text.
      reader.at = Math.min(at, text.length);
      fail(reader, at >= text.length ? 'text ends in a string' : 'control character in a string');
    }
    at += 1;
  }
  reader.at = at + 1;
  if (!escaped) return text.slice(start + 1, at);
  const value: string = JSON.parse(text.slice(start, at + 1));
  if (!value.isWellFormed()) fail(reader, 'lone surrogate');
  return value;
}

/** Longest number text: a fraction in its shortest form has at most 25 characters. */
const NUMBER_MAX_CHARS = 32;

function readNumber(reader: Reader): number {
  const pattern = /-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/y;
  pattern.lastIndex = reader.at;
  const match = pattern.exec(reader.text);
  if (match === null) fail(reader, 'expected a value');
  const [token, fraction, exponent] = match;
  const value = Number(token);
  const isInteger = fraction === undefined && exponent === undefined && token !== '-0';
  const isShortest =
    token.length <= NUMBER_MAX_CHARS &&
    (String(value) === token || (isInteger && !reader.integersOnly));
  if (!isShortest || (reader.integersOnly && !Number.isSafeInteger(value))) {
    throw new Problem(
      'E_CANON',
      `json at character ${reader.at}: number ${token.slice(0, NUMBER_MAX_CHARS)} is not ${
        reader.integersOnly ? 'a plain integer' : 'in its shortest form'
      }`,
      { position: reader.at },
    );
  }
  reader.at += token.length;
  return value;
}
