/** Errors of sockets, TLS and undici as Problems. */
import { isProblem, Problem, type ErrorCode } from '#/protocol/errors.ts';

const TIMEOUTS = new Set([
  'UND_ERR_CONNECT_TIMEOUT',
  'UND_ERR_HEADERS_TIMEOUT',
  'UND_ERR_BODY_TIMEOUT',
  'ETIMEDOUT',
]);
const LENGTHS = new Set(['UND_ERR_RES_CONTENT_LENGTH_MISMATCH']);
const MESSAGES = new Set(['UND_ERR_HEADERS_OVERFLOW', 'UND_ERR_RESPONSE']);

/** The Problem for a failed exchange with `name`. An abort by `signal` comes back as the signal's own reason. */
export function problemOfTransport(error: unknown, name: string, signal: AbortSignal): unknown {
  if (signal.aborted) return signal.reason;
  if (isProblem(error)) return error;
  const code = codeOf(error);
  // What fails outside of this program has a code; anything else is a bug and stays one.
  if (code === null) return error;
  const text = error instanceof Error ? error.message : String(error);
  return new Problem(classify(code), `${name}: ${text.slice(0, 200)}`, { code }, { cause: error });
}

function classify(code: string): ErrorCode {
  if (TIMEOUTS.has(code)) return 'E_TIMEOUT';
  if (LENGTHS.has(code)) return 'E_LENGTH';
  if (MESSAGES.has(code) || code.startsWith('HPE_')) return 'E_HTTP';
  if (/^(CERT_|ERR_TLS_|ERR_SSL_|UNABLE_TO_|DEPTH_ZERO|SELF_SIGNED|EPROTO)/.test(code)) {
    return 'E_TLS';
  }
  return 'E_NETWORK';
}

function codeOf(error: unknown): string | null {
  for (let at = error, depth = 0; at instanceof Error && depth < 5; at = at.cause, depth += 1) {
    if ('code' in at && typeof at.code === 'string') return at.code;
    // undici's parser names its reason only for some breaches of HTTP.
    if (at.name === 'HTTPParserError') return 'HPE_UNNAMED';
  }
  return null;
}
