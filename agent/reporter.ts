/**
 * The reporter: carries the outbox to control, at least once, in order, and says what the host runs whenever that changes.
 * It never holds anything up: a host whose control is away works on (F46, F57, F68).
 */
import {
  REPORT_PAYLOAD_TYPE,
  type ReportDocument,
  type ReportEvent,
} from '#/protocol/documents.ts';
import { isProblem, type Problem } from '#/protocol/errors.ts';
import { fullJitterMs } from './core/backoff.ts';
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
  /** Control has newer reports of this host than it can have sent (F63). */
  readonly onRewound: () => void;
  /** A report did not get through; it is tried again. For the log. */
  readonly onFailure: (problem: Problem, waitMs: number) => void;
}

export interface Reporter {
  /** Runs until the signal fires. Throws on a bug. */
  run(signal: AbortSignal): Promise<void>;
  /** Something may have changed: looks whether there is something to say. */
  poke(): void;
}

/** A reporter at rest; `run` starts it. */
export function createReporter(options: ReporterOptions): Reporter {
  const { clock, random, store, control, identity } = options;
  let wake: (() => void) | null = null;
  // The first transition of the runner pokes: before it the store is not open.
  let isPoked = false;
  let sent: string | null = null;
  let wantFacts = true;

  const poke = (): void => {
    isPoked = true;
    wake?.();
    wake = null;
  };
  const poked = (signal: AbortSignal): Promise<void> =>
    new Promise((resolve) => {
      if (isPoked || signal.aborted) resolve();
      else wake = resolve;
    });

  const send = async (): Promise<void> => {
    const events = store.waitingReports(MAX_EVENTS);
    const standing = standingOf(options.state());
    const key = JSON.stringify(standing);
    if (events.length === 0 && key === sent && !wantFacts) return;
    const facts = wantFacts ? await options.hostFacts() : null;
    const seq = await store.takeReportSequence();
    const document: ReportDocument = {
      schema: 'switchback.report/1',
      host: identity.host,
      seq,
      bootId: clock.bootId(),
      ...standing,
      agentVersion: options.agentVersion,
      events: [...events],
      ...(facts === null ? {} : { facts }),
    };
    const payload = new TextEncoder().encode(JSON.stringify(document));
    const answer = await control.report(identity.sign(REPORT_PAYLOAD_TYPE, payload));
    await store.acknowledgeReports(events.map((event: ReportEvent) => event.id));
    sent = key;
    wantFacts = answer.wantFacts;
    // What did not fit, and what changed on the way.
    if (store.waitingReports(1).length > 0 || wantFacts) poke();
    if (answer.ackSeq > seq) await rewound(answer.ackSeq);
  };
  const rewound = async (ackSeq: number): Promise<void> => {
    await store.raiseReportSequence(ackSeq);
    options.onRewound();
  };

  /** A refused number means that control has seen a higher one: the next report goes above it, with everything. */
  const afterFailure = async (problem: Problem): Promise<void> => {
    if (problem.code !== 'E_REPORT_SEQUENCE') return;
    wantFacts = true;
    const lastSeq = problem.details['ackSeq'];
    if (typeof lastSeq === 'number' && Number.isSafeInteger(lastSeq)) await rewound(lastSeq);
  };

  return {
    poke,
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
    why: whyOf(state),
    healthy:
      state.at === 'needs-attention'
        ? false
        : endedHere && lastEnd?.phase === 'confirmed'
          ? true
          : null,
    denied: state.denied.slice(-MAX_DENIED).map(({ artifactId, code }) => ({ artifactId, code })),
  };
}

function whyOf(state: State): string {
  if (state.modes.observeOnly) return 'the state directory cannot be written: only observing';
  if ('reason' in state) return `${state.reason.code}: ${state.reason.message}`.slice(0, 1024);
  if (state.modes.paused) return 'paused by the operator of this host';
  if (state.at === 'waiting') return `waiting: ${state.step}`;
  if (state.lastEnd === null) return '';
  const { phase, code, message } = state.lastEnd;
  return `${phase}${code === null ? '' : ` (${code})`}: ${message}`.slice(0, 1024);
}
