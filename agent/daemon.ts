/**
 * The daemon: builds the world of one host from its settings and runs it until it is told to end. With main.ts the only
 * place that sees every adapter.
 */
import { mkdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { agentNumber } from '#/bundle/compatibility.ts';
import { isProblem, Problem } from '#/protocol/errors.ts';
import type { ArtifactId, GroupName, HostId } from '#/protocol/ids.ts';
import { createActivator, type HostActivator } from './adapters/activator.ts';
import { createDirectoryBootControl } from './adapters/boot-directory.ts';
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
import { mountsBelow, openUp, spaceOf, usedBytesOf } from './adapters/file-system.ts';
import { guardFiles } from './adapters/guard-files.ts';
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
import { createDirectorySlots } from './adapters/slots-directory.ts';
import { openStateStore } from './adapters/state-store.ts';
import { createWindows } from './adapters/windows.ts';
import { localChecks, type Settings } from './config.ts';
import { createExecutors, observeHost, type HostPorts } from './executors.ts';
import { createDirectoryInstaller } from './install/installer.ts';
import { directoryLayout } from './install/layout.ts';
import { defaultInstallSettings, type InstallSettings } from './install/settings.ts';
import { readSlotManifest } from './install/slot-manifest.ts';
import { createLocalAgent, type WiredLocalAgent } from './local-agent.ts';
import { serveLocal, serveMetrics } from './local.ts';
import { createPoller, spreadFirst } from './poller.ts';
import type { Clock, FilePort, StateStore } from './ports.ts';
import { createReporter, standingOf, type Reporter } from './reporter.ts';
import { createRunner, type Runner, type Transition } from './runner.ts';
import { openTrust } from './trust-wiring.ts';
import { type Late, watchOf } from './trust-watch.ts';

export interface DaemonOptions {
  readonly version: string;
  /** When this agent was built, ms: time was never earlier. */
  readonly builtAtMs: number;
  /** One check and what follows from it, then the end. */
  readonly once: boolean;
}

/** The host as it is when it has no place in a fleet: an air-gapped one, or one before its enrolment. */
const NO_GROUP = 'none' as GroupName;
const RESERVE_INODES = 1024;
/** With `once`, how long the end may take to be told to control. */
const TELL_TIMEOUT_MS = 15_000;

/** Runs the agent of this host until the signal fires. Resolves with the exit code. */
export async function runAgent(
  settings: Settings,
  options: DaemonOptions,
  signal: AbortSignal,
): Promise<number> {
  if (settings.slots.kind !== 'directory') {
    throw new Problem('E_CONFIG', 'slots.kind: this agent writes directories only');
  }
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
  for (const path of [state.directory, state.runDirectory, slots.root, dirname(local.socket)]) {
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
  const { root } = settings.slots;
  const layout = directoryLayout(root);
  const machine = machineDigest(settings.host.machineIdFile);
  const identity = await identityOrNull(files, stateDirectory, machine, log);
  const store = openStateStore({
    files,
    directory: stateDirectory,
    alsoOpen: [root, layout.releases, join(stateDirectory, 'slots')],
  });
  // Handed on before they exist: these parts speak to each other only once all of them run.
  const late: Late = {
    runner: null,
    reporter: null,
    contactMs: null,
    freshness: null,
    onSignedTime: null,
  };
  const runner = (): Runner => {
    if (late.runner === null) throw new Error('the runner is asked before it is made');
    return late.runner;
  };
  const link =
    identity === null ? null : connect(settings, identity, options, { clock, random }, late);
  const slots = createDirectorySlots({
    root,
    stateDirectory,
    files,
    space: spaceOf,
    usedBytes: usedBytesOf,
    mountsBelow,
    openUp,
    reserveBytes: settings.slots.reserveBytes,
    reserveInodes: RESERVE_INODES,
    newRootId: () => random.hex(16),
  });
  const activator = makeActivator(settings, files, clock, log);
  const windows = await createWindows(settings.window);
  const hostClass = identity?.class ?? settings.host.class ?? 'none';
  const host = {
    id: identity?.host ?? (`h-${machine.slice(0, 32)}` as HostId),
    group: identity?.group ?? NO_GROUP,
    class: hostClass,
  };
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
    onNotice: (notice) =>
      log[notice.kind === 'no-switch' ? 'info' : 'warn'](
        { event: 'trust', ...notice },
        notice.message,
      ),
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
    host: identity === null ? null : host,
    control: () =>
      link === null ? null : { url: link.controlUrl(), lastContactMs: late.contactMs },
    restarts: () => activator.restarts(),
    trust: () => late.freshness,
    agentVersion: options.version,
    pid: process.pid,
    metrics: createMetrics(),
    log,
  });
  const ports: HostPorts = {
    clock,
    store,
    slots,
    installer: createDirectoryInstaller({
      root,
      slots,
      settings: installSettings(settings, identity),
      requestHeaders: link === null ? null : ({ url }) => link.sourceHeaders(url),
      run: 'child',
      onReadBack: (slot, { direct, durationMs, differences }) => {
        const seen = { event: 'read-back', slot, direct, durationMs: Math.round(durationMs) };
        if (differences.length > 0) log.warn({ ...seen, differences }, 'slot read back differs');
        else log.debug(seen, direct ? 'slot read back' : 'slot read back through the page cache');
      },
    }),
    bootControl: createDirectoryBootControl({ root, files }),
    activator,
    probes: createProbes({
      exec: createExec(() => clock.monotonicMs()),
      slotPath: () => layout.current,
      diskPath: root,
      wallMs: () => clock.wallMs(),
      monotonicMs: () => clock.monotonicMs(),
    }),
    hooks: createHooks(
      settings.hooks,
      createExec(() => clock.monotonicMs()),
    ),
    windows,
    trust: trust.port,
    host,
    controlUrls: identity === null ? [] : controlUrls(settings.control, identity),
    identityOf: (slot) => layout.release(slot),
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
        : spreadFirst(createPoller(link), settings, host.id, clock, spread, options.once),
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
          slotsRoot: root,
          trustStale: late.freshness?.stale === true,
        }),
      seenLog: () => trust.seenLog(),
      onStoreFailed: (problem) => runner().storeFailed(problem),
      onRewound: () => runner().tell('rewound'),
      onFailure: (problem, waitMs) =>
        log.info({ event: 'report-failed', code: problem.code, waitMs }, problem.message),
    });
  }
  await settleGuard(settings, files, layout.release, log);
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

function makeActivator(
  settings: Settings,
  files: FilePort,
  clock: Clock,
  log: Logger,
): HostActivator {
  const layout = directoryLayout(settings.slots.root);
  const boot = createDirectoryBootControl({ root: settings.slots.root, files });
  return createActivator({
    settings: settings.activation,
    runDirectory: settings.state.runDirectory,
    stateDirectory: settings.state.directory,
    slotPath: (slot) => layout.release(slot),
    currentLink: layout.current,
    async live() {
      const { defaultSlot: slot } = await boot.observe();
      const manifest = slot === null ? null : await readSlotManifest(files, layout, slot);
      // The slot of a directory host is named by its artifact, and the manifest was checked against that name.
      return slot === null || manifest === null
        ? null
        : { slot, artifactId: slot as ArtifactId, manifest };
    },
    exec: createExec(() => clock.monotonicMs()),
    files,
    heartbeatLostMs: settings.guard.heartbeatLostMs,
    bootId: clock.bootId(),
    onEvent: ({ event, ...fields }) =>
      log[event === 'died' || event === 'start-failed' ? 'warn' : 'info'](
        { event: `service-${event}`, ...fields },
        `service ${event}`,
      ),
  });
}

function installSettings(settings: Settings, identity: HostIdentity | null): InstallSettings {
  const { bandwidthBytesPerS, parallel, workers } = settings.download;
  const { connectTimeoutMs, headersTimeoutMs } = settings.control;
  return {
    ...defaultInstallSettings,
    bandwidthBytesPerSecond: bandwidthBytesPerS === 0 ? null : bandwidthBytesPerS,
    connections: parallel,
    workers: workers === 0 ? Math.min(2, availableParallelism()) : workers,
    connectTimeoutMs,
    headerTimeoutMs: headersTimeoutMs,
    caPem: authoritiesOf(settings.control, identity?.caPem ?? null),
  };
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
  slotPath: (slot: string) => string,
  log: Logger,
): Promise<void> {
  try {
    await openDirectory(files, settings.state.directory);
    await guardFiles({
      files,
      stateDirectory: settings.state.directory,
      runDirectory: settings.state.runDirectory,
      slotsRoot: settings.slots.root,
      heartbeatLostMs: settings.guard.heartbeatLostMs,
      slotPath,
    }).settle();
  } catch (error) {
    if (!isProblem(error)) throw error;
    log.error({ event: 'guard-unsettled', code: error.code }, error.message);
  }
}
