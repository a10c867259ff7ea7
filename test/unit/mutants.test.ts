import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { trustMutants } from '#/test/mutants/trust.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));

describe('mutants of the verifier', () => {
  it('a mutant changes nothing any more, or names tests that are not there', () => {
    const stale = trustMutants.filter(({ file, from, to, tests }) => {
      const count = readFileSync(root + file, 'utf8').split(from).length - 1;
      return (
        count !== 1 || from === to || !tests.every((t) => existsSync(`${root}test/${t}.test.ts`))
      );
    });
    expect(stale.map(({ name }) => name)).toEqual([]);
    expect(new Set(trustMutants.map(({ name }) => name)).size).toBe(trustMutants.length);
  });
});
