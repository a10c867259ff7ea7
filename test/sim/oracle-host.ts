/**
 * What has to hold on every simulated host at any moment. The oracle keeps a truth of its own, from what was durably done
 * on the host; it asks neither the agent nor control what they think.
 */
import type { State } from '#/agent/core/state.ts';
import { newestRecord } from '#/agent/adapters/journal.ts';
import { readMemory } from '#/agent/adapters/trust-state.ts';
import { createTrustStore } from '#/agent/adapters/trust-store.ts';
import { type AttemptPhase, terminalPhases } from '#/protocol/documents.ts';
import type { VersionId, RolloutId } from '#/protocol/ids.ts';
import type { TrustMemory } from '#/bundle/trust/resolve.ts';
import { ROOT, type Image } from '#/test/support/sim-fs/image.ts';
import { simFs } from '#/test/support/sim-fs/sim-fs.ts';
import { STATE_DIRECTORY } from '#/test/support/sim-host/sim-host.ts';
import type { AgentWatch } from './agent.ts';
import type { SimHost } from './host.ts';
import type { Trace } from './trace.ts';
import { isFit, type SimVersion } from './versions.ts';

/** How an attempt ended, durably on its host. */
export interface End {
  readonly attempt: string;
  readonly phase: AttemptPhase;
  readonly code: string | null;
  readonly artifactId: VersionId;
  readonly rolloutId: RolloutId | null;
  readonly atMs: number;
}

/** What is true of one disk. A snapshot has the truth of its moment. */
export interface Truth {
  readonly ends: Map<string, End>;
  /** Ends in a life that a rewind took from the host: control heard of them, and counts the attempt by them. */
  readonly lost: ReadonlyMap<string, End>;
  /** Versions that were rolled back here, with the retry generation of the attempt. */
  readonly failed: Map<VersionId, number>;
  floor: number;
  /** Records that the journal has to hold at least, counted over its whole life. */
  journalled: number;
}

export interface HostOracle {
  watch(host: SimHost): AgentWatch;
  /** After each step: looks at hosts on which something changed. */
  check(host: SimHost): void;
  /** After a boot from a drawn disk: what was durable is there. */
  checkKept(host: SimHost): Promise<void>;
  truthOf(host: SimHost): Truth;
  copyTruth(from: SimHost): Truth;
  setTruth(host: SimHost, truth: Truth): void;
  /** True when some disk ever confirmed this version under this identity. */
  wasConfirmed(id: string, artifactId: string): boolean;
}

export interface HostOracleOptions {
  readonly nowMs: () => number;
  readonly trace: Trace;
  readonly versions: () => readonly SimVersion[];
  /** When control durably revoked a version, or null. */
  readonly revokedMs: (artifactId: VersionId) => number | null;
  readonly onViolation: (what: string) => void;
}

/** A halt that an agent heard of has to hold from then on. */
const HALT_GRACE_MS = 5_000;

interface Watched {
  truth: Truth;
  haltedSinceMs: number | null;
  isStarted: boolean;
  seenLog: number;
  seenActive: unknown;
  last: string;
}

/** An oracle that has seen nothing. */
export function hostOracle(options: HostOracleOptions): HostOracle {
  const { trace, nowMs } = options;
  const all = new Map<SimHost, Watched>();
  const confirmed = new Set<string>();
  const of = (host: SimHost): Watched => {
    const found = all.get(host) ?? {
      truth: { ends: new Map(), lost: new Map(), failed: new Map(), floor: 0, journalled: 0 },
      haltedSinceMs: null,
      isStarted: false,
      seenLog: -1,
      seenActive: null,
      last: '',
    };
    all.set(host, found);
    return found;
  };
  const fail = (host: SimHost, what: string): void =>
    options.onViolation(`host ${host.index}: ${what}`);
  const versionOf = (id: string | null): SimVersion | undefined =>
    options.versions().find((one) => one.artifactId === id);
  const name = (id: string | null): string => versionOf(id)?.manifest.version ?? String(id);

  const onReported = (host: SimHost, report: Parameters<AgentWatch['onReported']>[0]): void => {
    const { attempt, phase, code, artifactId, rolloutId } = report;
    trace.note(`host ${host.index} reports ${phase} ${code ?? ''} ${attempt.slice(0, 6)}`);
    if (!terminalPhases.some((one) => one === phase)) return;
    const { truth } = of(host);
    const before = truth.ends.get(attempt);
    if (before !== undefined && before.phase !== phase)
      fail(host, `I5 attempt ${attempt.slice(0, 8)} ended ${before.phase} and then ${phase}`);
    if (before === undefined)
      truth.ends.set(attempt, { attempt, phase, code, artifactId, rolloutId, atMs: nowMs() });
    if (phase !== 'confirmed') return;
    confirmed.add(`${host.id} ${artifactId}`);
    const version = versionOf(artifactId);
    if (version === undefined || !isFit(version))
      fail(host, `H1 ${name(artifactId)} was confirmed, which never is healthy`);
  };

  const onActivate = (host: SimHost, artifactId: VersionId, slot: string, state: State): void => {
    trace.note(`host ${host.index} starts ${name(artifactId)}`);
    const problem = wholeness(host, slot, versionOf(artifactId));
    if (slot !== artifactId) fail(host, `I3 slot ${slot} is started as ${artifactId}`);
    if (problem !== null) fail(host, `I3 ${problem}`);
    const isTrial = state.at === 'switching' || state.at === 'trial';
    if (!isTrial || state.attempt.offer.artifactId !== artifactId) return;
    const deniedIn = of(host).truth.failed.get(artifactId);
    const { retryGeneration } = state.attempt.offer;
    if (deniedIn !== undefined && state.attempt.cause === 'control' && retryGeneration <= deniedIn)
      fail(host, `I7 ${name(artifactId)} is started again, which was rolled back here`);
  };

  const onTransition = (
    host: SimHost,
    { from, to, event }: Parameters<AgentWatch['onTransition']>[0],
  ): void => {
    const watched = of(host);
    if (event.type === 'started') watched.isStarted = true;
    const step = 'step' in to ? to.step : '';
    const text = `${to.at} ${step}`;
    if (text !== watched.last) trace.note(`host ${host.index} ${text}`);
    watched.last = text;
    if (from.at !== to.at && to.at !== 'checking' && from.at !== 'checking')
      trace.tell(`host ${host.index} ${from.at} -> ${to.at} (${event.type})`);
    // The deny-list entry is durable once rolling back goes on past its first step.
    if (to.at === 'rolled-back' && from.at !== 'rolled-back') {
      const { artifactId, retryGeneration } = to.attempt.offer;
      watched.truth.failed.set(artifactId, retryGeneration);
    }
  };

  /** What is live, read from the disk itself. */
  const check = (host: SimHost): void => {
    const watched = of(host);
    const { length } = host.disk.log;
    if (host.agent === null) watched.isStarted = false;
    if (watched.seenLog === length && watched.seenActive === host.active) return;
    watched.seenLog = length;
    watched.seenActive = host.active;
    const live = liveSlot(host.disk.image());
    if (live === null) return;
    const version = versionOf(live);
    const problem = wholeness(host, live, version);
    if (problem !== null) fail(host, `I1 live: ${problem}`);
    const state = host.agent?.runner.state();
    if (state === undefined || !watched.isStarted || state.modes.observeOnly) return;
    const isAtRest = state.at === 'idle' && state.step === 'settled' && state.op === null;
    if (!isAtRest) return;
    if (version !== undefined && !isFit(version))
      fail(host, `I1 rests on ${name(live)}, which never is healthy`);
    if (host.active !== null && host.active.artifactId !== live)
      fail(host, `I1 rests on ${name(live)}, but ${name(host.active.artifactId)} runs`);
  };

  return {
    watch: (host) => {
      const watched = of(host);
      watched.isStarted = false;
      watched.haltedSinceMs = null;
      return {
        onTransition: (transition) => onTransition(host, transition),
        onSwitch(slot, state) {
          trace.tell(`host ${host.index} switches to ${name(slot)}`);
          const { haltedSinceMs } = watched;
          const isForward = 'attempt' in state && state.attempt.kind === 'install';
          if (isForward && haltedSinceMs !== null && nowMs() - haltedSinceMs > HALT_GRACE_MS)
            fail(host, `F58 switches to ${name(slot)} although it was told of a halt`);
        },
        onCommit(slot) {
          trace.tell(`host ${host.index} commits ${name(slot)}`);
          const version = versionOf(slot);
          if (version === undefined || !isFit(version))
            fail(host, `H1 commits ${name(slot)}, which never is healthy`);
        },
        onActivate: (artifactId, slot, state) => onActivate(host, artifactId, slot, state),
        onAssignment(assignment) {
          trace.note(`host ${host.index} is told ${assignment.generation} ${assignment.halted}`);
          if (!assignment.halted) watched.haltedSinceMs = null;
          else watched.haltedSinceMs ??= nowMs();
        },
        onResolved(artifactId, askedMs) {
          const revokedMs = options.revokedMs(artifactId);
          if (revokedMs !== null && revokedMs < askedMs)
            fail(host, `T1 ${name(artifactId)} was revoked and is accepted`);
          memoryOf(host).then(
            (memory) => {
              if (memory?.revokedArtifacts.includes(artifactId) === true)
                fail(host, `T1 ${name(artifactId)} is accepted, which this disk knows as revoked`);
            },
            (error: unknown) => fail(host, `the memory of trust is unreadable: ${String(error)}`),
          );
        },
        onJournalled() {
          watched.truth.journalled += 1;
        },
        onReported: (report) => onReported(host, report),
        onFloor(release) {
          watched.truth.floor = Math.max(watched.truth.floor, release);
        },
      };
    },
    check,
    async checkKept(host) {
      if (host.id === null) return;
      const { truth } = of(host);
      const journal = fileAt(host.disk.image(), `${STATE_DIRECTORY}/journal`);
      const seq = journal === null ? 0 : (newestRecord(journal).record?.seq ?? 0);
      if (seq < truth.journalled)
        fail(host, `I11 the journal ends at record ${seq}, ${truth.journalled} were durable`);
      const floor = (await memoryOf(host))?.committed['web'] ?? 0;
      if (floor < truth.floor) fail(host, `I8 the floor is ${floor} and was ${truth.floor}`);
    },
    truthOf: (host) => of(host).truth,
    copyTruth(from) {
      const { ends, failed, ...rest } = of(from).truth;
      return { ...rest, ends: new Map(ends), failed: new Map(failed) };
    },
    setTruth(host, truth) {
      const { ends, lost } = of(host).truth;
      const gone = [...ends].filter(([attempt]) => !truth.ends.has(attempt));
      of(host).truth = { ...truth, lost: new Map([...lost, ...gone]) };
    },
    wasConfirmed: (id, artifactId) => confirmed.has(`${id} ${artifactId}`),
  };
}

function entryAt(image: Image, path: string): number | null {
  let inode: number = ROOT;
  for (const part of path.split('/').filter((one) => one !== '')) {
    const next = image.entries.get(inode)?.get(part);
    if (next === undefined) return null;
    inode = next;
  }
  return inode;
}

/** The version that the link leads to; null: there is no link. */
export function liveSlot(image: Image): string | null {
  const inode = entryAt(image, '/app/current');
  const node = inode === null ? undefined : image.nodes.get(inode);
  return node?.kind === 'link' ? node.target.replace(/^releases\//, '') : null;
}

function wholeness(host: SimHost, slot: string, version: SimVersion | undefined): string | null {
  if (version === undefined) return `${slot} is no version that was ever released`;
  const bytes = fileAt(host.disk.image(), `/app/releases/${slot}/app`);
  if (bytes === null) return `${version.manifest.version} is not there`;
  return Buffer.from(bytes).equals(version.content)
    ? null
    : `${version.manifest.version} is not whole`;
}

function fileAt(image: Image, path: string): Uint8Array | null {
  const inode = entryAt(image, path);
  const node = inode === null ? undefined : image.nodes.get(inode);
  return node?.kind === 'file' ? node.bytes : null;
}

/** What the client of trust remembers, read from a copy of the disk: reads of this kind are nothing that happens on the host. */
async function memoryOf(host: SimHost): Promise<TrustMemory | null> {
  if (host.id === null) return null;
  const { files } = simFs(host.disk.image());
  return await readMemory(createTrustStore(files, `${STATE_DIRECTORY}/trust`), host.id);
}
