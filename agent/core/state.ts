/**
 * The durable state of the agent's machine: one record, journalled before the effects that follow from it are run.
 * Specification: docs/specs/agent-machine.md. A state holds only what it needs; all of it is plain JSON.
 *
 * `artifactId` names a version everywhere: an artifact, or an artifact together with its config set (protocol/ids.ts). The two
 * are never taken apart here (I16).
 *
 * Schema rule (F48, F66): fields are added, never renamed or given another meaning, and an older agent ignores what it
 * does not know. `schema` changes only with a migration in `parseState`.
 */
import * as v from 'valibot';
import { assignment, attemptPhase } from '#/protocol/documents.ts';
import type { ErrorCode } from '#/protocol/errors.ts';
import { rolloutId, versionId, versionText } from '#/protocol/ids.ts';
import { slotId } from './facts.ts';
import { runClock, ticket, trialPlan } from './ticket.ts';

export const STATE_SCHEMA = 'switchback.agent-state/1';
/** Limits of the lists that the state carries. */
export const MAX_DENIED = 64;
export const MAX_UNREPORTED = 32;

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const shortText = v.pipe(v.string(), v.maxLength(1024));
const nameText = v.pipe(v.string(), v.maxLength(64));
const attemptId = v.pipe(v.string(), v.regex(/^[0-9a-f]{32}$/));
/** A code of an agent older or newer than this one is kept as it is. */
const errorCode = v.pipe(
  nameText,
  v.transform((text) => text as ErrorCode),
);
const reasonOf = v.object({ code: errorCode, message: shortText });
const evidence = v.record(nameText, v.union([v.string(), v.number(), v.boolean()]));

export const offerRef = v.object({
  artifactId: versionId,
  class: nameText,
  version: versionText,
  release: count,
  rolloutId: v.nullable(rolloutId),
  seq: count,
  retryGeneration: count,
  sources: v.pipe(v.array(v.pipe(v.string(), v.maxLength(2048))), v.maxLength(16), v.readonly()),
  plan: trialPlan,
});

/** Who began an attempt: `control` offers can be recalled by control, a file given by hand cannot. */
const cause = v.picklist(['control', 'file', 'operator']);

/** An attempt (a transaction): one offer from its beginning to its one terminal record. */
export const attempt = v.object({
  id: attemptId,
  kind: v.picklist(['install', 'rollback']),
  cause,
  offer: offerRef,
  /** What was live when the attempt began: where a rollback leads. Null before the first install. */
  from: v.nullable(v.object({ slot: slotId, artifactId: v.nullable(versionId) })),
  /** Tickets written for it: each is one arming, and their number is bounded (I6). */
  arms: count,
  /** Bytes, durations and such, for the reports. */
  evidence,
});
export type Attempt = Readonly<v.InferOutput<typeof attempt>>;

/** What the terminal record of an attempt needs. */
export const attemptRef = v.object({
  id: attemptId,
  rolloutId: v.nullable(rolloutId),
  artifactId: versionId,
});
export type AttemptRef = Readonly<v.InferOutput<typeof attemptRef>>;

const target = v.object({ slot: slotId, identity: v.pipe(v.string(), v.maxLength(4096)) });
export type Target = Readonly<v.InferOutput<typeof target>>;

/** Results of one check so far in this trial (health.ts). */
export const checkTally = v.object({
  name: nameText,
  /** Successes in a row; failures in a row that counted. */
  successes: count,
  failures: count,
  passed: v.boolean(),
  /** Run time at which it is due again. */
  nextRunMs: count,
  detail: shortText,
});
export type CheckTally = Readonly<v.InferOutput<typeof checkTally>>;
export const health = v.object({
  /** Run time at which the checks began; `startAfterMs` counts from here. */
  sinceRunMs: count,
  tallies: v.pipe(v.array(checkTally), v.maxLength(64), v.readonly()),
  controlReached: v.boolean(),
  /** Run time at which the soak is over, once all required checks had passed. */
  soakUntilRunMs: v.nullable(count),
  /** Restarts of what runs, seen from outside (F47). */
  restarts: count,
});
export type Health = Readonly<v.InferOutput<typeof health>>;

export const denyEntry = v.object({
  artifactId: versionId,
  code: errorCode,
  message: shortText,
  retryGeneration: count,
  count,
  atWallMs: count,
});

const pendingReport = v.object({
  key: v.pipe(v.string(), v.maxLength(96)),
  attempt: attemptId,
  rolloutId: v.nullable(rolloutId),
  artifactId: versionId,
  phase: attemptPhase,
  code: v.nullable(errorCode),
  message: shortText,
  atWallMs: count,
  evidence,
});

/** The operation of the state: running, or waiting until `dueRunMs`. Null in states that have none. */
const operation = v.object({
  id: count,
  /** Failed runs of this operation in a row. */
  tries: count,
  /** Null: it runs. */
  dueRunMs: v.nullable(count),
});

const base = {
  schema: v.literal(STATE_SCHEMA),
  modes: v.object({
    /** By the operator of this host; survives restarts. */
    paused: v.boolean(),
    /** By control, for fleet or group. */
    halted: v.boolean(),
    /** The state store cannot be written: nothing is changed (F30). Never true in a stored state. */
    observeOnly: v.boolean(),
  }),
  run: runClock,
  poll: v.object({ dueRunMs: count, failures: count }),
  /** What was live when it was last looked at. */
  known: v.object({
    live: v.nullable(slotId),
    artifactId: v.nullable(versionId),
    /** The version before the live one, where an ordered rollback leads. */
    previous: v.nullable(versionId),
    /** The retry generation with which the live version was taken up: a later denial of it has to reach that far. */
    retryGeneration: v.optional(count, 0),
  }),
  opCounter: count,
  op: v.nullable(operation),
  denied: v.pipe(v.array(denyEntry), v.maxLength(MAX_DENIED), v.readonly()),
  unreported: v.pipe(v.array(pendingReport), v.maxLength(MAX_UNREPORTED), v.readonly()),
  /** The last rollback order that was taken up. */
  rollbackGeneration: count,
  /** Failed attempts at one artifact that are not held against it: when it may be tried again. */
  retry: v.nullable(
    v.object({
      artifactId: versionId,
      retryGeneration: count,
      failures: count,
      notBeforeRunMs: count,
      code: errorCode,
    }),
  ),
  /** How the last attempt ended, for `explain`. */
  lastEnd: v.nullable(
    v.object({
      /** Null: it ended before it was known which artifact it is about. */
      ref: v.nullable(attemptRef),
      phase: attemptPhase,
      code: v.nullable(errorCode),
      message: shortText,
      atWallMs: count,
    }),
  ),
};

/** Where an unwinding leads once the host is as it was before arming. */
const unwind = v.object({ to: v.picklist(['staged', 'aborted']), reason: reasonOf });
const onTrial = { attempt, target, ticket };

export const stateSchema = v.variant('at', [
  v.object({
    ...base,
    at: v.literal('idle'),
    /** `activate`: what is live does not run, it is started. `allow`: a deny-list entry is removed. */
    step: v.picklist(['settled', 'activate', 'allow']),
    allow: v.nullable(versionId),
  }),
  v.object({
    ...base,
    at: v.literal('checking'),
    freshId: attemptId,
    want: v.variant('kind', [
      v.object({ kind: v.literal('poll') }),
      v.object({ kind: v.literal('assignment'), assignment }),
      v.object({ kind: v.literal('file'), path: v.pipe(v.string(), v.maxLength(4096)) }),
      v.object({ kind: v.literal('held'), artifactId: versionId, generation: v.nullable(count) }),
    ]),
  }),
  v.object({ ...base, at: v.literal('offered'), attempt }),
  v.object({ ...base, at: v.literal('preflight'), attempt, held: v.boolean() }),
  v.object({
    ...base,
    at: v.literal('downloading'),
    attempt,
    target,
    step: v.picklist(['begin', 'fetch']),
    /** Times the slot was written anew after a failed read-back (F24). */
    rewrites: count,
  }),
  v.object({ ...base, at: v.literal('verifying'), attempt, target, rewrites: count }),
  v.object({ ...base, at: v.literal('staged'), attempt, target }),
  v.object({
    ...base,
    at: v.literal('waiting'),
    attempt,
    target,
    step: v.picklist(['window', 'drain']),
    /** Wall time at which the next window opens, once that was looked up. */
    opensAt: v.nullable(count),
  }),
  v.object({
    ...base,
    at: v.literal('arming'),
    attempt,
    target,
    step: v.picklist(['baseline', 'ticket', 'arm', 'disarm', 'remove-ticket', 'undrain']),
    ticket: v.nullable(ticket),
    /** Set in the last three steps. */
    unwind: v.nullable(unwind),
  }),
  v.object({
    ...base,
    at: v.literal('switching'),
    ...onTrial,
    step: v.picklist(['switch', 'reboot', 'activate']),
    /** Reboots asked for, and run time by which the last of them has to have happened (F33). */
    reboots: count,
    rebootByRunMs: count,
  }),
  v.object({
    ...base,
    at: v.literal('trial'),
    ...onTrial,
    /** `count`, `started` and `activate` are STARTED: this boot is counted, the target is live and runs. */
    step: v.picklist(['count', 'started', 'activate', 'checks', 'soak']),
    health,
  }),
  v.object({
    ...base,
    at: v.literal('committing'),
    ...onTrial,
    step: v.picklist(['commit', 'ticket']),
    health,
  }),
  v.object({
    ...base,
    at: v.literal('committed'),
    ...onTrial,
    step: v.picklist(['mark-good', 'deny', 'raise-floor', 'prune', 'remove-ticket', 'undrain']),
  }),
  v.object({
    ...base,
    at: v.literal('rolling-back'),
    ...onTrial,
    reason: reasonOf,
    step: v.picklist(['deny', 'ticket', 'boot', 'reboot', 'activate']),
    rounds: count,
    reboots: count,
    rebootByRunMs: count,
  }),
  v.object({
    ...base,
    at: v.literal('rollback-verify'),
    ...onTrial,
    reason: reasonOf,
    /** `deny`: the boot loader or guard went back before this agent could write the reason down. */
    step: v.picklist(['deny', 'ticket', 'observe', 'activate', 'checks']),
    rounds: count,
    health,
  }),
  v.object({
    ...base,
    at: v.literal('rolled-back'),
    ...onTrial,
    reason: reasonOf,
    step: v.picklist(['mark-bad', 'remove-ticket', 'undrain']),
  }),
  v.object({ ...base, at: v.literal('refused'), ref: attemptRef, reason: reasonOf }),
  v.object({
    ...base,
    at: v.literal('aborted'),
    ref: attemptRef,
    reason: reasonOf,
    step: v.picklist(['deny', 'discard', 'end']),
    /** What was written so far, to be removed. Null: nothing, or it is worth keeping. */
    discard: v.nullable(slotId),
  }),
  v.object({
    ...base,
    at: v.literal('adrift'),
    /** The attempt that this ends, if one was open. */
    ref: v.nullable(attemptRef),
    reason: reasonOf,
    step: v.picklist(['observe', 'disarm', 'remove-ticket']),
    /** An armed slot that no attempt stands for, and a ticket likewise. */
    trialSlot: v.nullable(slotId),
    ticketAttempt: v.nullable(attemptId),
  }),
  v.object({
    ...base,
    at: v.literal('needs-attention'),
    ref: v.nullable(attemptRef),
    reason: reasonOf,
    /**
     * The ticket is removed first, so that the guard rests too. When an operator clears it, what is live counts as good:
     * `observe`, `adopt`.
     */
    step: v.picklist(['remove-ticket', 'rest', 'observe', 'adopt']),
  }),
]);

export type State = Readonly<v.InferOutput<typeof stateSchema>>;
export type StateName = State['at'];
/** One state by its name. */
export type At<N extends StateName> = Extract<State, { readonly at: N }>;
/** What every state has. */
export type Base = Omit<At<'idle'>, 'at' | 'step' | 'allow'>;

/** The state of an agent that has no journal: before its first start, or after its loss. */
export function initialState(): State {
  return {
    schema: STATE_SCHEMA,
    at: 'idle',
    step: 'settled',
    allow: null,
    modes: { paused: false, halted: false, observeOnly: false },
    run: { runMs: 0, bootId: '', monotonicMs: 0 },
    poll: { dueRunMs: 0, failures: 0 },
    known: { live: null, artifactId: null, previous: null, retryGeneration: 0 },
    opCounter: 0,
    op: null,
    denied: [],
    unreported: [],
    rollbackGeneration: 0,
    retry: null,
    lastEnd: null,
  };
}

/** The state from parsed JSON; null when it is damaged or of a schema that this agent cannot read (then: journal 'lost'). */
export function parseState(json: unknown): State | null {
  const parsed = v.safeParse(stateSchema, json);
  return parsed.success ? parsed.output : null;
}

/** One line for logs and `agent status`: state, step, version. */
export function stateSummary(state: State): {
  readonly at: StateName;
  readonly step: string | null;
  readonly attempt: string | null;
  readonly artifactId: string | null;
  readonly version: string | null;
} {
  const step = 'step' in state ? state.step : null;
  if ('attempt' in state) {
    const { id, offer } = state.attempt;
    return {
      at: state.at,
      step,
      attempt: id,
      artifactId: offer.artifactId,
      version: offer.version,
    };
  }
  const ref = 'ref' in state ? state.ref : null;
  return {
    at: state.at,
    step,
    attempt: ref?.id ?? null,
    artifactId: ref?.artifactId ?? null,
    version: null,
  };
}
