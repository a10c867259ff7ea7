/**
 * The daemon: builds the world of one host from its settings and runs it until it is told to end. With main.ts the only
 * place that sees every adapter.
 */
import { mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { agentNumber } from '#/bundle/compatibility.ts';
import { isProblem, Problem } from '#/protocol/errors.ts';
import type { GroupName, HostId } from '#/protocol/ids.ts';
import { systemClock } from './adapters/clock.ts';
import {
  authoritiesOf,
  controlUrls,
  createControlLink,
  type HostControlLink,
} from './adapters/control-link.ts';
import { openDirectory } from './adapters/durable.ts';
import { untilEnrolled } from './adapters/enrolment-watch.ts';
import { createExec } from './adapters/exec.ts';
import { nodeFiles } from './adapters/file-port.ts';
import type { GuardFiles } from './adapters/guard-files.ts';
import { beat } from './adapters/heartbeat.ts';
import { hostArch, hostFacts } from './adapters/host-facts.ts';
import { createHooks } from './adapters/hooks.ts';
import {
  identityStore,
  loadIdentity,
  machineDigest,
  type HostIdentity,
} from './adapters/identity.ts';
import { acquireLock } from './adapters/lock.ts';
import { createLogger, type Logger } from './adapters/logging.ts';
import { createMetrics } from './adapters/metrics.ts';
import { createProbes } from './adapters/probes.ts';
import { systemRandom } from './adapters/random.ts';
import { openStateStore } from './adapters/state-store.ts';
import { createWindows } from './adapters/windows.ts';
import { localChecks, type Settings } from './config.ts';
import { createExecutors, observeHost, type HostPorts } from './executors.ts';
import { openConfigs, withConfigs } from './host-configs.ts';
import { openDirectorySlots } from './host-directories.ts';
import { openPartitionSlots } from './host-partitions.ts';
import { directoriesOfSlots } from './host-slots.ts';
import { installSettings } from './install-settings.ts';
import { createLocalAgent, type WiredLocalAgent } from './local-agent.ts';
import { serveLocal, serveMetrics } from './local.ts';
import { createPoller, spreadFirst } from './poller.ts';
import type { Clock, FilePort, StateStore } from './ports.ts';
import { createReporter, standingOf, type Reporter } from './reporter.ts';
import { createRunner, type Runner, type Transition } from './runner.ts';
import { openTrust } from './trust-wiring.ts';
import {
  keepNotice,
  type Late,
  nothingYet,
  tellingLine,
  tellingTrust,
  trustFacts,
  watchOf,
} from './trust-watch.ts';

export interface DaemonOptions {
  readonly version: string;
  /** When this agent was built, ms: time was never earlier. */
  readonly builtAtMs: number;
  /** One check and what follows from it, then the end. */
  readonly once: boolean;
}

/** The host as it is when it has no place in a fleet: an air-gapped one, or one before its enrolment. */
const NO_GROUP = 'none' as GroupName;
/** With `once`, how long the end may take to be told to control. */
const TELL_TIMEOUT_MS = 15_000;

/** Runs the agent of this host until the signal fires. Resolves with the exit code. */
export async function runAgent(
  settings: Settings,
  options: DaemonOptions,
  signal: AbortSignal,
): Promise<number> {
  const log = createLogger(settings.log.level);
  makeParents(settings);
  const lock = acquireLock(join(settings.state.directory, 'lock'), 'agent run');
  if (lock.takenOverFrom !== null) {
    log.warn({ event: 'lock-taken-over', from: lock.takenOverFrom }, 'the last agent was killed');
  }
  const end = new AbortController();
  const stop = (): void => end.abort();
  signal.addEventListener('abort', stop);
  if (signal.aborted) stop();
  try {
    await runLocked(settings, options, log, end);
    return 0;
  } finally {
    signal.removeEventListener('abort', stop);
    lock.release();
  }
}

function makeParents({ state, slots, local }: Settings): void {
  const roots = slots.kind === 'directory' ? [slots.root] : [];
  for (const path of [state.directory, state.runDirectory, ...roots, dirname(local.socket)]) {
    try {
      mkdirSync(path, { recursive: true, mode: 0o700 });
    } catch (cause) {
      // A read-only state directory is told by the store, which then only observes (F30).
      if ((cause as NodeJS.ErrnoException).code === 'EROFS') continue;
      throw new Problem('E_CONFIG', `make ${path}`, { path }, { cause });
    }
  }
}

async function runLocked(
  settings: Settings,
  options: DaemonOptions,
  log: Logger,
  end: AbortController,
): Promise<void> {
  const host = await buildHost(settings, options, log, end);
  const { signal } = end;
  const servers = [
    await serveLocal({ socket: settings.local.socket, agent: host.local, log }),
    await serveMetrics(settings.metrics.listen, () => host.local.metricsText()),
  ];
  const onFailure = (error: unknown): void => log.warn({ event: 'heartbeat-failed', err: error });
  const { runDirectory } = settings.state;
  const { clock } = host;
  const intervalMs = settings.guard.heartbeatIntervalMs;
  const work = [
    host.runner.run(signal),
    ...(host.reporter === null ? [] : [host.reporter.run(signal)]),
    ...(host.watch === null || options.once ? [] : [host.watch()]),
    // Without an identity there is no reporter either.
    ...(host.reporter === null && !options.once
      ? [untilEnrolled(settings.state.directory, clock, signal)]
      : []),
    beat({ runDirectory, clock, intervalMs, signal, onFailure }),
  ];
  log.info({ event: 'started', version: options.version, pid: process.pid }, 'agent started');
  try {
    await Promise.all(work.map((one) => one.finally(() => end.abort())));
  } finally {
    end.abort();
    await Promise.allSettled(work);
    for (const server of servers) await server?.close();
    await host.close();
    log.info({ event: 'ended' }, 'agent ended');
  }
}

interface Host {
  readonly clock: Clock;
  readonly runner: Runner;
  readonly reporter: Reporter | null;
  readonly local: WiredLocalAgent;
  /** Looks whether the signed metadata is fresh, until the end; null where there is nothing to look at. */
  readonly watch: (() => Promise<void>) | null;
  close(): Promise<void>;
}

async function buildHost(
  settings: Settings,
  options: DaemonOptions,
  log: Logger,
  end: AbortController,
): Promise<Host> {
  const files = nodeFiles();
  const clock = systemClock();
  const random = systemRandom();
  const { directory: stateDirectory } = settings.state;
  const machine = machineDigest(settings.host.machineIdFile);
  const identity = await identityOrNull(files, stateDirectory, machine, log);
  const store = openStateStore({
    files,
    directory: stateDirectory,
    alsoOpen: directoriesOfSlots(settings),
  });
  // Handed on before they exist: these parts speak to each other only once all of them run.
  const late = nothingYet();
  const runner = (): Runner => {
    if (late.runner === null) throw new Error('the runner is asked before it is made');
    return late.runner;
  };
  const link =
    identity === null ? null : connect(settings, identity, options, { clock, random }, late);
  const around = {
    settings,
    files,
    clock,
    random,
    log,
    install: installSettings(settings, identity?.caPem ?? null),
    requestHeaders: link === null ? null : ({ url }: { url: string }) => link.sourceHeaders(url),
  };
  const isPartitions = settings.slots.kind === 'partition';
  const held = isPartitions ? await openPartitionSlots(around) : openDirectorySlots(around);
  const { slots } = held;
  const windows = await createWindows(settings.window);
  const hostClass = identity?.class ?? settings.host.class ?? 'none';
  const host = {
    id: identity?.host ?? (`h-${machine.slice(0, 32)}` as HostId),
    group: identity?.group ?? NO_GROUP,
    class: hostClass,
  };
  const configs = openConfigs(settings, files, identity, host.id);
  const activator = withConfigs(
    held.activator,
    configs,
    async () => (await slots.observe()).liveArtifact,
    ({ code, message }) => log.error({ event: 'config-unreadable', code }, message),
  );
  const arch = hostArch();
  if (arch === null) throw new Problem('E_CONFIG', `no artifacts are made for ${process.arch}`);
  const traits = { arch, agent: agentNumber(options.version) };
  const trust = await openTrust({
    files,
    settings,
    identity,
    owner: host.id,
    controlUrl: () => link?.controlUrl() ?? null,
    caPem: identity === null ? null : authoritiesOf(settings.control, identity.caPem),
    traits,
    builtAtMs: options.builtAtMs,
    onNotice: (notice) => keepNotice(late, notice, log),
  });
  late.onSignedTime = (signedMs) => {
    trust.verifier?.observeSignedTime(signedMs, clock.wallMs()).catch((error: unknown) => {
      log.warn({ event: 'signed-time', err: error }, 'signed time could not be kept');
    });
  };
  const local = createLocalAgent({
    runner,
    store,
    clock,
    windows,
    slots: async () => (await slots.observe()).slots,
    boot: async () => (await held.boot?.()) ?? null,
    host: identity === null ? null : host,
    control: () =>
      link === null ? null : { url: link.controlUrl(), lastContactMs: late.contactMs },
    restarts: () => activator.restarts(),
    trust: () => late.freshness,
    rotateKeys:
      link === null || identity === null
        ? null
        : async () => {
            await link.rotateKeys();
            return { host: host.id, keyId: identity.keyId, sealKey: identity.sealKey };
          },
    agentVersion: options.version,
    pid: process.pid,
    metrics: createMetrics(),
    log,
  });
  const ports: HostPorts = {
    clock,
    store,
    slots,
    installer: held.installer,
    bootControl: held.bootControl,
    activator,
    configs,
    probes: createProbes({
      exec: createExec(() => clock.monotonicMs()),
      slotPath: () => held.livePath,
      diskPath: held.diskPath,
      wallMs: () => clock.wallMs(),
      monotonicMs: () => clock.monotonicMs(),
    }),
    hooks: createHooks(
      settings.hooks,
      createExec(() => clock.monotonicMs()),
    ),
    windows,
    trust: tellingTrust(trust.port, late),
    host,
    controlUrls: identity === null ? [] : controlUrls(settings.control, identity),
    identityOf: held.identityOf,
    ...(held.maxBoots === null ? {} : { maxBoots: held.maxBoots }),
    localChecks: localChecks(settings),
    acceptOneWay: settings.slots.acceptOneWay,
    traits,
    restarts: () => activator.restarts(),
    onProgress: (progress) => local.onProgress(progress),
  };
  const spread = new AbortController();
  const isOver = options.once ? onceOver(store, clock, end) : null;
  late.runner = createRunner({
    clock,
    random,
    store,
    executors: createExecutors(ports),
    observe: () => observeHost(ports),
    resume: () => activator.resume(),
    poll:
      link === null
        ? null
        : spreadFirst(
            createPoller(tellingLine(link, late)),
            settings,
            host.id,
            clock,
            spread,
            options.once,
          ),
    onTransition(transition) {
      local.onTransition(transition);
      late.reporter?.poke();
      isOver?.(transition);
    },
    onReport: () => late.reporter?.poke(),
  });
  const asked: Runner = {
    ...late.runner,
    command(command) {
      if (command.kind === 'check') spread.abort();
      return runner().command(command);
    },
  };
  if (link !== null && identity !== null) {
    late.reporter = createReporter({
      clock,
      random,
      store,
      control: link,
      identity,
      agentVersion: options.version,
      state: () => runner().state(),
      hostFacts: () =>
        hostFacts({
          bootId: clock.bootId(),
          machine,
          slotsRoot: held.diskPath,
          trust: trustFacts(late),
        }),
      seenLog: () => trust.seenLog(),
      onStoreFailed: (problem) => runner().storeFailed(problem),
      onRewound: () => runner().tell('rewound'),
      onFailure: (problem, waitMs) =>
        log.info({ event: 'report-failed', code: problem.code, waitMs }, problem.message),
    });
  }
  await settleGuard(settings, files, held.guard, log);
  return {
    clock,
    runner: asked,
    reporter: late.reporter,
    local,
    watch: watchOf(trust.verifier, settings, { clock, random, log, signal: end.signal }, late, {
      link,
      identity,
    }),
    async close() {
      spread.abort();
      await activator.close();
      await link?.close();
      await trust.close();
    },
  };
}

/** A host that is not enrolled, or is a clone, works without control (F62). */
async function identityOrNull(
  files: FilePort,
  stateDirectory: string,
  machine: string,
  log: Logger,
): Promise<HostIdentity | null> {
  try {
    return await loadIdentity(identityStore(files, stateDirectory), machine, systemRandom());
  } catch (error) {
    if (!isProblem(error, 'E_FORKED', 'E_STATE')) throw error;
    log.error({ event: 'identity-unusable', code: error.code }, error.message);
    return null;
  }
}

function connect(
  settings: Settings,
  identity: HostIdentity,
  options: DaemonOptions,
  { clock, random }: { readonly clock: Clock; readonly random: ReturnType<typeof systemRandom> },
  late: Late,
): HostControlLink {
  return createControlLink({
    settings,
    identity,
    clock,
    random,
    agentVersion: options.version,
    standing() {
      const state = late.runner?.state();
      const standing = state === undefined ? null : standingOf(state);
      return {
        running: standing?.running ?? null,
        healthy: standing?.healthy ?? null,
        ...(late.reporter?.told() ?? { seq: 0, factsHash: null }),
      };
    },
    onContact: () => {
      late.contactMs = clock.wallMs();
    },
    onReportWanted: () => late.reporter?.tellAll(),
    onSignedTime: (signedMs) => late.onSignedTime?.(signedMs),
  });
}

/** Ends the agent once a poll was answered, or failed, and all that followed from it is over and told. */
function onceOver(
  store: StateStore,
  clock: Clock,
  end: AbortController,
): (transition: Transition) => void {
  let hasPolled = false;
  const finish = async (): Promise<void> => {
    const untilMs = clock.monotonicMs() + TELL_TIMEOUT_MS;
    while (store.waitingReports(1).length > 0 && clock.monotonicMs() < untilMs) {
      if (!(await clock.sleep(100, end.signal))) return;
    }
    end.abort();
  };
  return ({ to, event }) => {
    hasPolled ||= event.type === 'polled' || event.type === 'poll-failed';
    const isResting = to.at === 'idle' || to.at === 'needs-attention';
    if (hasPolled && isResting && to.op === null) finish().catch(() => end.abort());
  };
}

async function settleGuard(
  settings: Settings,
  files: FilePort,
  guard: GuardFiles,
  log: Logger,
): Promise<void> {
  try {
    await openDirectory(files, settings.state.directory);
    await guard.settle();
  } catch (error) {
    if (!isProblem(error)) throw error;
    log.error({ event: 'guard-unsettled', code: error.code }, error.message);
  }
}
