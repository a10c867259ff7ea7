/** Server-sent events: the audit log as it grows, resumable by id. */
import { Readable } from 'node:stream';
import type { Store } from '#/control/store/port.ts';
import { Problem } from '#/protocol/errors.ts';
import type { AuditEntry } from '#/protocol/operator-plane.ts';

const MAX_SUBSCRIBERS = 200;
/** A subscriber that does not read is cut off at so many waiting entries; it resumes by id. */
const MAX_BACKLOG = 5000;
const PAGE = 500;
const KEEP_ALIVE_MS = 15_000;

export interface EventHub {
  publish(entries: readonly AuditEntry[]): void;
  /** Entries after `after`, then the ones to come, as the text of an event stream. */
  subscribe(store: Store, after: number, signal: AbortSignal): Readable;
  readonly size: number;
}

function frame(entry: AuditEntry): string {
  return `id: ${entry.id}\nevent: ${entry.type}\ndata: ${JSON.stringify(entry)}\n\n`;
}

export function createEventHub(): EventHub {
  const listeners = new Set<(entries: readonly AuditEntry[]) => void>();
  return {
    get size() {
      return listeners.size;
    },
    publish: (entries) => {
      for (const listener of listeners) listener(entries);
    },
    subscribe: (store, after, signal) => {
      if (listeners.size >= MAX_SUBSCRIBERS)
        throw new Problem('E_UNAVAILABLE', `${MAX_SUBSCRIBERS} event streams are open already`, {
          retryAfterSeconds: 30,
        });
      const waiting: AuditEntry[] = [];
      let wake: (() => void) | null = null;
      let isOver = false;
      const listener = (entries: readonly AuditEntry[]): void => {
        if (waiting.length + entries.length > MAX_BACKLOG) isOver = true;
        else waiting.push(...entries);
        wake?.();
      };
      listeners.add(listener);
      const sleep = (): Promise<void> => {
        const { promise, resolve } = Promise.withResolvers<void>();
        const timer = setTimeout(resolve, KEEP_ALIVE_MS);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
        signal.addEventListener('abort', wake, { once: true });
        return promise.finally(() => {
          if (wake !== null) signal.removeEventListener('abort', wake);
          wake = null;
        });
      };
      async function* lines(): AsyncGenerator<string> {
        let last = after;
        try {
          yield ': connected\n\n';
          for (;;) {
            const page = await store.auditAfter(last, PAGE, null);
            for (const entry of page) yield frame(entry);
            last = page.at(-1)?.id ?? last;
            if (page.length < PAGE) break;
          }
          while (!signal.aborted && !isOver) {
            const next = waiting.splice(0);
            for (const entry of next)
              if (entry.id > last) {
                last = entry.id;
                yield frame(entry);
              }
            if (waiting.length > 0) continue;
            await sleep();
            if (waiting.length === 0 && !signal.aborted) yield ': alive\n\n';
          }
        } finally {
          listeners.delete(listener);
        }
      }
      return Readable.from(lines());
    },
  };
}
