/**
 * One simulated host: the real runner, machine, executors, state store, directory slots and boot control, on a simulated
 * disk, clock, network and control. Only what would leave the machine is played: the download, the processes, control.
 */
import { openFloor } from './floor.ts';
import { createDirectoryBootControl } from '#/agent/adapters/boot-directory.ts';
import { makeDirectory, readFile, syncDirectory } from '#/agent/adapters/durable.ts';
import { createDirectorySlots } from '#/agent/adapters/slots-directory.ts';
import { openStateStore } from '#/agent/adapters/state-store.ts';
import type { State } from '#/agent/core/state.ts';
import { createExecutors, observeHost } from '#/agent/executors.ts';
import { directoryLayout } from '#/agent/install/layout.ts';
import { createPoller } from '#/agent/poller.ts';
import type { ControlLink, FilePort, Identity, Installer, Offer, Trust } from '#/agent/ports.ts';
import { createReporter } from '#/agent/reporter.ts';
import { createRunner, type Runner } from '#/agent/runner.ts';
import type { Assignment, ReportDocument, ReportEvent } from '#/protocol/documents.ts';
import { Problem } from '#/protocol/errors.ts';
import { artifactOf, type VersionId, type GroupName, type HostId } from '#/protocol/ids.ts';
import type { DiskHistory } from '#/test/support/sim-fs/crash-states.ts';
import { replay } from '#/test/support/sim-fs/crash-states.ts';
import { simFs, type Injection, type Operation, type SimFs } from '#/test/support/sim-fs/sim-fs.ts';
import { simClock, simRandom, type SimClock } from './sim-clock.ts';
import type { Version } from './versions.ts';

export const STATE_DIRECTORY = '/state';
export const SLOT_ROOT = '/app';
const HOST = `h-${'1'.repeat(32)}` as HostId;
const GROUP = 'group' as GroupName;
const POLL_MS = 30_000;

/** Everything outside the disk. A value: each change makes a new one, which the disk's log remembers with its moment. */
export interface World {
  readonly boot: number;
  readonly wallMs: number;
  readonly monotonicMs: number;
  /** Whose processes run. */
  readonly active: VersionId | null;
  /** What control has durably: events by id, in the order in which they came. */
  readonly received: readonly ReportEvent[];
  readonly ackSeq: number;
}

/** What control, operator and disk do to a host. */
export interface Scenario {
  readonly versions: readonly Version[];
  /** What control answers, by what it has heard so far. */
  readonly assign: (world: World) => Partial<Assignment> & {
    readonly artifactId?: VersionId | null;
    readonly retryGeneration?: number;
  };
  /** How often it asks control. */
  readonly pollMs?: number;
  /** Called once after each start, when the machine first rests: an order at the host. */
  readonly atRest?: (runner: Runner, world: World) => void;
  readonly inject?: (operation: Operation) => Injection;
  /** Virtual time after which the run is given up; absent: hours. */
  readonly giveUpMs?: number;
  /** SIGTERM after so many steps of virtual time. */
  readonly stopAfterSteps?: number;
  /** Hears of the disk before anything happens on it. */
  readonly onSim?: (sim: SimFs) => void;
  /** Hears of the runner before it runs. */
  readonly onRunner?: (runner: Runner) => void;
  /** Wraps the file port of the agent: mutants. */
  readonly wrap?: (files: FilePort) => FilePort;
  /** Ends when no real call of such a port is under way; null: none is. */
  readonly pending?: () => Promise<void> | null;
  /** Wraps what the runner runs: faults of single effects. */
  readonly wrapExecutors?: (executors: HostExecutors, inside: Inside) => HostExecutors;
}

export type HostExecutors = ReturnType<typeof createExecutors>;
/** What a fault of an effect needs beside the effect. */
export interface Inside {
  readonly sim: SimFs;
  readonly clock: SimClock;
  readonly state: () => State;
}

export interface Run {
  /**
   * `rest`: nothing is left to do. `stuck`: it did not come to rest. `stopped`: it was told to end, and did. `bug`: the agent
   * crashed of itself.
   */
  readonly ended: 'rest' | 'stuck' | 'stopped' | 'bug';
  readonly error: unknown;
  readonly sim: SimFs;
  readonly world: World;
  readonly state: State;
}

/** The world before anything has happened. */
export function freshWorld(): World {
  return {
    boot: 1,
    wallMs: Date.UTC(2026, 0, 1),
    monotonicMs: 10_000,
    active: null,
    received: [],
    ackSeq: 0,
  };
}

/** Virtual time after which a run counts as stuck. */
const STUCK_MS = 4 * 60 * 60_000;
const MAX_STEPS = 20_000;

/** Runs the agent on a disk until it rests. */
export async function runHost(
  disk: DiskHistory,
  start: World,
  scenario: Scenario,
  seed: number,
): Promise<Run> {
  const host = await makeHost(disk, start, scenario, seed);
  scenario.onRunner?.(host.runner);
  const stop = new AbortController();
  let bug: { readonly error: unknown } | null = null;
  const guarded = (work: Promise<void>): void => {
    work.catch((error: unknown) => {
      bug ??= { error };
    });
  };
  let isOver = false;
  guarded(
    host.runner.run(stop.signal).then(() => {
      isOver = true;
    }),
  );
  guarded(host.reporter(stop.signal));
  let ended: Run['ended'] = 'stuck';
  const giveUpMs = scenario.giveUpMs ?? STUCK_MS;
  for (let steps = 0; steps < MAX_STEPS && host.clock.elapsedMs() < giveUpMs; steps += 1) {
    if (steps === scenario.stopAfterSteps) stop.abort();
    if (isOver) {
      ended = 'stopped';
      break;
    }
    if (!(await host.clock.advance()) && bug === null) break;
    if (bug !== null) {
      ended = 'bug';
      break;
    }
    if (host.isAtRest()) {
      ended = 'rest';
      break;
    }
  }
  if (isOver && ended === 'stuck') ended = 'stopped';
  const state = host.runner.state();
  stop.abort();
  await host.clock.settle();
  return {
    ended,
    error: (bug as { readonly error: unknown } | null)?.error ?? null,
    sim: host.sim,
    world: host.world(),
    state,
  };
}

interface SimHost {
  readonly sim: SimFs;
  readonly clock: SimClock;
  readonly runner: Runner;
  readonly reporter: (signal: AbortSignal) => Promise<void>;
  readonly world: () => World;
  readonly isAtRest: () => boolean;
}

async function makeHost(
  disk: DiskHistory,
  start: World,
  scenario: Scenario,
  seed: number,
): Promise<SimHost> {
  const sim = simFs(replay(disk), scenario.inject, disk.log);
  scenario.onSim?.(sim);
  const files = scenario.wrap?.(sim.files) ?? sim.files;
  const { pending = () => null } = scenario;
  const clock = simClock({ ...start, bootId: `boot-${start.boot}`, pending });
  // Other names in each start, or two attempts would be one.
  const random = simRandom(seed + 7919 * sim.log.length + 104_729 * start.boot);
  let world = start;
  const change = (changes: Partial<World>): void => {
    world = { ...world, ...changes, wallMs: clock.wallMs(), monotonicMs: clock.monotonicMs() };
    sim.mark(world);
  };
  change({});
  const store = openStateStore({
    files,
    directory: STATE_DIRECTORY,
    alsoOpen: [SLOT_ROOT, `${SLOT_ROOT}/releases`, `${STATE_DIRECTORY}/slots`],
    reserveBytes: 0,
    journal: { recordBytes: 64 * 1024, rotateBytes: 12 * 1024 },
  });
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
  const bootControl = createDirectoryBootControl({ root: SLOT_ROOT, files });
  const activator = {
    observe: async () => world.active,
    activate: async (_slot: string, artifactId: VersionId) => change({ active: artifactId }),
    deactivate: async () => change({ active: null }),
  };
  const isHealthy = (): boolean =>
    scenario.versions.some((one) => one.artifactId === world.active && one.healthy);
  const ports = {
    clock,
    store,
    slots,
    bootControl,
    activator,
    installer: simInstaller(files, scenario.versions, slots.mark.bind(slots)),
    probes: {
      run: async (check: { readonly name: string }) => ({
        name: check.name,
        ok: isHealthy(),
        durationMs: 1,
        detail: '',
      }),
    },
    hooks: { drain: async () => undefined, undrain: async () => undefined },
    windows: { at: () => ({ open: true, opensAt: null, closesAt: null }) },
    trust: simTrust(files, scenario.versions),
    host: { id: HOST, group: GROUP, class: 'web' },
    identityOf: (slot: string) => directoryLayout(SLOT_ROOT).release(slot),
    localChecks: [],
    acceptOneWay: true,
    controlUrls: [],
    traits: { arch: 'amd64' as const, agent: 1_000_000 },
  };
  let polls = 0;
  const link: ControlLink = {
    async poll() {
      polls += 1;
      // Time goes on at control also while nothing happens on the host.
      const assignment = assignmentOf(scenario, { ...world, wallMs: clock.wallMs() });
      return {
        kind: 'assignment',
        assignment,
        etag: String(polls),
        pollAfterMs: scenario.pollMs ?? POLL_MS,
      };
    },
    async report(report) {
      const document = JSON.parse(
        Buffer.from(report.payload, 'base64').toString(),
      ) as ReportDocument;
      if (document.seq <= world.ackSeq) {
        throw new Problem('E_REPORT_SEQUENCE', 'seen before', { lastSeq: world.ackSeq });
      }
      const known = new Set(world.received.map((event) => event.id));
      const fresh = document.events.filter((event) => !known.has(event.id));
      change({ received: [...world.received, ...fresh], ackSeq: document.seq });
      return { ackSeq: document.seq, wantFacts: false };
    },
  };
  const reporter = createReporter({
    clock,
    random,
    store,
    control: link,
    identity: simIdentity(),
    agentVersion: '0.0.0',
    state: () => runner.state(),
    hostFacts: async () => ({}),
    onStoreFailed: (problem) => runner.storeFailed(problem),
    onRewound: () => runner.tell('rewound'),
    onFailure: () => undefined,
  });
  const executors = createExecutors(ports);
  const inside: Inside = { sim, clock, state: () => runner.state() };
  const runner: Runner = createRunner({
    clock,
    random,
    store,
    executors: scenario.wrapExecutors?.(executors, inside) ?? executors,
    observe: () => observeHost(ports),
    resume: async () => {
      const { liveArtifact } = await slots.observe();
      if (liveArtifact !== null && world.active !== liveArtifact) change({ active: liveArtifact });
    },
    poll: createPoller(link),
    onTransition: () => reporter.poke(),
    onReport: () => reporter.poke(),
  });
  let restingSince: number | null = null;
  let wasAtRest = false;
  const isAtRest = (): boolean => {
    const state = runner.state();
    const isResting =
      ((state.at === 'idle' && state.step === 'settled') || state.at === 'needs-attention') &&
      state.op === null &&
      state.unreported.length === 0 &&
      store.waitingReports(1).length === 0 &&
      (state.retry === null || state.retry.code === 'E_DENIED') &&
      state.poll.failures === 0 &&
      !state.modes.observeOnly;
    // A look at control interrupts no rest; an offer that is looked at does, also when nothing comes of it.
    const isPolling = state.at === 'checking' && state.want.kind === 'poll';
    if (!isResting && !(isPolling && !state.modes.observeOnly)) restingSince = null;
    if (!isResting || polls === 0) return false;
    if (!wasAtRest) {
      wasAtRest = true;
      scenario.atRest?.(runner, world);
      return false;
    }
    restingSince ??= polls;
    return polls >= restingSince + 2;
  };
  return {
    sim,
    clock,
    runner,
    reporter: (signal) => reporter.run(signal),
    world: () => world,
    isAtRest,
  };
}

function assignmentOf(scenario: Scenario, world: World): Assignment {
  const { artifactId, retryGeneration, ...rest } = scenario.assign(world);
  return {
    generation: 1,
    group: GROUP,
    offer:
      artifactId === undefined || artifactId === null
        ? null
        : {
            artifactId: artifactOf(artifactId),
            rolloutId: null,
            sources: ['http://127.0.0.1/bundle'],
            retryGeneration: retryGeneration ?? 0,
          },
    halted: false,
    rollbackGeneration: 0,
    why: '',
    ...rest,
  };
}

function simTrust(files: FilePort, versions: readonly Version[]): Trust {
  const floorPath = `${STATE_DIRECTORY}/floor.json`;
  const offerOf = (artifactId: string): Offer => {
    const found = versions.find((one) => one.artifactId === artifactId);
    if (found === undefined) throw new Problem('E_NOTARGET', `no ${artifactId}`);
    const { manifest, manifestBytes } = found;
    return {
      artifactId: found.artifactId,
      manifest,
      manifestBytes,
      sources: ['http://127.0.0.1/bundle'],
      rolloutId: null,
      seq: 1,
      retryGeneration: 0,
    };
  };
  return {
    async resolve({ offer }) {
      if (offer === null) return null;
      const floor = await openFloor(files, floorPath);
      const resolved = offerOf(offer.artifactId);
      if (resolved.manifest.release < floor.of('web')) {
        throw new Problem('E_FLOOR', `release ${resolved.manifest.release} is below the floor`);
      }
      return { ...resolved, retryGeneration: offer.retryGeneration };
    },
    resolveFile: async (path) => offerOf(path.slice(1)),
    raiseFloor: async (hostClass, release) =>
      (await openFloor(files, floorPath)).raise(hostClass, release),
  };
}

function simIdentity(): Identity {
  return {
    host: HOST,
    group: GROUP,
    class: 'web',
    sign: (payloadType, payload) => ({
      payloadType,
      payload: Buffer.from(payload).toString('base64'),
      signatures: [{ keyid: 'k', sig: 's' }],
    }),
  };
}

/** Plays the download: the payload is one file, written in two halves, resumed after a crash; the discipline is the real one. */
export function simInstaller(
  files: FilePort,
  versions: readonly Version[],
  mark: (slot: string, status: 'written' | 'verified', reason: null) => Promise<void>,
): Installer {
  const layout = directoryLayout(SLOT_ROOT);
  const contentOf = (offer: Offer): Uint8Array =>
    versions.find((one) => one.artifactId === offer.artifactId)?.content ?? new Uint8Array();
  const isComplete = async (slot: string): Promise<boolean> =>
    (await files.stat(layout.release(slot))) !== null;
  return {
    async download(offer, slot) {
      const started = { fetchedBytes: 0, reusedBytes: 0, durationMs: 0 };
      const how = {
        way: 'whole',
        whyNoPatch: 'no-seed',
        unpatchedChunks: 0,
        savedBytes: 0,
      } as const;
      const result = { ...started, ...how, failedSources: [], rottenSeedChunks: 0 };
      if (await isComplete(slot)) return result;
      const content = contentOf(offer);
      await makeDirectory(files, layout.meta(slot));
      await writeOnce(files, layout.manifestFile(slot), [offer.manifestBytes]);
      await syncDirectory(files, layout.meta(slot));
      const half = content.byteLength >> 1;
      const halves = [content.subarray(0, half), content.subarray(half)];
      await writeOnce(files, `${layout.staging(slot)}/app`, halves);
      await syncDirectory(files, layout.staging(slot));
      await mark(slot, 'written', null);
      return { ...result, fetchedBytes: content.byteLength };
    },
    async verify(offer, slot) {
      const isDone = await isComplete(slot);
      const directory = isDone ? layout.release(slot) : layout.staging(slot);
      const found = await readFile(files, `${directory}/app`, 1024 * 1024);
      if (found === null || !Buffer.from(found).equals(contentOf(offer))) {
        throw new Problem('E_SLOT', `slot ${slot} differs from its manifest`);
      }
      if (!isDone) await files.rename(layout.staging(slot), layout.release(slot));
      await syncDirectory(files, layout.releases);
      await mark(slot, 'verified', null);
    },
  };
}

/** Parts one after the other into a file, synced. */
async function writeOnce(
  files: FilePort,
  path: string,
  parts: readonly Uint8Array[],
): Promise<void> {
  const file = await files.open(path, 'append');
  try {
    let position = 0;
    for (const part of parts) {
      await file.write(part, position);
      position += part.byteLength;
    }
    await file.sync();
  } finally {
    await file.close();
  }
}
