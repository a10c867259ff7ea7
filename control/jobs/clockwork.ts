/** What control does by the clock: plan, write last-seen times, sign timestamps anew, prune. One at a time each. */
import cron from 'node-cron';
import type { Logger } from 'pino';
import type { Desk } from '#/control/engine/desk.ts';
import { repositoryOf } from '#/control/engine/desk.ts';
import type { Gauge } from '#/control/http/gauge.ts';
import { refreshTimestamp } from '#/control/trust/delegations.ts';
import { isProblem } from '#/protocol/errors.ts';
import type { HostId } from '#/protocol/ids.ts';

export interface ClockworkOptions {
  readonly desk: Desk;
  readonly gauge: Gauge;
  readonly log: Logger;
  /** How often active rollouts are looked at. */
  readonly tickMs?: number;
  /** Reports older than this are removed; attempts and audit stay. */
  readonly keepReportsDays?: number;
}

export interface Clockwork {
  /** Stops everything and writes the last-seen times. */
  stop(): Promise<void>;
}

const TICK_MS = 1000;
const FULL_TICK_EVERY = 15;
const SEEN_EVERY = 10;
const KEEP_REPORTS_DAYS = 90;
const DAY_MS = 86_400_000;

/** Signs the timestamp anew when it is due; part of starting, too. */
export function refreshTrust(desk: Desk): Promise<number> {
  return desk.engine.change(async (draft) => {
    const files = refreshTimestamp(repositoryOf(desk, draft));
    await draft.publish(files);
    return files.length;
  });
}

/** Writes last-seen times that changed since the last call. */
export function createSeenWriter(desk: Desk): () => Promise<void> {
  const written = new Map<HostId, number>();
  return async () => {
    const changed = new Map<HostId, number>();
    for (const host of desk.engine.fleet.hosts.values())
      if (host.lastSeenAtMs !== null && written.get(host.id) !== host.lastSeenAtMs)
        changed.set(host.id, host.lastSeenAtMs);
    if (changed.size === 0) return;
    await desk.engine.store.saveSeen(changed);
    for (const [id, atMs] of changed) written.set(id, atMs);
  };
}

/** Starts the clockwork. Failures of the store are logged and met again at the next turn. */
export function startClockwork(options: ClockworkOptions): Clockwork {
  const { desk, gauge, log } = options;
  const saveSeen = createSeenWriter(desk);
  let ticks = 0;
  let turning: Promise<void> | null = null;
  const guarded = async (what: string, work: () => Promise<unknown>): Promise<void> => {
    try {
      await work();
    } catch (error) {
      if (!isProblem(error)) throw error;
      log.warn({ err: error }, `${what} failed; it is tried again`);
    }
  };
  const turn = async (): Promise<void> => {
    ticks += 1;
    gauge.sample();
    await guarded('planning', () => desk.engine.tick(ticks % FULL_TICK_EVERY === 0));
    // Level 2 and above: last-seen times are the first thing to give up.
    if (ticks % SEEN_EVERY === 0 && gauge.level < 2)
      await guarded('writing last-seen times', saveSeen);
  };
  const timer = setInterval(() => {
    turning ??= turn().finally(() => {
      turning = null;
    });
  }, options.tickMs ?? TICK_MS);
  const trust = cron.schedule(
    '*/5 * * * *',
    () => guarded('signing the timestamp', () => refreshTrust(desk)),
    {
      noOverlap: true,
    },
  );
  const prune = cron.schedule(
    '17 3 * * *',
    () =>
      guarded('pruning', () =>
        desk.engine.store.prune(
          desk.engine.nowMs() - (options.keepReportsDays ?? KEEP_REPORTS_DAYS) * DAY_MS,
        ),
      ),
    { noOverlap: true },
  );
  return {
    stop: async () => {
      clearInterval(timer);
      await trust.destroy();
      await prune.destroy();
      while (turning !== null) await turning;
      await guarded('writing last-seen times', saveSeen);
    },
  };
}
