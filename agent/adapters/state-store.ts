/** The state store on files: journal, ticket, deny-list, manifests and outbox in one directory (docs/specs/durable-state.md). */
import { createHash } from 'node:crypto';
import type { DenyEntry, PendingReport } from '#/agent/core/effect.ts';
import type { Failure } from '#/agent/core/event.ts';
import type { FilePort, JournalEntry, StateStore, StoredStart } from '#/agent/ports.ts';
import type { ReportEvent } from '#/protocol/documents.ts';
import { isProblem, Problem } from '#/protocol/errors.ts';
import { openDenyList, type DenyList } from './deny-list.ts';
import { openDirectory, readFile, removeFile } from './durable.ts';
import {
  journalLimits,
  openJournal,
  newestRecord,
  type Journal,
  type JournalLimits,
} from './journal.ts';
import { openManifestStore, type ManifestStore } from './manifest-store.ts';
import { openOutbox, type Outbox } from './outbox.ts';
import { openReserve } from './reserve.ts';
import { ticketFile } from './ticket.ts';

export interface StateStoreOptions {
  readonly files: FilePort;
  /** Made when missing; its parent exists. */
  readonly directory: string;
  /** Other directories of state, opened with it: where the slots and their links are. */
  readonly alsoOpen?: readonly string[];
  readonly journal?: JournalLimits;
  /** Space set aside for a full disk; 0: none. */
  readonly reserveBytes?: number;
}

/** Enough for a journal written anew, a ticket and some reports. */
export const RESERVE_BYTES = 4 * 1024 * 1024;

/** What is open for writing. */
interface Opened {
  journal: Journal;
  readonly denyList: DenyList;
  readonly manifests: ManifestStore;
  readonly outbox: Outbox;
}

/** The store in a directory. Nothing is touched before `load`. */
export function openStateStore(options: StateStoreOptions): StateStore {
  const { files, directory } = options;
  const limits = options.journal ?? journalLimits;
  const journalPath = `${directory}/journal`;
  const denyListPath = `${directory}/denylist.json`;
  const ticket = ticketFile(files, `${directory}/ticket`);
  const reserve = openReserve(files, `${directory}/reserve`, options.reserveBytes ?? RESERVE_BYTES);
  let opened: Opened | null = null;

  const use = (): Opened => {
    if (opened === null) throw new Problem('E_READ_ONLY', `${directory} is not open for writing`);
    return opened;
  };
  let last: Promise<unknown> = Promise.resolve();
  /** One at a time: operations, reports and their acknowledgements come from lanes that know nothing of one another. */
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const turn = last.then(work, work);
    last = turn.catch(() => undefined);
    return turn;
  };
  /** After a failed write nothing more is written before everything was read anew. */
  const writing = <T>(write: (store: Opened) => Promise<T>): Promise<T> =>
    inTurn(async () => {
      const store = use();
      try {
        return await reserve.spend(() => write(store));
      } catch (error) {
        await closeQuietly(store);
        opened = null;
        throw error;
      }
    });
  const openAll = async (): Promise<Opened> => {
    for (const one of [directory, ...(options.alsoOpen ?? [])]) await openDirectory(files, one);
    const journal = await openJournal(files, journalPath, limits);
    try {
      return {
        journal,
        denyList: await openDenyListAnew(files, denyListPath),
        manifests: await openManifestStore(files, `${directory}/manifests`),
        outbox: await openOutbox(files, `${directory}/outbox`),
      };
    } catch (error) {
      // A handle that nobody closes ends the process when it is collected.
      await closeQuietly({ journal });
      throw error;
    }
  };

  return {
    load: () =>
      inTurn(async () => {
        if (opened !== null) await closeQuietly(opened);
        opened = null;
        const found = await readStart(files, journalPath, limits, () => ticket.read());
        try {
          opened = await reserve.spend(openAll);
          await reserve.keep();
        } catch (error) {
          const denied = await deniedAsRead(files, denyListPath);
          return { ...found, denied, writable: false, problem: asFailure(error) };
        }
        return { ...found, denied: opened.denyList.entries(), writable: true };
      }),
    isOpen: () => opened !== null,
    append: (entry) =>
      writing(async (store) => {
        const { bootId, monotonicMs, wallMs, ...data } = entry;
        if (store.journal.isBroken()) {
          await closeQuietly(store);
          store.journal = await openJournal(files, journalPath, limits);
        }
        await store.journal.append({ bootId, monotonicMs, wallMs, data });
      }),
    async history(count) {
      const records = opened === null ? [] : await opened.journal.tail(count);
      return records.map(
        ({ bootId, monotonicMs, wallMs, data }) =>
          ({ bootId, monotonicMs, wallMs, ...(data as object) }) as JournalEntry,
      );
    },
    writeTicket: (value) => writing(() => ticket.write(value)),
    removeTicket: () => writing(() => ticket.remove()),
    deny: (entry) => writing(({ denyList }) => denyList.put(entry)),
    allow: (artifactId) => writing(({ denyList }) => denyList.remove(artifactId)),
    keepManifest: (artifactId, bytes) =>
      writing(({ manifests }) => manifests.keep(artifactId, bytes)),
    manifest: (artifactId) => use().manifests.read(artifactId),
    pruneManifests: (keep) => writing(({ manifests }) => manifests.prune(keep)),
    addReport: (report) => writing(({ outbox }) => outbox.add(eventOf(report))),
    waitingReports: (count) => opened?.outbox.peek(count) ?? [],
    acknowledgeReports: (ids) => writing(({ outbox }) => outbox.acknowledge(ids)),
    takeReportSequence: () => writing(({ outbox }) => outbox.takeSequence()),
    raiseReportSequence: (atLeast) => writing(({ outbox }) => outbox.raiseSequence(atLeast)),
    close: () =>
      inTurn(async () => {
        if (opened !== null) await closeQuietly(opened);
        opened = null;
      }),
  };
}

/** What is there, without writing anything: also for a directory that cannot be written. */
async function readStart(
  files: FilePort,
  journalPath: string,
  limits: JournalLimits,
  readTicket: () => Promise<StoredStart['ticket']>,
): Promise<Omit<StoredStart, 'denied' | 'writable'>> {
  let problem: Failure | null = null;
  let ticket: StoredStart['ticket'] = null;
  try {
    ticket = await readTicket();
  } catch (error) {
    problem = asFailure(error);
    ticket = 'damaged';
  }
  try {
    const bytes = await readFile(files, journalPath, 2 * limits.rotateBytes + limits.recordBytes);
    const { record, damage } = newestRecord(bytes ?? new Uint8Array());
    const data = record?.data as { readonly state?: unknown } | undefined;
    if (damage === 'rotten') {
      const failure = asFailure(
        new Problem('E_STATE', `${journalPath}: unreadable before its end`),
      );
      return { state: null, journal: 'lost', ticket, problem: failure };
    }
    if (data === undefined) return { state: null, journal: 'empty', ticket, problem };
    return { state: data.state ?? null, journal: 'read', ticket, problem };
  } catch (error) {
    return { state: null, journal: 'lost', ticket, problem: asFailure(error) };
  }
}

/** A damaged deny-list starts empty: the state and control remember the same, and slots are still marked bad. */
async function openDenyListAnew(files: FilePort, path: string): Promise<DenyList> {
  try {
    return await openDenyList(files, path);
  } catch (error) {
    if (!isProblem(error, 'E_STATE')) throw error;
    await removeFile(files, path);
    return await openDenyList(files, path);
  }
}

async function deniedAsRead(files: FilePort, path: string): Promise<readonly DenyEntry[]> {
  try {
    return (await openDenyList(files, path)).entries();
  } catch (error) {
    if (!isProblem(error)) throw error;
    return [];
  }
}

function eventOf(report: PendingReport): ReportEvent {
  const { key, attempt, rolloutId, artifactId, phase, code, message, atWallMs, evidence } = report;
  const id = createHash('sha256').update(key).digest('hex').slice(0, 32);
  return { id, attempt, rolloutId, artifactId, phase, code, message, at: atWallMs, evidence };
}

function asFailure(error: unknown): Failure {
  if (!isProblem(error)) throw error;
  return { code: error.code, kind: error.kind, message: error.message };
}

/** Closing fails only on descriptors that are broken already; what counted was synced before. */
async function closeQuietly(store: Pick<Opened, 'journal'>): Promise<void> {
  try {
    await store.journal.close();
  } catch (error) {
    if (!isProblem(error)) throw error;
  }
}
