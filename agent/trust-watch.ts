/** What the daemon makes of the freshness of its metadata: the log, the report, what the status shows. */
import { isProblem, type Problem } from '#/protocol/errors.ts';
import type { HostControlLink } from './adapters/control-link.ts';
import type { HostIdentity } from './adapters/identity.ts';
import type { Logger } from './adapters/logging.ts';
import type { AgentTrust } from './adapters/trust-client.ts';
import type { Settings } from './config.ts';
import { type Freshness, type FreshnessOptions, watchFreshness } from './freshness.ts';
import type { Clock } from './ports.ts';
import type { Reporter } from './reporter.ts';
import type { Runner } from './runner.ts';

/** What exists only once all parts are made. */
export interface Late {
  runner: Runner | null;
  reporter: Reporter | null;
  contactMs: number | null;
  freshness: Freshness | null;
  onSignedTime: ((signedMs: number) => void) | null;
}

/** Looks at the freshness of the metadata; a change of it is logged and reported. null: there is nothing to look at. */
export function watchOf(
  trust: AgentTrust | null,
  settings: Settings,
  world: Pick<FreshnessOptions, 'clock' | 'random' | 'signal'> & { readonly log: Logger },
  late: Late,
  keys: { readonly link: HostControlLink | null; readonly identity: HostIdentity | null },
): (() => Promise<void>) | null {
  const { link, identity } = keys;
  if (trust === null || link === null || identity === null) return null;
  const { log, ...rest } = world;
  const onLook = (freshness: Freshness, problem: Problem | null): void => {
    const wasStale = late.freshness?.stale === true;
    late.freshness = freshness;
    if (problem !== null)
      log.info({ event: 'trust-not-refreshed', code: problem.code }, problem.message);
    if (freshness.stale === wasStale) return;
    if (freshness.stale)
      log.error({ event: 'trust-stale', ...freshness }, 'the signed metadata of control is stale');
    else log.info({ event: 'trust-fresh', ...freshness }, 'the signed metadata is fresh again');
    late.reporter?.tellFacts();
  };
  const intervalMs = settings.trust.refreshMs;
  const maxAgeMs = settings.trust.keyMaxAgeMs;
  return async () => {
    await Promise.all([
      watchFreshness({ trust, intervalMs, onLook, ...rest }),
      watchKeys({ link, identity, maxAgeMs, log, clock: rest.clock, signal: rest.signal }),
    ]);
  };
}

export interface KeyWatch {
  readonly link: Pick<HostControlLink, 'rotateKeys'>;
  readonly identity: Pick<HostIdentity, 'keysMadeAtMs' | 'nextKeys'>;
  readonly maxAgeMs: number;
  readonly clock: Clock;
  readonly log: Pick<Logger, 'info' | 'warn'>;
  readonly signal: AbortSignal;
}

const KEY_LOOK_MS = 10 * 60_000;

/** Replaces the keys of the host when they are old, and ends a replacement that was cut off. Looks until the signal fires. */
export async function watchKeys(options: KeyWatch): Promise<void> {
  const { link, identity, maxAgeMs, clock, log, signal } = options;
  do {
    try {
      const isOld = clock.wallMs() - identity.keysMadeAtMs > maxAgeMs;
      if (isOld || (await identity.nextKeys()) !== null) {
        await link.rotateKeys();
        log.info({ event: 'keys-rotated' }, 'the host has new keys');
      }
    } catch (error) {
      if (!isProblem(error)) throw error;
      log.warn({ event: 'keys-not-rotated', code: error.code }, error.message);
    }
  } while (await clock.sleep(KEY_LOOK_MS, signal));
}
