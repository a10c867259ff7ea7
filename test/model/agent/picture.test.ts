import { expect, it } from 'vitest';
import { readPage, withPicture } from './picture.ts';

it('the picture in docs/specs/agent-machine.md is not the one that the explorer prints', () => {
  const page = readPage();
  expect(withPicture(page)).toBe(page);
});
