import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { dateText, secondsAt } from '#/bundle/trust/shape.ts';
import { openWaveAt, waveRank } from '#/bundle/trust/waves.ts';

const LAST_SECOND = Date.UTC(9999, 11, 31, 23, 59, 59) / 1000;

describe('dates of metadata', () => {
  it('are what the calendar says, from 1970 to 9999, both ways', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: LAST_SECOND }), (seconds) => {
        const text = new Date(seconds * 1000).toISOString().replace('.000Z', 'Z');
        expect(dateText(seconds)).toBe(text);
        expect(secondsAt(text, 'expires')).toBe(seconds);
      }),
      { numRuns: 3000 },
    );
  });

  it('that do not exist are refused, and none that exists is', () => {
    const part = (max: number) =>
      fc.integer({ min: 0, max }).map((value) => String(value).padStart(2, '0'));
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 9999 }).map((year) => String(year).padStart(4, '0')),
        fc.tuple(part(13), part(32), part(25), part(61), part(61)),
        (year, [month, day, hour, minute, second]) => {
          const text = `${year}-${month}-${day}T${hour}:${minute}:${second}Z`;
          const millis = Date.parse(text);
          const isReal =
            !Number.isNaN(millis) && new Date(millis).toISOString() === text.replace('Z', '.000Z');
          let seconds: number | null = null;
          try {
            seconds = secondsAt(text, 'expires');
          } catch (error) {
            expect(error).toMatchObject({ code: 'E_EXPIRES' });
          }
          expect(seconds).toBe(isReal ? millis / 1000 : null);
        },
      ),
      { numRuns: 5000 },
    );
  });
});

describe('waves', () => {
  const waves = [
    { percent: 10, notBefore: 100 },
    { percent: 50, notBefore: 200 },
  ];

  it('a host is in the first wave above its rank, and beyond the last one in none', () => {
    const hostOf = (rank: string): string => `h-${rank}${'0'.repeat(24)}`;
    expect(openWaveAt(waves, hostOf('00000000'))).toBe(100);
    expect(openWaveAt(waves, hostOf('1999999a'))).toBe(200);
    expect(openWaveAt(waves, hostOf('7fffffff'))).toBe(200);
    expect(openWaveAt(waves, hostOf('80000000'))).toBe(Number.POSITIVE_INFINITY);
    expect(openWaveAt([], hostOf('80000000'))).toBe(0);
  });

  it('ranks are below 100, so that a wave of 100 percent holds every host', () => {
    expect(waveRank(`h-${'f'.repeat(32)}`)).toBeLessThan(100);
  });
});
