/** What the agent says of itself to the operator of its host: pure views over the state of the machine. */
import type { Progress, SlotRecord } from '#/agent/ports.ts';
import { explain } from '#/agent/core/explain.ts';
import type { State } from '#/agent/core/state.ts';
import type { Freshness } from './freshness.ts';
import { type BootView, nextBootText } from './boot-view.ts';

/** Facts around the machine that a view needs. */
export interface Surroundings {
  readonly agentVersion: string;
  readonly pid: number;
  readonly bootId: string;
  readonly nowMs: number;
  readonly monotonicMs: number;
  /** When the state was entered. */
  readonly sinceMs: number;
  readonly host: { readonly id: string; readonly group: string; readonly class: string } | null;
  readonly control: { readonly url: string; readonly lastContactMs: number | null } | null;
  readonly window: {
    readonly open: boolean;
    readonly opensAt: number | null;
    readonly closesAt: number | null;
  };
  readonly slots: readonly SlotRecord[];
  readonly boot: BootView | null;
  readonly progress: Progress | null;
  /** How the last download of this run of the agent came. */
  readonly transfer: Transfer | null;
  /** Events that control has not acknowledged, and whether there are more. */
  readonly waitingEvents: number;
  readonly restarts: number;
  /** null: not looked yet, or this host has no trust anchor. */
  readonly trust: Freshness | null;
}

/** What a download took and saved. */
export interface Transfer {
  readonly artifactId: string;
  /** `patch`, `chunks` or `whole`. */
  readonly way: string;
  /** Null when a patch was used: else why not (`none`: no source has one). */
  readonly whyNoPatch: string | null;
  readonly fetchedBytes: number;
  readonly reusedBytes: number;
  /** What was not fetched of the bundle's data. */
  readonly savedBytes: number;
}

/** The transfer that the evidence of an attempt speaks of, or null when nothing was downloaded yet. */
export function transferOf(state: State): Transfer | null {
  if (!('attempt' in state)) return null;
  const { evidence, offer } = state.attempt;
  const { way, whyNoPatch } = evidence;
  if (typeof way !== 'string') return null;
  const bytes = (name: string): number => Number(evidence[name] ?? 0);
  return {
    artifactId: offer.artifactId,
    way,
    whyNoPatch: typeof whyNoPatch === 'string' ? whyNoPatch : null,
    fetchedBytes: bytes('fetchedBytes'),
    reusedBytes: bytes('reusedBytes'),
    savedBytes: bytes('savedBytes'),
  };
}

/** `switchback-agent status --json`, version 1. */
export interface StatusView {
  readonly schema: 'switchback.agent-status/1';
  readonly state: string;
  readonly step: string | null;
  readonly since: string;
  readonly why: string;
  readonly live: VersionView | null;
  readonly previous: string | null;
  readonly attempt: {
    readonly id: string;
    readonly kind: 'install' | 'rollback';
    readonly artifactId: string;
    readonly version: string;
    readonly progress: Progress | null;
    /** On trial: what each check has shown so far. */
    readonly checks: readonly {
      readonly name: string;
      readonly passed: boolean;
      readonly successes: number;
      readonly failures: number;
      readonly detail: string;
    }[];
    readonly deadlineLeftMs: number | null;
  } | null;
  readonly lastEnd: {
    readonly artifactId: string | null;
    readonly phase: string;
    readonly code: string | null;
    readonly message: string;
    readonly at: string;
  } | null;
  /** How the last download since the agent started came; null before the first. */
  readonly transfer: Transfer | null;
  readonly paused: boolean;
  readonly halted: boolean;
  readonly observeOnly: boolean;
  readonly denied: readonly {
    readonly artifactId: string;
    readonly code: string;
    readonly message: string;
  }[];
  readonly slots: readonly SlotRecord[];
  /** Hosts of partitions: what they are, and what the boot loader does next; null on others. */
  readonly boot: BootView | null;
  readonly host: Surroundings['host'];
  readonly control: {
    readonly url: string;
    readonly lastContact: string | null;
    readonly nextPollMs: number;
  } | null;
  readonly window: {
    readonly open: boolean;
    readonly opensAt: string | null;
    readonly closesAt: string | null;
  };
  /** Whether the signed metadata is fresh; null before the first look. */
  readonly trust: {
    readonly stale: boolean;
    readonly expires: string | null;
    readonly code: string | null;
  } | null;
  readonly waitingEvents: number;
  readonly serviceRestarts: number;
  readonly agent: { readonly version: string; readonly pid: number; readonly bootId: string };
}

export interface VersionView {
  readonly artifactId: string;
  readonly version: string | null;
  readonly release: number | null;
  readonly slot: string;
}

const iso = (ms: number | null): string | null => (ms === null ? null : new Date(ms).toISOString());

/** The whole status. */
export function statusView(state: State, around: Surroundings): StatusView {
  const attempt = 'attempt' in state ? state.attempt : null;
  const { lastEnd } = state;
  return {
    schema: 'switchback.agent-status/1',
    state: state.at,
    step: 'step' in state ? state.step : null,
    since: new Date(around.sinceMs).toISOString(),
    why: explainState(state, around).join(' '),
    live: liveOf(state, around.slots),
    previous: state.known.previous,
    attempt:
      attempt === null
        ? null
        : {
            id: attempt.id,
            kind: attempt.kind,
            artifactId: attempt.offer.artifactId,
            version: attempt.offer.version,
            progress: around.progress,
            checks: 'health' in state ? state.health.tallies.map(tallyView) : [],
            deadlineLeftMs: deadlineLeftMs(state, around),
          },
    lastEnd:
      lastEnd === null
        ? null
        : {
            artifactId: lastEnd.ref?.artifactId ?? null,
            phase: lastEnd.phase,
            code: lastEnd.code,
            message: lastEnd.message,
            at: new Date(lastEnd.atWallMs).toISOString(),
          },
    transfer: around.transfer,
    ...state.modes,
    denied: state.denied.map(({ artifactId, code, message }) => ({ artifactId, code, message })),
    slots: around.slots,
    boot: around.boot,
    host: around.host,
    control:
      around.control === null
        ? null
        : {
            url: around.control.url,
            lastContact: iso(around.control.lastContactMs),
            nextPollMs: Math.max(0, state.poll.dueRunMs - runMsOf(state, around)),
          },
    window: {
      open: around.window.open,
      opensAt: iso(around.window.opensAt),
      closesAt: iso(around.window.closesAt),
    },
    trust:
      around.trust === null
        ? null
        : {
            stale: around.trust.stale,
            expires: iso(around.trust.expiresAtMs),
            code: around.trust.code,
          },
    waitingEvents: around.waitingEvents,
    serviceRestarts: around.restarts,
    agent: { version: around.agentVersion, pid: around.pid, bootId: around.bootId },
  };
}

function tallyView(tally: {
  readonly name: string;
  readonly passed: boolean;
  readonly successes: number;
  readonly failures: number;
  readonly detail: string;
}): NonNullable<StatusView['attempt']>['checks'][number] {
  const { name, passed, successes, failures, detail } = tally;
  return { name, passed, successes, failures, detail };
}

function liveOf(state: State, slots: readonly SlotRecord[]): VersionView | null {
  const { live, artifactId } = state.known;
  if (live === null || artifactId === null) return null;
  const record = slots.find((one) => one.slot === live);
  return {
    artifactId,
    slot: live,
    version: record?.version ?? null,
    release: record?.release ?? null,
  };
}

function runMsOf(state: State, around: Surroundings): number {
  const { runMs, bootId, monotonicMs } = state.run;
  return bootId === around.bootId ? runMs + Math.max(0, around.monotonicMs - monotonicMs) : runMs;
}

function deadlineLeftMs(state: State, around: Surroundings): number | null {
  if (!('ticket' in state) || state.ticket === null) return null;
  return Math.max(0, state.ticket.deadlineRunMs - runMsOf(state, around));
}

/** Why the host is where it is, what follows, and what else its operator should know, in sentences; the first says the most. */
export function explainState(state: State, around: Surroundings): readonly string[] {
  const { why, next } = explain(state, runMsOf(state, around));
  return [
    sentence(`${why}${progressText(around.progress)}`),
    sentence(`next: ${next}`),
    ...bootText(around),
    ...deniedText(state),
    ...contact(state, around),
    ...staleness(around),
  ];
}

/** Said where it is not plain: something is tried next, or something is wrong. */
function bootText({ boot }: Surroundings): readonly string[] {
  if (boot === null) return [];
  return [
    ...(boot.trial === null ? [] : [sentence(nextBootText(boot))]),
    ...boot.problems.map((problem) => sentence(`boot loader ${boot.loader}: ${problem}`)),
  ];
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}

/** A freeze holds versions and revocations back; the host itself works on. */
function staleness({ trust }: Surroundings): readonly string[] {
  if (trust?.stale !== true) return [];
  const since = trust.expiresAtMs === null ? '' : ` since ${iso(trust.expiresAtMs)}`;
  return [
    `The signed metadata of control is stale${since}: no new version is accepted until it is signed again.`,
  ];
}

function progressText(progress: Progress | null): string {
  if (progress === null || progress.totalBytes === 0) return '';
  return `, ${Math.floor((100 * progress.doneBytes) / progress.totalBytes)} %`;
}

function deniedText({ denied }: State): readonly string[] {
  if (denied.length === 0) return [];
  const list = denied.map(({ artifactId, code }) => `${short(artifactId)} (${code})`).join(', ');
  return [`Not tried again on its own: ${list}; \`switchback-agent retry ID\` clears one.`];
}

function contact(state: State, around: Surroundings): readonly string[] {
  if (around.control === null) return ['This host has no control; versions come from files.'];
  const { url, lastContactMs } = around.control;
  if (state.poll.failures > 0)
    return [
      `Control at ${url} did not answer the last ${state.poll.failures} polls; last contact ${iso(lastContactMs) ?? 'never since the agent started'}.`,
    ];
  return [];
}

const short = (artifactId: string): string => artifactId.slice(0, 12);
