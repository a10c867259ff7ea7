import { expect, it } from 'vitest';
import { outcomeOf } from '#/control/core/report.ts';

it('F82 damaged bytes before the switch are no verdict on the version', () => {
  expect(outcomeOf('aborted', 'E_CHUNK')).toBe('inconclusive');
  expect(outcomeOf('aborted', 'E_SLOT')).toBe('inconclusive');
  expect(outcomeOf('aborted', 'E_NETWORK')).toBe('inconclusive');
  expect(outcomeOf('aborted', 'E_SPACE')).toBe('inconclusive');
});

it('what ends after the switch, or by a refusal, is a failure whatever its code', () => {
  expect(outcomeOf('rolled-back', 'E_NETWORK')).toBe('failed');
  expect(outcomeOf('needs-attention', 'E_SLOT')).toBe('failed');
  expect(outcomeOf('refused', 'E_PATH')).toBe('failed');
  expect(outcomeOf('aborted', 'E_PATH')).toBe('failed');
  expect(outcomeOf('aborted', 'E_OF_A_NEWER_AGENT')).toBe('failed');
});

it('an offer that was taken back is withdrawn, and only a confirmed attempt is a success', () => {
  expect(outcomeOf('aborted', 'E_RECALLED')).toBe('withdrawn');
  expect(outcomeOf('confirmed', null)).toBe('confirmed');
  expect(outcomeOf('committing', null)).toBe(null);
});
