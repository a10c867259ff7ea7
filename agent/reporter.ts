/**
 * The reporter: carries the outbox to control, at least once, in order, and says what the host runs whenever that changes.
 * It never holds anything up: a host whose control is away works on (F46, F57, F68).
 */
import { createHash } from 'node:crypto';
import {
  REPORT_PAYLOAD_TYPE,
  type ReportDocument,
  type ReportEvent,
} from '#/protocol/documents.ts';
import { isProblem, type Problem } from '#/protocol/errors.ts';
import { fullJitterMs } from './core/backoff.ts';
import { explain } from './core/explain.ts';
import type { State } from './core/state.ts';
import type { Clock, ControlLink, Identity, Random, StateStore } from './ports.ts';

/** Events in one report; the schema allows no more. */
const MAX_EVENTS = 100;
/** Lines of the deny-list in one report, the newest. */
const MAX_DENIED = 64;
/** Changes that come together travel together. */
const GATHER_MS = 200;
const BACKOFF_BASE_MS = 2_000;
const BACKOFF_CAP_MS = 5 * 60_000;

const WHOLE = { events: MAX_EVENTS, isPlain: false } as const;

/** Facts about the host, for people and selectors. */
export type HostFacts = NonNullable<ReportDocument['facts']>;

export interface ReporterOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly store: StateStore;
  readonly control: ControlLink;
  readonly identity: Identity;
  readonly agentVersion: string;
  readonly state: () => State;
  readonly hostFacts: () => Promise<HostFacts>;
  /** The newest tree of the audit log that was seen. */
  readonly seenLog?: () => NonNullable<ReportDocument['log']> | null;
  /** The state store failed under a write of the reporter. */
  readonly onStoreFailed: (problem: Problem) => void;
  /** Control has newer reports of this host than it can have sent (F63). */
  readonly onRewound: () => void;
  /** A report did not get through; it is tried again. For the log. */
  readonly onFailure: (problem: Problem, waitMs: number) => void;
}

export interface Reporter {
  /** Runs until the signal fires. Throws on a bug. */
  run(signal: AbortSignal): Promise<void>;
  /** Something may have changed: looks whether there is something to say. Nothing is said before the first time. */
  poke(): void;
  /** Control does not know this host any more, as after a restore: says everything again (F73). */
  tellAll(): void;
  /** The facts of the host changed: the next report carries them. */
  tellFacts(): void;
  /** What control has of this host, as polls say it: number of its newest report in this run (0: none), and digest of its facts. */
  told(): { readonly seq: number; readonly factsHash: string | null };
}

/** A reporter at rest; `run` starts it. */
export function createReporter(options: ReporterOptions): Reporter {
  const { clock, random, store, control, identity } = options;
  let wake: (() => void) | null = null;
  // The first transition of the runner pokes: before it the store is not open, and the state is that of a host that knows nothing.
  let hasBegun = false;
  let isPoked = false;
  let sent: string | null = null;
  let told: ReturnType<Reporter['told']> = { seq: 0, factsHash: null };
  let wantFacts = true;
  // Made smaller while control refuses what was sent: one event that it cannot read must not hold up all others.
  let size: { readonly events: number; readonly isPlain: boolean } = WHOLE;

  const poke = (): void => {
    hasBegun = true;
    isPoked = true;
    wake?.();
    wake = null;
  };
  const pokeOnceBegun = (): void => {
    if (hasBegun) poke();
  };
  const poked = (signal: AbortSignal): Promise<void> =>
    new Promise((resolve) => {
      if (isPoked || signal.aborted) resolve();
      else wake = resolve;
    });

  const stored = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await work;
    } catch (error) {
      if (isProblem(error)) options.onStoreFailed(error);
      throw error;
    }
  };

  const send = async (): Promise<void> => {
    const events = store.waitingReports(size.events);
    const standing = standingOf(options.state());
    const log = options.seenLog?.() ?? null;
    const key = JSON.stringify([standing, log]);
    if (events.length === 0 && key === sent && !wantFacts) return;
    // Taken back when the report does not get through. What is asked for meanwhile is asked for again.
    const withFacts = wantFacts;
    wantFacts = false;
    try {
      await sendOne(events, standing, withFacts);
    } catch (error) {
      wantFacts ||= withFacts;
      throw error;
    }
    sent = key;
    // What did not fit, and what changed on the way.
    if (store.waitingReports(1).length > 0 || wantFacts) poke();
  };
  const sendOne = async (
    events: readonly ReportEvent[],
    standing: ReturnType<typeof standingOf>,
    withFacts: boolean,
  ): Promise<void> => {
    const log = options.seenLog?.() ?? null;
    const facts = withFacts ? await options.hostFacts() : null;
    const seq = await stored(store.takeReportSequence());
    const document: ReportDocument = {
      schema: 'switchback.report/1',
      host: identity.host,
      seq,
      bootId: clock.bootId(),
      ...standing,
      agentVersion: options.agentVersion,
      events: events.map((event) => ({
        ...event,
        evidence: size.isPlain ? {} : wholeNumbers(event.evidence),
      })),
      ...(facts === null || size.isPlain ? {} : { facts: wholeNumbers(facts) }),
      ...(log === null || size.isPlain ? {} : { log }),
    };
    const payload = new TextEncoder().encode(JSON.stringify(document));
    const answer = await control.report(identity.sign(REPORT_PAYLOAD_TYPE, payload));
    await stored(store.acknowledgeReports(events.map((event: ReportEvent) => event.id)));
    told = { seq, factsHash: facts === null ? told.factsHash : factsHashOf(document.facts) };
    wantFacts ||= answer.wantFacts && !size.isPlain;
    size = WHOLE;
    if (answer.ackSeq > seq) await rewound(answer.ackSeq);
  };
  const rewound = async (ackSeq: number): Promise<void> => {
    await stored(store.raiseReportSequence(ackSeq));
    options.onRewound();
  };

  /** A refused number means that control has seen a higher one: the next report goes above it, with everything. */
  const afterFailure = async (problem: Problem): Promise<void> => {
    if (isUnreadable(problem)) {
      size = { events: Math.ceil(size.events / 2), isPlain: size.events === 1 };
    }
    if (problem.code !== 'E_REPORT_SEQUENCE') return;
    wantFacts = true;
    const { lastSeq } = problem.details;
    if (typeof lastSeq === 'number' && Number.isSafeInteger(lastSeq)) await rewound(lastSeq);
  };

  return {
    poke,
    told: () => told,
    tellAll() {
      sent = null;
      wantFacts = true;
      pokeOnceBegun();
    },
    tellFacts() {
      wantFacts = true;
      pokeOnceBegun();
    },
    async run(signal) {
      signal.addEventListener('abort', poke);
      let failures = 0;
      while (!signal.aborted) {
        await poked(signal);
        isPoked = false;
        if (!(await clock.sleep(GATHER_MS, signal))) break;
        try {
          await send();
          failures = 0;
        } catch (error) {
          if (!isProblem(error)) throw error;
          failures += 1;
          await afterFailure(error).catch((again: unknown) => {
            if (!isProblem(again)) throw again;
          });
          const waitMs =
            GATHER_MS + fullJitterMs(BACKOFF_BASE_MS, BACKOFF_CAP_MS, failures, random.unit());
          options.onFailure(error, waitMs);
          isPoked = true;
          await clock.sleep(waitMs, signal);
        }
      }
      signal.removeEventListener('abort', poke);
    },
  };
}

/** Sha256 of the facts as they were sent, in the order of their names; null for a report without them. */
function factsHashOf(facts: HostFacts | undefined): string | null {
  if (facts === undefined) return null;
  const sorted = Object.entries(facts).sort(([a], [b]) => (a < b ? -1 : 1));
  return createHash('sha256').update(JSON.stringify(sorted)).digest('hex');
}

/** Control said that it does not understand the report itself. */
function isUnreadable(problem: Problem): boolean {
  return isProblem(problem, 'E_SCHEMA', 'E_PARSE', 'E_CANON', 'E_TOOBIG', 'E_USAGE');
}

/** Numbers in signed documents are integers: others have more than one spelling (E_CANON). */
function wholeNumbers(values: HostFacts): HostFacts {
  const whole: Record<string, string | number | boolean> = {};
  for (const [key, value] of Object.entries(values)) {
    if (typeof value !== 'number') whole[key] = value;
    else if (Number.isFinite(value)) whole[key] = Math.round(value);
  }
  return whole;
}

/** What a report says beside its events. `checking` is idle to everyone else: it comes and goes with each poll. */
export function standingOf(
  state: State,
): Pick<ReportDocument, 'running' | 'previous' | 'state' | 'why' | 'healthy' | 'denied'> {
  const { known, lastEnd } = state;
  const endedHere = lastEnd?.ref?.artifactId === known.artifactId;
  return {
    running: known.artifactId,
    previous: known.previous,
    state: state.at === 'checking' ? 'idle' : state.at,
    // At the time of the state itself: a reason that counts down would be news at every look.
    why: explain(state, state.run.runMs).why,
    healthy:
      state.at === 'needs-attention'
        ? false
        : endedHere && lastEnd?.phase === 'confirmed'
          ? true
          : null,
    denied: state.denied.slice(-MAX_DENIED).map(({ artifactId, code }) => ({ artifactId, code })),
  };
}
