import { expect, it } from 'vitest';
import { createBearers } from '#/control/http/credentials.ts';

const NOW_MS = 1_800_000_000_000;
const KEY = 'a'.repeat(64);

it('H04 two challenges of one second are two, so that enrolling and asking for a bearer at once both work', () => {
  const bearers = createBearers(new Uint8Array(32).fill(7));
  const first = bearers.challenge(KEY, NOW_MS);
  const second = bearers.challenge(KEY, NOW_MS);
  expect(second).not.toBe(first);
  expect(bearers.isChallenge(KEY, first, NOW_MS + 1000)).toBe(true);
  expect(bearers.isChallenge(KEY, second, NOW_MS + 1000)).toBe(true);
});

it('H04 a challenge of another key, another control, or an old one is none', () => {
  const bearers = createBearers(new Uint8Array(32).fill(7));
  const text = bearers.challenge(KEY, NOW_MS);
  expect(bearers.isChallenge('b'.repeat(64), text, NOW_MS)).toBe(false);
  expect(createBearers(new Uint8Array(32).fill(8)).isChallenge(KEY, text, NOW_MS)).toBe(false);
  expect(bearers.isChallenge(KEY, text, NOW_MS + 61_000)).toBe(false);
  expect(bearers.isChallenge(KEY, text, NOW_MS - 61_000)).toBe(false);
});
