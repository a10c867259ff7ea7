/**
 * The line to control: polls and reports with a bearer, which is traded for a signature by the host key once an hour. Several
 * addresses of control are tried in turn. Losing the line never endangers the host (F46, F59, F68).
 */
import { readFileSync } from 'node:fs';
import * as v from 'valibot';
import {
  type AgentState,
  clockDetails,
  formatAgentState,
  REPORT_WANTED_HEADER,
  type TokenAnswer,
} from '#/protocol/agent-plane.ts';
import { routes } from '#/protocol/api.ts';
import { createClient, type Client, type WireAnswer, type WireRequest } from '#/protocol/client.ts';
import type { Envelope } from '#/protocol/documents.ts';
import { isProblem, Problem } from '#/protocol/errors.ts';
import type { Settings } from '#/agent/config.ts';
import type { Clock, ControlLink, Random } from '#/agent/ports.ts';
import type { HostIdentity } from './identity.ts';
import { createTransport, type Transport } from './transport.ts';

export interface ControlLinkOptions {
  readonly settings: Pick<Settings, 'control' | 'poll'>;
  readonly identity: HostIdentity;
  readonly clock: Clock;
  readonly random: Random;
  readonly agentVersion: string;
  /** What a poll says of the host beside the state of its machine. */
  readonly standing: () => Omit<AgentState, 'state' | 'boot'>;
  /** After each answer of control to a poll or report, with its clock where it gave one. */
  readonly onContact?: () => void;
  /** Control asked for a whole report in its answer to a poll. */
  readonly onReportWanted?: () => void;
  /** Time that control signed as the answer to our own question: what may raise the floor of time. */
  readonly onSignedTime?: (signedMs: number) => void;
  /** For tests. */
  readonly transport?: Transport;
}

/** The port, and the end of it. */
export interface HostControlLink extends ControlLink {
  /** Headers for a download from control itself; other sources get none of them. */
  sourceHeaders(url: string): Promise<Readonly<Record<string, string>>>;
  /**
   * Trades the keys of the host for new ones. One that was cut off goes on, also when control took the new key and its
   * answer was lost. @throws what an exchange throws; then the old keys stay in use
   */
  rotateKeys(): Promise<void>;
  /** Where control was reached last, or is tried next. */
  controlUrl(): string;
  close(): Promise<void>;
}

/** Answers of this plane are small; the artifact is not fetched here. */
const ANSWER_MAX_BYTES = 1024 * 1024;
/** A bearer that ends sooner is replaced before it is used. */
const BEARER_MARGIN_MS = 60_000;
const SECOND_MS = 1000;

interface Bearer {
  readonly token: string;
  readonly untilMs: number;
}

/** The addresses of control for this host: those of the settings, else those of the enrolment. E_CONFIG for none. */
export function controlUrls(
  settings: Settings['control'],
  identity: HostIdentity,
): readonly string[] {
  const urls = settings.urls.length > 0 ? settings.urls : identity.controlUrls;
  if (urls.length === 0)
    throw new Problem('E_CONFIG', 'control.urls: no address of control is known');
  return urls;
}

/** Requests that the key of the host signs; all others carry the bearer that it was traded for. */
const signedPaths: ReadonlySet<string> = new Set([routes.token.path, routes.rotate.path]);

/** A line at rest; the first call connects. */
export function createControlLink(options: ControlLinkOptions): HostControlLink {
  return new Link(options);
}

class Link implements HostControlLink {
  readonly #options: ControlLinkOptions;
  readonly #transport: Transport;
  readonly #urls: readonly string[];
  readonly #client: Client;
  #at = 0;
  #bearer: Bearer | null = null;
  #rotation: Promise<void> | null = null;

  constructor(options: ControlLinkOptions) {
    const { control } = options.settings;
    this.#options = options;
    this.#urls = controlUrls(control, options.identity);
    this.#transport =
      options.transport ??
      createTransport({
        caPem: authoritiesOf(control, options.identity.caPem),
        connectTimeoutMs: control.connectTimeoutMs,
        headersTimeoutMs: control.headersTimeoutMs,
        bodyTimeoutMs: control.bodyTimeoutMs,
        userAgent: `switchback-agent/${options.agentVersion}`,
      });
    this.#client = createClient((request) => this.#send(request));
  }

  controlUrl(): string {
    return this.#urls[this.#at] ?? '';
  }

  async poll(etag: string | null, agentState: string): ReturnType<ControlLink['poll']> {
    const answer = await this.#withBearer((authorization) =>
      this.#client.exchange('desired', {
        headers: {
          authorization,
          'agent-state': this.#agentState(agentState),
          ...(etag === null ? {} : { 'if-none-match': etag }),
        },
      }),
    );
    this.#options.onContact?.();
    if (answer.headers[REPORT_WANTED_HEADER] !== undefined) this.#options.onReportWanted?.();
    const pollAfterMs = this.#pollAfterMs(answer.headers['poll-after']);
    if (answer.ok === null) return { kind: 'unchanged', pollAfterMs };
    const tag = answer.headers['etag'];
    if (tag === undefined || tag.length > 128)
      throw new Problem('E_HTTP', 'control answered a poll without a usable ETag');
    return { kind: 'assignment', assignment: answer.ok, etag: tag, pollAfterMs };
  }

  async report(report: Envelope): ReturnType<ControlLink['report']> {
    const answer = await this.#withBearer((authorization) =>
      this.#client.call('report', { headers: { authorization }, body: report }),
    );
    this.#options.onContact?.();
    return { ackSeq: answer.ackSeq, wantFacts: answer.wantFacts };
  }

  /** One at a time: by age and by order may fall together. */
  rotateKeys(): Promise<void> {
    this.#rotation ??= this.#rotate().finally(() => (this.#rotation = null));
    return this.#rotation;
  }

  async #rotate(): Promise<void> {
    const { identity, clock } = this.#options;
    const rotation = await identity.beginRotation(clock.wallMs());
    const { host } = identity;
    let statement: Envelope;
    try {
      const body = { host, change: rotation.change };
      ({ statement } = await this.#client.call('rotate', { body }));
    } catch (error) {
      if (!isProblem(error, 'E_UNAUTHENTICATED')) throw error;
      // The old key is not known any more: the new one is, if the answer to an earlier try was lost.
      const asNew = createClient((request) => this.#send(request, rotation.signRequest));
      ({ statement } = await asNew.call('token', { body: { host, bootId: clock.bootId() } }));
    }
    await rotation.finish(statement);
    this.#bearer = null;
  }

  async sourceHeaders(url: string): Promise<Readonly<Record<string, string>>> {
    const isControl =
      URL.canParse(url) && this.#urls.some((own) => new URL(own).origin === new URL(url).origin);
    return isControl ? { authorization: await this.#authorization() } : {};
  }

  async close(): Promise<void> {
    await this.#transport.close();
  }

  /** The header Agent-State: ready-made, or from the name of a state. */
  #agentState(text: string): string {
    if (text.includes('=')) return text;
    const { clock, standing } = this.#options;
    return formatAgentState({ ...standing(), state: text, boot: clock.bootId() });
  }

  /** Poll-After is obeyed inside the host's own bounds; without it the interval of the settings, spread by a tenth. */
  #pollAfterMs(header: string | undefined): number {
    const { intervalMs, minIntervalMs, maxIntervalMs } = this.#options.settings.poll;
    const asked = /^\d{1,7}(?:\.\d{1,3})?$/.test(header ?? '')
      ? Number(header) * SECOND_MS
      : intervalMs * (0.9 + 0.2 * this.#options.random.unit());
    return Math.round(Math.min(Math.max(asked, minIntervalMs), maxIntervalMs));
  }

  async #authorization(): Promise<string> {
    const now = this.#options.clock.monotonicMs();
    if (this.#bearer === null || this.#bearer.untilMs - BEARER_MARGIN_MS <= now)
      this.#bearer = await this.#newBearer(now);
    return `Bearer ${this.#bearer.token}`;
  }

  async #newBearer(nowMs: number): Promise<Bearer> {
    const { identity } = this.#options;
    const answer = await this.#askForBearer();
    if (answer.statement.payload !== identity.statement.payload)
      await identity.keepStatement(answer.statement);
    const lifeMs = answer.expiresInSeconds * SECOND_MS;
    // A bearer of a very short life would never be used with the margin alone.
    return { token: answer.token, untilMs: nowMs + Math.max(lifeMs, 2 * BEARER_MARGIN_MS) };
  }

  /** Asks once more, with what control answered, when only our clock was wrong (H04). */
  async #askForBearer(): Promise<TokenAnswer> {
    const { identity, clock, random } = this.#options;
    const nonce = random.hex(16);
    const body = { host: identity.host, bootId: clock.bootId(), nonce };
    try {
      return this.#observed(await this.#client.call('token', { body }), nonce);
    } catch (error) {
      if (!isProblem(error, 'E_UNAUTHENTICATED')) throw error;
      const clocks = v.safeParse(clockDetails, error.details);
      if (!clocks.success) throw error;
      this.#observed(clocks.output, nonce);
      const again = { ...body, challenge: clocks.output.challenge };
      return this.#observed(await this.#client.call('token', { body: again }), nonce);
    }
  }

  /** An answer to another host, or an old one, is refused as a whole (E_NONCE). */
  #observed<T extends { readonly time?: Envelope | undefined }>(answer: T, nonce: string): T {
    const { identity, onSignedTime } = this.#options;
    if (answer.time !== undefined) onSignedTime?.(identity.openTime(answer.time, nonce));
    return answer;
  }

  /** Runs an exchange; a bearer that is refused is replaced once (F7, F67). */
  #withBearer<T>(run: (authorization: string) => Promise<T>): Promise<T> {
    return withRetryAfter(this.#tryTwice(run));
  }

  async #tryTwice<T>(run: (authorization: string) => Promise<T>): Promise<T> {
    const authorization = await this.#authorization();
    try {
      return await run(authorization);
    } catch (error) {
      if (!isProblem(error, 'E_UNAUTHENTICATED')) throw error;
      this.#bearer = null;
      return await run(await this.#authorization());
    }
  }

  /** Sends to one address of control after another, until one answers anything but "not now". */
  async #send(
    request: WireRequest,
    signRequest = this.#options.identity.signRequest,
  ): Promise<WireAnswer> {
    let last: unknown = null;
    for (let tries = 0; tries < this.#urls.length; tries += 1) {
      try {
        const answer = await this.#sendTo(this.controlUrl(), request, signRequest);
        if (answer.status < 500 || tries === this.#urls.length - 1) return answer;
        last = null;
      } catch (error) {
        if (!isProblem(error)) throw error;
        last = error;
      }
      this.#at = (this.#at + 1) % this.#urls.length;
    }
    throw last;
  }

  async #sendTo(
    base: string,
    request: WireRequest,
    signRequest: HostIdentity['signRequest'],
  ): Promise<WireAnswer> {
    const url = `${base}${request.path}`;
    if (request.method !== 'GET' && request.method !== 'POST')
      throw new Error(`the agent never sends ${request.method}`);
    const body = request.body instanceof Uint8Array ? request.body : null;
    const signed = signedPaths.has(request.path)
      ? signRequest(
          { method: request.method, url, headers: request.headers },
          body ?? new Uint8Array(),
          Math.floor(this.#options.clock.wallMs() / SECOND_MS),
        )
      : {};
    const answer = await this.#transport.exchange({
      method: request.method,
      url,
      headers: { ...request.headers, ...signed },
      body,
      maxBytes: ANSWER_MAX_BYTES,
    });
    return { ...answer, body: once(answer.body) };
  }
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield await Promise.resolve(bytes);
}

const retryAfter = v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(7 * 86_400));

/** The same problem with Retry-After as `retryAfterMs`, which is what the machine waits for. */
async function withRetryAfter<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (!isProblem(error)) throw error;
    const parsed = v.safeParse(retryAfter, error.details['retryAfterSeconds']);
    if (!parsed.success) throw error;
    const details = { ...error.details, retryAfterMs: parsed.output * SECOND_MS };
    throw new Problem(error.code, error.message, details, { cause: error.cause });
  }
}

/** PEM of the authorities for control: the file of the settings, else what the invitation brought. E_CONFIG: not readable. */
export function authoritiesOf(
  settings: Settings['control'],
  fallback: string | null,
): string | null {
  if (settings.caFile === undefined) return fallback;
  try {
    return readFileSync(settings.caFile, 'utf8');
  } catch (cause) {
    throw new Problem('E_CONFIG', `control.ca_file: read ${settings.caFile}`, {}, { cause });
  }
}

/** The wait before the first poll after a boot: spread by host and boot, so that hosts that came back together do not ask together (F59). */
export function firstPollDelayMs(hashHex: string, settings: Settings['poll']): number {
  const spreadMs = Math.min(settings.firstSpreadMs, settings.intervalMs);
  const share = Number.parseInt(hashHex.slice(0, 13), 16) / 2 ** 52;
  return Math.floor(spreadMs * share);
}
