/**
 * One process of the agent in the simulation: the real runner, machine, executors, state store, directory slots, boot
 * control, TUF client, line to control, enrolment and reporter, on the disk, clock and network of its host.
 */
import { createDirectoryBootControl } from '#/agent/adapters/boot-directory.ts';
import { createControlLink } from '#/agent/adapters/control-link.ts';
import { openDirectory } from '#/agent/adapters/durable.ts';
import { identityStore, loadIdentity } from '#/agent/adapters/identity.ts';
import { createDirectorySlots } from '#/agent/adapters/slots-directory.ts';
import { openStateStore } from '#/agent/adapters/state-store.ts';
import type { Transport } from '#/agent/adapters/transport.ts';
import { createTrust } from '#/agent/adapters/trust-client.ts';
import { createTrustStore } from '#/agent/adapters/trust-store.ts';
import { defaultSettings } from '#/agent/config.ts';
import type { State } from '#/agent/core/state.ts';
import { createExecutors, observeHost, type HostPorts } from '#/agent/executors.ts';
import { directoryLayout } from '#/agent/install/layout.ts';
import { createPoller } from '#/agent/poller.ts';
import type {
  BootControl,
  Clock,
  ControlLink,
  FilePort,
  Installer,
  StateStore,
  Trust,
} from '#/agent/ports.ts';
import { createReporter } from '#/agent/reporter.ts';
import { createRunner, type Runner, type Transition } from '#/agent/runner.ts';
import type { TrustFetch } from '#/bundle/trust/client.ts';
import type { Assignment } from '#/protocol/documents.ts';
import { Problem } from '#/protocol/errors.ts';
import type { VersionId } from '#/protocol/ids.ts';
import { simInstaller, SLOT_ROOT, STATE_DIRECTORY } from '#/test/support/sim-host/sim-host.ts';
import type { SimRandom } from './random.ts';
import { isHealthy, type SimVersion } from './versions.ts';

export const AGENT_VERSION = '0.1.0';
const BUILT_AT_MS = Date.UTC(2025, 11, 1);
/** A download takes up to so much. */
const DOWNLOAD_MS = 30_000;
const START_MS = 800;

/** What happens in an agent that an observer cannot see in the files. */
export interface AgentWatch {
  readonly onTransition: (transition: Transition) => void;
  /** Before `current` is moved forward. */
  readonly onSwitch: (slot: string, state: State) => void;
  readonly onCommit: (slot: string) => void;
  readonly onActivate: (artifactId: VersionId, slot: string, state: State) => void;
  readonly onAssignment: (assignment: Assignment) => void;
  readonly onResolved: (artifactId: VersionId, askedMs: number) => void;
  /** A transition is in the journal, durably. */
  readonly onJournalled: () => void;
  /** A report is in the outbox, durably. */
  readonly onReported: (report: Parameters<StateStore['addReport']>[0]) => void;
  /** A floor was raised, durably. */
  readonly onFloor: (release: number) => void;
}

/** The host under the agent, and the services on it. */
export interface AgentHost {
  readonly files: FilePort;
  readonly clock: Clock;
  readonly random: SimRandom;
  readonly machine: string;
  readonly transport: Transport;
  readonly versions: () => readonly SimVersion[];
  /** What runs, since when (virtual time). */
  readonly active: () => { readonly artifactId: VersionId; readonly sinceMs: number } | null;
  readonly setActive: (artifactId: VersionId | null) => void;
  readonly nowMs: () => number;
  readonly watch: AgentWatch;
  readonly controlUrl: string;
}

export interface SimAgent {
  readonly runner: Runner;
  readonly store: StateStore;
  /** Runs until the signal fires; throws on a bug. */
  run(signal: AbortSignal): Promise<void>;
}

/** Builds an agent over what its host holds; null when the host is not enrolled. */
export async function startAgent(host: AgentHost): Promise<SimAgent | null> {
  const { files, clock, random, watch } = host;
  const identity = await loadIdentity(identityStore(files, STATE_DIRECTORY), host.machine, random);
  if (identity === null) return null;
  const real = openStateStore({
    files,
    directory: STATE_DIRECTORY,
    alsoOpen: [SLOT_ROOT, `${SLOT_ROOT}/releases`, `${STATE_DIRECTORY}/slots`],
    reserveBytes: 0,
    journal: { recordBytes: 64 * 1024, rotateBytes: 48 * 1024 },
  });
  const store: StateStore = {
    ...real,
    async append(entry) {
      await real.append(entry);
      watch.onJournalled();
    },
    async addReport(report) {
      await real.addReport(report);
      watch.onReported(report);
    },
  };
  const settings = defaultSettings();
  const plain = createControlLink({
    settings,
    identity,
    clock,
    random,
    agentVersion: AGENT_VERSION,
    standing: () => ({
      running: runner.state().known.artifactId,
      healthy: null,
      ...reporter.told(),
    }),
    transport: host.transport,
    onReportWanted: () => reporter.tellAll(),
  });
  const link: ControlLink = {
    report: (report) => plain.report(report),
    async poll(etag, agentState) {
      const answer = await plain.poll(etag, agentState);
      if (answer.kind === 'assignment') watch.onAssignment(answer.assignment);
      return answer;
    },
  };
  await openDirectory(files, `${STATE_DIRECTORY}/trust`).catch(() => undefined);
  const ports = portsOf(host, {
    store,
    identity,
    state: () => runner.state(),
    trust: watchedTrust(
      host,
      createTrust({
        anchor: { root: identity.rootBytes, targets: null },
        fetch: trustFetch(host),
        store: createTrustStore(files, `${STATE_DIRECTORY}/trust`),
        owner: identity.host,
        arch: 'amd64',
        agent: 1_000_000,
        builtAtMs: BUILT_AT_MS,
        onNotice: () => undefined,
      }),
    ),
  });
  const reporter = createReporter({
    clock,
    random,
    store,
    control: link,
    identity,
    agentVersion: AGENT_VERSION,
    state: () => runner.state(),
    hostFacts: async () => ({ kernel: 'simulated' }),
    onStoreFailed: (problem) => runner.storeFailed(problem),
    onRewound: () => runner.tell('rewound'),
    onFailure: () => undefined,
  });
  const runner: Runner = createRunner({
    clock,
    random,
    store,
    executors: createExecutors(ports),
    observe: () => observeHost(ports),
    resume: async () => {
      const { liveArtifact, live } = await ports.slots.observe();
      if (liveArtifact === null || live === null) return;
      if (host.active()?.artifactId === liveArtifact) return;
      await start(host, liveArtifact, live, runner.state());
    },
    poll: createPoller(link),
    onTransition(transition) {
      watch.onTransition(transition);
      reporter.poke();
    },
    onReport: () => reporter.poke(),
  });
  return {
    runner,
    store,
    run: async (signal) => {
      await Promise.all([runner.run(signal), reporter.run(signal)]);
    },
  };
}

interface Parts {
  readonly store: StateStore;
  readonly identity: { readonly host: string; readonly group: string; readonly class: string };
  readonly trust: Trust;
  readonly state: () => State;
}

function portsOf(host: AgentHost, parts: Parts): HostPorts {
  const { files, clock, watch } = host;
  const slots = createDirectorySlots({
    root: SLOT_ROOT,
    stateDirectory: STATE_DIRECTORY,
    files,
    space: async () => ({ freeBytes: 1e9, freeInodes: null }),
    usedBytes: async () => 0,
    mountsBelow: async () => [],
    reserveBytes: 0,
    reserveInodes: 0,
    newRootId: () => 'ab'.repeat(16),
  });
  const boot = createDirectoryBootControl({ root: SLOT_ROOT, files });
  const bootControl: BootControl = {
    ...boot,
    async switchTo(slot) {
      watch.onSwitch(slot, parts.state());
      return await boot.switchTo(slot);
    },
    async commit(slot) {
      watch.onCommit(slot);
      await boot.commit(slot);
    },
  };
  return {
    clock,
    store: parts.store,
    slots,
    bootControl,
    activator: {
      observe: async () => host.active()?.artifactId ?? null,
      activate: (slot, artifactId) => start(host, artifactId, slot, parts.state()),
      deactivate: async () => host.setActive(null),
    },
    installer: slowly(
      host,
      simInstaller(files, host.versions(), (slot, status, reason) =>
        slots.mark(slot, status, reason),
      ),
    ),
    probes: {
      async run(check) {
        const active = host.active();
        const runs = host.versions().find((one) => one.artifactId === active?.artifactId);
        const ok =
          active !== null && runs !== undefined && isHealthy(runs, host.nowMs() - active.sinceMs);
        return { name: check.name, ok, durationMs: 1, detail: '' };
      },
    },
    hooks: { drain: async () => undefined, undrain: async () => undefined },
    windows: { at: () => ({ open: true, opensAt: null, closesAt: null }) },
    trust: parts.trust,
    host: {
      id: parts.identity.host as HostPorts['host']['id'],
      group: parts.identity.group as HostPorts['host']['group'],
      class: parts.identity.class,
    },
    identityOf: (slot) => directoryLayout(SLOT_ROOT).release(slot),
    localChecks: [],
    acceptOneWay: true,
    controlUrls: [host.controlUrl],
    traits: { arch: 'amd64', agent: 1_000_000 },
  };
}

/** Starts what is in a slot, as the activator of a host does: what ran before is stopped first. */
async function start(
  host: AgentHost,
  artifactId: VersionId,
  slot: string,
  state: State,
): Promise<void> {
  host.watch.onActivate(artifactId, slot, state);
  host.setActive(null);
  await host.clock.sleep(START_MS);
  const version = host.versions().find((one) => one.artifactId === artifactId);
  if (version?.kind === 'never-starts')
    throw new Problem('E_ACTIVATION', `${version.manifest.version} does not come up`);
  host.setActive(artifactId);
}

/** Downloads take their time, and end when they are told to. */
function slowly(host: AgentHost, installer: Installer): Installer {
  const wait = async (signal: AbortSignal): Promise<void> => {
    if (!(await host.clock.sleep(host.random.below(DOWNLOAD_MS), signal)))
      throw new Problem('E_TIMEOUT', 'cancelled');
  };
  return {
    async download(offer, slot, onProgress, signal) {
      await wait(signal);
      const result = await installer.download(offer, slot, onProgress, signal);
      await wait(signal);
      return result;
    },
    verify: (offer, slot, onProgress, signal) => installer.verify(offer, slot, onProgress, signal),
  };
}

function watchedTrust(host: AgentHost, trust: Trust): Trust {
  return {
    async resolve(assignment, context) {
      const askedMs = host.nowMs();
      const offer = await trust.resolve(assignment, context);
      if (offer !== null) host.watch.onResolved(offer.artifactId, askedMs);
      return offer;
    },
    resolveFile: (path, context) => trust.resolveFile(path, context),
    async raiseFloor(offerClass, release) {
      await trust.raiseFloor(offerClass, release);
      host.watch.onFloor(release);
    },
  };
}

/** The repository over the same simulated line. */
function trustFetch(host: AgentHost): TrustFetch {
  const get = async (path: string, maxBytes: number): Promise<Uint8Array | null> => {
    const url = `${host.controlUrl}/agent/v1/trust/${path}`;
    const request = { method: 'GET' as const, url, headers: {}, body: null, maxBytes };
    const { status, body } = await host.transport.exchange(request);
    if (status === 404) return null;
    if (status !== 200) throw new Problem('E_HTTP', `${url}: status ${status}`);
    return body;
  };
  return {
    metadata: (name, maxBytes) => get(`metadata/${name}`, maxBytes),
    target: (name, maxBytes) =>
      get(`targets/${name.split('/').map(encodeURIComponent).join('/')}`, maxBytes),
  };
}
