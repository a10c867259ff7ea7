/**
 * The runner: takes events, asks the machine, journals the new state, runs the effects, and feeds their results back as
 * events. The only place that awaits effects. Everything of the world comes through ports, so the same runner runs on a
 * host and in the simulation.
 *
 * Order that everything rests on: a state is durable before any effect of it runs; a state that could not be written is
 * dropped with its effects, and from then on the machine only observes (F29, F30).
 */
import type {
  CancelEffect,
  Effect,
  Executors,
  OperationEffect,
  StartFacts,
} from './core/effect.ts';
import type { Command, Event, Failure, Moment } from './core/event.ts';
import { mustJournal, step, wakeInMs } from './core/machine.ts';
import { refusal } from './core/orders.ts';
import { mayResume } from './core/resume.ts';
import { initialState, parseState, type State } from './core/state.ts';
import type { Clock, Facts, PollAnswer, Random, StateStore } from './ports.ts';
import { isProblem, must, Problem } from '#/protocol/errors.ts';

/** Events that wait for their turn; more means that something feeds the runner faster than a disk can journal. */
const MAX_QUEUED_EVENTS = 256;
/** Operations that wait for the one before; the machine has one in flight and may have cancelled a few. */
const MAX_QUEUED_OPERATIONS = 16;
/** The machine is asked at least so often, whatever it wants: a lost wake-up cannot stop it for good. */
const LONGEST_SLEEP_MS = 60 * 60_000;
/** Longer than any pause of the machine. */
const NEVER_MS = 365 * 24 * 3_600_000;
/** How long a running operation may take to come to a safe point once the end was asked for (F70). */
const STOP_TIMEOUT_MS = 20_000;

export interface Transition {
  readonly from: State;
  readonly to: State;
  readonly event: Event;
}

export interface RunnerOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly store: StateStore;
  /** All operations but `check-store`, which is the runner's own. */
  readonly executors: Omit<Executors, 'check-store'>;
  /** What the host runs and holds now. */
  readonly observe: () => Promise<Facts>;
  /**
   * Starts the live version if it does not run, as after a power cut; null where the boot does that. Called at the start,
   * unless a trial or a rollback is under way: then the machine decides what runs.
   */
  readonly resume: (() => Promise<void>) | null;
  /** Asks control; null for a host without one. */
  readonly poll: ((state: State) => Promise<PollAnswer & { readonly kind: 'assignment' }>) | null;
  /** Called after each transition, journalled or not: logs, metrics, reports. Must not throw. */
  readonly onTransition?: (transition: Transition) => void;
  /** A report was put into the outbox. */
  readonly onReport?: () => void;
}

export interface Runner {
  /** Runs until the signal fires, then comes to a safe point and returns. Throws on a bug. */
  run(signal: AbortSignal): Promise<void>;
  /** The state as it is now; `initialState()` before the first start. */
  state(): State;
  /** Whether the machine has seen what is on the disk: before, its state says nothing, and it takes no orders. */
  isStarted(): boolean;
  /** Hands an order of the operator to the machine; the failure says why it is not possible now. */
  command(command: Command): Failure | null;
  /** Tells the machine of something that happened outside (`rewound`). */
  tell(type: 'rewound'): void;
  /** The state store failed in the hands of someone else: nothing more is written before it was read anew. */
  storeFailed(problem: Problem): void;
}

interface Running {
  readonly effect: OperationEffect;
  readonly abort: AbortController;
}

/** A runner at rest; `run` starts it. */
export function createRunner(options: RunnerOptions): Runner {
  const loop = new Loop(options);
  return {
    run: (signal) => loop.run(signal),
    state: () => loop.state,
    isStarted: () => loop.isStarted,
    command: (command) => loop.command(command),
    tell: (type) => loop.push({ type, now: loop.moment() }),
    storeFailed: (problem) =>
      loop.push({ type: 'store-failed', failure: asFailure(problem), now: loop.moment() }),
  };
}

class Loop {
  state: State = initialState();
  isStarted = false;
  readonly #options: RunnerOptions;
  readonly #events: Event[] = [];
  readonly #operations: OperationEffect[] = [];
  #running: Running | null = null;
  #settled: Promise<void> = Promise.resolve();
  #wake: (() => void) | null = null;
  #timer: AbortController | null = null;
  #isPolling = false;
  #isStopping = false;
  #bug: { readonly error: unknown } | null = null;

  constructor(options: RunnerOptions) {
    this.#options = options;
  }

  moment(): Moment {
    const { clock, random } = this.#options;
    return {
      wallMs: clock.wallMs(),
      monotonicMs: clock.monotonicMs(),
      bootId: clock.bootId(),
      random: random.unit(),
      freshId: random.hex(16),
    };
  }

  push(event: Event): void {
    if (this.#isStopping) return;
    must(this.#events.length < MAX_QUEUED_EVENTS, `at most ${MAX_QUEUED_EVENTS} events wait`);
    this.#events.push(event);
    this.#wakeUp();
  }

  command(command: Command): Failure | null {
    if (!this.isStarted) return asFailure(new Problem('E_BUSY', 'the agent reads its disk'));
    const refused = refusal(this.state, command);
    if (refused !== null) return refused;
    if (this.#isStopping || this.#events.length > MAX_QUEUED_EVENTS / 2) {
      return asFailure(new Problem('E_BUSY', 'the agent is ending or has too much to do'));
    }
    this.push({ type: 'commanded', command, now: this.moment() });
    return null;
  }

  async run(signal: AbortSignal): Promise<void> {
    const stop = (): void => {
      this.#isStopping = true;
      this.#wakeUp();
    };
    signal.addEventListener('abort', stop);
    if (signal.aborted) stop();
    try {
      await this.#start();
      while (!this.#isStopping && this.#bug === null) {
        const event = this.#events.shift();
        if (event === undefined) await this.#nextWakeUp();
        else await this.#handle(event);
        if (event?.type === 'started') this.isStarted = true;
      }
    } finally {
      signal.removeEventListener('abort', stop);
      await this.#end();
    }
    if (this.#bug !== null) throw this.#bug.error;
  }

  /** Reads everything and tells the machine; the journal's state explains what facts then correct. */
  async #start(): Promise<void> {
    const { facts, state } = await this.#readStart(true);
    this.state = state;
    this.push({ type: 'started', now: this.moment(), ...facts });
  }

  async #readStart(
    isStart: boolean,
  ): Promise<{ readonly facts: StartFacts; readonly state: State }> {
    const { ticket, denied, journal, state, writable } = await this.#options.store.load();
    const parsed = journal === 'read' ? parseState(state) : null;
    let seen = await this.#tolerant(() => this.#options.observe());
    if (isStart && seen !== undefined && mayResume(ticket, parsed, seen)) {
      await this.#tolerant(async () => this.#options.resume?.());
      seen = await this.#tolerant(() => this.#options.observe());
    }
    const facts: StartFacts = {
      facts: seen ?? null,
      ticket,
      denied,
      journal: journal === 'read' && parsed === null ? 'lost' : journal,
      writable,
    };
    return { facts, state: parsed ?? initialState() };
  }

  /** A failure is told by the facts that are missing or show what does not run. */
  async #tolerant<T>(work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      if (isProblem(error)) return undefined;
      throw error;
    }
  }

  async #handle(event: Event): Promise<void> {
    const from = this.state;
    const [to, effects] = step(from, event);
    if (to !== from && mustJournal(from, to)) {
      const failure = await this.#journal(event, from, to);
      if (failure !== null) {
        this.#storeFailed(failure);
        return;
      }
    }
    this.#adopt({ from, to, event }, effects);
  }

  async #journal(event: Event, from: State, to: State): Promise<Failure | null> {
    const { wallMs, monotonicMs, bootId } = event.now;
    try {
      await this.#options.store.append({
        bootId,
        monotonicMs,
        wallMs,
        event: event.type,
        from: from.at,
        to: to.at,
        state: to,
      });
      return null;
    } catch (error) {
      return asFailure(error);
    }
  }

  /** The machine learns that nothing can be written. What follows is not journalled: it only observes. */
  #storeFailed(failure: Failure): void {
    const event: Event = { type: 'store-failed', failure, now: this.moment() };
    const from = this.state;
    const [to, effects] = step(from, event);
    must(to.modes.observeOnly, 'F29: no further side effect after a failed state write');
    this.#adopt({ from, to, event }, effects);
  }

  #adopt(transition: Transition, effects: readonly Effect[]): void {
    const { from, to } = transition;
    this.state = to;
    for (const effect of effects) this.#begin(effect);
    if (to !== from) this.#options.onTransition?.(transition);
    this.#armTimer();
  }

  #begin(effect: Effect): void {
    switch (effect.do) {
      case 'cancel':
        this.#cancel(effect);
        return;
      case 'poll':
        this.#inBackground(this.#poll());
        return;
      case 'report':
        this.#inBackground(this.#report(effect.report));
        return;
      default:
        must(
          this.#operations.length < MAX_QUEUED_OPERATIONS,
          `at most ${MAX_QUEUED_OPERATIONS} operations wait`,
        );
        this.#operations.push(effect);
        if (this.#running === null) this.#settled = this.#runOperations();
    }
  }

  #cancel({ op }: CancelEffect): void {
    const waiting = this.#operations.findIndex((effect) => effect.op === op);
    if (waiting !== -1) this.#operations.splice(waiting, 1);
    if (this.#running?.effect.op === op) this.#running.abort.abort();
  }

  /** The operation lane: one at a time, in order, until none is left. */
  async #runOperations(): Promise<void> {
    for (;;) {
      const effect = this.#isStopping ? undefined : this.#operations.shift();
      if (effect === undefined) break;
      const abort = new AbortController();
      this.#running = { effect, abort };
      try {
        const event = await this.#execute(effect, abort.signal);
        this.#running = null;
        if (event !== null) this.push(event);
      } catch (error) {
        this.#running = null;
        this.#fail(error);
      }
    }
  }

  async #execute(effect: OperationEffect, signal: AbortSignal): Promise<Event | null> {
    try {
      const result = await this.#executorOf(effect)(signal);
      // The table Executors ties each result to its operation; TypeScript cannot follow that through the union.
      return {
        type: 'succeeded',
        do: effect.do,
        op: effect.op,
        result,
        now: this.moment(),
      } as Event;
    } catch (error) {
      if (!isProblem(error)) {
        // What a cancelled operation throws on its way out is its own affair.
        if (signal.aborted) return null;
        throw error;
      }
      const failure = asFailure(error);
      // Not every transition is journalled: without this a store that an operation broke would stay closed for ever.
      if (!this.#options.store.isOpen())
        return { type: 'store-failed', failure, now: this.moment() };
      return { type: 'failed', do: effect.do, op: effect.op, failure, now: this.moment() };
    }
  }

  #executorOf(effect: OperationEffect): (signal: AbortSignal) => Promise<object> {
    if (effect.do === 'check-store') return async () => (await this.#readStart(false)).facts;
    const executor = this.#options.executors[effect.do] as (
      effect: OperationEffect,
      signal: AbortSignal,
    ) => Promise<object>;
    return (signal) => executor(effect, signal);
  }

  async #poll(): Promise<void> {
    if (this.#isPolling) return;
    this.#isPolling = true;
    try {
      const { poll } = this.#options;
      if (poll === null) {
        // There is no use in asking again; the machine takes its longest pause.
        throw new Problem('E_UNAVAILABLE', 'this host has no control', { retryAfterMs: NEVER_MS });
      }
      const { assignment, pollAfterMs } = await poll(this.state);
      this.#isPolling = false;
      this.push({ type: 'polled', assignment, pollAfterMs, now: this.moment() });
    } catch (error) {
      this.#isPolling = false;
      this.push({ type: 'poll-failed', failure: asFailure(error), now: this.moment() });
    }
  }

  async #report(report: Parameters<StateStore['addReport']>[0]): Promise<void> {
    try {
      await this.#options.store.addReport(report);
      this.push({ type: 'reported', key: report.key, now: this.moment() });
      this.#options.onReport?.();
    } catch (error) {
      this.push({ type: 'store-failed', failure: asFailure(error), now: this.moment() });
    }
  }

  #inBackground(work: Promise<void>): void {
    work.catch((error: unknown) => this.#fail(error));
  }

  /** A bug anywhere ends the process: the supervisor starts it again and the journal says where it was. */
  #fail(error: unknown): void {
    this.#bug ??= { error };
    this.#wakeUp();
  }

  #armTimer(): void {
    this.#timer?.abort();
    this.#timer = null;
    const wanted = wakeInMs(this.state, this.moment());
    if (wanted === null || this.#isStopping) return;
    const timer = new AbortController();
    this.#timer = timer;
    const ms = Math.min(Math.max(Math.ceil(wanted), 1), LONGEST_SLEEP_MS);
    const sleep = async (): Promise<void> => {
      const slept = await this.#options.clock.sleep(ms, timer.signal);
      if (slept && this.#timer === timer) this.push({ type: 'ticked', now: this.moment() });
    };
    this.#inBackground(sleep());
  }

  #wakeUp(): void {
    this.#wake?.();
    this.#wake = null;
  }

  #nextWakeUp(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  /** Nothing new is begun; what runs comes to its next safe point, or is left to the next start. */
  async #end(): Promise<void> {
    this.#isStopping = true;
    this.#timer?.abort();
    this.#operations.length = 0;
    this.#running?.abort.abort();
    const limit = new AbortController();
    await Promise.race([this.#settled, this.#options.clock.sleep(STOP_TIMEOUT_MS, limit.signal)]);
    limit.abort();
    await this.#options.store.close();
  }
}

function asFailure(error: unknown): Failure {
  if (!isProblem(error)) throw error;
  const retryAfterMs = error.details['retryAfterMs'];
  return {
    code: error.code,
    kind: error.kind,
    message: error.message,
    ...(typeof retryAfterMs === 'number' ? { retryAfterMs } : {}),
  };
}
