/**
 * Progress of work that is counted in bytes. The arithmetic is pure; the bar writes to one stream. Three forms: a line
 * that is redrawn on a terminal, a plain line now and then elsewhere, and JSON lines for programs.
 */
import type { Output } from '#/control/cli/context.ts';
import { displayWidth, formatBytes, formatDuration, harmless } from './text.ts';

export interface ProgressState {
  readonly startedAtMs: number;
  readonly totalBytes: number;
  readonly doneBytes: number;
  /** Smoothed; 0 until something has moved. */
  readonly bytesPerSecond: number;
  /** The time left that may be shown; null: not known (yet, or not any more). */
  readonly etaMs: number | null;
  /** The shortest time left that was ever shown: what is shown never exceeds it again. */
  readonly promisedMs: number;
  /** Where the next sample of the rate starts. */
  readonly sample: { readonly atMs: number; readonly bytes: number };
}

const SAMPLE_MIN_MS = 200;
/** Share of the old rate that is left after a second. */
const MEMORY_PER_SECOND = 0.6;

export function startProgress(totalBytes: number, nowMs: number): ProgressState {
  return {
    startedAtMs: nowMs,
    totalBytes,
    doneBytes: 0,
    bytesPerSecond: 0,
    etaMs: null,
    promisedMs: Number.POSITIVE_INFINITY,
    sample: { atMs: nowMs, bytes: 0 },
  };
}

/**
 * The state after `doneBytes` of work. Bytes never go back (a piece that is fetched again is not un-done), and neither
 * does the time left: when the work slows down it reads unknown until the old promise can be kept again.
 */
export function advance(state: ProgressState, doneBytes: number, nowMs: number): ProgressState {
  const done = Math.min(Math.max(doneBytes, state.doneBytes), state.totalBytes);
  const elapsedMs = nowMs - state.sample.atMs;
  if (elapsedMs < SAMPLE_MIN_MS) return { ...state, doneBytes: done };
  const sampled = ((done - state.sample.bytes) * 1000) / elapsedMs;
  const memory = state.bytesPerSecond === 0 ? 0 : MEMORY_PER_SECOND ** (elapsedMs / 1000);
  const rate = state.bytesPerSecond * memory + sampled * (1 - memory);
  const leftMs = rate > 0 ? ((state.totalBytes - done) * 1000) / rate : Number.POSITIVE_INFINITY;
  const isKept = Number.isFinite(leftMs) && leftMs <= state.promisedMs;
  return {
    ...state,
    doneBytes: done,
    bytesPerSecond: rate,
    etaMs: isKept ? leftMs : null,
    promisedMs: isKept ? leftMs : state.promisedMs,
    sample: { atMs: nowMs, bytes: done },
  };
}

/** One line of at most `columns`: label, bar, percent, bytes, rate, time left. The bar gives way first. */
export function progressLine(label: string, state: ProgressState, columns: number): string {
  const share = state.totalBytes === 0 ? 1 : state.doneBytes / state.totalBytes;
  const isDone = state.doneBytes === state.totalBytes;
  const spentMs = Math.max(1, state.sample.atMs - state.startedAtMs);
  const rate = isDone ? (state.totalBytes * 1000) / spentMs : state.bytesPerSecond;
  const eta = state.etaMs === null ? '--' : formatDuration(Math.ceil(state.etaMs / 1000) * 1000);
  const tail =
    `${String(Math.floor(share * 100)).padStart(3)}%  ` +
    `${formatBytes(state.doneBytes)}/${formatBytes(state.totalBytes)}  ` +
    `${formatBytes(rate)}/s  ${isDone ? `in ${formatDuration(spentMs)}` : `eta ${eta}`}`;
  const name = harmless(label);
  const room = Math.min(30, columns - displayWidth(name) - displayWidth(tail) - 4);
  if (room < 5) return `${name} ${tail}`.slice(0, columns);
  const full = Math.floor(share * room);
  return `${name} [${'#'.repeat(full)}${'.'.repeat(room - full)}] ${tail}`;
}

export interface Progress {
  /** Bytes done so far; may be called as often as one likes. */
  update(doneBytes: number): void;
  /** Ends the line. Call it in `finally`, also after a failure. */
  end(): void;
}

const REDRAW_MS = 100;
const PLAIN_LINE_MS = 5000;

/** A progress display on `out` (stderr, so that stdout stays clean); `json`: one object per line. */
export function createProgress(options: {
  readonly label: string;
  readonly totalBytes: number;
  readonly out: Output;
  readonly now: () => number;
  readonly json: boolean;
}): Progress {
  const { label, totalBytes, out, now, json } = options;
  let state = startProgress(totalBytes, now());
  // What is over in a moment needs one plain line, not two.
  let drawnAtMs = out.isTty || json ? Number.NEGATIVE_INFINITY : now();
  let isEnded = false;
  const draw = (isLast: boolean): void => {
    const everyMs = out.isTty && !json ? REDRAW_MS : PLAIN_LINE_MS;
    if (!isLast && now() - drawnAtMs < everyMs) return;
    drawnAtMs = now();
    if (json) out.write(`${JSON.stringify(progressRecord(label, state))}\n`);
    else if (out.isTty) {
      const line = progressLine(label, state, out.columns - 1);
      out.write(`\r\u001b[K${line}${isLast ? '\n' : ''}`);
    } else out.write(`${progressLine(label, state, 80)}\n`);
  };
  return {
    update(doneBytes) {
      if (isEnded) return;
      state = advance(state, doneBytes, now());
      draw(false);
    },
    end() {
      if (isEnded) return;
      isEnded = true;
      state = { ...state, sample: { ...state.sample, atMs: now() } };
      draw(true);
    },
  };
}

/** The JSON line of a progress; `etaSeconds` is null while it is unknown. */
export function progressRecord(
  label: string,
  state: ProgressState,
): Readonly<Record<string, string | number | null>> {
  return {
    event: 'progress',
    label,
    doneBytes: state.doneBytes,
    totalBytes: state.totalBytes,
    bytesPerSecond: Math.round(state.bytesPerSecond),
    etaSeconds: state.etaMs === null ? null : Math.ceil(state.etaMs / 1000),
  };
}
