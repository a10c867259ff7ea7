import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { canonicalDocument, canonicalJson } from '#/bundle/canonical.ts';
import { parseStrictJson } from '#/bundle/strict-json.ts';

function codeOf(text: string | Uint8Array, numbers: 'integers' | 'shortest' = 'integers'): string {
  try {
    parseStrictJson(Buffer.from(text), { maxBytes: 1000, numbers });
    return 'accepted';
  } catch (error) {
    return (error as { code: string }).code;
  }
}

describe('strict JSON', () => {
  it('reads what JSON.parse reads, where the text is strict', () => {
    fc.assert(
      fc.property(fc.json({ maxDepth: 8 }), (text) => {
        const value: unknown = JSON.parse(text);
        const code = codeOf(text.slice(0, 1000), 'shortest');
        if (text.length > 1000 || code !== 'accepted') {
          // Refused for one of the rules that JSON.parse does not have.
          expect(code).toMatch(/^E_(PARSE|CANON|TOOBIG)$/);
          return;
        }
        const mine = parseStrictJson(Buffer.from(text), { maxBytes: 1000, numbers: 'shortest' });
        expect(JSON.stringify(mine)).toBe(JSON.stringify(value));
      }),
      { numRuns: 2000 },
    );
  });

  it('never accepts a text that JSON.parse refuses', () => {
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom(...'{}[]",:\\u01e.+-tfn al\n\0é'.split('')), { maxLength: 14 }),
        (characters) => {
          const text = characters.join('');
          if (codeOf(text, 'shortest') === 'accepted') JSON.parse(text);
        },
      ),
      { numRuns: 20_000 },
    );
  });

  it.each([
    ['{"a":1,"a":2}', 'E_PARSE'],
    ['{"a":1,"\\u0061":2}', 'E_PARSE'],
    ['{"__proto__":1,"__proto__":2}', 'E_PARSE'],
    ['\ufeff1', 'E_PARSE'],
    ['1 2', 'E_PARSE'],
    ['"\\ud800"', 'E_PARSE'],
    ['"\\udc00\\ud800"', 'E_PARSE'],
    ['"a\tb"', 'E_PARSE'],
    ['[1,]', 'E_PARSE'],
    ['{"a":1,}', 'E_PARSE'],
    ['01', 'E_PARSE'],
    ['+1', 'E_PARSE'],
    ['.5', 'E_PARSE'],
    ['NaN', 'E_PARSE'],
    ['"\\x41"', 'E_PARSE'],
    ['"\\u12"', 'E_PARSE'],
    ['', 'E_PARSE'],
    ['1e3', 'E_CANON'],
    ['-0', 'E_CANON'],
    ['1.0', 'E_CANON'],
    ['1.5', 'E_CANON'],
    ['9007199254740992', 'E_CANON'],
    ['-9007199254740992', 'E_CANON'],
    ['9007199254740991', 'accepted'],
    ['"\\ud83d\\ude00"', 'accepted'],
    [' [ ] ', 'accepted'],
  ])('%s: %s', (text, code) => {
    expect(codeOf(text)).toBe(code);
  });

  it('refuses invalid UTF-8, more bytes than allowed, and depth 33', () => {
    expect(codeOf(Uint8Array.of(0x22, 0xff, 0x22))).toBe('E_PARSE');
    expect(codeOf(Uint8Array.of(0x22, 0xed, 0xa0, 0x80, 0x22))).toBe('E_PARSE');
    expect(codeOf(`"${'a'.repeat(1000)}"`)).toBe('E_TOOBIG');
    expect(codeOf(`${'['.repeat(32)}${']'.repeat(32)}`)).toBe('accepted');
    expect(codeOf(`${'['.repeat(33)}${']'.repeat(33)}`)).toBe('E_PARSE');
  });

  it('a key __proto__ is a key like any other', () => {
    const value = parseStrictJson(Buffer.from('{"__proto__":{"admin":true}}'), { maxBytes: 100 });
    expect((value as Record<string, unknown>)['admin']).toBeUndefined();
    expect(Object.keys(value as object)).toEqual(['__proto__']);
    expect(Buffer.from(canonicalJson(value)).toString()).toBe('{"__proto__":{"admin":true}}');
  });
});

describe('canonical JSON', () => {
  const text = (value: unknown): string => Buffer.from(canonicalJson(value)).toString();

  it('orders keys by code point, also beyond the basic plane', () => {
    expect(text({ '\u{1f600}': 1, '\uffff': 2, b: 3, a: 4 })).toBe(
      '{"a":4,"b":3,"\uffff":2,"\u{1f600}":1}',
    );
  });

  it('escapes quote and backslash alone; as a document also control characters', () => {
    expect(text('a"\\\n')).toBe('"a\\"\\\\\n"');
    expect(Buffer.from(canonicalDocument('a"\\\n')).toString()).toBe('"a\\"\\\\\\n"');
  });

  it('refuses what has no canonical form', () => {
    for (const value of [1.5, Number.NaN, 2 ** 53, -0, '\ud800', 1n, () => 1, { a: ['\ud800'] }]) {
      expect(() => canonicalJson(value)).toThrow(expect.objectContaining({ code: 'E_CANON' }));
    }
  });

  it('a document reads back as what was written, and writes as the same bytes', () => {
    const value = fc.letrec((tie) => ({
      tree: fc.oneof(
        { depthSize: 'small' },
        fc.maxSafeInteger().map((number) => number + 0),
        fc.string({ unit: 'grapheme' }),
        fc.boolean(),
        fc.constant(null),
        fc.array(tie('tree'), { maxLength: 4 }),
        fc.dictionary(fc.string(), tie('tree'), { maxKeys: 4 }),
      ),
    })).tree;
    fc.assert(
      fc.property(value, (tree) => {
        const bytes = canonicalDocument(tree);
        const back = parseStrictJson(bytes, { maxBytes: 1e6 });
        expect(canonicalDocument(back)).toEqual(bytes);
        expect(JSON.parse(JSON.stringify(back))).toEqual(JSON.parse(JSON.stringify(tree)));
      }),
      { numRuns: 1000 },
    );
  });
});
