/**
 * The agent's ports: everything that the core asks of the world, in the words of the core. Adapters implement them,
 * `test/support` has simulated ones, `test/conformance` holds both to the same suite.
 *
 * Every method may throw a Problem (protocol/errors.ts); anything else that is thrown is a bug and ends the process.
 * Every method is idempotent: after a crash it is called again with the same arguments.
 */
import type { DenyEntry, PendingReport, StartFacts } from '#/agent/core/effect.ts';
import type { Failure } from '#/agent/core/event.ts';
import type { State } from '#/agent/core/state.ts';
import type { Ticket } from '#/agent/core/ticket.ts';
import type { Facts, SlotId, SlotRecord, SlotStatus } from '#/agent/core/facts.ts';
import type { HealthCheck, Manifest } from '#/bundle/manifest.ts';
import type {
  ArtifactId,
  ConfigId,
  GroupName,
  HostId,
  RolloutId,
  VersionId,
} from '#/protocol/ids.ts';
import type { Assignment, Envelope, ReportEvent } from '#/protocol/documents.ts';

export type { Facts, SlotId, SlotRecord, SlotStatus };

/** A verified config set as this host keeps it: everything secret in it is encrypted. */
export interface OfferedConfig {
  readonly configId: ConfigId;
  /** The exact bytes whose sha256 is the config id. */
  readonly setBytes: Uint8Array;
  /** The encrypted secrets, and their data keys sealed for this host and this artifact; base64 by name. */
  readonly boxes: Readonly<Record<string, string>>;
  readonly keys: Readonly<Record<string, string>>;
}

/** Config sets of this host: kept as they came, and given to services below a directory in memory. */
export interface Configs {
  /** Durable on return. */
  keep(version: VersionId, config: OfferedConfig): Promise<void>;
  /** Versions whose config set is kept. */
  kept(): Promise<readonly VersionId[]>;
  /** Removes all others. */
  prune(keep: readonly VersionId[]): Promise<void>;
  /**
   * The directory with the entries of the version's config set, made when it is not there; null for a version without one.
   * E_SEAL when a secret does not open, E_STATE when the set is not kept.
   */
  provide(version: VersionId): Promise<string | null>;
  /** Which version's entries a service finds under the fixed path; null: none. */
  point(version: VersionId | null): Promise<void>;
  /** Wipes the entries of all versions but this one. */
  wipeAllBut(version: VersionId | null): Promise<void>;
}

/** A version that passed every check of the verification order up to its manifest (docs/specs/trust.md). */
export interface Offer {
  readonly artifactId: ArtifactId;
  /** The config set that makes a version of it, where the artifact takes one. */
  readonly configId?: ConfigId;
  /** That config set, when it was just verified: to be kept. */
  readonly config?: OfferedConfig;
  readonly manifest: Manifest;
  /** The exact bytes whose sha256 is the artifact id. */
  readonly manifestBytes: Uint8Array;
  readonly sources: readonly string[];
  readonly rolloutId: RolloutId | null;
  readonly seq: number;
  readonly retryGeneration: number;
}

/** Time. `monotonicMs` counts time in which the host was running, since boot; only it bounds trials. */
export interface Clock {
  wallMs(): number;
  monotonicMs(): number;
  bootId(): string;
  /** Resolves after `ms`, or earlier, with false, when the signal fires. */
  sleep(ms: number, signal?: AbortSignal): Promise<boolean>;
}

export interface Random {
  /** Random bytes as lower-case hex. */
  hex(bytes: number): string;
  /** A number in [0, 1). */
  unit(): number;
}

/**
 * The file operations under every durable write (agent/adapters/durable.ts). As thin as POSIX, so that a recorder and a
 * simulated file system with a persistence model can stand in for it (docs/decisions/, T1-T3 of the reliability plan).
 */
export interface FilePort {
  /**
   * `read`: an existing file. `create`: a new file; E_IO with errno EEXIST when the name is taken, even by a dangling link.
   * `append`: a file to read and write in, made when missing. `directory`: only to sync it. No flag follows a link in
   * the last component. Failures are Problems with `details.errno` (agent/adapters/file-port.ts).
   */
  open(path: string, flags: 'read' | 'create' | 'append' | 'directory'): Promise<FileHandlePort>;
  rename(from: string, to: string): Promise<void>;
  unlink(path: string): Promise<void>;
  mkdir(path: string, mode: number): Promise<void>;
  rmdir(path: string): Promise<void>;
  symlink(target: string, path: string): Promise<void>;
  readlink(path: string): Promise<string>;
  list(
    path: string,
  ): Promise<
    readonly { readonly name: string; readonly kind: 'file' | 'directory' | 'link' | 'other' }[]
  >;
  stat(path: string): Promise<{
    readonly sizeBytes: number;
    readonly kind: 'file' | 'directory' | 'link' | 'other';
    readonly mtimeMs: number;
  } | null>;
}
export interface FileHandlePort {
  /** Bytes read into `buffer` from `position`; 0 at the end. */
  read(buffer: Uint8Array, position: number): Promise<number>;
  /** Bytes written, possibly fewer than given. */
  write(bytes: Uint8Array, position: number): Promise<number>;
  truncate(sizeBytes: number): Promise<void>;
  /** After a failed sync the descriptor is spent: writes and syncs on it fail (F25; durability of an fsync error). */
  sync(): Promise<void>;
  close(): Promise<void>;
}

export interface Progress {
  readonly phase: 'download' | 'verify';
  readonly doneBytes: number;
  readonly totalBytes: number;
  readonly fetchedBytes: number;
  readonly reusedBytes: number;
}

export interface DownloadResult {
  readonly fetchedBytes: number;
  readonly reusedBytes: number;
  readonly durationMs: number;
  /** Sources that failed, with the code each failed with: reported, and penalised by the next download. */
  readonly failedSources: readonly { readonly url: string; readonly code: string }[];
  /** Pieces of the active slot that did not have their recorded digest (F83). */
  readonly rottenSeedChunks: number;
  /** `patch`: over a patch from the live version. `chunks`: the chunks that it lacks. `whole`: nothing was reused. */
  readonly way: 'patch' | 'chunks' | 'whole';
  /** Null when a patch gave all it promised. `off`, `no-seed`, `none` (no source has one), `dearer`, or the code of what was wrong. */
  readonly whyNoPatch: string | null;
  /** Chunks that a patch promised and did not give; they were fetched. */
  readonly unpatchedChunks: number;
  /** What was not fetched of the bundle's data. */
  readonly savedBytes: number;
}

/** Slots: where versions live. One adapter for directories, one for partitions. */
export interface Slots {
  readonly kind: 'directory' | 'partition';
  /** Where this artifact is, or would be put. Never the live slot unless it is there already. */
  targetFor(version: VersionId): Promise<SlotId>;
  observe(): Promise<Pick<Facts, 'live' | 'liveArtifact' | 'slots'>>;
  /** Preflight: space, mounts, not live, not pinned for rollback (F18, F19, F26). */
  preflight(offer: Offer, slot: SlotId): Promise<void>;
  /** Marks the slot `writing` durably, before the first byte (D1, P1). */
  begin(offer: Offer, slot: SlotId): Promise<void>;
  mark(slot: SlotId, status: SlotStatus, reason: string | null): Promise<void>;
  discard(slot: SlotId): Promise<void>;
  /** Removes old versions and strays, never `keep`. */
  prune(keep: readonly SlotId[]): Promise<void>;
}

/** Puts a bundle into a slot. The slot was begun; nothing else writes to it. */
export interface Installer {
  /** D2-D3, P2-P3: fetch, verify each chunk before its write, write, sync. Resumes what an earlier call left. */
  download(
    offer: Offer,
    slot: SlotId,
    onProgress: (progress: Progress) => void,
    signal: AbortSignal,
  ): Promise<DownloadResult>;
  /** D4-D5, P4: read back past the page cache and compare with the manifest; the slot is `verified` after. */
  verify(
    offer: Offer,
    slot: SlotId,
    onProgress: (progress: Progress) => void,
    signal: AbortSignal,
  ): Promise<void>;
}

/** The switch. For directories the link is the boot record; for partitions the boot loader's own. */
export interface BootControl {
  observe(): Promise<Facts['boot']>;
  /** P7: the loader tries `slot` at most `tries` times, the default stays. A no-op for directories. */
  arm(slot: SlotId, tries: number): Promise<void>;
  disarm(slot: SlotId): Promise<void>;
  /**
   * D8: the link points to `slot` when this returns 'switched'. P8: a reboot was asked for, this process will end. `force`:
   * one that was asked for before did not come (F33).
   */
  switchTo(
    slot: SlotId,
    options?: { readonly force: boolean },
  ): Promise<'switched' | 'reboot-requested'>;
  /** Makes `slot` the default for ever, and reads that back (D11, P12). */
  commit(slot: SlotId): Promise<void>;
  /**
   * D14, P14: `slot` is the default again, `bad` cannot be chosen. Null: nothing was live before the switch (the first
   * install failed), nothing is live after. 'switched' when no reboot is needed, also because `slot` runs already.
   */
  rollBackTo(
    slot: SlotId | null,
    bad: SlotId | null,
    options?: { readonly force: boolean },
  ): Promise<'switched' | 'reboot-requested'>;
}

/** Starts and stops what runs from a slot. A no-op for partitions (the reboot did it). */
export interface Activator {
  observe(): Promise<Facts['active']>;
  /** Whatever ran before is stopped, the version in `slot` runs when this returns. */
  activate(slot: SlotId, version: VersionId, manifest: Manifest): Promise<void>;
  /** Whatever runs is stopped, nothing runs when this returns (a first install was taken back). */
  deactivate(): Promise<void>;
}

export interface ProbeResult {
  readonly name: string;
  readonly ok: boolean;
  readonly durationMs: number;
  /** What was seen, at most 1 KiB, for people. */
  readonly detail: string;
}

export interface Probes {
  /** Runs one check once, killed at its timeout with all that it started. Never throws for a failing check. */
  run(check: HealthCheck): Promise<ProbeResult>;
}

export interface Hooks {
  /** Moves work off the host; ends in drained or in E_HOOK after its deadline. */
  drain(signal: AbortSignal): Promise<void>;
  undrain(): Promise<void>;
}

export interface Windows {
  /** Open now? If not, when it opens next (wall ms), null for never. `closesAt` is when an open window ends. */
  at(wallMs: number): {
    readonly open: boolean;
    readonly opensAt: number | null;
    readonly closesAt: number | null;
  };
}

export type PollAnswer =
  | { readonly kind: 'unchanged'; readonly pollAfterMs: number }
  | {
      readonly kind: 'assignment';
      readonly assignment: Assignment;
      readonly etag: string;
      readonly pollAfterMs: number;
    };

/** The line to control. Losing it never endangers the host. */
export interface ControlLink {
  poll(etag: string | null, agentState: string): Promise<PollAnswer>;
  /** Sends one signed report; resolves once control has it durably. */
  report(report: Envelope): Promise<{ readonly ackSeq: number; readonly wantFacts: boolean }>;
}

/** The verifier of pins and manifests: the TUF client with its durable state. */
export interface Trust {
  /** Refreshes metadata and resolves the assignment to a fully verified offer (verification order 1-6). */
  resolve(
    assignment: Assignment,
    context: {
      readonly group: GroupName;
      readonly host: HostId;
      readonly class: string;
      readonly nowMs: number;
    },
  ): Promise<Offer | null>;
  /** The offer of a bundle file given by hand, verified against the trusted release keys without any control. */
  resolveFile(
    path: string,
    context: { readonly class: string; readonly nowMs: number },
  ): Promise<Offer>;
  /** Persists that this release was committed: the floor of anti-rollback. */
  raiseFloor(offerClass: string, release: number): Promise<void>;
}

export interface Identity {
  readonly host: HostId;
  readonly group: GroupName;
  readonly class: string;
  sign(payloadType: string, payload: Uint8Array): Envelope;
}

/** One transition as it is journalled. */
export interface JournalEntry {
  readonly bootId: string;
  readonly monotonicMs: number;
  readonly wallMs: number;
  /** The event that caused it, and the states by name: for people. */
  readonly event: string;
  readonly from: string;
  readonly to: string;
  /** The whole new state. */
  readonly state: State;
}

/** What a start finds in the state store. */
export interface StoredStart {
  /** The state of the newest good record, as JSON; null when there is none. */
  readonly state: unknown;
  readonly journal: StartFacts['journal'];
  readonly ticket: StartFacts['ticket'];
  readonly denied: StartFacts['denied'];
  readonly writable: boolean;
  /** Why it is not writable, or what was found damaged; for people. */
  readonly problem: Failure | null;
}

/**
 * Everything that the agent keeps across restarts but slots and trust metadata (docs/specs/durable-state.md). Every method
 * that writes is durable on return. After one has thrown, `load` is called before the next write.
 */
export interface StateStore {
  /** Reads everything anew from disk, and tries whether it can be written. Throws nothing that is expected. */
  load(): Promise<StoredStart>;
  /** False after a failed write, whoever made it, until `load` has read everything anew. */
  isOpen(): boolean;
  append(entry: JournalEntry): Promise<void>;
  /** The newest transitions, oldest first. */
  history(count: number): Promise<readonly JournalEntry[]>;
  writeTicket(ticket: Ticket): Promise<void>;
  removeTicket(): Promise<void>;
  deny(entry: DenyEntry): Promise<void>;
  allow(version: VersionId): Promise<void>;
  keepManifest(artifactId: ArtifactId, bytes: Uint8Array): Promise<void>;
  /** The exact signed bytes; null when they are not kept (any more). */
  manifest(artifactId: ArtifactId): Promise<Uint8Array | null>;
  pruneManifests(keep: readonly ArtifactId[]): Promise<void>;
  /** Puts a report into the outbox; one with the same key changes nothing. */
  addReport(report: PendingReport): Promise<void>;
  /** The oldest events that control has not acknowledged, at most `count`. */
  waitingReports(count: number): readonly ReportEvent[];
  acknowledgeReports(ids: readonly string[]): Promise<void>;
  /** The sequence number of the next report; none is given twice. */
  takeReportSequence(): Promise<number>;
  /** The next number is above `atLeast`: control has seen that one from this host (F63). */
  raiseReportSequence(atLeast: number): Promise<void>;
  close(): Promise<void>;
}
