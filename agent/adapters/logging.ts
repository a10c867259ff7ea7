/** The agent's log: JSON lines on stdout, written at once, secrets left out. */
import pino from 'pino';

export type Logger = Pick<pino.Logger, 'debug' | 'info' | 'warn' | 'error'>;
export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error';

/** Fields that never appear, wherever they stand. */
const SECRET_FIELDS = ['token', 'authorization', 'signSeed', 'sealSeed', 'secret', 'password'];

/**
 * A logger on a file descriptor; stdout unless given. Synchronous, without a worker: a line is out when the call returns, also
 * when the next thing is a crash. A full disk or a closed pipe behind stdout loses lines, never the agent (F69).
 */
export function createLogger(level: LogLevel, fd = 1): Logger {
  const destination = pino.destination({ fd, sync: true });
  destination.on('error', () => undefined);
  return pino(
    {
      level,
      base: { component: 'agent' },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: {
        paths: SECRET_FIELDS.flatMap((field) => [field, `*.${field}`]),
        censor: '[secret]',
      },
      serializers: { err: pino.stdSerializers.errWithCause },
    },
    destination,
  );
}

/** The one line of a change of state. A poll without news is no change that anybody wants to read of every few minutes. */
export function logState(
  log: Logger,
  change: {
    readonly from: string;
    readonly to: string;
    readonly version?: string | null;
    readonly artifactId?: string | null;
    readonly rollout?: string | null;
    readonly why?: string;
  },
): void {
  const isPoll = [change.from, change.to].every(
    (state) => state === 'idle' || state === 'checking',
  );
  log[isPoll ? 'debug' : 'info']({ event: 'state', ...change }, `${change.from} -> ${change.to}`);
}

/** What went wrong and is tried again, or keeps the host from acting: neither is a change of state, and both are asked for at night. */
export function logSetback(
  log: Logger,
  change: {
    readonly state: string;
    readonly operation: string | null;
    readonly tries: number;
    readonly failure: { readonly code: string; readonly message: string } | null;
    /** Before and after: the state directory cannot be written. */
    readonly observed: readonly [boolean, boolean];
  },
): void {
  const { failure, state, operation, tries } = change;
  const [was, is] = change.observed;
  const code = failure?.code ?? null;
  if (is && !was) {
    const why = failure?.message ?? 'the state directory cannot be written';
    log.error({ event: 'only-observed', state, code }, why);
  }
  if (was && !is) log.info({ event: 'acts-again', state }, 'the state directory can be written');
  if (!is && operation !== null && failure !== null && tries > 0)
    log.warn({ event: 'try-failed', state, operation, tries, code }, failure.message);
}
