/** Shape checks of parsed metadata: each names the field that is wrong, and throws E_SCHEMA unless told otherwise. */
import { type ErrorCode, type JsonObject, type JsonValue, Problem } from '#/protocol/errors.ts';

/** Seconds of a day. */
const DAY_SECONDS = 86_400;

export function refuse(code: ErrorCode, where: string, expected: string): never {
  throw new Problem(code, `${where}: expected ${expected}`, { where });
}

export function objectAt(value: JsonValue | undefined, where: string): JsonObject {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return refuse('E_SCHEMA', where, 'an object');
  }
  return value as JsonObject;
}

export function arrayAt(
  value: JsonValue | undefined,
  where: string,
  maxLength: number,
): readonly JsonValue[] {
  if (!Array.isArray(value)) return refuse('E_SCHEMA', where, 'an array');
  if (value.length > maxLength) return refuse('E_SCHEMA', where, `at most ${maxLength} items`);
  return value;
}

export function stringAt(value: JsonValue | undefined, where: string, maxLength: number): string {
  if (typeof value !== 'string' || value.length > maxLength) {
    return refuse('E_SCHEMA', where, `a string of at most ${maxLength} characters`);
  }
  return value;
}

export function booleanAt(value: JsonValue | undefined, where: string): boolean {
  if (typeof value !== 'boolean') return refuse('E_SCHEMA', where, 'true or false');
  return value;
}

export function integerAt(
  value: JsonValue | undefined,
  where: string,
  min: number,
  code: ErrorCode = 'E_SCHEMA',
): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < min) {
    return refuse(code, where, `an integer of at least ${min}`);
  }
  return value;
}

/** Seconds since 1970 of `YYYY-MM-DDTHH:MM:SSZ`, which must be a real date. @throws E_EXPIRES */
export function secondsAt(value: JsonValue | undefined, where: string): number {
  const match =
    typeof value === 'string' ? /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)Z$/.exec(value) : null;
  if (match === null) return refuse('E_EXPIRES', where, 'a date as YYYY-MM-DDTHH:MM:SSZ');
  const [year, month, day, hour, minute, second] = match.slice(1).map(Number) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  const isReal =
    month >= 1 &&
    month <= 12 &&
    day >= 1 &&
    day <= daysIn(year, month) &&
    hour < 24 &&
    minute < 60 &&
    second < 60;
  if (!isReal) return refuse('E_EXPIRES', where, 'a date that exists');
  return daysSince1970(year, month, day) * DAY_SECONDS + hour * 3600 + minute * 60 + second;
}

/** `YYYY-MM-DDTHH:MM:SSZ` of seconds since 1970 (years 1970 to 9999). */
export function dateText(seconds: number): string {
  let days = Math.floor(seconds / DAY_SECONDS);
  const rest = seconds - days * DAY_SECONDS;
  let year = 1970;
  while (days >= (isLeap(year) ? 366 : 365)) {
    days -= isLeap(year) ? 366 : 365;
    year += 1;
  }
  let month = 1;
  while (days >= daysIn(year, month)) {
    days -= daysIn(year, month);
    month += 1;
  }
  const two = (value: number): string => String(value).padStart(2, '0');
  const time = [Math.floor(rest / 3600), Math.floor(rest / 60) % 60, rest % 60].map(two).join(':');
  return `${String(year).padStart(4, '0')}-${two(month)}-${two(days + 1)}T${time}Z`;
}

function isLeap(year: number): boolean {
  return (year % 4 === 0 && year % 100 !== 0) || year % 400 === 0;
}

function daysIn(year: number, month: number): number {
  if (month === 2) return isLeap(year) ? 29 : 28;
  return month === 4 || month === 6 || month === 9 || month === 11 ? 30 : 31;
}

/** Days from 1970-01-01 in the proleptic Gregorian calendar. */
function daysSince1970(year: number, month: number, day: number): number {
  const y = month <= 2 ? year - 1 : year;
  const era = Math.floor(y / 400);
  const yearOfEra = y - era * 400;
  const dayOfYear = Math.floor((153 * (month + (month > 2 ? -3 : 9)) + 2) / 5) + day - 1;
  const dayOfEra =
    yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + dayOfYear;
  return era * 146_097 + dayOfEra - 719_468;
}
