/**
 * Freshness: the signed metadata is brought up to date also when nothing is offered, so that a control that is silent or
 * frozen is noticed within a day, by the host itself (X03, F11). docs/specs/trust.md, section 9.
 */
import { isProblem, type Problem } from '#/protocol/errors.ts';
import type { AgentTrust } from './adapters/trust-client.ts';
import type { Clock, Random } from './ports.ts';

export interface Freshness {
  /** The newest verified metadata has expired: control is silent, frozen, or holds this host back. */
  readonly stale: boolean;
  /** When it expires or did, ms; null: none was ever verified. */
  readonly expiresAtMs: number | null;
  /** When the root that this host stands on expires, ms; null: it could not be read. */
  readonly rootExpiresAtMs: number | null;
  /** Why the last refresh failed; null: it did not. */
  readonly code: string | null;
}

export interface FreshnessOptions {
  readonly trust: Pick<AgentTrust, 'refresh' | 'status'>;
  readonly clock: Clock;
  readonly random: Random;
  readonly intervalMs: number;
  readonly signal: AbortSignal;
  /** After each look, also when nothing changed. */
  readonly onLook: (freshness: Freshness, problem: Problem | null) => void;
}

/** Until the first look: control may have come back together with the whole fleet. */
const FIRST_SPREAD_MS = 60_000;
/** An expiry is looked at a moment after it, never in a busy loop. */
const AFTER_EXPIRY_MS = 1_000;

/** Looks until the signal fires. Throws on a bug. */
export async function watchFreshness(options: FreshnessOptions): Promise<void> {
  const { clock, random, intervalMs, signal } = options;
  let waitMs = Math.min(intervalMs, FIRST_SPREAD_MS) * random.unit();
  while (await clock.sleep(waitMs, signal)) {
    const seen = await look(options);
    if (signal.aborted) return;
    options.onLook(seen.freshness, seen.problem);
    waitMs = nextLookMs(seen.freshness, intervalMs * (0.9 + 0.2 * random.unit()), clock.wallMs());
  }
}

/** At the expiry, where that is sooner than the next look. */
function nextLookMs({ stale, expiresAtMs }: Freshness, intervalMs: number, nowMs: number): number {
  if (stale || expiresAtMs === null) return intervalMs;
  return Math.min(intervalMs, Math.max(0, expiresAtMs - nowMs) + AFTER_EXPIRY_MS);
}

async function look(
  options: FreshnessOptions,
): Promise<{ readonly freshness: Freshness; readonly problem: Problem | null }> {
  const { trust, clock } = options;
  let problem: Problem | null = null;
  try {
    await trust.refresh(clock.wallMs());
  } catch (error) {
    if (!isProblem(error)) throw error;
    problem = error;
  }
  try {
    const { timestampExpires, timeFloor, rootExpires } = await trust.status();
    const nowS = Math.max(Math.floor(clock.wallMs() / 1000), timeFloor);
    // Nothing verified, and what is served has expired: that is no beginning, it is a freeze.
    const stale =
      timestampExpires === null ? problem?.code === 'E_EXPIRED' : timestampExpires <= nowS;
    const expiresAtMs = timestampExpires === null ? null : timestampExpires * 1000;
    const rootExpiresAtMs = rootExpires * 1000;
    const code = problem?.code ?? null;
    return { freshness: { stale, expiresAtMs, rootExpiresAtMs, code }, problem };
  } catch (error) {
    if (!isProblem(error)) throw error;
    const unknown = { stale: false, expiresAtMs: null, rootExpiresAtMs: null };
    const freshness = { ...unknown, code: error.code };
    return { freshness, problem: error };
  }
}
