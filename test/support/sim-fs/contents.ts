/** What a file may hold after a crash, by what was written to it and not synced. */
import type { Alike } from './crash-states.ts';
import { applyData, type DataChange, type LogEntry } from './log.ts';

export type PersistenceModel = 'kill' | 'ordered' | 'weak';
export const persistenceModels = ['kill', 'ordered', 'weak'] as const;

/** A value: each change makes a new one, so that what was made of one before need not be made again. */
export interface PendingFile {
  readonly durable: Uint8Array;
  readonly pending: readonly DataChange[];
  /** What programs see: all that is pending applied. */
  readonly live: Uint8Array;
}
/** A write that the kill cut short. */
export function tornWrite(entry: LogEntry | null): Extract<LogEntry, { do: 'write' }> | null {
  return entry?.do === 'write' && entry.bytes.byteLength > 1 ? half(entry) : null;
}

const textOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1');

type Contents = ReadonlyMap<string, Uint8Array>;
const knownContents = new WeakMap<PendingFile, Map<string, Contents>>();

/** What may be found in a file after the crash, each once, by what it says to those who find the file by one of `names`. */
export function contentsOf(
  file: PendingFile,
  model: PersistenceModel,
  alike: Alike | null,
  names: readonly string[],
): Contents {
  const telling = alike === null ? [] : names.filter((name) => !alike.isMoot(name));
  const key = [model, alike === null, ...telling].join('/');
  const known = knownContents.get(file) ?? new Map<string, Contents>();
  knownContents.set(file, known);
  const made = known.get(key);
  if (made !== undefined) return made;
  const meaning = (bytes: Uint8Array): string =>
    alike === null ? textOf(bytes) : telling.map((name) => alike.meaning(bytes, name)).join('\0');
  const contents = new Map(formContents(file, model).map((bytes) => [meaning(bytes), bytes]));
  known.set(key, contents);
  return contents;
}

function formContents(file: PendingFile, model: PersistenceModel): readonly Uint8Array[] {
  if (model === 'kill') return [file.live];
  return model === 'ordered' ? inOrder(file) : inAnyWay(file);
}

function inOrder(file: PendingFile): readonly Uint8Array[] {
  const contents: Uint8Array[] = [file.durable];
  let content = file.durable;
  for (const change of file.pending) {
    if (change.do === 'write') contents.push(applyData(content, half(change)));
    content = applyData(content, change);
    contents.push(content);
  }
  return contents;
}

/** Up to this many pending changes of one file, all combinations of their outcomes are formed. */
const MAX_COMBINED_CHANGES = 2;

function inAnyWay(file: PendingFile): readonly Uint8Array[] {
  const outcomes = file.pending.map(outcomesOf);
  let contents: readonly Uint8Array[] = [file.durable];
  if (file.pending.length <= MAX_COMBINED_CHANGES) {
    for (const options of outcomes) {
      contents = contents.flatMap((before) => options.map((option) => apply(before, option)));
    }
    return contents;
  }
  const all = file.pending.reduce(applyData, file.durable);
  const oneOff = outcomes.flatMap((options, index) =>
    options.map((option) =>
      file.pending.reduce(
        (content, change, at) => apply(content, at === index ? option : change),
        file.durable,
      ),
    ),
  );
  return [file.durable, ...inOrder(file), ...oneOff, all];
}

function apply(before: Uint8Array, change: DataChange | null): Uint8Array {
  return change === null ? before : applyData(before, change);
}

const SECTOR_BYTES = 512;

/** Not at all, as zeros (the size came, the data did not), half of it, a sector in the middle lost, whole. */
function outcomesOf(change: DataChange): readonly (DataChange | null)[] {
  if (change.do === 'truncate') return [null, change];
  const zeros = { ...change, bytes: new Uint8Array(change.bytes.byteLength) };
  const outcomes: (DataChange | null)[] = [null, zeros, half(change)];
  if (change.bytes.byteLength > 2 * SECTOR_BYTES) {
    const holed = new Uint8Array(change.bytes);
    holed.fill(0, SECTOR_BYTES, 2 * SECTOR_BYTES);
    outcomes.push({ ...change, bytes: holed });
  }
  return [...outcomes, change];
}

function half<T extends Extract<DataChange, { do: 'write' }>>(change: T): T {
  return { ...change, bytes: change.bytes.subarray(0, change.bytes.byteLength >> 1) };
}
