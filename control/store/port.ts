/**
 * The store as control needs it. One writer at a time; what `write` resolved for is durable. test/conformance/control holds
 * every adapter to one suite.
 */
import type { Attempt, Group, Halt, Host, Pin, Release, Rollout } from '#/control/core/model.ts';
import type { Tile } from '#/bundle/log/tiles.ts';
import type { ReportEvent } from '#/protocol/documents.ts';
import type { GroupName, HostId, RolloutId } from '#/protocol/ids.ts';
import type { ApiTokenView, AuditEntry, Role } from '#/protocol/operator-plane.ts';
import type { DecisionView } from '#/protocol/rollout.ts';
import type { Labels } from '#/protocol/selector.ts';

export interface JoinToken {
  readonly id: string;
  readonly hash: string;
  readonly group: GroupName | null;
  readonly labels: Labels;
  readonly description: string;
  readonly replacesHost: HostId | null;
  readonly createdAtMs: number;
  readonly expiresAtMs: number;
  readonly usedAtMs: number | null;
  readonly usedBy: HostId | null;
  readonly actor: string;
}

export interface ApiToken extends ApiTokenView {
  readonly hash: string;
  readonly role: Role;
}

/** Everything that is held in memory, as it stands in the store. */
export interface FleetRows {
  readonly meta: ReadonlyMap<string, string>;
  readonly groups: readonly Group[];
  readonly releases: readonly Release[];
  readonly hosts: readonly Host[];
  /** Rollouts that are not over, and the last one of each group. */
  readonly rollouts: readonly Rollout[];
  readonly halts: readonly Halt[];
  readonly apiTokens: readonly ApiToken[];
  readonly lastAuditId: number;
}

export interface StoredEvent extends ReportEvent {
  readonly seq: number;
  readonly ordinal: number;
  readonly receivedAtMs: number;
}
export interface StoredReport {
  readonly host: HostId;
  readonly seq: number;
  /** sha256 of the payload. */
  readonly digest: string;
  /** The DSSE envelope as JSON text. */
  readonly envelope: string;
  readonly receivedAtMs: number;
}

export interface StoreWriter {
  setMeta(name: string, value: string): Promise<void>;
  putGroup(group: Group): Promise<void>;
  deleteGroup(name: GroupName): Promise<void>;
  putRelease(release: Release): Promise<void>;
  putHost(host: Host): Promise<void>;
  deleteHost(id: HostId): Promise<void>;
  addPin(pin: Pin): Promise<void>;
  /** Ends pins: of the host, or of the group itself (host null). */
  removePin(group: GroupName, host: HostId | null, atMs: number): Promise<void>;
  putRollout(rollout: Rollout): Promise<void>;
  putAttempt(attempt: Attempt): Promise<void>;
  addDecision(rollout: RolloutId, decision: Omit<DecisionView, 'id'>): Promise<void>;
  putHalt(halt: Halt): Promise<void>;
  deleteHalt(scope: string): Promise<void>;
  addJoinToken(token: JoinToken): Promise<void>;
  joinTokenByHash(hash: string): Promise<JoinToken | null>;
  markJoinTokenUsed(id: string, host: HostId, atMs: number): Promise<void>;
  deleteJoinToken(id: string): Promise<boolean>;
  putApiToken(token: ApiToken): Promise<void>;
  /** Digest under which this report was stored, or null. */
  reportDigest(host: HostId, seq: number): Promise<string | null>;
  addReport(report: StoredReport): Promise<void>;
  /** Stores the events that are new, and gives those back, in their order (F77). */
  addNewEvents(
    host: HostId,
    seq: number,
    events: readonly ReportEvent[],
    atMs: number,
  ): Promise<readonly ReportEvent[]>;
  /** Appends and gives the entry its id: one more than the last. Its leaf joins the Merkle tree at once. */
  audit(entry: Omit<AuditEntry, 'id'>): Promise<AuditEntry>;
  /** Entries in the log, with those of this transaction. */
  logSize(): Promise<number>;
  /** The hashes of a tile of the log, with those of this transaction; null when it has fewer. */
  logTile(tile: Tile): Promise<Uint8Array | null>;
  putTrustFile(path: string, content: string): Promise<void>;
  deleteTrustFile(path: string): Promise<void>;
}

export interface Page<T> {
  readonly items: readonly T[];
  readonly nextCursor: string | null;
}

export interface Store {
  load(): Promise<FleetRows>;
  /** Runs one transaction; nothing of it is there when it throws. Calls are queued one after the other. */
  write<T>(work: (writer: StoreWriter) => Promise<T>): Promise<T>;
  /** Last-seen times, in one transaction. Losing them is harmless. */
  saveSeen(seen: ReadonlyMap<HostId, number>): Promise<void>;
  rollout(id: RolloutId): Promise<Rollout | null>;
  rollouts(
    filter: { group?: string; state?: string },
    before: string | null,
    limit: number,
  ): Promise<Page<Rollout>>;
  decisions(rollout: RolloutId, after: number, limit: number): Promise<readonly DecisionView[]>;
  lastDecisions(rollout: RolloutId, limit: number): Promise<readonly DecisionView[]>;
  attempts(host: HostId, limit: number): Promise<readonly Attempt[]>;
  /** Attempts of a rollout, for one that is no longer in memory. */
  attemptsOf(rollout: RolloutId): Promise<readonly Attempt[]>;
  events(
    host: HostId,
    before: { seq: number; ordinal: number } | null,
    limit: number,
  ): Promise<readonly StoredEvent[]>;
  report(host: HostId, seq: number): Promise<StoredReport | null>;
  auditAfter(after: number, limit: number, subject: string | null): Promise<readonly AuditEntry[]>;
  logSize(): Promise<number>;
  /** The hashes of a tile of the log; null when it has fewer. */
  logTile(tile: Tile): Promise<Uint8Array | null>;
  joinTokens(): Promise<readonly JoinToken[]>;
  trustFile(path: string): Promise<string | null>;
  trustFiles(): Promise<ReadonlyMap<string, string>>;
  /** Removes report envelopes and events received before this time; attempts and audit stay. */
  prune(beforeMs: number): Promise<void>;
  /** Throws E_UNAVAILABLE when the store cannot be written. */
  check(): Promise<void>;
  close(): Promise<void>;
}
