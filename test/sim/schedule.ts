/** The faults and orders of one history, drawn from its seed: a list of values, so that a failing one can be made shorter. */
import type { PersistenceModel } from '#/test/support/sim-fs/crash-states.ts';
import type { DiskTrouble } from './host.ts';
import { seeded, type SimRandom } from './random.ts';
import { badKinds, type Kind } from './versions.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
/** Backups of control are taken all the time, for the day on which one is needed. */
export const BACKUP_EVERY_MS = 25 * MINUTE;
/** From a backup until what was revoked after it is pinned, and unpinned again. */
const FORGOTTEN_MS = 35 * MINUTE;
/** How long a rollout of the simulated groups takes. */
const AFTER_PIN_MS = 12 * MINUTE;

/** Groups of the simulated fleet; hosts take turns. */
export const groups = ['web', 'edge'] as const;
export type SimGroup = (typeof groups)[number];

/** `ops`: at the n-th change of the disk from then on, so that crashes fall between any two effects. */
export type Fault = { readonly atMs: number } & (
  | { readonly kind: 'kill'; readonly host: number; readonly ops: number }
  | {
      readonly kind: 'power-cut';
      readonly host: number;
      readonly ops: number;
      readonly model: PersistenceModel;
      readonly draw: number;
    }
  | { readonly kind: 'restart-agent'; readonly host: number }
  | { readonly kind: 'off'; readonly host: number; readonly forMs: number }
  | {
      readonly kind: 'disk';
      readonly host: number;
      readonly trouble: Exclude<DiskTrouble, null>;
      readonly forMs: number;
    }
  | {
      readonly kind: 'weather';
      /** Null: all hosts. */
      readonly host: number | null;
      readonly loss: number;
      readonly twice: number;
      readonly delayMs: number;
      readonly isCut: boolean;
      readonly forMs: number;
    }
  | {
      readonly kind: 'clock';
      readonly host: number;
      readonly errorMs: number;
      readonly forMs: number;
    }
  | { readonly kind: 'snapshot'; readonly host: number; readonly draw: number }
  | { readonly kind: 'rewind'; readonly host: number }
  | { readonly kind: 'clone'; readonly host: number; readonly draw: number }
  | { readonly kind: 'kill-control'; readonly statements: number; readonly forMs: number }
  | { readonly kind: 'restore-control'; readonly ago: number; readonly forMs: number }
  | ({ readonly kind: 'order' } & Order)
);

/** What an operator orders. `version` counts the releases of the history. */
export type Order =
  | { readonly order: 'pin'; readonly group: SimGroup; readonly version: number }
  | { readonly order: 'unpin' | 'pause' | 'resume' | 'promote'; readonly group: SimGroup }
  | { readonly order: 'abort'; readonly group: SimGroup; readonly revert: boolean }
  | { readonly order: 'halt' | 'lift'; readonly group: SimGroup | null }
  | { readonly order: 'pin-host'; readonly host: number; readonly version: number }
  | {
      readonly order: 'unpin-host' | 'hold' | 'unhold' | 'retry' | 'rollback';
      readonly host: number;
    }
  | { readonly order: 'revoke'; readonly version: number };

export interface Plan {
  /** What each release does when it runs; the first is good. */
  readonly kinds: readonly Kind[];
  readonly faults: readonly Fault[];
}

/** Events per hour: of each host, or of the fleet. */
const perHost = {
  kill: 2,
  'power-cut': 2,
  'restart-agent': 0.4,
  off: 0.2,
  disk: 0.5,
  weather: 0.6,
  clock: 0.15,
  rewind: 0.1,
  clone: 0.02,
} as const;
const perFleet = {
  weather: 0.5,
  'kill-control': 3,
  'restore-control': 0.4,
  pin: 9,
  order: 8,
} as const;

/** The history of a seed: `hours` of trouble from `startMs` on. */
export function planOf(seed: number, hosts: number, hours: number, startMs: number): Plan {
  const random = seeded(seed, 'plan');
  const faults: Fault[] = [];
  const kinds: Kind[] = ['good'];
  const lengthMs = hours * HOUR;
  const anywhere = (): number => startMs + Math.floor(random.unit() * lengthMs);
  const times = (rate: number): number => Math.floor(rate * hours + random.unit());
  const pins = [startMs, ...Array.from({ length: times(perFleet.pin) }, anywhere)].sort(
    (a, b) => a - b,
  );
  for (const atMs of pins) {
    kinds.push(random.chance(0.55) ? 'good' : random.pick(badKinds));
    const group = random.pick(groups);
    faults.push({ atMs, kind: 'order', order: 'pin', group, version: kinds.length - 1 });
  }
  /** Most trouble comes while something is rolled out: that is when it hurts. */
  const moments = (rate: number): readonly number[] =>
    Array.from({ length: times(rate) }, () =>
      random.chance(0.65) ? random.pick(pins) + span(random, 500, AFTER_PIN_MS) : anywhere(),
    );
  for (let host = 0; host < hosts; host += 1) {
    for (const [kind, rate] of Object.entries(perHost))
      for (const atMs of moments(rate))
        faults.push(...hostFault(random, kind as keyof typeof perHost, host, atMs));
  }
  for (const atMs of moments(perFleet.weather)) faults.push(weather(random, null, atMs));
  for (const atMs of moments(perFleet['kill-control'])) {
    const forMs = span(random, 1000, 10 * MINUTE);
    faults.push({ atMs, kind: 'kill-control', statements: 1 + random.below(60), forMs });
  }
  for (const atMs of moments(perFleet['restore-control'])) {
    const forMs = span(random, 5000, 10 * MINUTE);
    faults.push({ atMs, kind: 'restore-control', ago: random.below(2), forMs });
  }
  for (const atMs of moments(perFleet.order))
    faults.push(...orderAt(random, atMs, hosts, kinds.length));
  faults.push(stutter(seeded(seed, 'stutter'), hosts, startMs, lengthMs));
  faults.push(...forgottenRevocation(seeded(seed, 'forgotten'), startMs + lengthMs));
  return { kinds, faults: faults.sort((a, b) => a.atMs - b.atMs) };
}

/** Short spans are as likely as long ones. */
function span(random: SimRandom, fromMs: number, toMs: number): number {
  return Math.round(fromMs * (toMs / fromMs) ** random.unit());
}

function weather(random: SimRandom, host: number | null, atMs: number): Fault {
  return {
    atMs,
    kind: 'weather',
    host,
    loss: random.chance(0.7) ? random.unit() * 0.5 : 0,
    twice: random.chance(0.5) ? random.unit() * 0.5 : 0,
    delayMs: random.chance(0.5) ? span(random, 100, 40_000) : 50,
    isCut: random.chance(0.25),
    forMs: span(random, 10_000, HOUR),
  };
}

function hostFault(
  random: SimRandom,
  kind: keyof typeof perHost,
  host: number,
  atMs: number,
): readonly Fault[] {
  switch (kind) {
    case 'kill':
      return [{ atMs, kind, host, ops: random.below(120) }];
    case 'power-cut': {
      const model = random.pick(['weak', 'weak', 'ordered'] as const);
      return [{ atMs, kind, host, ops: random.below(120), model, draw: random.unit() }];
    }
    case 'restart-agent':
      return [{ atMs, kind, host }];
    case 'off':
      return [{ atMs, kind, host, forMs: span(random, MINUTE, 2 * HOUR) }];
    case 'disk': {
      const trouble = random.chance(0.7) ? 'full' : 'sync-fails';
      return [{ atMs, kind, host, trouble, forMs: span(random, 2000, 20 * MINUTE) }];
    }
    case 'weather':
      return [weather(random, host, atMs)];
    case 'clock': {
      const sign = random.chance(0.5) ? 1 : -1;
      const errorMs = sign * span(random, MINUTE, 400 * 24 * HOUR);
      return [{ atMs, kind, host, errorMs, forMs: span(random, MINUTE, HOUR) }];
    }
    case 'rewind': {
      const beforeMs = Math.max(0, atMs - span(random, MINUTE, HOUR));
      return [
        { atMs: beforeMs, kind: 'snapshot', host, draw: random.unit() },
        { atMs, kind, host },
      ];
    }
    case 'clone':
      return [{ atMs, kind, host, draw: random.unit() }];
  }
}

/** Halts and holds are taken back some time later. */
function orderAt(
  random: SimRandom,
  atMs: number,
  hosts: number,
  versions: number,
): readonly Fault[] {
  const group = random.pick(groups);
  const host = random.below(hosts);
  const version = random.below(versions);
  const laterMs = atMs + span(random, 5_000, 40 * MINUTE);
  const one = (order: Order): readonly Fault[] => [{ atMs, kind: 'order', ...order }];
  const two = (order: Order, back: Order): readonly Fault[] => [
    { atMs, kind: 'order', ...order },
    { atMs: laterMs, kind: 'order', ...back },
  ];
  const scope = random.chance(0.5) ? group : null;
  const draws: readonly (() => readonly Fault[])[] = [
    () => two({ order: 'halt', group: scope }, { order: 'lift', group: scope }),
    () => two({ order: 'halt', group: scope }, { order: 'lift', group: scope }),
    () => two({ order: 'hold', host }, { order: 'unhold', host }),
    () => two({ order: 'pin-host', host, version }, { order: 'unpin-host', host }),
    () => two({ order: 'pause', group }, { order: 'resume', group }),
    () => one({ order: 'resume', group }),
    () => one({ order: 'promote', group }),
    () => one({ order: 'abort', group, revert: random.chance(0.6) }),
    () => one({ order: 'retry', host }),
    () => one({ order: 'retry', host }),
    () => one({ order: 'rollback', host }),
    () => one({ order: 'unpin', group }),
    () => one({ order: 'revoke', version }),
  ];
  return random.pick(draws)();
}

/** One host whose messages come twice, the second ones late: some of them after its next boot. */
function stutter(random: SimRandom, hosts: number, atMs: number, forMs: number): Fault {
  const host = random.below(hosts);
  return { atMs, kind: 'weather', host, loss: 0, twice: 0.9, delayMs: 50, isCut: false, forMs };
}

/**
 * In some histories: control is put back to before a revocation that hosts have heard of, and its operator, who no longer
 * sees it there, pins what was revoked.
 */
function forgottenRevocation(random: SimRandom, endMs: number): readonly Fault[] {
  const backups = Math.floor((endMs - FORGOTTEN_MS) / BACKUP_EVERY_MS);
  const [isDrawn, group, host] = [random.chance(0.3), random.pick(groups), random.below(4)];
  if (!isDrawn || backups < 1) return [];
  const backupMs = BACKUP_EVERY_MS * (1 + random.below(backups));
  // The one that is released first in every history: it is known by then.
  const version = 1;
  const at = (minutes: number): number => backupMs + minutes * MINUTE;
  // A pin lets all of its group ask for what is trusted.
  return [
    { atMs: at(2), kind: 'order', order: 'revoke', version },
    ...groups.map(
      (one): Fault => ({ atMs: at(4), kind: 'order', order: 'pin', group: one, version: 0 }),
    ),
    { atMs: at(15), kind: 'restore-control', ago: 0, forMs: 5000 },
    { atMs: at(17), kind: 'order', order: 'pin', group, version },
    { atMs: at(17), kind: 'order', order: 'pin-host', host, version },
    { atMs: at(FORGOTTEN_MS / MINUTE), kind: 'order', order: 'unpin-host', host },
  ];
}

/** One line per fault, for people and for the list of regressions. */
export function describeFault(fault: Fault): string {
  const { atMs, kind, ...rest } = fault;
  const words = Object.entries(rest).map(([key, value]) => `${key}=${String(value)}`);
  return `${(atMs / MINUTE).toFixed(2)} min ${kind} ${words.join(' ')}`;
}
