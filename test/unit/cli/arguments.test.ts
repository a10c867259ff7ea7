import { describe, expect, it } from 'vitest';
import {
  parseLabels,
  parseMoment,
  parsePercent,
  parsePercents,
  parseSeconds,
  parseWhole,
} from '#/control/cli/arguments.ts';
import { isProblem } from '#/protocol/errors.ts';

const now = Date.parse('2026-11-25T20:00:00Z');
const refused = (act: () => unknown): boolean => {
  try {
    act();
    return false;
  } catch (error) {
    return isProblem(error, 'E_USAGE');
  }
};

describe('arguments', () => {
  it('durations have a unit', () => {
    expect([
      parseSeconds('90s'),
      parseSeconds('15m'),
      parseSeconds('24h'),
      parseSeconds('7d'),
      parseSeconds('2w'),
    ]).toEqual([90, 900, 86_400, 604_800, 1_209_600]);
  });

  it.each(['', '7', 'd', '-1d', '1.5h', '7 d', '1y', '99999999999d'])(
    'duration %j is refused',
    (text) => {
      expect(refused(() => parseSeconds(text))).toBe(true);
    },
  );

  it('an expiry is a duration from now or a moment in UTC', () => {
    expect(parseMoment('24h', now)).toBe(now + 86_400_000);
    expect(parseMoment('2026-12-01', now)).toBe(Date.parse('2026-12-01T00:00:00Z'));
    expect(parseMoment('2026-12-01T08:30:00Z', now)).toBe(Date.parse('2026-12-01T08:30:00Z'));
  });

  it.each([
    'tomorrow',
    '2026-13-01',
    '2026-12-01T08:30:00',
    '12/01/2026',
    '2026-11-25',
    '2020-01-01',
  ])('expiry %j is refused: not a moment, or past', (text) => {
    expect(refused(() => parseMoment(text, now))).toBe(true);
  });

  it('numbers and percentages keep their bounds', () => {
    expect(parseWhole(1)('3')).toBe(3);
    expect(parsePercents('10, 50,100')).toEqual([10, 50, 100]);
    expect(parsePercent('0.5%')).toBe(0.5);
    for (const text of ['0', '-1', '1.5', 'x', '', '1e3'])
      expect(refused(() => parseWhole(1)(text))).toBe(true);
    for (const text of ['101', '-1', 'x', '', '5%%'])
      expect(refused(() => parsePercent(text))).toBe(true);
  });

  it('labels are key=value pairs', () => {
    expect(parseLabels('role=web, zone=a')).toEqual({ role: 'web', zone: 'a' });
    expect(refused(() => parseLabels('role'))).toBe(true);
    expect(refused(() => parseLabels('=x'))).toBe(true);
  });
});
