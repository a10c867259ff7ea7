/** The local API over a runner: what the daemon answers to the commands of the operator of the host. */
import { Problem } from '#/protocol/errors.ts';
import type { Clock, Progress, SlotRecord, StateStore, Windows } from '#/agent/ports.ts';
import type { State } from '#/agent/core/state.ts';
import type { Metrics } from './adapters/metrics.ts';
import { logSetback, logState, type Logger } from './adapters/logging.ts';
import type { AttemptEnd, LocalAgent } from './local.ts';
import {
  explainState,
  statusView,
  type StatusView,
  type Surroundings,
  type Transfer,
  transferOf,
} from './local-view.ts';
import type { Runner, Transition } from './runner.ts';

export interface LocalAgentOptions {
  /** The runner, which is made after this: it gets `onTransition` from here. */
  readonly runner: () => Pick<Runner, 'state' | 'isStarted' | 'command'>;
  readonly store: Pick<StateStore, 'history' | 'waitingReports'>;
  readonly clock: Clock;
  readonly windows: Windows;
  readonly slots: () => Promise<readonly SlotRecord[]>;
  /** Partitions and boot loader; null on hosts of directories. */
  readonly boot: () => Promise<Surroundings['boot']>;
  readonly host: Surroundings['host'];
  readonly control: () => Surroundings['control'];
  readonly restarts: () => number;
  readonly trust: () => Surroundings['trust'];
  /** Null on a host without control. */
  readonly rotateKeys: LocalAgent['rotateKeys'] | null;
  readonly agentVersion: string;
  readonly pid: number;
  readonly metrics: Metrics;
  readonly log: Logger;
}

/** What the composition root connects. */
export interface WiredLocalAgent extends LocalAgent {
  /** For RunnerOptions.onTransition: logs each change of state, counts, tells those who follow. */
  onTransition(transition: Transition): void;
  /** For HostPorts.onProgress. */
  onProgress(progress: Progress): void;
}

/** Events that are counted for the status; more are told as this many. */
const WAITING_MAX = 1000;

/** All that can be said before the machine has seen the disk. */
const STARTING = 'The agent has just started and reads its disk.';

type Follower = () => void;

/** The local API; nothing is asked of the runner before the first request. */
export function createLocalAgent(options: LocalAgentOptions): WiredLocalAgent {
  return new Local(options);
}

class Local implements WiredLocalAgent {
  readonly #options: LocalAgentOptions;
  readonly #followers = new Set<Follower>();
  #sinceMs: number;
  #progress: Progress | null = null;
  #transfer: Transfer | null = null;

  constructor(options: LocalAgentOptions) {
    this.#options = options;
    this.#sinceMs = options.clock.wallMs();
    options.metrics.only('switchback_agent_build_info', {
      version: options.agentVersion,
      node: process.version,
    });
  }

  async status(): Promise<StatusView> {
    const around = await this.#surroundings();
    // Both at one moment: the first state is of nothing until the machine has started.
    const runner = this.#options.runner();
    const view = statusView(runner.state(), around);
    if (runner.isStarted()) return view;
    return { ...view, state: 'starting', step: null, why: STARTING };
  }

  async explain(): Promise<readonly string[]> {
    const around = await this.#surroundings();
    const runner = this.#options.runner();
    return runner.isStarted() ? explainState(runner.state(), around) : [STARTING];
  }

  order(command: Parameters<LocalAgent['order']>[0]): Promise<void> {
    const refused = this.#options.runner().command(command);
    if (refused === null) return Promise.resolve();
    return Promise.reject(new Problem(refused.code, refused.message));
  }

  async rotateKeys(): ReturnType<LocalAgent['rotateKeys']> {
    const { rotateKeys, log } = this.#options;
    if (rotateKeys === null)
      throw new Problem('E_UNAVAILABLE', 'this host is not enrolled: it has no keys to trade');
    const keys = await rotateKeys();
    log.info({ event: 'keys-rotated', keyId: keys.keyId }, 'the host has new keys, by order');
    return keys;
  }

  history(count: number): ReturnType<LocalAgent['history']> {
    return this.#options.store.history(count);
  }

  metricsText(): string {
    const { metrics, store, restarts } = this.#options;
    const contactMs = this.#options.control()?.lastContactMs ?? null;
    if (contactMs !== null)
      metrics.set('switchback_agent_last_contact_timestamp_seconds', Math.floor(contactMs / 1000));
    const trust = this.#options.trust();
    if (trust !== null) metrics.set('switchback_agent_trust_stale', trust.stale ? 1 : 0);
    if (trust !== null && trust.expiresAtMs !== null)
      metrics.set(
        'switchback_agent_trust_expires_timestamp_seconds',
        Math.floor(trust.expiresAtMs / 1000),
      );
    metrics.set('switchback_agent_service_restarts_total', restarts());
    metrics.set('switchback_agent_outbox_events', store.waitingReports(WAITING_MAX).length);
    metrics.set('switchback_agent_resident_bytes', process.memoryUsage.rss());
    return metrics.text();
  }

  async follow(onChange: (view: StatusView) => void, signal: AbortSignal): Promise<AttemptEnd> {
    const before = this.#options.runner().state().lastEnd;
    return await new Promise((resolve, reject) => {
      let isOver = false;
      const finish = (): void => {
        isOver = true;
        this.#followers.delete(look);
        signal.removeEventListener('abort', onAbort);
      };
      const onAbort = (): void => {
        finish();
        reject(new Problem('E_UNAVAILABLE', 'nobody waits any more'));
      };
      const look: Follower = () => {
        const state = this.#options.runner().state();
        this.status().then(
          (view) => {
            // The view takes time to read: one that comes after the end has nobody to be told to.
            if (!isOver) onChange(view);
          },
          () => undefined,
        );
        const end = state.lastEnd;
        if (end === null || end === before || !isAtRest(state)) return;
        finish();
        const { phase, code, message } = end;
        resolve({ artifactId: end.ref?.artifactId ?? null, phase, code, message });
      };
      signal.addEventListener('abort', onAbort, { once: true });
      this.#followers.add(look);
    });
  }

  onTransition({ from, to, event }: Transition): void {
    const { metrics, log, clock } = this.#options;
    logSetback(log, {
      state: to.at,
      operation: event.type === 'failed' ? event.do : null,
      tries: to.op?.tries ?? 0,
      failure: 'failure' in event ? event.failure : null,
      observed: [from.modes.observeOnly, to.modes.observeOnly],
    });
    if (from.at !== to.at) {
      this.#sinceMs = clock.wallMs();
      if (from.at === 'downloading') this.#countBytes();
      this.#progress = null;
      const attempt = 'attempt' in to ? to.attempt : null;
      logState(log, {
        from: from.at,
        to: to.at,
        ...(attempt === null
          ? {}
          : {
              version: attempt.offer.version,
              artifactId: attempt.offer.artifactId,
              rollout: attempt.offer.rolloutId,
            }),
        why: 'reason' in to ? `${to.reason.code}: ${to.reason.message}` : event.type,
      });
      metrics.only('switchback_agent_state_info', { state: to.at });
      metrics.set(
        'switchback_agent_state_since_timestamp_seconds',
        Math.floor(this.#sinceMs / 1000),
      );
    }
    if (to.known.artifactId !== null)
      metrics.only('switchback_agent_live_info', { artifact: to.known.artifactId });
    if (to.lastEnd !== null && to.lastEnd !== from.lastEnd)
      metrics.add('switchback_agent_attempts_total', 1, { phase: to.lastEnd.phase });
    this.#transfer = transferOf(to) ?? this.#transfer;
    this.#tell();
  }

  onProgress(progress: Progress): void {
    this.#progress = progress;
    this.#tell();
  }

  #tell(): void {
    for (const follower of [...this.#followers]) follower();
  }

  /** What a download fetched and reused goes to the counters when its state is left. */
  #countBytes(): void {
    const last = this.#progress;
    if (last?.phase !== 'download') return;
    this.#options.metrics.add('switchback_agent_fetched_bytes_total', last.fetchedBytes);
    this.#options.metrics.add('switchback_agent_reused_bytes_total', last.reusedBytes);
  }

  async #surroundings(): Promise<Surroundings> {
    const {
      clock,
      windows,
      slots,
      boot,
      host,
      control,
      store,
      restarts,
      trust,
      agentVersion,
      pid,
    } = this.#options;
    const nowMs = clock.wallMs();
    return {
      agentVersion,
      pid,
      bootId: clock.bootId(),
      nowMs,
      monotonicMs: clock.monotonicMs(),
      sinceMs: this.#sinceMs,
      host,
      control: control(),
      window: windows.at(nowMs),
      slots: await slots(),
      boot: await boot(),
      progress: this.#progress,
      transfer: this.#transfer,
      waitingEvents: store.waitingReports(WAITING_MAX).length,
      restarts: restarts(),
      trust: trust(),
    };
  }
}

/** The attempt is over and its last traces are cleaned up. */
function isAtRest(state: State): boolean {
  return (
    state.at === 'idle' ||
    state.at === 'checking' ||
    state.at === 'needs-attention' ||
    state.at === 'adrift'
  );
}
