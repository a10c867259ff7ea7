/** Events: everything that the machine is told. Time and randomness enter here alone. */
import type { Assignment } from '#/protocol/documents.ts';
import type { ErrorCode, ErrorKind } from '#/protocol/errors.ts';
import type { VersionId } from '#/protocol/ids.ts';
import type { OperationName, OperationResults, StartFacts } from './effect.ts';

/** When an event happened, and the randomness that its handling may use. */
export interface Moment {
  readonly wallMs: number;
  /** Time in which the host was running since this boot. */
  readonly monotonicMs: number;
  readonly bootId: string;
  /** In [0, 1). */
  readonly random: number;
  /** 32 random hex digits: the id of an attempt that may begin with this event. */
  readonly freshId: string;
}

/** An expected failure as data: a Problem without its stack. */
export interface Failure {
  readonly code: ErrorCode;
  readonly kind: ErrorKind;
  readonly message: string;
  /** How long the other side asked us to wait. */
  readonly retryAfterMs?: number;
}

export type Succeeded = {
  readonly [D in OperationName]: {
    readonly type: 'succeeded';
    readonly do: D;
    readonly op: number;
    readonly result: OperationResults[D];
    readonly now: Moment;
  };
}[OperationName];

export interface Failed {
  readonly type: 'failed';
  readonly do: OperationName;
  readonly op: number;
  readonly failure: Failure;
  readonly now: Moment;
}

/** Orders of the operator at the host. `refusal` (machine.ts) says beforehand why one is not possible now. */
export type Command =
  | { readonly kind: 'check' }
  | { readonly kind: 'pause' }
  | { readonly kind: 'resume' }
  | { readonly kind: 'rollback' }
  | { readonly kind: 'install-file'; readonly path: string }
  /** Clears the deny-list entry. */
  | { readonly kind: 'retry'; readonly artifactId: VersionId }
  /** Leaves needs-attention. */
  | { readonly kind: 'clear' };

export type Event =
  | ({ readonly type: 'started'; readonly now: Moment } & StartFacts)
  | { readonly type: 'ticked'; readonly now: Moment }
  | Succeeded
  | Failed
  /** The assignment in force, also when control answered that it is unchanged. */
  | {
      readonly type: 'polled';
      readonly assignment: Assignment;
      readonly pollAfterMs: number;
      readonly now: Moment;
    }
  | { readonly type: 'poll-failed'; readonly failure: Failure; readonly now: Moment }
  /** The report with this key is in the outbox. */
  | { readonly type: 'reported'; readonly key: string; readonly now: Moment }
  /** Control has newer reports of this host than the host itself: it was put back to an old snapshot (F63). */
  | { readonly type: 'rewound'; readonly now: Moment }
  /** The new state could not be written: it was dropped, and its effects were not run (F30). */
  | { readonly type: 'store-failed'; readonly failure: Failure; readonly now: Moment }
  | { readonly type: 'commanded'; readonly command: Command; readonly now: Moment };
export type EventType = Event['type'];
