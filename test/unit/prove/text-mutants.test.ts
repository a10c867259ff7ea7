import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { expect, it } from 'vitest';
import { textMutants } from '#/test/prove/text-mutants.ts';
import { simMutants } from '#/test/sim/mutant-table.ts';

const places = [
  ...textMutants,
  ...simMutants.flatMap(({ name, edits }) => edits.map((edit) => ({ name, ...edit }))),
];

// The mutants are not all run at each commit: a change of the code must not leave one of them without a place.
it.each(places)('the text that a mutant replaces is there once: $name', ({ file, from }) => {
  const text = readFileSync(resolve(import.meta.dirname, '../../..', file), 'utf8');
  expect(text.split(from)).toHaveLength(2);
});
