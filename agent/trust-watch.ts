/** What the daemon makes of the freshness of its metadata: the log, the report, what the status shows. */
import type { Problem } from '#/protocol/errors.ts';
import type { Logger } from './adapters/logging.ts';
import type { AgentTrust } from './adapters/trust-client.ts';
import type { Settings } from './config.ts';
import { type Freshness, type FreshnessOptions, watchFreshness } from './freshness.ts';
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
): (() => Promise<void>) | null {
  if (trust === null || late.reporter === null) return null;
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
  return () => watchFreshness({ trust, intervalMs, onLook, ...rest });
}
