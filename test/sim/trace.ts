/** What happened, as a hash of all of it, and the newest notable lines for people. */
import { createHash, type Hash } from 'node:crypto';

const MAX_LINES = 400;

export interface Trace {
  /** Something happened. */
  note(line: string): void;
  /** Something happened that a reader of a failing history wants to see. */
  tell(line: string): void;
  readonly events: number;
  hash(): string;
  lines(): readonly string[];
}

/** An empty trace; `nowMs` stamps its lines. */
export function createTrace(nowMs: () => number): Trace {
  const hash: Hash = createHash('sha256');
  const lines: string[] = [];
  let events = 0;
  const note = (line: string): void => {
    events += 1;
    hash.update(`${Math.round(nowMs())} ${line}\n`);
  };
  return {
    note,
    tell(line) {
      note(line);
      lines.push(`${stamp(nowMs())} ${line}`);
      if (lines.length > MAX_LINES) lines.shift();
    },
    get events() {
      return events;
    },
    hash: () => hash.copy().digest('hex').slice(0, 16),
    lines: () => lines,
  };
}

/** Virtual time for people: h:mm:ss.mmm */
export function stamp(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  const two = (value: number): string => String(value).padStart(2, '0');
  const rest = String(Math.floor(ms % 1000)).padStart(3, '0');
  return `${Math.floor(seconds / 3600)}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}.${rest}`;
}
