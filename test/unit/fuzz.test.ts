import { describe, expect, it } from 'vitest';
import { isProblem, Problem } from '#/protocol/errors.ts';
import { bytesAt, tryOnce } from '#/test/fuzz/run.ts';
import { fuzzTargets } from '#/test/fuzz/targets.ts';

describe('the fuzzer', () => {
  it('its seeds are refused for their form, so that it only ever knocks at the door', () => {
    const refused = fuzzTargets().flatMap(({ name, seeds, parse }) =>
      seeds.flatMap((seed) => {
        try {
          parse(seed);
          return [];
        } catch (error) {
          if (!isProblem(error)) throw error;
          return [`${name}: ${error.code}`];
        }
      }),
    );
    expect(refused).toEqual([]);
    expect(fuzzTargets().every(({ seeds }) => seeds.length > 0)).toBe(true);
  });

  it('a crash, a bug or a slow parser is no finding', () => {
    const target = (parse: (bytes: Uint8Array) => unknown) => ({ name: 'x', seeds: [], parse });
    const refusal = () => {
      throw new Problem('E_PARSE', 'no');
    };
    expect(tryOnce(target(refusal), new Uint8Array(), 0)).toBeNull();
    const crash = () => {
      throw new TypeError('x is not a function');
    };
    expect(tryOnce(target(crash), new Uint8Array(), 0)?.what).toContain('not a function');
    const bytes = () => bytesAt(fuzzTargets()[0]!, 7, 3);
    expect(bytes()).toEqual(bytes());
  });

  it('two hundred tries of each parser find something', () => {
    const found = fuzzTargets().flatMap((target) =>
      Array.from({ length: 200 }, (_, at) => tryOnce(target, bytesAt(target, 1, at), at)).filter(
        (finding) => finding !== null,
      ),
    );
    expect(found.map(({ target, at, what }) => `${target} ${at}: ${what}`)).toEqual([]);
  }, 60_000);
});
