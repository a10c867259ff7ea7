/**
 * Effects: what the machine asks of the world, as data. Each names one call of a port. Executors are idempotent: after a
 * crash the same effect comes again.
 *
 * Lanes. `operation` effects (all but `poll`, `report` and `cancel`) run one at a time, in order; the next one starts only
 * when the one before has settled, even if it was cancelled. `poll` and `report` run beside them.
 */
import type { Assignment, AttemptPhase } from '#/protocol/documents.ts';
import type { ErrorCode } from '#/protocol/errors.ts';
import type { VersionId, RolloutId } from '#/protocol/ids.ts';
import type { Facts, SlotId, SlotStatus } from './facts.ts';
import type { Ticket, TrialPlan } from './ticket.ts';

/** What the machine keeps of an offer. The manifest's bytes are kept by the executor of `resolve`, under the artifact id. */
export interface OfferRef {
  readonly artifactId: VersionId;
  readonly class: string;
  readonly version: string;
  readonly release: number;
  readonly rolloutId: RolloutId | null;
  readonly seq: number;
  readonly retryGeneration: number;
  readonly sources: readonly string[];
  readonly plan: TrialPlan;
}

export interface Reason {
  readonly code: ErrorCode;
  readonly message: string;
}

/** One line of the deny-list: this artifact is not tried again on its own, up to and with this retry generation. */
export interface DenyEntry {
  readonly artifactId: VersionId;
  readonly code: ErrorCode;
  readonly message: string;
  readonly retryGeneration: number;
  readonly count: number;
  readonly atWallMs: number;
}

/** A report that is not yet in the outbox. `key` is unique per event of this host; its hash is the report event's id. */
export interface PendingReport {
  readonly key: string;
  readonly attempt: string;
  readonly rolloutId: RolloutId | null;
  readonly artifactId: VersionId;
  readonly phase: AttemptPhase;
  readonly code: ErrorCode | null;
  readonly message: string;
  readonly atWallMs: number;
  readonly evidence: Readonly<Record<string, string | number | boolean>>;
}

export interface CheckOutcome {
  readonly name: string;
  readonly ok: boolean;
  readonly durationMs: number;
  readonly detail: string;
}

/** Everything an agent reads at its start, and again when the state store has come back. */
export interface StartFacts {
  /** Null: could not be read (the machine asks again). */
  readonly facts: Facts | null;
  /** 'damaged': there is one, but it cannot be read. */
  readonly ticket: Ticket | 'damaged' | null;
  readonly denied: readonly DenyEntry[];
  /** 'lost': there was no readable journal; the state given to `step` is a fresh one. */
  readonly journal: 'read' | 'empty' | 'lost';
  /** False: nothing can be written; the agent only observes (F30). */
  readonly writable: boolean;
}

/** The operation effects with their arguments, by name. */
export interface Operations {
  /** Trust.resolve of the assignment; the executor keeps the manifest's bytes durably before it answers. */
  resolve: { readonly assignment: Assignment };
  /** Trust.resolveFile. */
  'resolve-file': { readonly path: string };
  /** The offer of a version that this host committed before and still holds, from its kept manifest. */
  'resolve-held': { readonly artifactId: VersionId };
  /** Slots.observe, BootControl.observe, Activator.observe. */
  observe: Record<never, never>;
  /** Slots.targetFor and Slots.preflight. `held`: the slot has the artifact already, nothing will be written. */
  preflight: { readonly artifactId: VersionId; readonly held: boolean };
  /** Slots.begin. */
  'begin-slot': { readonly artifactId: VersionId; readonly slot: SlotId };
  /** Installer.download. */
  download: {
    readonly artifactId: VersionId;
    readonly slot: SlotId;
    readonly sources: readonly string[];
  };
  /** Installer.verify. */
  verify: { readonly artifactId: VersionId; readonly slot: SlotId };
  /** Windows.at the wall clock. */
  window: Record<never, never>;
  /** Hooks.drain and undrain. */
  drain: Record<never, never>;
  undrain: Record<never, never>;
  /** Probes.run for each named check of the artifact's manifest, once, beside one another. */
  probe: { readonly artifactId: VersionId; readonly checks: readonly string[] };
  /** The durable ticket, JSON and flat form. */
  'write-ticket': { readonly ticket: Ticket };
  'remove-ticket': { readonly attempt: string };
  /** BootControl.arm and disarm. */
  arm: { readonly slot: SlotId; readonly tries: number };
  disarm: { readonly slot: SlotId };
  /** BootControl.switchTo. `force`: the reboot that was asked for did not come (F33). */
  switch: { readonly slot: SlotId; readonly force: boolean };
  /** Activator.activate. Null: stop what runs, nothing is live. */
  activate: { readonly slot: SlotId | null; readonly artifactId: VersionId | null };
  /** BootControl.commit. */
  commit: { readonly slot: SlotId };
  /** BootControl.rollBackTo. `force` as for `switch`. */
  'roll-back': { readonly slot: SlotId | null; readonly bad: SlotId; readonly force: boolean };
  /** The durable deny-list. */
  deny: { readonly entry: DenyEntry };
  allow: { readonly artifactId: VersionId };
  /** Slots.mark. */
  'mark-slot': {
    readonly slot: SlotId;
    readonly status: SlotStatus;
    readonly reason: string | null;
  };
  /** Slots.discard. */
  'discard-slot': { readonly slot: SlotId };
  /** Slots.prune. */
  prune: { readonly keep: readonly SlotId[] };
  /** Trust.raiseFloor. */
  'raise-floor': { readonly class: string; readonly release: number };
  /** Can the state store be written again? Answers with everything read anew. */
  'check-store': Record<never, never>;
}
export type OperationName = keyof Operations;

/** What each operation answers with. */
export interface OperationResults extends Record<OperationName, object> {
  resolve: { readonly offer: OfferRef | null };
  'resolve-file': { readonly offer: OfferRef };
  'resolve-held': { readonly offer: OfferRef };
  observe: { readonly facts: Facts };
  preflight: { readonly slot: SlotId; readonly identity: string };
  download: {
    readonly fetchedBytes: number;
    readonly reusedBytes: number;
    readonly durationMs: number;
    readonly rottenSeedChunks: number;
    readonly failedSources: number;
    readonly way: 'patch' | 'chunks' | 'whole';
    readonly whyNoPatch: string | null;
    readonly unpatchedChunks: number;
    readonly savedBytes: number;
  };
  window: {
    readonly open: boolean;
    readonly opensAt: number | null;
    readonly closesAt: number | null;
  };
  probe: {
    readonly results: readonly CheckOutcome[];
    /** Restarts of what runs since it was activated, where the activator can see them (F47). */
    readonly restarts?: number;
  };
  switch: { readonly outcome: 'switched' | 'reboot-requested' };
  'roll-back': { readonly outcome: 'switched' | 'reboot-requested' };
  'check-store': StartFacts;
}

/** An operation with the number by which its answer is matched; answers with another number are stray and ignored. */
export type OperationEffect = {
  [D in OperationName]: { readonly do: D; readonly op: number } & Operations[D];
}[OperationName];

/** Asks control for the assignment. At most one is in flight. */
export interface PollEffect {
  readonly do: 'poll';
}
/** Puts one report into the outbox, durably; the answer is a `reported` event. */
export interface ReportEffect {
  readonly do: 'report';
  readonly report: PendingReport;
}
/** Fires the abort signal of an operation; its answer no longer matters. */
export interface CancelEffect {
  readonly do: 'cancel';
  readonly op: number;
}

export type Effect = OperationEffect | PollEffect | ReportEffect | CancelEffect;

/**
 * One function per operation: an effect without an executor does not compile. Expected failures are thrown as Problem
 * and become `failed` events; anything else that is thrown is a bug.
 */
export type Executors = {
  readonly [D in OperationName]: (
    effect: Extract<OperationEffect, { readonly do: D }>,
    signal: AbortSignal,
  ) => Promise<OperationResults[D]>;
};
