/** A steady stream of small requests to one service, which measures how long it was unanswered. */
import { createConnection } from 'node:net';

export interface Outage {
  readonly startedAtMs: number;
  readonly durationMs: number;
}

const REQUEST_TIMEOUT_MS = 1000;
const MAX_OUTAGES = 1000;

/** One GET with its own connection, so that a restart of the server is seen at once. Resolves to the status, or null. */
export async function get(
  port: number,
  path: string,
): Promise<{ status: number; body: string } | null> {
  return new Promise((resolve) => {
    const socket = createConnection({ host: '127.0.0.1', port });
    const parts: Buffer[] = [];
    const end = (): void => {
      const text = Buffer.concat(parts).toString('latin1');
      const status = /^HTTP\/1\.1 (\d{3})/.exec(text)?.[1];
      socket.destroy();
      resolve(
        status === undefined
          ? null
          : { status: Number(status), body: text.slice(text.indexOf('\r\n\r\n') + 4) },
      );
    };
    socket.setTimeout(REQUEST_TIMEOUT_MS, () => socket.destroy());
    socket.once('connect', () =>
      socket.write(`GET ${path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n`),
    );
    socket.on('data', (part) => parts.push(Buffer.from(part)));
    socket.once('error', () => socket.destroy());
    socket.once('close', end);
  });
}

/** Asks every `intervalMs` until stopped; an outage lasts from the first unanswered request to the next answered one. */
export class Load {
  readonly #port: number;
  readonly #path: string;
  readonly #intervalMs: number;
  #timer: NodeJS.Timeout | null = null;
  #failingSinceMs: number | null = null;
  #answered = 0;
  #failed = 0;
  readonly #outages: Outage[] = [];

  constructor(port: number, path: string, intervalMs: number) {
    this.#port = port;
    this.#path = path;
    this.#intervalMs = intervalMs;
  }

  start(): void {
    this.#timer = setTimeout(() => void this.#tick(), this.#intervalMs);
  }

  stop(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  /** Answers, failures and outages since the last call. */
  take(): { answered: number; failed: number; outages: readonly Outage[] } {
    const taken = {
      answered: this.#answered,
      failed: this.#failed,
      outages: this.#outages.splice(0),
    };
    this.#answered = 0;
    this.#failed = 0;
    return taken;
  }

  async #tick(): Promise<void> {
    const askedAtMs = performance.now();
    const answer = await get(this.#port, this.#path);
    if (answer !== null && answer.status === 200) {
      this.#answered += 1;
      if (this.#failingSinceMs !== null && this.#outages.length < MAX_OUTAGES) {
        this.#outages.push({
          startedAtMs: this.#failingSinceMs,
          durationMs: performance.now() - this.#failingSinceMs,
        });
      }
      this.#failingSinceMs = null;
    } else {
      this.#failed += 1;
      this.#failingSinceMs ??= askedAtMs;
    }
    if (this.#timer !== null) this.#timer = setTimeout(() => void this.#tick(), this.#intervalMs);
  }
}
