/**
 * The world of the explorer: one host with its slots, boot loader, guard and state directory, and a control that offers one
 * version. All of it is a value; an action makes a new one. What the agent does is the real `step`.
 */
import type {
  DenyEntry,
  Effect,
  OfferRef,
  OperationEffect,
  PendingReport,
  StartFacts,
} from '#/agent/core/effect.ts';
import type { Event, Failure, Moment } from '#/agent/core/event.ts';
import type { Facts, SlotId, SlotStatus } from '#/agent/core/facts.ts';
import { mustJournal, step } from '#/agent/core/machine.ts';
import { mayResume } from '#/agent/core/resume.ts';
import { initialState, type State } from '#/agent/core/state.ts';
import type { Ticket, TrialPlan } from '#/agent/core/ticket.ts';
import type { Assignment } from '#/protocol/documents.ts';
import type { ErrorCode } from '#/protocol/errors.ts';
import {
  type ArtifactId,
  type ConfigId,
  type GroupName,
  type RolloutId,
  type VersionId,
  versionIdOf,
} from '#/protocol/ids.ts';

export type Step = (state: State, event: Event) => readonly [State, readonly Effect[]];
export type MustJournal = (before: State, after: State) => boolean;

/** The part under test: the machine as it is, or a mutant of it. */
export interface Machine {
  readonly step: Step;
  readonly mustJournal: MustJournal;
  /** Of the runner: what is live is started before the machine is asked. */
  readonly mayResume: typeof mayResume;
}
export const realMachine: Machine = { step, mustJournal, mayResume };

/** What the offered version is like. */
export const natures = [
  'good',
  /** Its check fails at once. */
  'unhealthy',
  /** Its check fails, within what is allowed, until the deadline. */
  'never-passes',
  /** Directories: its activation fails. Partitions: it panics before user space. */
  'dead-on-start',
  /** From its start on nothing is healthy any more, not the old version either. */
  'bad-environment',
  /** Unhealthy, and it changed data for good. */
  'one-way-unhealthy',
] as const;
export type Nature = (typeof natures)[number];
/** `first-install`: directories, and nothing is live yet. `not-enabled`: directories, and at a boot only the agent starts what is live. */
export const kinds = ['directory', 'partition', 'first-install', 'not-enabled'] as const;
export type Kind = (typeof kinds)[number];

export interface Slot {
  readonly artifact: VersionId | null;
  readonly status: SlotStatus;
  /** Ground truth, which no agent can see: all content is there. */
  readonly complete: boolean;
}

export interface Agent {
  readonly mem: State;
  readonly running: OperationEffect | null;
  /** The running operation has had its effect, its answer is still to come. */
  readonly wasApplied: boolean;
  readonly reports: readonly PendingReport[];
  readonly polling: boolean;
}

export interface World {
  readonly kind: Kind;
  readonly nature: Nature;
  /** Null: the agent's process is dead. */
  readonly agent: Agent | null;
  readonly disk: {
    /** Null: lost. */
    readonly journal: State | null;
    readonly ticket: Ticket | 'damaged' | null;
    readonly denied: readonly DenyEntry[];
    readonly floor: number;
    /** Reports that control gets for sure, by key. */
    readonly outbox: Readonly<Record<string, string>>;
    readonly broken: boolean;
  };
  readonly slots: Readonly<Record<SlotId, Slot>>;
  readonly live: SlotId | null;
  readonly boot: {
    readonly defaultSlot: SlotId | null;
    readonly trial: { readonly slot: SlotId; readonly triesLeft: number } | null;
  };
  readonly active: VersionId | null;
  readonly bootNumber: number;
  readonly monotonicMs: number;
  readonly wallMs: number;
  readonly rebootAsked: boolean;
  /** Reboots that are asked for do not come. */
  readonly isRebootIgnored: boolean;
  readonly control: 'offering' | 'recalled' | 'halted';
  readonly rollbackGeneration: number;
  readonly isEnvironmentBad: boolean;
  readonly disturbancesLeft: number;
  readonly attempts: number;
  readonly ledger: Ledger;
}

/** What has to be remembered to judge the next step. */
export interface Ledger {
  /** Attempt to the phase it ended in. */
  readonly ends: Readonly<Record<string, string>>;
  /** Changes of the live slot made for this attempt. */
  readonly switches: Readonly<Record<string, number>>;
  /** The deadline and boots of the ticket that was last seen durable. */
  readonly ticket: {
    readonly attempt: string;
    readonly deadlineRunMs: number;
    readonly bootsUsed: number;
    readonly armBootId: string;
  } | null;
  /** Orders withdrawn before the switch: the attempt must not switch any more. */
  readonly withdrawn: string | null;
  readonly healthyRounds: number;
  readonly journalLost: boolean;
  /** An operator took the host as it is. */
  readonly isVouched: boolean;
}

/** One artifact with two config sets: what is never taken apart must be told apart by both halves (I16). */
const artifactId = '1'.repeat(64) as ArtifactId;
export const V1 = versionIdOf(artifactId, 'a'.repeat(64) as ConfigId);
const configId = 'b'.repeat(64) as ConfigId;
export const V2 = versionIdOf(artifactId, configId);
const rolloutId = `r-${'0'.repeat(16)}` as RolloutId;

export class Violation extends Error {
  override readonly name = 'Violation';
  readonly invariant: string;
  constructor(invariant: string, message: string) {
    super(`${invariant}: ${message}`);
    this.invariant = invariant;
  }
}

export function planOf(nature: Nature): TrialPlan {
  return {
    soakMs: 1000,
    deadlineMs: 6000,
    maxBoots: 2,
    control: 'offline-ok',
    oneWay: nature === 'one-way-unhealthy',
    checks: [
      {
        name: 'check',
        required: true,
        timeoutMs: 500,
        intervalMs: 1000,
        successesNeeded: 1,
        failuresAllowed: nature === 'never-passes' ? 1000 : 0,
        baseline: 'not-worse',
        startAfterMs: 0,
      },
    ],
  };
}

export function offerOf(world: World, artifactId: VersionId): OfferRef {
  return {
    artifactId,
    class: 'web',
    version: artifactId === V1 ? '1' : '2',
    release: artifactId === V1 ? 1 : 2,
    rolloutId: artifactId === V1 ? null : rolloutId,
    seq: 1,
    retryGeneration: 0,
    sources: ['https://store.example/2'],
    plan: planOf(world.nature),
  };
}

export function assignmentOf(world: World): Assignment {
  const offer = {
    artifactId,
    configId,
    rolloutId,
    sources: ['https://store.example/2'],
    retryGeneration: 0,
  };
  return {
    generation: 1,
    group: 'web' as GroupName,
    offer: world.control === 'offering' ? offer : null,
    halted: world.control === 'halted',
    rollbackGeneration: world.rollbackGeneration,
    why: '',
  };
}

/** What is live before anything has happened. */
export const firstLive = {
  directory: V1,
  partition: 'a',
  'first-install': null,
  'not-enabled': V1,
} as const;

export function firstWorld(kind: Kind, nature: Nature, disturbances: number): World {
  const old: Slot = { artifact: V1, status: 'good', complete: true };
  const empty: Slot = { artifact: null, status: 'empty', complete: false };
  const live = firstLive[kind];
  const slots = {
    directory: { [V1]: old },
    partition: { a: old, b: empty },
    'first-install': {},
    'not-enabled': { [V1]: old },
  };
  return {
    kind,
    nature,
    agent: null,
    disk: {
      journal: initialState(),
      ticket: null,
      denied: [],
      floor: 1,
      outbox: {},
      broken: false,
    },
    slots: slots[kind],
    live,
    boot: { defaultSlot: live, trial: null },
    active: live === null ? null : V1,
    bootNumber: 1,
    monotonicMs: 0,
    wallMs: 1_800_000_000_000,
    rebootAsked: false,
    isRebootIgnored: false,
    control: 'offering',
    rollbackGeneration: 0,
    isEnvironmentBad: false,
    disturbancesLeft: disturbances,
    attempts: 0,
    ledger: {
      ends: {},
      switches: {},
      ticket: null,
      withdrawn: null,
      healthyRounds: 0,
      journalLost: false,
      isVouched: false,
    },
  };
}

export function bootId(world: World): string {
  return `boot-${world.bootNumber}`;
}

export function attemptName(number: number): string {
  return number.toString(16).padStart(32, '0');
}

export function momentOf(world: World): Moment {
  return {
    wallMs: world.wallMs,
    monotonicMs: world.monotonicMs,
    bootId: bootId(world),
    random: 0.5,
    freshId: attemptName(world.attempts + 1),
  };
}

export function factsOf(world: World): Facts {
  const { kind, live, boot } = world;
  return {
    bootId: bootId(world),
    live,
    liveArtifact: live === null ? null : (world.slots[live]?.artifact ?? null),
    active: world.active,
    slots: Object.entries(world.slots).map(([slot, of]) => ({
      slot,
      status: of.status,
      artifactId: of.artifact,
      version: of.artifact === null ? null : of.artifact.slice(0, 1),
      release: of.artifact === null ? null : Number(of.artifact.slice(0, 1)),
      reason: null,
    })),
    boot: kind === 'partition' ? boot : { defaultSlot: live, trial: null },
  };
}

export function startFactsOf(world: World): StartFacts {
  const { disk } = world;
  return {
    facts: factsOf(world),
    ticket: disk.ticket,
    denied: disk.denied,
    journal: disk.journal === null ? 'lost' : 'read',
    writable: !disk.broken,
  };
}

export function failureOf(code: ErrorCode, kind: Failure['kind']): Failure {
  return { code, kind, message: 'as the explorer wants it' };
}

/** Does the check pass now? */
export function isHealthy(world: World): boolean {
  if (world.isEnvironmentBad || world.active === null) return false;
  if (world.active === V1) return true;
  return world.nature === 'good';
}
