/**
 * Maintenance windows. node-cron decides which calendar times a cron expression means; this module says which instants
 * those are in the window's zone, across changes of the clocks:
 * - a local time that is skipped opens the window at the first instant after the gap;
 * - a local time that comes twice opens it once, at the first.
 */
import type { Settings, WindowSetting } from '#/agent/config.ts';
import type { Windows } from '#/agent/ports.ts';
import { Problem } from '#/protocol/errors.ts';

const MINUTE_MS = 60_000;
const DAY_MS = 86_400_000;
/** 29 February on a given weekday comes once in 28 years (40 across a century without a leap day). */
const SEARCH_DAYS = 41 * 366;
/** Windows that touch are one; a chain longer than this is called open for ever. */
const CHAIN_MS = 400 * DAY_MS;
const CHAIN_STEPS = 2_000;

/** Which calendar times an expression means: the part of node-cron that is used. */
export interface CronMatcher {
  /** Times of day at which it fires on a day that it means, ascending. */
  readonly times: readonly { readonly hour: number; readonly minute: number }[];
  /** True when it fires at this calendar time, written as if it were UTC. */
  matches(calendarMs: number): boolean;
}

interface Window {
  readonly cron: CronMatcher;
  readonly zone: ZoneCalendar;
  readonly durationMs: number;
  readonly finishBy: { readonly hour: number; readonly minute: number } | null;
}

/** The windows of the settings; without any enabled one it is always open. E_CONFIG for an expression that cron refuses. */
export async function createWindows(settings: Settings['window']): Promise<Windows> {
  const windows: Window[] = [];
  for (const [window, setting] of Object.entries(settings)) {
    if (setting.enabled) windows.push(await windowOf(window, setting));
  }
  if (windows.length === 0) {
    return { at: () => ({ open: true, opensAt: null, closesAt: null }) };
  }
  let last: { readonly from: number; readonly until: number; readonly answer: At } | null = null;
  return {
    at(wallMs) {
      if (last !== null && wallMs >= last.from && wallMs < last.until) return last.answer;
      const answer = answerAt(windows, wallMs);
      const until = answer.closesAt ?? answer.opensAt ?? wallMs + DAY_MS;
      last = { from: wallMs, until, answer };
      return answer;
    },
  };
}

type At = ReturnType<Windows['at']>;

function answerAt(windows: readonly Window[], wallMs: number): At {
  const closesAt = closingOf(windows, wallMs);
  if (closesAt !== null) {
    const isEndless = closesAt - wallMs > CHAIN_MS;
    return { open: true, opensAt: null, closesAt: isEndless ? null : closesAt };
  }
  const openings = windows.map((window) => nextOpening(window, wallMs));
  const known = openings.filter((opening) => opening !== null);
  return { open: false, opensAt: known.length === 0 ? null : Math.min(...known), closesAt: null };
}

async function windowOf(window: string, setting: WindowSetting): Promise<Window> {
  const [hour = 0, minute = 0] = (setting.finishBy ?? '').split(':').map(Number);
  return {
    cron: await cronMatcher(window, setting.cron),
    zone: createZoneCalendar(setting.zone),
    durationMs: setting.durationMs,
    finishBy: setting.finishBy === undefined ? null : { hour, minute },
  };
}

/** The matcher of an expression. E_CONFIG names the field that is wrong. */
export async function cronMatcher(window: string, expression: string): Promise<CronMatcher> {
  const cron = await import('node-cron');
  const check = cron.validateDetailed(expression);
  const fields = check.fields;
  if (!check.valid || fields === undefined) {
    const why = check.errors.map((error) => `${error.field}: ${error.message}`).join('; ');
    throw new Problem('E_CONFIG', `window.${window}.cron: "${expression}": ${why}`, { window });
  }
  if (fields.second.length !== 1 || fields.second[0] !== 0) {
    throw new Problem('E_CONFIG', `window.${window}.cron: "${expression}": expected five fields`, {
      window,
    });
  }
  // Never scheduled: only its matching is used. Out of the package's registry again at once.
  const task = cron.createTask(expression, () => undefined, { timezone: 'UTC' });
  await task.destroy();
  const minutes = [...fields.minute].sort(ascending);
  const times = [...fields.hour]
    .sort(ascending)
    .flatMap((hour) => minutes.map((minute) => ({ hour, minute })));
  return { times, matches: (calendarMs) => task.match(new Date(calendarMs)) };
}

const ascending = (a: number, b: number): number => a - b;

/** When the chain of windows that is open at `wallMs` closes; null when none is open. */
function closingOf(windows: readonly Window[], wallMs: number): number | null {
  let until: number | null = null;
  for (let step = 0; step < CHAIN_STEPS; step += 1) {
    const at: number = until ?? wallMs;
    const closings = windows
      .map((window) => closingOfOne(window, at))
      .filter((one) => one !== null);
    const latest = Math.max(...closings, Number.NEGATIVE_INFINITY);
    if (latest <= at) return until;
    until = latest;
    if (until - wallMs > CHAIN_MS) return until;
  }
  return Number.MAX_SAFE_INTEGER;
}

function closingOfOne(window: Window, atMs: number): number | null {
  const opening = lastOpening(window, atMs);
  if (opening === null) return null;
  const closing = closingAfter(window, opening);
  return closing > atMs ? closing : null;
}

function closingAfter(window: Window, opening: number): number {
  const end = opening + window.durationMs;
  if (window.finishBy === null) return end;
  const { hour, minute } = window.finishBy;
  for (let day = window.zone.dayOf(opening); ; day += 1) {
    const limit = window.zone.instantOf(day, hour, minute);
    if (limit > opening) return Math.min(end, limit);
    if (day * DAY_MS > end + 2 * DAY_MS) return end;
  }
}

/** Latest opening at or before `atMs` that can still matter, or null. */
function lastOpening(window: Window, atMs: number): number | null {
  const today = window.zone.dayOf(atMs);
  const days = Math.ceil(window.durationMs / DAY_MS) + 1;
  for (let day = today; day >= today - days; day -= 1) {
    const count = openingsUntil(window, day, atMs);
    if (count > 0) return openingAt(window, day, count - 1);
  }
  return null;
}

function nextOpening(window: Window, afterMs: number): number | null {
  const today = window.zone.dayOf(afterMs);
  for (let day = today; day < today + SEARCH_DAYS; day += 1) {
    const count = openingsUntil(window, day, afterMs);
    if (count < openingCount(window, day)) return openingAt(window, day, count);
  }
  return null;
}

/** How often a window opens on a local day. `day` counts from 1970-01-01. */
function openingCount({ cron }: Window, day: number): number {
  const first = cron.times[0];
  if (first === undefined) return 0;
  return cron.matches(day * DAY_MS + (first.hour * 60 + first.minute) * MINUTE_MS)
    ? cron.times.length
    : 0;
}

function openingAt({ cron, zone }: Window, day: number, index: number): number {
  const { hour, minute } = cron.times[index] ?? { hour: 0, minute: 0 };
  return zone.instantOf(day, hour, minute);
}

/** How many openings of that day are at or before `atMs`; instants grow with local times, so halving finds it. */
function openingsUntil(window: Window, day: number, atMs: number): number {
  let [low, high] = [0, openingCount(window, day)];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (openingAt(window, day, middle) <= atMs) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The calendar of a time zone. */
export interface ZoneCalendar {
  /** The local day of an instant, counted from 1970-01-01. */
  dayOf(instantMs: number): number;
  /** The first instant that this local time names; for one that is skipped, the first after the gap. */
  instantOf(day: number, hour: number, minute: number): number;
}

/** The calendar of an IANA zone. */
export function createZoneCalendar(zone: string): ZoneCalendar {
  const format = new Intl.DateTimeFormat('en-US-u-hc-h23', {
    timeZone: zone,
    year: 'numeric',
    month: 'numeric',
    day: 'numeric',
    hour: 'numeric',
    minute: 'numeric',
    second: 'numeric',
  });
  /** The local time of an instant, written as if it were UTC. */
  const localOf = (instantMs: number): number => {
    const parts: Record<string, number> = {};
    for (const { type, value } of format.formatToParts(instantMs)) parts[type] = Number(value);
    return Date.UTC(
      parts['year'] ?? 0,
      (parts['month'] ?? 1) - 1,
      parts['day'] ?? 1,
      parts['hour'] ?? 0,
      parts['minute'] ?? 0,
      parts['second'] ?? 0,
    );
  };
  const offsetAt = (instantMs: number): number =>
    localOf(instantMs) - Math.floor(instantMs / 1000) * 1000;
  return {
    dayOf: (instantMs) => Math.floor(localOf(instantMs) / DAY_MS),
    instantOf(day, hour, minute) {
      const local = day * DAY_MS + (hour * 60 + minute) * MINUTE_MS;
      // The offsets of a day before and after are all that can be in force here.
      const offsets = [offsetAt(local - DAY_MS), offsetAt(local + DAY_MS)];
      const exact = offsets.map((offset) => local - offset).filter((at) => localOf(at) === local);
      if (exact.length > 0) return Math.min(...exact);
      return firstAfterGap(
        localOf,
        local,
        local - Math.max(...offsets) - MINUTE_MS,
        local - Math.min(...offsets),
      );
    },
  };
}

/** The instant at which the local clock jumps past `local`, between two instants before and behind the jump. */
function firstAfterGap(
  localOf: (instantMs: number) => number,
  local: number,
  beforeMs: number,
  afterMs: number,
): number {
  let [low, high] = [Math.floor(beforeMs / 1000), Math.ceil(afterMs / 1000)];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (localOf(middle * 1000) > local) high = middle;
    else low = middle;
  }
  return high * 1000;
}
