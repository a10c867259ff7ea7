/**
 * A bundle on an HTTP server, read by Range over undici. Trusts nothing about the answer: status, Content-Range, ETag and
 * length must be exactly what was asked for (F3-F6, attacks D). Integrity never depends on what is checked here; these checks
 * keep wrong answers cheap and name their reason.
 */
import type { Dispatcher, Pool } from 'undici';
import { Problem } from '#/protocol/errors.ts';
import type { InstallSettings } from './settings.ts';
import type { RequestHeaders, Source } from './source.ts';
import { problemOfTransport } from './transport-problem.ts';

const MAX_REDIRECTS = 3;
const MAX_HEADER_BYTES = 16 * 1024;

interface ResponseHeaders {
  readonly [name: string]: string | string[] | undefined;
}

/** What was learnt from the first good answer; a later answer that differs means that the file was replaced. */
interface Validators {
  readonly etag: string | null;
  readonly totalBytes: number;
}

interface Answer {
  readonly body: AsyncIterable<Uint8Array> & { destroy(): unknown };
  /** Bytes to drop before the range begins: the server ignored Range and sends the whole file. */
  readonly skipBytes: number;
}

export interface HttpSourceOptions {
  readonly url: string;
  readonly settings: InstallSettings;
  readonly requestHeaders: RequestHeaders | null;
  /** Time that passes, in ms: for the minimum throughput. */
  readonly nowMs: () => number;
}

/** Opens no connection yet; undici is loaded at the first read. */
export function createHttpSource(options: HttpSourceOptions): Source {
  return new HttpSource(options);
}

class HttpSource implements Source {
  readonly #options: HttpSourceOptions;
  readonly #url: URL;
  #pool: Promise<Pool> | null = null;
  #validators: Validators | null = null;
  #ranged = true;

  constructor(options: HttpSourceOptions) {
    this.#options = options;
    this.#url = new URL(options.url);
  }

  describe(): { url: string; kind: 'http'; ranged: boolean } {
    return {
      url: `${this.#url.origin}${this.#url.pathname}`,
      kind: 'http',
      ranged: this.#ranged,
    };
  }

  async *readRange(
    offset: number,
    lengthBytes: number,
    signal: AbortSignal,
  ): AsyncIterable<Uint8Array> {
    if (lengthBytes === 0) return;
    const answer = await this.#open(offset, lengthBytes, signal);
    try {
      yield* this.#body(answer, lengthBytes, signal);
    } finally {
      answer.body.destroy();
    }
  }

  async close(): Promise<void> {
    const pool = await this.#pool?.catch(() => null);
    this.#pool = null;
    await pool?.destroy();
  }

  async #open(offset: number, lengthBytes: number, signal: AbortSignal): Promise<Answer> {
    let url = this.#url;
    let refreshed = false;
    for (let redirects = 0; redirects <= MAX_REDIRECTS; ) {
      const response = await this.#request(url, offset, lengthBytes, refreshed, signal);
      const headers = response.headers;
      if (response.statusCode === 401 && this.#options.requestHeaders !== null && !refreshed) {
        discard(response);
        refreshed = true;
        continue;
      }
      if (isRedirect(response.statusCode)) {
        discard(response);
        url = this.#redirect(url, one(headers, 'location'));
        redirects += 1;
        continue;
      }
      try {
        return this.#check(response, offset, lengthBytes);
      } catch (error) {
        discard(response);
        throw error;
      }
    }
    throw new Problem('E_REDIRECT', `more than ${MAX_REDIRECTS} redirects from ${this.#name()}`);
  }

  async #request(
    url: URL,
    offset: number,
    lengthBytes: number,
    refresh: boolean,
    signal: AbortSignal,
  ): Promise<Dispatcher.ResponseData> {
    const extra = await this.#options.requestHeaders?.({ method: 'GET', url: url.href }, refresh);
    const headers: Record<string, string> = {
      ...extra,
      'accept-encoding': 'identity',
      range: `bytes=${offset}-${offset + lengthBytes - 1}`,
    };
    if (this.#validators?.etag != null && this.#ranged) headers['if-range'] = this.#validators.etag;
    try {
      this.#pool ??= this.#connect();
      const pool = await this.#pool;
      return await pool.request({
        method: 'GET',
        path: `${url.pathname}${url.search}`,
        headers,
        signal,
      });
    } catch (error) {
      throw problemOfTransport(error, this.#name(), signal);
    }
  }

  async #connect(): Promise<Pool> {
    const { Pool } = await import('./http-client.ts');
    const { settings } = this.#options;
    return new Pool(this.#url.origin, {
      connections: settings.connections,
      pipelining: 1,
      headersTimeout: settings.headerTimeoutMs,
      bodyTimeout: settings.idleTimeoutMs,
      maxHeaderSize: MAX_HEADER_BYTES,
      connect: {
        timeout: settings.connectTimeoutMs,
        minVersion: 'TLSv1.3',
        ...(settings.caPem === null ? {} : { ca: settings.caPem }),
      },
    });
  }

  #redirect(from: URL, location: string | null): URL {
    const target = location === null ? null : URL.parse(location, from);
    if (target === null || target.origin !== from.origin) {
      throw new Problem(
        'E_REDIRECT',
        `${this.#name()} redirects to ${target?.origin ?? 'nowhere'}, which is another origin`,
      );
    }
    return target;
  }

  #check(response: Dispatcher.ResponseData, offset: number, lengthBytes: number): Answer {
    const { statusCode: status, headers } = response;
    if (status !== 200 && status !== 206) throw this.#statusProblem(status, headers);
    const encoding = one(headers, 'content-encoding') ?? 'identity';
    if (encoding.toLowerCase() !== 'identity') {
      throw new Problem('E_ENCODING', `${this.#name()} sends content-encoding ${encoding}`);
    }
    return status === 206
      ? this.#checkPartial(response, offset, lengthBytes)
      : this.#checkWhole(response, offset, lengthBytes);
  }

  #checkPartial(response: Dispatcher.ResponseData, offset: number, lengthBytes: number): Answer {
    const { headers } = response;
    const text = one(headers, 'content-range') ?? '';
    const match = /^bytes (\d{1,16})-(\d{1,16})\/(\d{1,16})$/.exec(text);
    const last = offset + lengthBytes - 1;
    if (match === null || Number(match[1]) !== offset || Number(match[2]) !== last) {
      throw new Problem(
        'E_RANGE',
        `${this.#name()} answers content-range ${JSON.stringify(text.slice(0, 100))} to bytes ${offset}-${last}`,
      );
    }
    const announced = one(headers, 'content-length');
    if (announced !== null && announced !== String(lengthBytes)) {
      throw new Problem(
        'E_LENGTH',
        `${this.#name()} announces ${announced} bytes for a range of ${lengthBytes}`,
      );
    }
    this.#remember({ etag: strongEtag(headers), totalBytes: Number(match[3]) });
    return { body: response.body, skipBytes: 0 };
  }

  /** The server sends the whole file (F3): fine when it is no surprise, the range is cut out of it. */
  #checkWhole(response: Dispatcher.ResponseData, offset: number, lengthBytes: number): Answer {
    const { headers } = response;
    if (this.#ranged && this.#validators !== null) {
      this.#validators = null;
      throw new Problem('E_LENGTH', `${this.#name()} was replaced while it was read`);
    }
    const announced = Number(one(headers, 'content-length') ?? Number.NaN);
    if (!Number.isSafeInteger(announced) || announced < offset + lengthBytes) {
      throw new Problem(
        'E_RANGE',
        `${this.#name()} ignores Range and sends ${announced} bytes, ${offset + lengthBytes} are needed`,
      );
    }
    this.#ranged = false;
    this.#remember({ etag: strongEtag(headers), totalBytes: announced });
    return { body: response.body, skipBytes: offset };
  }

  #remember(seen: Validators): void {
    const known = this.#validators;
    if (known === null) {
      this.#validators = seen;
      return;
    }
    if (known.etag !== seen.etag || known.totalBytes !== seen.totalBytes) {
      // The next request starts from what the server has now; the digests decide whether that is any good.
      this.#validators = null;
      throw new Problem(
        'E_LENGTH',
        `${this.#name()} was replaced while it was read: etag ${known.etag} of ${known.totalBytes} bytes became ${seen.etag} of ${seen.totalBytes}`,
      );
    }
  }

  async *#body(
    answer: Answer,
    lengthBytes: number,
    signal: AbortSignal,
  ): AsyncIterable<Uint8Array> {
    let skip = answer.skipBytes;
    let left = lengthBytes;
    const watch = new Throughput(this.#options.settings, this.#options.nowMs);
    const pieces = answer.body[Symbol.asyncIterator]();
    while (left > 0 || skip === 0) {
      watch.waiting();
      const next = await pieces.next().catch((error: unknown) => {
        throw problemOfTransport(error, this.#name(), signal);
      });
      if (next.done === true) break;
      watch.received(next.value.byteLength, this.#name());
      if (skip >= next.value.byteLength) {
        skip -= next.value.byteLength;
        continue;
      }
      const piece = next.value.subarray(skip);
      skip = 0;
      if (piece.byteLength > left) {
        if (answer.skipBytes === 0 && this.#ranged) {
          throw new Problem(
            'E_TOOBIG',
            `${this.#name()} sends more than the ${lengthBytes} bytes asked for`,
          );
        }
        if (left > 0) yield piece.subarray(0, left);
        return;
      }
      left -= piece.byteLength;
      yield piece;
      if (left === 0 && !this.#ranged) return;
    }
    if (left > 0) {
      throw new Problem('E_LENGTH', `${this.#name()} ended ${left} bytes before the range did`);
    }
  }

  #statusProblem(status: number, headers: ResponseHeaders): Problem {
    if (status === 416) {
      return new Problem('E_RANGE', `${this.#name()} has no such range`, { status });
    }
    const retryAfterMs = parseRetryAfter(one(headers, 'retry-after'));
    return new Problem('E_HTTP', `${this.#name()} answers ${status}`, {
      status,
      ...(retryAfterMs === null ? {} : { retryAfterMs }),
    });
  }

  #name(): string {
    return this.describe().url;
  }
}

/** Gives up a source that drips: fewer than `minBytesPerSecond` over a window of time spent waiting for it. */
class Throughput {
  readonly #settings: InstallSettings;
  readonly #nowMs: () => number;
  #since = 0;
  #waitedMs = 0;
  #bytes = 0;

  constructor(settings: InstallSettings, nowMs: () => number) {
    this.#settings = settings;
    this.#nowMs = nowMs;
  }

  waiting(): void {
    this.#since = this.#nowMs();
  }

  received(bytes: number, name: string): void {
    this.#waitedMs += this.#nowMs() - this.#since;
    this.#bytes += bytes;
    const { throughputWindowMs, minBytesPerSecond } = this.#settings;
    if (this.#waitedMs < throughputWindowMs) return;
    const rate = Math.floor((this.#bytes * 1000) / this.#waitedMs);
    if (rate < minBytesPerSecond) {
      throw new Problem(
        'E_TIMEOUT',
        `${name} sends ${rate} bytes per second, at least ${minBytesPerSecond} are needed`,
      );
    }
    this.#waitedMs = 0;
    this.#bytes = 0;
  }
}

/** Seconds of a Retry-After header as ms; dates are not honoured, because the clock of the host may be wrong. */
export function parseRetryAfter(text: string | null): number | null {
  return text !== null && /^\d{1,6}$/.test(text) ? Number(text) * 1000 : null;
}

function strongEtag(headers: ResponseHeaders): string | null {
  const etag = one(headers, 'etag');
  return etag !== null && /^"[\x21\x23-\x7e]{0,256}"$/.test(etag) ? etag : null;
}

function isRedirect(status: number): boolean {
  return status === 301 || status === 302 || status === 303 || status === 307 || status === 308;
}

function one(headers: ResponseHeaders, name: string): string | null {
  const value = headers[name];
  return Array.isArray(value) ? (value[0] ?? null) : (value ?? null);
}

/** Ends an answer whose body is not wanted, however long it is. */
function discard(response: Dispatcher.ResponseData): void {
  response.body.on('error', () => undefined);
  response.body.destroy();
}
