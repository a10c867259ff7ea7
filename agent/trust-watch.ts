/** What the daemon makes of the freshness of its metadata: the log, the report, what the status shows. */
import { type ErrorCode, errors, isProblem, type Problem } from '#/protocol/errors.ts';
import type { HostControlLink } from './adapters/control-link.ts';
import type { TrustFacts } from './adapters/host-facts.ts';
import type { HostIdentity } from './adapters/identity.ts';
import type { Logger } from './adapters/logging.ts';
import type { AgentTrust, TrustNotice } from './adapters/trust-client.ts';
import type { Settings } from './config.ts';
import { type Freshness, type FreshnessOptions, watchFreshness } from './freshness.ts';
import type { Clock, ControlLink, Trust } from './ports.ts';
import type { Reporter } from './reporter.ts';
import type { Runner } from './runner.ts';

/** What exists only once all parts are made. */
export interface Late {
  runner: Runner | null;
  reporter: Reporter | null;
  contactMs: number | null;
  freshness: Freshness | null;
  onSignedTime: ((signedMs: number) => void) | null;
  /** Why the last look at signed metadata failed; null: it did not. */
  trustCode: ErrorCode | null;
  /** The last notice of the verifier that an operator may want to know, since the start. */
  trustNotice: TrustNotice['kind'] | null;
  /** What the signed pin makes this host wait for; null: nothing. */
  trustWaits: string | null;
  /** The last refusal of the line to control since the start, such as a certificate of somebody else. */
  controlCode: ErrorCode | null;
}

/** Before the parts are made. */
export function nothingYet(): Late {
  return {
    runner: null,
    reporter: null,
    contactMs: null,
    freshness: null,
    onSignedTime: null,
    trustCode: null,
    trustNotice: null,
    trustWaits: null,
    controlCode: null,
  };
}

/** What of all this a report says. */
export function trustFacts(late: Late): TrustFacts {
  const { freshness, trustCode, trustNotice, trustWaits, controlCode } = late;
  const rootExpires = freshness?.rootExpiresAtMs ?? null;
  return {
    trustStale: freshness?.stale === true,
    trustCode,
    trustNotice,
    trustWaits,
    controlCode,
    rootExpires,
  };
}

/**
 * The line to control, with word of what was wrong with it once it is good again. An outage is nothing to tell; a wrong
 * certificate, or an answer that was meant for another host, is the trace of somebody in between.
 */
export function tellingLine(line: ControlLink, late: Late): ControlLink {
  const told = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await work;
    } catch (error) {
      if (
        isProblem(error) &&
        errors[error.code].kind === 'refused' &&
        late.controlCode !== error.code
      ) {
        late.controlCode = error.code;
        late.reporter?.tellFacts();
      }
      throw error;
    }
  };
  return {
    poll: (etag, agentState) => told(line.poll(etag, agentState)),
    report: (report) => told(line.report(report)),
  };
}

/** Keeps how the last look at signed metadata ended; a change of it is told to control. */
function keepCode(late: Late, code: ErrorCode | null): void {
  if (late.trustCode === code) return;
  late.trustCode = code;
  late.reporter?.tellFacts();
}

function keepHindrance(late: Late, hindrance: string | null): void {
  if (late.trustWaits === hindrance) return;
  late.trustWaits = hindrance;
  late.reporter?.tellFacts();
}

/** Logs what the verifier had to tell, and keeps it for the reports; that nothing is to be done is no news for them. */
export function keepNotice(
  late: Late,
  notice: TrustNotice,
  log: Pick<Logger, 'info' | 'warn'>,
): void {
  const isNews = notice.kind !== 'no-switch';
  keepHindrance(late, isNews ? late.trustWaits : notice.message);
  log[isNews ? 'warn' : 'info']({ event: 'trust', ...notice }, notice.message);
  if (!isNews || late.trustNotice === notice.kind) return;
  late.trustNotice = notice.kind;
  late.reporter?.tellFacts();
}

/**
 * The verifier, with word to control of why an offer could not be looked at: a refusal is an event of the attempt anyway, but
 * metadata that is withheld or does not come is none, and would only be seen a day later, when it is stale.
 */
export function tellingTrust(trust: Trust, late: Late): Trust {
  return {
    async resolve(assignment, context) {
      try {
        const offer = await trust.resolve(assignment, context);
        keepCode(late, null);
        if (offer !== null) keepHindrance(late, null);
        return offer;
      } catch (error) {
        if (isProblem(error)) keepCode(late, error.code);
        throw error;
      }
    },
    resolveFile: (path, context) => trust.resolveFile(path, context),
    raiseFloor: (offerClass, release) => trust.raiseFloor(offerClass, release),
  };
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
    const isOtherRoot = late.freshness?.rootExpiresAtMs !== freshness.rootExpiresAtMs;
    late.freshness = freshness;
    keepCode(late, problem?.code ?? null);
    if (isOtherRoot) late.reporter?.tellFacts();
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
