/** Where the bytes of a bundle come from: HTTP (source-http.ts) or a local file (source-file.ts). */

export interface SourceDescription {
  /** As configured, with the query and user part removed: for reports and messages. */
  readonly url: string;
  readonly kind: 'http' | 'file';
  /** False once the source was seen to send the whole file for every range: then few, long ranges are asked for. */
  readonly ranged: boolean;
}

/** One place that has the whole bundle file. */
export interface Source {
  describe(): SourceDescription;
  /**
   * Exactly `lengthBytes` from `offset`, in order, in pieces of any size. A piece may be reused after the next one was asked for.
   * Throws Problems: E_NETWORK, E_TIMEOUT, E_HTTP, E_RANGE, E_LENGTH, E_ENCODING, E_REDIRECT, E_TLS, E_IO.
   * An abort of the signal rejects with the signal's reason.
   */
  readRange(offset: number, lengthBytes: number, signal: AbortSignal): AsyncIterable<Uint8Array>;
  close(): Promise<void>;
}

/** Headers that go with a request, e.g. a signature or a bearer token. `refresh`: the last ones were answered 401. */
export type RequestHeaders = (
  request: { readonly method: 'GET'; readonly url: string },
  refresh: boolean,
) => Promise<Readonly<Record<string, string>>>;
