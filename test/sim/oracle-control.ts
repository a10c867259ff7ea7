/**
 * What has to hold at control at any moment. The oracle reads the audit log out of the database after each step and keeps
 * books of its own: leases, results, halts. What control holds in memory is not asked.
 */
import type { DatabaseSync } from 'node:sqlite';
import type { ArtifactId } from '#/protocol/ids.ts';
import type { SimControl } from './control.ts';
import type { Trace } from './trace.ts';

export interface ControlOracle {
  /** Reads what is new in the audit log. */
  check(): void;
  revokedMs(artifactId: ArtifactId): number | null;
  /** Number of versions that failed on a host and were not forgiven: they are not offered. */
  hasFailed(host: string, artifactId: string): boolean;
  readonly counts: { offers: number; ends: number };
}

export interface ControlOracleOptions {
  readonly control: SimControl;
  readonly nowMs: () => number;
  readonly trace: Trace;
  readonly limits: { readonly maxFailurePercent: number; readonly soakMs: number };
  readonly wasConfirmed: (host: string, artifactId: string) => boolean;
  readonly wasCloned: (host: string) => boolean;
  readonly onViolation: (what: string) => void;
}

interface Lease {
  readonly artifactId: string;
  readonly rolloutId: string | null;
}
interface Book {
  readonly group: string;
  isStopped: string | null;
  stages: number;
  isPromoted: boolean;
  results: number;
  failures: number;
  lastConfirmMs: number | null;
}
interface Entry {
  readonly id: number;
  readonly at_ms: number;
  readonly type: string;
  readonly subject: string;
  readonly details: string;
}
type Details = Readonly<Record<string, unknown>>;

interface Books {
  lastId: number;
  readonly leases: Map<string, Lease>;
  readonly rollouts: Map<string, Book>;
  readonly halts: Set<string>;
  readonly held: Set<string>;
  readonly quarantined: Set<string>;
  readonly revoked: Map<string, number>;
  readonly groupOf: Map<string, string>;
  /** `host artifact`: failed, and not forgiven since. */
  readonly failed: Set<string>;
}

const emptyBooks = (): Books => ({
  lastId: 0,
  leases: new Map(),
  rollouts: new Map(),
  halts: new Set(),
  held: new Set(),
  quarantined: new Set(),
  revoked: new Map(),
  groupOf: new Map(),
  failed: new Set(),
});

/** An oracle over the database of a control. */
export function controlOracle(options: ControlOracleOptions): ControlOracle {
  const { control, trace } = options;
  let books = emptyBooks();
  let database: DatabaseSync | null = null;
  let entriesAfter: ReturnType<DatabaseSync['prepare']> | null = null;
  let sequences: ReturnType<DatabaseSync['prepare']> | null = null;
  /** Highest report that each host was seen at, in this store. */
  const seen = new Map<string, number>();
  let seenStatements = -1;
  const counts = { offers: 0, ends: 0 };
  /** After a restore the history of the backup is read as it stands, and was checked when it happened. */
  let isReplay = false;
  const fail = (what: string): void => {
    if (!isReplay) options.onViolation(`control: ${what}`);
  };
  const text = (value: unknown): string => (typeof value === 'string' ? value : '');
  const ref = (subject: string): string => subject.slice(subject.indexOf('/') + 1);
  const bookOf = (rolloutId: string, group = ''): Book => {
    const found = books.rollouts.get(rolloutId) ?? {
      group,
      isStopped: null,
      stages: 0,
      isPromoted: false,
      results: 0,
      failures: 0,
      lastConfirmMs: null,
    };
    books.rollouts.set(rolloutId, found);
    return found;
  };

  const offered = (host: string, details: Details): void => {
    counts.offers += 1;
    const artifactId = text(details['artifactId']);
    const group = text(details['group']);
    const rolloutId = details['rolloutId'] === null ? null : text(details['rolloutId']);
    if (books.leases.has(host)) fail(`R2 ${host} is offered something while it has a lease`);
    if (books.halts.has('fleet') || books.halts.has(`group/${group}`))
      fail(
        `R6 ${host} is offered something while its ${books.halts.has('fleet') ? 'fleet' : 'group'} is halted`,
      );
    if (books.revoked.has(artifactId)) fail(`R7 ${host} is offered a revoked version`);
    if (books.held.has(host)) fail(`R7 ${host} is offered something while it is held`);
    if (books.quarantined.has(host)) fail(`R7 ${host} is offered something in quarantine`);
    if (books.failed.has(`${host} ${artifactId}`))
      fail(`R8 ${host} is offered a version that failed there`);
    if (rolloutId !== null) {
      const { isStopped } = bookOf(rolloutId, group);
      if (isStopped !== null)
        fail(`R6 ${host} is offered a version of a rollout that is ${isStopped}`);
    }
    if (isUnheard(control.database, host))
      fail(`F73 ${host} is offered something after a restore, unheard`);
    books.leases.set(host, { artifactId, rolloutId });
  };

  const ended = (entry: Entry, details: Details): void => {
    counts.ends += 1;
    const host = ref(entry.subject);
    const outcome = entry.type.slice('attempt.'.length);
    const artifactId = text(details['artifactId']);
    const rolloutId = details['rolloutId'] === null ? null : text(details['rolloutId']);
    const lease = books.leases.get(host);
    const isOurs = lease?.artifactId === artifactId && lease.rolloutId === rolloutId;
    if (isOurs) books.leases.delete(host);
    else if (rolloutId !== null)
      fail(
        `R9 an attempt of rollout ${rolloutId} on ${host} is counted ${outcome} without a lease`,
      );
    if (outcome === 'confirmed') {
      books.failed.delete(`${host} ${artifactId}`);
      if (!options.wasConfirmed(host, artifactId) && !options.wasCloned(host))
        fail(`R9 ${host} is counted as confirmed and never was`);
    }
    if (outcome === 'failed') books.failed.add(`${host} ${artifactId}`);
    if (rolloutId === null || (outcome !== 'confirmed' && outcome !== 'failed')) return;
    const book = bookOf(rolloutId);
    book.results += 1;
    if (outcome === 'failed') book.failures += 1;
    else book.lastConfirmMs = entry.at_ms;
  };

  const stageOpened = (entry: Entry, rolloutId: string, details: Details): void => {
    const book = bookOf(rolloutId, text(details['group']));
    const { maxFailurePercent, soakMs } = options.limits;
    if (books.halts.has('fleet') || books.halts.has(`group/${book.group}`))
      fail(`R6 a stage of ${rolloutId} opens during a halt`);
    if (book.isStopped !== null)
      fail(`R6 a stage of ${rolloutId} opens, which is ${book.isStopped}`);
    if (book.stages > 0 && !book.isPromoted) {
      if (book.failures > (maxFailurePercent / 100) * book.results)
        fail(`R3 a stage opens with ${book.failures} failures of ${book.results} results`);
      if (book.lastConfirmMs !== null && entry.at_ms - book.lastConfirmMs < soakMs)
        fail(`R3 a stage opens ${entry.at_ms - book.lastConfirmMs} ms after a confirm`);
    }
    book.stages += 1;
    book.isPromoted = false;
  };

  const decided = (entry: Entry, details: Details): void => {
    const kind = entry.type.slice('decision.'.length);
    const id = ref(entry.subject);
    switch (kind) {
      case 'offer':
        offered(id, details);
        return;
      case 'withdraw':
        books.leases.delete(id);
        return;
      case 'open-stage':
        stageOpened(entry, id, details);
        return;
      case 'halt-rollout':
      case 'pause-rollout':
        bookOf(id, text(details['group'])).isStopped =
          kind === 'halt-rollout' ? 'halted' : 'paused';
    }
  };

  const rolloutOrdered = (entry: Entry): void => {
    const book = bookOf(ref(entry.subject));
    const order = entry.type.slice('rollout.'.length);
    if (order === 'pause') book.isStopped = 'paused';
    if (order === 'abort') book.isStopped = 'aborted';
    if (order === 'promote') book.isPromoted = true;
    if (order !== 'resume') return;
    book.isStopped = null;
    // Failures until now were accepted: the stage goes on without them.
    book.results -= book.failures;
    book.failures = 0;
  };

  const read = (entry: Entry): void => {
    const details = JSON.parse(entry.details) as Details;
    const id = ref(entry.subject);
    trace.note(`control ${entry.type} ${entry.subject}`);
    if (!isReplay && !entry.type.startsWith('attempt.'))
      trace.tell(`control: ${entry.type} ${entry.subject} ${text(details['words'])}`);
    if (entry.type.startsWith('decision.')) decided(entry, details);
    else if (entry.type.startsWith('attempt.')) ended(entry, details);
    else if (entry.type.startsWith('rollout.')) rolloutOrdered(entry);
    else if (entry.type === 'halt') books.halts.add(entry.subject);
    else if (entry.type === 'lift') books.halts.delete(entry.subject);
    else if (entry.type === 'hold') books.held.add(id);
    else if (entry.type === 'unhold') books.held.delete(id);
    else if (entry.type === 'release.revoke') books.revoked.set(id, options.nowMs());
    else if (entry.type === 'host.retry') forgive(id);
    else if (entry.type === 'host.forked') {
      books.quarantined.add(id);
      if (!options.wasCloned(id))
        fail(`F62 ${id} is quarantined and was never cloned: ${entry.details}`);
    }
  };
  const forgive = (host: string): void => {
    for (const key of books.failed) if (key.startsWith(`${host} `)) books.failed.delete(key);
  };

  /** Halts that were acknowledged are in their table. */
  const checkHalts = (): void => {
    const rows = control.database.prepare('SELECT scope FROM halts').all() as { scope: string }[];
    const stored = new Set(rows.map((row) => row.scope));
    for (const scope of books.halts)
      if (!stored.has(scope)) fail(`R6 the halt of ${scope} is lost`);
  };

  /** What is known of a host is what its newest report says: one that comes late changes nothing of it. */
  const checkSequences = (): void => {
    for (const { id, seq } of (sequences?.all() ?? []) as { id: string; seq: number }[]) {
      const before = seen.get(id) ?? 0;
      if (seq < before)
        fail(`F77 what is known of ${id} went from report ${before} back to ${seq}`);
      seen.set(id, seq);
    }
  };

  return {
    counts,
    check() {
      if (database !== control.database) {
        isReplay = database !== null;
        const { revoked } = books;
        books = emptyBooks();
        database = control.database;
        entriesAfter = database.prepare('SELECT * FROM audit WHERE id > ? ORDER BY id');
        sequences = database.prepare('SELECT id, seq FROM hosts');
        seen.clear();
        if (isReplay) trace.tell(`control restored; ${revoked.size} revocations were known`);
      }
      // Nothing was asked of the store, so nothing is new in it.
      if (control.counts.statements === seenStatements || database.isTransaction) return;
      seenStatements = control.counts.statements;
      const entries = (entriesAfter?.all(books.lastId) ?? []) as unknown as Entry[];
      for (const entry of entries) {
        read(entry);
        books.lastId = entry.id;
      }
      isReplay = false;
      if (entries.length > 0) checkHalts();
      checkSequences();
    },
    revokedMs: (artifactId) => books.revoked.get(artifactId) ?? null,
    hasFailed: (host, artifactId) => books.failed.has(`${host} ${artifactId}`),
  };
}

/** True when control knows that it was restored, and the host has not reported since. */
function isUnheard(database: DatabaseSync, host: string): boolean {
  const meta = new Map(
    (
      database.prepare('SELECT name, value FROM meta').all() as { name: string; value: string }[]
    ).map(({ name, value }) => [name, value]),
  );
  if (meta.get('restored') !== 'yes') return false;
  const row = database.prepare('SELECT observed_epoch FROM hosts WHERE id = ?').get(host) as
    | { observed_epoch: number }
    | undefined;
  return row !== undefined && row.observed_epoch < Number(meta.get('epoch') ?? 1);
}
