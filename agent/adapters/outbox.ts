/**
 * The outbox: events that control has not acknowledged yet, one file each, so that none is lost with the process or the
 * power (F57, I5). Format: docs/specs/durable-state.md, section 9.
 */
import * as v from 'valibot';
import { isProblem, Problem } from '#/protocol/errors.ts';
import { reportEvent, terminalPhases, type ReportEvent } from '#/protocol/documents.ts';
import type { FilePort } from '#/agent/ports.ts';
import { openDirectory, syncDirectory } from './durable.ts';
import { stateFile, type StateFile, type StateFormat } from './state-file.ts';

/** Past this the oldest events that do not end an attempt are dropped. */
export const MAX_PROGRESS_EVENTS = 256;
/** Ends of attempts are never dropped; past this number no new attempt can be recorded. */
export const MAX_EVENTS = 4096;
const MAX_EVENT_BYTES = 256 * 1024;

const eventFormat: StateFormat<ReportEvent> = {
  kind: 'event',
  version: 1,
  limitBytes: MAX_EVENT_BYTES,
  schema: reportEvent,
};
const sequenceFormat: StateFormat<number> = {
  kind: 'report-seq',
  version: 1,
  limitBytes: 1024,
  schema: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
};

export interface Outbox {
  /** Puts an event in; durable on return. An event whose id is already here changes nothing. */
  add(event: ReportEvent): Promise<void>;
  /** The oldest events, in the order in which they happened, at most `count`. */
  peek(count: number): readonly ReportEvent[];
  /** Forgets acknowledged events. A crash may bring one back: it is sent again and counted once by its id. */
  acknowledge(ids: readonly string[]): Promise<void>;
  /** The sequence number for the next report, durably taken: none is ever used twice. */
  takeSequence(): Promise<number>;
  /** The next number is above this one: control has seen it from this host. Durable on return. */
  raiseSequence(atLeast: number): Promise<void>;
  /** Files that were unreadable when the outbox was opened; they were set aside as removed. */
  readonly damagedFiles: readonly string[];
}

interface Held {
  readonly file: string;
  readonly order: number;
  readonly event: ReportEvent;
}

/** Opens the outbox in `directory` (made when missing), leftovers of a crash removed. */
export async function openOutbox(files: FilePort, directory: string): Promise<Outbox> {
  await openDirectory(files, directory);
  const sequenceFile = stateFile(files, `${directory}/sequence`, sequenceFormat);
  const loaded = await loadEvents(files, directory);
  let held = loaded.held;
  let order = held.at(-1)?.order ?? 0;
  let sequence = await readSequence(sequenceFile);

  const drop = async (dropped: readonly Held[]): Promise<void> => {
    for (const one of dropped) await unlinkQuietly(files, `${directory}/${one.file}`);
    held = held.filter((one) => !dropped.includes(one));
  };
  const makeRoom = async (): Promise<void> => {
    const progress = held.filter((one) => !isTerminal(one.event));
    await drop(progress.slice(0, Math.max(0, progress.length - MAX_PROGRESS_EVENTS)));
    if (held.length >= MAX_EVENTS) {
      throw new Problem('E_SPACE', `the outbox holds ${held.length} ends of attempts`);
    }
  };

  return {
    damagedFiles: loaded.damagedFiles,
    async add(event) {
      if (held.some((one) => one.event.id === event.id)) return;
      await makeRoom();
      const next = { order: order + 1, file: fileName(order + 1, event.id), event };
      await stateFile(files, `${directory}/${next.file}`, eventFormat).write(event);
      order = next.order;
      held = [...held, next];
    },
    peek: (count) => held.slice(0, count).map((one) => one.event),
    async acknowledge(ids) {
      await drop(held.filter((one) => ids.includes(one.event.id)));
    },
    async takeSequence() {
      const next = sequence + 1;
      await sequenceFile.write(next);
      sequence = next;
      return next;
    },
    async raiseSequence(atLeast) {
      if (atLeast <= sequence) return;
      await sequenceFile.write(atLeast);
      sequence = atLeast;
    },
  };
}

/** A damaged number starts again from 0; control's answer to the first report says where it really stands. */
async function readSequence(file: StateFile<number>): Promise<number> {
  try {
    return (await file.read()) ?? 0;
  } catch (error) {
    if (isProblem(error, 'E_STATE')) return 0;
    throw error;
  }
}

async function loadEvents(
  files: FilePort,
  directory: string,
): Promise<{ readonly held: readonly Held[]; readonly damagedFiles: readonly string[] }> {
  const held: Held[] = [];
  const damagedFiles: string[] = [];
  for (const entry of await files.list(directory)) {
    const order = /^([0-9]{12})-[0-9a-f]{32}\.json$/.exec(entry.name)?.[1];
    if (order === undefined) continue;
    try {
      const event = await stateFile(files, `${directory}/${entry.name}`, eventFormat).read();
      if (event !== null) held.push({ file: entry.name, order: Number(order), event });
    } catch (error) {
      if (!isProblem(error, 'E_STATE')) throw error;
      damagedFiles.push(entry.name);
      await unlinkQuietly(files, `${directory}/${entry.name}`);
    }
  }
  if (damagedFiles.length > 0) await syncDirectory(files, directory);
  return { held, damagedFiles };
}

/** Not synced on purpose: an event that a crash brings back is sent twice and counted once. */
async function unlinkQuietly(files: FilePort, path: string): Promise<void> {
  try {
    await files.unlink(path);
  } catch (error) {
    if (!(isProblem(error) && error.details['errno'] === 'ENOENT')) throw error;
  }
}

function fileName(order: number, id: string): string {
  return `${String(order).padStart(12, '0')}-${id}.json`;
}

function isTerminal(event: ReportEvent): boolean {
  return terminalPhases.some((phase) => phase === event.phase);
}
