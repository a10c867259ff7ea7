import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { expect, it } from 'vitest';
import { textMutants } from '#/test/prove/text-mutants.ts';

// `npm run prove:mutants` is not run at each commit: a change of the code must not leave one of its mutants without a place.
it.each(textMutants)('the text that a mutant replaces is there once: $name', ({ file, from }) => {
  const text = readFileSync(resolve(import.meta.dirname, '../../..', file), 'utf8');
  expect(text.split(from)).toHaveLength(2);
});
