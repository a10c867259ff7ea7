/** Text for terminals: made harmless, measured in columns, cut to a width. */

/** Colour and weight of a piece of text; applied only where the terminal wants them. */
export type Tone = 'plain' | 'good' | 'bad' | 'warn' | 'dim' | 'bold';

const codes: Readonly<Record<Tone, readonly [number, number] | null>> = {
  plain: null,
  good: [32, 39],
  bad: [31, 39],
  warn: [33, 39],
  dim: [2, 22],
  bold: [1, 22],
};

/** A painter for one stream: adds escape sequences when `colour`, returns the text unchanged otherwise. */
export function painter(colour: boolean): (tone: Tone, text: string) => string {
  return (tone, text) => {
    const pair = codes[tone];
    return colour && pair !== null ? `\u001b[${pair[0]}m${text}\u001b[${pair[1]}m` : text;
  };
}

/**
 * Whether to colour: only on a terminal, never with NO_COLOR (any non-empty value, no-color.org) or TERM=dumb;
 * FORCE_COLOR forces it for recordings.
 */
export function wantsColour(
  env: Readonly<Record<string, string | undefined>>,
  isTty: boolean,
): boolean {
  if ((env['NO_COLOR'] ?? '') !== '') return false;
  if ((env['FORCE_COLOR'] ?? '') !== '' && env['FORCE_COLOR'] !== '0') return true;
  return isTty && env['TERM'] !== 'dumb';
}

/**
 * Text from hosts and servers, made safe to print: a host name must not move the cursor, clear the screen or start a
 * second line. Control and direction-changing characters become visible escapes.
 */
export function harmless(text: string): string {
  // oxlint-disable-next-line no-control-regex
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069\ufeff]/g, (char) => {
    if (char === '\n') return '\\n';
    if (char === '\t') return '\\t';
    return `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`;
  });
}

/** Characters that take two columns (East Asian Wide and Fullwidth, the usual emoji). */
const wide = new RegExp(
  '[\\u1100-\\u115f\\u2e80-\\u303e\\u3041-\\u33ff\\u3400-\\u4dbf\\u4e00-\\u9fff\\ua000-\\ua4cf\\uac00-\\ud7a3' +
    '\\uf900-\\ufaff\\ufe30-\\ufe6f\\uff00-\\uff60\\uffe0-\\uffe6\\u{1f300}-\\u{1f64f}\\u{1f900}-\\u{1f9ff}\\u{20000}-\\u{3fffd}]',
  'u',
);
const zero = /\p{Mark}|\u200b|\u200d/u;

function columnsOf(char: string): number {
  if (zero.test(char)) return 0;
  return wide.test(char) ? 2 : 1;
}

/** Columns that `text` (without escape sequences) takes on a terminal. */
export function displayWidth(text: string): number {
  let columns = 0;
  for (const char of text) columns += columnsOf(char);
  return columns;
}

/** `text` cut to `columns`, with an ellipsis where something was cut off. */
export function cut(text: string, columns: number): string {
  if (displayWidth(text) <= columns) return text;
  if (columns <= 0) return '';
  let kept = '';
  let used = 0;
  for (const char of text) {
    const width = columnsOf(char);
    if (used + width > columns - 1) break;
    kept += char;
    used += width;
  }
  return `${kept}…`;
}

/** `text` filled with blanks to `columns`, left- or right-aligned. */
export function pad(text: string, columns: number, align: 'left' | 'right'): string {
  const blanks = ' '.repeat(Math.max(0, columns - displayWidth(text)));
  return align === 'right' ? blanks + text : text + blanks;
}

/** Bytes for people: binary units, at most four digits and one decimal (`1.5 MiB`). */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit] ?? ''}`;
}

/** A duration for people: two units at most (`3h 20m`, `45s`, `120ms`). */
export function formatDuration(ms: number): string {
  if (ms < 1000) return `${Math.max(0, Math.round(ms))}ms`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds}s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return join(minutes, 'm', seconds % 60, 's');
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return join(hours, 'h', minutes % 60, 'm');
  return join(Math.floor(hours / 24), 'd', hours % 24, 'h');
}

function join(large: number, largeUnit: string, small: number, smallUnit: string): string {
  return small === 0 ? `${large}${largeUnit}` : `${large}${largeUnit} ${small}${smallUnit}`;
}

/** How long ago, for people; `never` for null. Both in milliseconds since 1970. */
export function formatAgo(atMs: number | null, nowMs: number): string {
  if (atMs === null) return 'never';
  return nowMs - atMs < 1000 ? 'now' : `${formatDuration(nowMs - atMs)} ago`;
}

/** A moment as `2026-11-25 20:14:05Z`. */
export function formatMoment(atMs: number | null): string {
  if (atMs === null) return '-';
  return `${new Date(atMs).toISOString().slice(0, 19).replace('T', ' ')}Z`;
}
