/** Reading what operators type: durations, moments, numbers, lists. Every refusal is E_USAGE and shows what is accepted. */
import { Problem } from '#/protocol/errors.ts';
import type { Labels } from '#/protocol/selector.ts';

const units: Readonly<Record<string, number>> = {
  s: 1,
  m: 60,
  h: 3600,
  d: 86_400,
  w: 7 * 86_400,
};

/** `90s`, `15m`, `24h`, `7d`, `2w`: seconds. */
export function parseSeconds(text: string): number {
  const match = /^(\d{1,9})([smhdw])$/.exec(text);
  const unit = units[match?.[2] ?? ''];
  if (match?.[1] === undefined || unit === undefined) {
    throw new Problem('E_USAGE', `'${text}' is not a duration: write 90s, 15m, 24h, 7d or 2w`);
  }
  return Number(match[1]) * unit;
}

/** A duration from now, or a moment as `2026-12-01` or `2026-12-01T08:00:00Z`: milliseconds since 1970. */
export function parseMoment(text: string, nowMs: number): number {
  if (/^\d{1,9}[smhdw]$/.test(text)) return nowMs + parseSeconds(text) * 1000;
  const isMoment = /^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d)?Z)?$/.test(text);
  const at = isMoment ? Date.parse(text) : Number.NaN;
  if (Number.isNaN(at)) {
    throw new Problem(
      'E_USAGE',
      `'${text}' is not a moment: write a duration such as 24h or 7d, 2026-12-01, or 2026-12-01T08:00:00Z`,
    );
  }
  if (at <= nowMs) throw new Problem('E_USAGE', `${text} is in the past`);
  return at;
}

/** A whole number of at least `min`. */
export function parseWhole(min: number): (text: string) => number {
  return (text) => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
    if (Number.isNaN(value) || value < min) {
      throw new Problem('E_USAGE', `'${text}' is not a whole number of at least ${min}`);
    }
    return value;
  };
}

/** `5`, `0.5`, `5%`. */
export function parsePercent(text: string): number {
  const value = /^\d{1,3}(\.\d{1,6})?%?$/.test(text) ? Number.parseFloat(text) : Number.NaN;
  if (Number.isNaN(value) || value > 100) {
    throw new Problem('E_USAGE', `'${text}' is not a percentage from 0 to 100`);
  }
  return value;
}

/** `10,50,100`: the growing shares of the later stages. */
export function parsePercents(text: string): number[] {
  return text.split(',').map((part) => parsePercent(part.trim()));
}

/** `role=web,zone=a`. */
export function parseLabels(text: string): Labels {
  const labels: Record<string, string> = {};
  for (const part of text.split(',')) {
    const at = part.indexOf('=');
    if (at <= 0) throw new Problem('E_USAGE', `'${part}' is not a label: write key=value`);
    labels[part.slice(0, at).trim()] = part.slice(at + 1).trim();
  }
  return labels;
}
