/** Damage to bytes, the same for the same numbers: what the fuzzer feeds to parsers. */

/** A generator of numbers in [0, 1) (mulberry32). */
export function numbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const GROWN_MAX_BYTES = 256 * 1024;
const EDGES = [0, 1, 0x7f, 0x80, 0xff, 0xfe, 0x0a, 0x20, 0x22, 0x2f, 0x5c, 0x7b, 0x7d];
/** What breaks readers of text. */
const WORDS = [
  '{}',
  '[]',
  '""',
  'null',
  'true',
  '-0',
  '1e3',
  '1.5',
  '9007199254740993',
  '-1',
  '0',
  '"__proto__"',
  '"constructor"',
  '"\\ud800"',
  '"\\u0000"',
  '/../',
  '\u0000',
  '\ufeff',
  '[[[[[[[[',
  '{"a":{"a":{"a":',
  '"' + 'A'.repeat(5000) + '"',
  '\r\n',
  '\n\n',
  '99999999999999999999',
  '%2e%2e',
].map((word) => Buffer.from(word));

type Step = (bytes: Uint8Array, next: () => number, others: readonly Uint8Array[]) => Uint8Array;

const below = (next: () => number, limit: number): number => Math.floor(next() * limit);
const cut = (a: Uint8Array, from: number, to: number, middle: Uint8Array): Uint8Array =>
  Buffer.concat([a.subarray(0, from), middle, a.subarray(to)]);

const steps: readonly Step[] = [
  (bytes, next) => {
    const copy = Uint8Array.from(bytes);
    const at = below(next, copy.length);
    copy[at] = (copy[at] ?? 0) ^ (1 << below(next, 8));
    return copy;
  },
  (bytes, next) => {
    const copy = Uint8Array.from(bytes);
    copy[below(next, copy.length)] = EDGES[below(next, EDGES.length)] ?? 0;
    return copy;
  },
  // Four bytes become a number at an edge: lengths and counts of binary formats.
  (bytes, next) => {
    const copy = Uint8Array.from(bytes);
    if (copy.length < 4) return copy;
    const value = [0, 1, 0xffffffff, 0x7fffffff, 0x80000000, 0x10000][below(next, 6)] ?? 0;
    new DataView(copy.buffer).setUint32(below(next, copy.length - 3), value, next() < 0.5);
    return copy;
  },
  (bytes, next) => bytes.subarray(0, below(next, bytes.length + 1)),
  (bytes, next) => {
    const from = below(next, bytes.length);
    return cut(bytes, from, Math.min(bytes.length, from + 1 + below(next, 64)), Buffer.alloc(0));
  },
  (bytes, next) => {
    const at = below(next, bytes.length + 1);
    return cut(bytes, at, at, WORDS[below(next, WORDS.length)] ?? Buffer.alloc(0));
  },
  (bytes, next) => {
    const from = below(next, bytes.length);
    const part = bytes.subarray(from, from + 1 + below(next, 256));
    const at = below(next, bytes.length + 1);
    return cut(bytes, at, at, part);
  },
  (bytes, next, others) => {
    const other = others[below(next, others.length)] ?? bytes;
    return cut(
      bytes,
      below(next, bytes.length),
      bytes.length,
      other.subarray(below(next, other.length)),
    );
  },
  // A number, a word or a text of JSON becomes another one.
  (bytes, next) => {
    const text = Buffer.from(bytes).toString('latin1');
    const tokens = [...text.matchAll(/-?\d+|true|false|null|"(?:[^"\\]|\\.){0,200}"/g)];
    const token = tokens[below(next, tokens.length)];
    if (token === undefined) return bytes;
    const word = WORDS[below(next, WORDS.length)] ?? Buffer.alloc(0);
    return cut(bytes, token.index, token.index + token[0].length, word);
  },
];

/** One to four steps away from one of the seeds. */
export function mutated(seeds: readonly Uint8Array[], next: () => number): Uint8Array {
  let bytes = seeds[below(next, seeds.length)] ?? new Uint8Array();
  for (let count = 1 + below(next, 4); count > 0; count -= 1) {
    const step = steps[below(next, steps.length)];
    if (step !== undefined && bytes.length > 0) bytes = step(bytes, next, seeds);
    if (bytes.length > GROWN_MAX_BYTES) bytes = bytes.subarray(0, GROWN_MAX_BYTES);
  }
  return bytes;
}
