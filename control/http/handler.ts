/** What a handler of a route gets and gives. One handler per route, checked by the compiler. */
import type { Readable } from 'node:stream';
import type { Logger } from 'pino';
import type { ApiToken } from '#/control/store/port.ts';
import type { Host } from '#/control/core/model.ts';
import type { Desk } from '#/control/engine/desk.ts';
import type { SignedLog } from '#/control/engine/log.ts';
import type {
  Ok,
  ParsedBody,
  ParsedParams,
  ParsedQuery,
  RouteName,
  Routes,
} from '#/protocol/api.ts';
import type { Bearers, Nonces } from './credentials.ts';
import type { EventHub } from './events.ts';
import type { Gauge, RateLimit } from './gauge.ts';
import type { Strays } from './strays.ts';

export interface Services {
  readonly desk: Desk;
  readonly log: Logger;
  readonly signedLog: SignedLog;
  readonly gauge: Gauge;
  readonly bearers: Bearers;
  readonly nonces: Nonces;
  readonly strays: Strays;
  readonly hub: EventHub;
  readonly hostLimit: RateLimit;
  readonly enrolLimit: RateLimit;
  /** How often what a token may not do is written into the audit log. */
  readonly refusalLimit: RateLimit;
  readonly dataDir: string;
  /** Address under which hosts and operators reach control, when it is not the Host header's. */
  readonly publicUrl: string | null;
  readonly version: string;
  readonly verifyBundle: VerifyBundle;
  readonly verifyPatch: VerifyPatch;
  /** A number in [0, 1). */
  readonly unit: () => number;
  /** Aborts what is open when control stops. */
  readonly stopping: AbortSignal;
}

/** Verifies a whole bundle file and gives what is admitted. */
export type VerifyBundle = (path: string) => Promise<{
  readonly artifactId: string;
  readonly manifestBytes: Uint8Array;
  readonly envelope: import('#/protocol/documents.ts').Envelope;
  readonly fileBytes: number;
  /** Statements in it; that they speak of it is checked, not who made them. */
  readonly attestations: readonly import('#/protocol/documents.ts').Envelope[];
}>;

/** Checks a whole patch file against both bundles; its own header says which they are. */
export interface VerifyPatch {
  readonly header: (path: string) => Promise<{ readonly from: string; readonly to: string }>;
  readonly verify: (
    path: string,
    fromBundle: string,
    toBundle: string,
  ) => Promise<{ readonly fileBytes: number }>;
}

export interface Input<N extends RouteName> {
  readonly services: Services;
  readonly request: Request;
  readonly params: ParsedParams<N>;
  readonly query: ParsedQuery<N>;
  readonly body: ParsedBody<N>;
  /** The body as received, for routes whose signature covers it. */
  readonly bytes: Uint8Array;
  /** Set on the operator plane. */
  readonly operator: ApiToken | null;
  /** Name for the audit log. */
  readonly actor: string;
  /** Set where the permission is `host`. */
  readonly host: Host | null;
  readonly remote: string;
  readonly nowMs: number;
}

/** JSON answers are given as values; raw ones as text, bytes or a stream. */
export type Given<N extends RouteName> = Routes[N]['ok'] extends 'bytes' | 'events'
  ? Uint8Array | Readable | Blob
  : Ok<N>;

export interface Answer<N extends RouteName> {
  readonly ok: Given<N>;
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
}

export type Handler<N extends RouteName> = (input: Input<N>) => Promise<Answer<N>> | Answer<N>;
export type Handlers<N extends RouteName = RouteName> = { readonly [K in N]: Handler<K> };
