import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createWindows, createZoneCalendar } from '#/agent/adapters/windows.ts';
import { settingsFrom } from '#/agent/config.ts';

const windowsOf = (toml: string) =>
  createWindows(settingsFrom([{ file: 'test.toml', text: toml }]).settings.window);
const at = (iso: string): number => Date.parse(iso);
const iso = (ms: number | null): string | null => (ms === null ? null : new Date(ms).toISOString());

describe('windows', () => {
  it('without any window a switch is allowed at any time', async () => {
    expect((await windowsOf('')).at(0)).toEqual({ open: true, opensAt: null, closesAt: null });
  });

  it('a window taken out by a later file no longer holds', async () => {
    const windows = await windowsOf(
      '[window.night]\ncron = "0 2 * * *"\nduration_ms = 3600000\nenabled = false',
    );
    expect(windows.at(at('2026-05-05T12:00:00Z')).open).toBe(true);
  });

  it('opens and closes to the millisecond', async () => {
    const windows = await windowsOf('[window.night]\ncron = "0 2 * * *"\nduration_ms = 3600000');
    const before = windows.at(at('2026-05-05T02:00:00Z') - 1);
    expect(before.open).toBe(false);
    expect(iso(before.opensAt)).toBe('2026-05-05T02:00:00.000Z');
    const first = windows.at(at('2026-05-05T02:00:00Z'));
    expect([first.open, iso(first.closesAt)]).toEqual([true, '2026-05-05T03:00:00.000Z']);
    expect(windows.at(at('2026-05-05T03:00:00Z') - 1).open).toBe(true);
    expect(windows.at(at('2026-05-05T03:00:00Z')).open).toBe(false);
  });

  it('a clock that was set back gets a fresh answer, not the remembered one', async () => {
    const windows = await windowsOf('[window.night]\ncron = "0 2 * * *"\nduration_ms = 3600000');
    expect(windows.at(at('2026-05-05T02:30:00Z')).open).toBe(true);
    expect(windows.at(at('2026-05-05T01:59:00Z')).open).toBe(false);
  });

  it('F61 finish-by ends a window before its duration does', async () => {
    const windows = await windowsOf(
      '[window.night]\ncron = "30 22 * * 1-5"\nduration_ms = 36000000\nfinish_by = "05:00"\nzone = "Europe/Berlin"',
    );
    const open = windows.at(at('2026-07-06T21:00:00Z'));
    expect([open.open, iso(open.closesAt)]).toEqual([true, '2026-07-07T03:00:00.000Z']);
    expect(windows.at(at('2026-07-07T03:00:00Z')).open).toBe(false);
  });

  it('a window at a local time that is skipped in spring opens after the gap', async () => {
    const windows = await windowsOf(
      '[window.night]\ncron = "30 2 * * *"\nduration_ms = 3600000\nzone = "Europe/Berlin"',
    );
    // 2026-03-29: 02:00 CET (01:00Z) becomes 03:00 CEST.
    const before = windows.at(at('2026-03-29T00:59:59Z'));
    expect([before.open, iso(before.opensAt)]).toEqual([false, '2026-03-29T01:00:00.000Z']);
    expect(iso(windows.at(at('2026-03-29T01:00:00Z')).closesAt)).toBe('2026-03-29T02:00:00.000Z');
  });

  it('a window at a local time that comes twice in autumn opens once and lasts its duration', async () => {
    const windows = await windowsOf(
      '[window.night]\ncron = "30 2 * * *"\nduration_ms = 1800000\nzone = "Europe/Berlin"',
    );
    // 2026-10-25: 03:00 CEST (01:00Z) becomes 02:00 CET; 02:30 is at 00:30Z and again at 01:30Z.
    expect(iso(windows.at(at('2026-10-25T00:00:00Z')).opensAt)).toBe('2026-10-25T00:30:00.000Z');
    expect(iso(windows.at(at('2026-10-25T00:45:00Z')).closesAt)).toBe('2026-10-25T01:00:00.000Z');
    expect(windows.at(at('2026-10-25T01:30:00Z')).open).toBe(false);
    expect(iso(windows.at(at('2026-10-25T01:30:00Z')).opensAt)).toBe('2026-10-26T01:30:00.000Z');
  });

  it('windows that touch are one', async () => {
    const windows = await windowsOf(
      '[window.a]\ncron = "0 1 * * *"\nduration_ms = 3600000\n[window.b]\ncron = "0 2 * * *"\nduration_ms = 7200000',
    );
    expect(iso(windows.at(at('2026-05-05T01:30:00Z')).closesAt)).toBe('2026-05-05T04:00:00.000Z');
  });

  it('a window every minute is open for ever, and the answer comes soon', async () => {
    const windows = await windowsOf('[window.a]\ncron = "* * * * *"\nduration_ms = 60000');
    expect(windows.at(at('2026-05-05T01:30:00Z'))).toEqual({
      open: true,
      opensAt: null,
      closesAt: null,
    });
  });

  it('29 February is found years ahead', async () => {
    const windows = await windowsOf('[window.a]\ncron = "0 0 29 2 *"\nduration_ms = 60000');
    expect(iso(windows.at(at('2026-05-05T00:00:00Z')).opensAt)).toBe('2028-02-29T00:00:00.000Z');
  });

  it('an expression that cron refuses is E_CONFIG with the field', async () => {
    for (const cron of ['61 * * * *', '0 0 31 2 *', '* * *', 'x * * * *', '*/5 0 2 * * *']) {
      await expect(
        windowsOf(`[window.a]\ncron = "${cron}"\nduration_ms = 60000`),
      ).rejects.toMatchObject({ code: 'E_CONFIG', message: expect.stringContaining(cron) });
    }
  });

  const zones = [
    'Europe/Berlin',
    'America/New_York',
    'Australia/Lord_Howe',
    'Asia/Kolkata',
    'America/Santiago',
    'Pacific/Apia',
    'UTC',
  ];

  it('each local time of each zone and day is an instant that reads back, or the end of its gap', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...zones),
        fc.integer({ min: 14_000, max: 22_000 }),
        fc.integer({ min: 0, max: 1439 }),
        (zone, day, minuteOfDay) => {
          const calendar = createZoneCalendar(zone);
          const [hour, minute] = [Math.floor(minuteOfDay / 60), minuteOfDay % 60];
          const instant = calendar.instantOf(day, hour, minute);
          const shown = new Intl.DateTimeFormat('en-GB', {
            timeZone: zone,
            dateStyle: 'short',
            timeStyle: 'short',
          }).format(instant);
          const wanted = new Intl.DateTimeFormat('en-GB', {
            timeZone: 'UTC',
            dateStyle: 'short',
            timeStyle: 'short',
          }).format(day * 86_400_000 + minuteOfDay * 60_000);
          if (shown !== wanted) {
            // A gap: one second earlier the local clock showed less than the wanted time.
            expect(calendar.dayOf(instant)).toBeGreaterThanOrEqual(day);
            const before = new Intl.DateTimeFormat('en-GB', {
              timeZone: zone,
              timeStyle: 'medium',
            }).format(instant - 1000);
            expect(before.endsWith(':59')).toBe(true);
          }
          expect(calendar.instantOf(day, hour, minute)).toBe(instant);
        },
      ),
      { numRuns: 3000 },
    );
  });

  it('at any instant the answer agrees with the windows counted one by one', async () => {
    const cases = await Promise.all(
      zones.map(async (zone) => ({
        zone,
        windows: await windowsOf(
          `[window.a]\ncron = "30 1-2 * * *"\nduration_ms = 2700000\nzone = "${zone}"`,
        ),
      })),
    );
    fc.assert(
      fc.property(
        fc.constantFrom(...cases),
        fc.integer({
          min: at('2026-01-01T00:00:00Z') / 60_000,
          max: at('2027-12-31T00:00:00Z') / 60_000,
        }),
        ({ zone, windows }, minutes) => {
          const now = minutes * 60_000;
          const calendar = createZoneCalendar(zone);
          const today = calendar.dayOf(now);
          const openings = [-2, -1, 0, 1, 2].flatMap((delta) =>
            [1, 2].map((hour) => calendar.instantOf(today + delta, hour, 30)),
          );
          const isOpen = openings.some((opening) => opening <= now && now < opening + 2_700_000);
          const answer = windows.at(now);
          expect(answer.open).toBe(isOpen);
          if (answer.closesAt !== null) expect(windows.at(answer.closesAt).open).toBe(false);
          if (answer.opensAt !== null) expect(windows.at(answer.opensAt).open).toBe(true);
        },
      ),
      { numRuns: 2000 },
    );
  });
});
