/** What can happen next in the world of the explorer: one named action each, disturbances from a small budget. */
import type { OperationEffect } from '#/agent/core/effect.ts';
import type { Command, Event, Failed, Failure, Succeeded } from '#/agent/core/event.ts';
import { wakeInMs } from '#/agent/core/machine.ts';
import { refusal } from '#/agent/core/orders.ts';
import { initialState, type State } from '#/agent/core/state.ts';
import type { Ticket } from '#/agent/core/ticket.ts';
import { feed, type Undated } from './feed.ts';
import { makeLive, perform, startLive } from './perform.ts';
import {
  type Agent,
  assignmentOf,
  bootId,
  factsOf,
  failureOf,
  firstLive,
  type Machine,
  momentOf,
  startFactsOf,
  V1,
  V2,
  Violation,
  type World,
} from './world.ts';

export interface Action {
  readonly name: string;
  readonly next: World;
}
/** Time that the guard leaves the agent after the deadline. */
const GUARD_GRACE_MS = 2000;

/** States of an attempt in which nothing is armed yet: they may last for hours. */
const PREPARING = [
  'offered',
  'preflight',
  'downloading',
  'verifying',
  'staged',
  'waiting',
] as const;
const RECALLABLE: ReadonlySet<State['at']> = new Set([...PREPARING, 'arming']);
const UNARMED: ReadonlySet<State['at']> = new Set([...PREPARING, 'idle', 'checking']);

/** The runner starts with what the disk has: what is live runs, then the machine is asked. */
function start(down: World, machine: Machine): World {
  const world = resume(down, machine);
  const isLost = world.disk.journal === null;
  const mem = world.disk.journal ?? initialState();
  const fresh: Agent = { mem, running: null, wasApplied: false, reports: [], polling: false };
  const started = feed({ ...world, agent: fresh }, machine, {
    type: 'started',
    ...startFactsOf(world),
  });
  const first = started.agent?.running?.do;
  const isWithoutTicket = world.disk.ticket === null;
  if (isLost && isWithoutTicket && ['switch', 'arm', 'roll-back'].includes(first ?? '')) {
    throw new Violation('I13', `without journal and ticket the agent began with ${first}`);
  }
  checkResumed(started);
  return isLost && !world.disk.broken
    ? { ...started, ledger: { ...started.ledger, journalLost: true } }
    : started;
}

function resume(world: World, { mayResume }: Machine): World {
  const { journal, ticket } = world.disk;
  if (world.kind === 'partition' || world.active !== null) return world;
  return mayResume(ticket, journal, factsOf(world)) ? startLive(world) : world;
}

/** I9: a version that is being prepared does not keep the one before it from running. */
function checkResumed({ agent, live, active }: World): void {
  if (live === null || active !== null || agent === null || !UNARMED.has(agent.mem.at)) return;
  throw new Violation('I9', `${live} is live and does not run, in ${agent.mem.at}`);
}

function withTicket(world: World, change: Partial<Ticket>): World {
  const { ticket, broken } = world.disk;
  if (ticket === null || ticket === 'damaged' || broken) return world;
  return { ...world, disk: { ...world.disk, ticket: { ...ticket, ...change } } };
}

/** The guard in early boot, before the agent (agent.md, "Early-boot rule"). */
function guardBoot(world: World): World {
  const { ticket } = world.disk;
  if (ticket === null || ticket === 'damaged' || ticket.state === 'committed') return world;
  const counted = withTicket(world, {
    bootsUsed: ticket.bootsUsed + 1,
    lastBootId: bootId(world),
  });
  const isUsedUp = ticket.bootsUsed + 1 > ticket.maxBoots && world.live === ticket.targetSlot;
  return ticket.state === 'rolling-back' || isUsedUp ? guardBack(counted, ticket) : counted;
}

/** Goes back without the agent: the decision into the ticket if it can be written, then the link or the boot loader. */
function guardBack(world: World, ticket: Ticket): World {
  if (ticket.plan.oneWay || world.live !== ticket.targetSlot) return world;
  const reason = ticket.reason ?? { code: 'E_DEADLINE', message: 'by the guard' };
  const decided = withTicket(world, { state: 'rolling-back', reason });
  if (world.kind !== 'partition') return startLive(makeLive(decided, ticket.rollbackSlot));
  const slot = decided.slots[ticket.targetSlot];
  const bad =
    slot === undefined
      ? decided.slots
      : { ...decided.slots, [ticket.targetSlot]: { ...slot, status: 'bad' as const } };
  const boot = { defaultSlot: ticket.rollbackSlot, trial: null };
  return { ...decided, slots: bad, boot, rebootAsked: true };
}

/** A boot: the loader chooses, dead versions cost their tries, then the guard. The agent is not started yet. */
export function reboot(world: World): World {
  let { trial } = world.boot;
  let live = world.live;
  if (world.kind === 'partition') {
    live = world.boot.defaultSlot;
    while (trial !== null && trial.triesLeft > 0) {
      trial = { ...trial, triesLeft: trial.triesLeft - 1 };
      const artifact = world.slots[trial.slot]?.artifact;
      const isDead = artifact === V2 && world.nature === 'dead-on-start';
      if (isDead || !world.slots[trial.slot]?.complete) continue;
      live = trial.slot;
      break;
    }
    if (trial !== null && live !== trial.slot) trial = null;
  }
  const moved = makeLive({ ...world, agent: null }, live);
  const booted: World = {
    ...moved,
    boot: { ...world.boot, trial },
    bootNumber: world.bootNumber + 1,
    monotonicMs: 0,
    rebootAsked: false,
    active: null,
  };
  return guardBoot(world.kind === 'not-enabled' ? booted : startLive(booted));
}

function isOverdue(world: World): boolean {
  const { ticket } = world.disk;
  if (ticket === null || ticket === 'damaged' || ticket.state !== 'open') return false;
  return ticket.targetSlot === world.live;
}

/** Time passes until the machine wants to be woken. */
function tick(world: World, machine: Machine): World {
  const { agent } = world;
  if (agent === null) return world;
  const waitMs = wakeInMs(agent.mem, momentOf(world));
  if (waitMs === null) return world;
  const later = {
    ...world,
    monotonicMs: world.monotonicMs + waitMs,
    wallMs: world.wallMs + waitMs,
  };
  return feed(later, machine, { type: 'ticked' });
}

/** The running operation answers; the same answer once more has to change nothing (I11: stray events are ignored). */
function answer(
  world: World,
  machine: Machine,
  event: Omit<Succeeded, 'now'> | Omit<Failed, 'now'>,
): World {
  const { agent } = world;
  if (agent === null) return world;
  const settled: World = { ...world, agent: { ...agent, running: null, wasApplied: false } };
  const next = feed(settled, machine, event as Undated);
  const mem = next.agent?.mem;
  if (mem !== undefined) {
    const [again, effects] = machine.step(mem, { ...event, now: momentOf(next) } as Event);
    if (again !== mem || effects.length > 0) {
      throw new Violation('I11', `a repeated answer to ${event.do} changed ${mem.at}`);
    }
  }
  return next;
}

function complete(world: World, machine: Machine, effect: OperationEffect): World {
  const done = perform(world, effect);
  const { do: name, op } = effect;
  return 'failure' in done
    ? answer(done.world, machine, { type: 'failed', do: name, op, failure: done.failure })
    : answer(done.world, machine, {
        type: 'succeeded',
        do: name,
        op,
        result: done.result,
      } as Succeeded);
}

function deliver(world: World, machine: Machine): World {
  const report = world.agent?.reports[0];
  if (world.agent === null || report === undefined) return world;
  const rest = world.agent.reports.slice(1);
  const outbox = { ...world.disk.outbox, [report.key]: report.phase };
  const sent = {
    ...world,
    disk: { ...world.disk, outbox },
    agent: { ...world.agent, reports: rest },
  };
  return feed(sent, machine, { type: 'reported', key: report.key });
}

/** The withdrawal that a poll answer brings, for I15. */
function withdrawn(world: World, before: State): World {
  const { agent, ledger } = world;
  if (agent === null || !RECALLABLE.has(before.at)) return world;
  if (world.control !== 'recalled' || !('attempt' in before)) return world;
  if (before.attempt.cause !== 'control') return world;
  return { ...world, ledger: { ...ledger, withdrawn: before.attempt.id } };
}

function answerPoll(world: World, machine: Machine): World {
  const { agent } = world;
  if (agent === null) return world;
  const asked: World = { ...world, agent: { ...agent, polling: false } };
  const next = feed(asked, machine, {
    type: 'polled',
    assignment: assignmentOf(world),
    pollAfterMs: 3600_000,
  });
  return next.agent?.mem.modes.observeOnly === true ? next : withdrawn(next, agent.mem);
}

function failPoll(world: World, machine: Machine): World {
  const { agent } = world;
  if (agent === null) return world;
  const asked: World = { ...world, agent: { ...agent, polling: false } };
  const failure: Failure = { ...failureOf('E_NETWORK', 'unavailable'), retryAfterMs: 3600_000 };
  return feed(asked, machine, { type: 'poll-failed', failure });
}

/** Does the host rest? Then nothing more happens by itself. */
export function isAtRest(world: World): boolean {
  const { agent } = world;
  if (agent === null || agent.running !== null || agent.reports.length > 0) return false;
  const { mem } = agent;
  if ((world.rebootAsked && !world.isRebootIgnored) || mem.modes.observeOnly || agent.polling)
    return false;
  return (
    (mem.at === 'idle' && mem.step === 'settled') ||
    (mem.at === 'needs-attention' && mem.step === 'rest')
  );
}

/** The next thing in a world without disturbances and without network; null at rest. Names its liveness. */
export function benign(world: World, machine: Machine): Action | null {
  const { agent } = world;
  if (world.disk.broken) {
    return {
      name: 'store writable again',
      next: { ...world, disk: { ...world.disk, broken: false } },
    };
  }
  if (world.rebootAsked && !world.isRebootIgnored) return { name: 'reboot', next: reboot(world) };
  if (agent === null) return { name: 'agent starts', next: start(world, machine) };
  if (agent.reports.length > 0) return { name: 'report', next: deliver(world, machine) };
  if (agent.running !== null) {
    return { name: agent.running.do, next: complete(world, machine, agent.running) };
  }
  if (agent.polling) {
    return world.control === 'halted'
      ? { name: 'halt lifted', next: answerPoll({ ...world, control: 'offering' }, machine) }
      : { name: 'poll fails', next: failPoll(world, machine) };
  }
  if (isAtRest(world)) return null;
  if (agent.mem.modes.paused && !agent.mem.modes.observeOnly) {
    return {
      name: 'resume',
      next: feed(world, machine, { type: 'commanded', command: { kind: 'resume' } }),
    };
  }
  return { name: 'time passes', next: tick(world, machine) };
}

/** Everything that can happen next. */
export function* actions(world: World, machine: Machine): Generator<Action> {
  const { agent } = world;
  const usual = usualAction(world, machine);
  if (usual !== null) yield usual;
  if (world.disturbancesLeft === 0) return;
  const spent: World = { ...world, disturbancesLeft: world.disturbancesLeft - 1 };
  yield { name: 'power cut', next: reboot(spent) };
  if (agent === null) {
    yield* whileDead(spent);
    return;
  }
  yield { name: 'agent killed', next: { ...spent, agent: null } };
  if (agent.running !== null) yield* faults(spent, machine, agent, agent.running);
  if (agent.reports.length > 0) return;
  if (agent.running !== null) {
    // Time passes, or control answers, while an operation is under way.
    yield { name: `time passes during ${agent.running.do}`, next: tick(spent, machine) };
  }
  yield* orders(spent, machine, agent);
  yield* accidents(spent);
}

function usualAction(world: World, machine: Machine): Action | null {
  const { agent } = world;
  if (agent?.polling === true && agent.running === null && agent.reports.length === 0) {
    // A third attempt shows nothing new.
    return world.attempts >= 2
      ? { name: 'poll fails', next: failPoll(world, machine) }
      : { name: `control: ${world.control}`, next: answerPoll(world, machine) };
  }
  const next = benign(world, machine);
  if (next !== null || agent?.mem.at !== 'idle' || world.attempts >= 2) return next;
  return { name: 'time passes', next: tick(world, machine) };
}

function* whileDead(spent: World): Generator<Action> {
  if (isOverdue(spent)) {
    const { ticket } = spent.disk;
    if (ticket !== null && ticket !== 'damaged') {
      const waitMs = ticket.plan.deadlineMs + GUARD_GRACE_MS;
      const later = { ...spent, monotonicMs: spent.monotonicMs + waitMs };
      yield { name: 'agent stays dead, guard goes back', next: guardBack(later, ticket) };
    }
  }
  yield* losses(spent);
}

function* losses(spent: World): Generator<Action> {
  const { disk } = spent;
  if (disk.journal !== null) {
    yield { name: 'journal lost', next: { ...spent, disk: { ...disk, journal: null } } };
    yield { name: 'journal put back to an old snapshot', next: rewind(spent) };
  }
  if (disk.ticket !== null && disk.ticket !== 'damaged') {
    yield { name: 'ticket damaged', next: { ...spent, disk: { ...disk, ticket: 'damaged' } } };
  }
}

/** F63: the state of the day before, on a host that has gone on since. */
function rewind(world: World): World {
  const live = firstLive[world.kind];
  const known = { live, artifactId: live === null ? null : V1, previous: null, retryGeneration: 0 };
  const journal: State = { ...initialState(), known };
  const ledger = { ...world.ledger, journalLost: true };
  return { ...world, disk: { ...world.disk, journal }, ledger };
}

function* faults(
  spent: World,
  machine: Machine,
  agent: Agent,
  effect: OperationEffect,
): Generator<Action> {
  const { do: name, op } = effect;
  const fail = (world: World, failure: Failure): World =>
    answer(world, machine, { type: 'failed', do: name, op, failure });
  if (!agent.wasApplied) {
    const failures = [
      failureOf('E_NETWORK', 'unavailable'),
      failureOf('E_IO', 'damaged'),
      failureOf('E_SPACE', 'exhausted'),
      failureOf('E_ARTIFACT', 'refused'),
    ];
    for (const failure of failures) {
      yield { name: `${name} fails: ${failure.code}`, next: fail(spent, failure) };
    }
    const done = perform(spent, effect).world;
    yield {
      name: `${name} is done, and fails: E_IO`,
      next: fail(done, failureOf('E_IO', 'damaged')),
    };
    yield { name: `${name} is done, agent killed before it knows`, next: { ...done, agent: null } };
    yield { name: `${name} is done, power cut before the agent knows`, next: reboot(done) };
    const { agent: same } = done;
    if (same !== null) {
      yield {
        name: `${name} is done, its answer late`,
        next: { ...done, agent: { ...same, wasApplied: true } },
      };
    }
  }
  if (name === 'verify') yield { name: 'slot rots', next: rot(spent, effect.slot) };
  if (name === 'probe' && agent.mem.at === 'trial') {
    const results = effect.checks.map((check) => ({
      name: check,
      ok: false,
      durationMs: 1,
      detail: 'flaky',
    }));
    yield {
      name: 'check fails once',
      next: answer({ ...spent, ledger: { ...spent.ledger, healthyRounds: 0 } }, machine, {
        type: 'succeeded',
        do: 'probe',
        op,
        result: { results },
      }),
    };
  }
}

function rot(world: World, slot: string): World {
  const of = world.slots[slot];
  return of === undefined || of.status === 'good'
    ? world
    : { ...world, slots: { ...world.slots, [slot]: { ...of, complete: false } } };
}

function* orders(spent: World, machine: Machine, agent: Agent): Generator<Action> {
  const asked = (world: World): World => answerPoll(world, machine);
  if (agent.mem.at !== 'idle' && agent.mem.at !== 'checking') {
    if (spent.control !== 'recalled') {
      yield { name: 'offer recalled', next: asked({ ...spent, control: 'recalled' }) };
    }
    if (spent.control !== 'halted') {
      yield { name: 'fleet halted', next: asked({ ...spent, control: 'halted' }) };
    }
  }
  const rollbackGeneration = spent.rollbackGeneration + 1;
  yield { name: 'control orders a rollback', next: asked({ ...spent, rollbackGeneration }) };
  const commands: readonly Command[] = [
    { kind: 'pause' },
    { kind: 'rollback' },
    { kind: 'install-file', path: '/media/2.sbb' },
    { kind: 'clear' },
    { kind: 'retry', artifactId: V2 },
  ];
  for (const command of commands) {
    if (refusal(agent.mem, command) !== null) continue;
    const ledger = {
      ...spent.ledger,
      isVouched: spent.ledger.isVouched || command.kind === 'clear',
    };
    const told = feed({ ...spent, ledger }, machine, { type: 'commanded', command });
    yield { name: `operator: ${command.kind}`, next: told };
  }
  yield { name: 'control says: rewound', next: feed(spent, machine, { type: 'rewound' }) };
}

function* accidents(spent: World): Generator<Action> {
  const { disk } = spent;
  if (!disk.broken) {
    yield { name: 'store not writable', next: { ...spent, disk: { ...disk, broken: true } } };
  }
  yield {
    name: 'wall clock jumps ten years',
    next: { ...spent, wallMs: spent.wallMs + 10 * 365 * 86_400_000 },
  };
  if (spent.rebootAsked && !spent.isRebootIgnored) {
    yield { name: 'reboots are ignored', next: { ...spent, isRebootIgnored: true } };
  }
  if (
    spent.kind === 'partition' &&
    spent.boot.trial !== null &&
    spent.live !== spent.boot.trial.slot
  ) {
    const boot = { ...spent.boot };
    yield { name: 'boot loader skips the trial', next: skipTrial({ ...spent, boot }) };
    yield { name: 'boot environment torn', next: { ...spent, boot: { ...boot, trial: null } } };
  }
}

/** F34: the host boots, and the boot loader takes the default without touching the counter. */
function skipTrial(world: World): World {
  const { trial } = world.boot;
  const hidden = reboot({ ...world, boot: { ...world.boot, trial: null } });
  return { ...hidden, boot: { ...hidden.boot, trial } };
}
