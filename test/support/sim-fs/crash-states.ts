/**
 * What a disk may hold after a crash. Three models, from kind to cruel:
 *
 * - `kill`: the process ends, the kernel lives: all that was done is there; a write may have been cut short.
 * - `ordered`: a power cut on a file system with one ordered metadata journal (ext4 data=ordered). Directory changes
 *   survive as a prefix; a sync of anything makes all of them before it durable. File data survives only as far as it
 *   was synced, plus any part of what came after, in order.
 * - `weak`: a power cut where POSIX is all that one can rely on. Each directory entry survives in any of its versions
 *   since its directory was synced, also the two halves of a rename; each unsynced write survives whole, not at all, in
 *   part, or as zeros, in any combination.
 */
import { ROOT, type Image, type Inode, type Node } from './image.ts';
import { applyData, type DataChange, type EntryChange, type LogEntry } from './log.ts';

export type PersistenceModel = 'kill' | 'ordered' | 'weak';
export const persistenceModels = ['kill', 'ordered', 'weak'] as const;

/** A disk, and what happened on it since it last held exactly `base`. */
export interface DiskHistory {
  readonly base: Image;
  readonly log: readonly LogEntry[];
}

export interface CrashState {
  /** What programs see after the crash. */
  readonly image: Image;
  /** Where the next run goes on. After a power cut the image is all there is; after a kill, unsynced changes stay so. */
  readonly history: DiskHistory;
  /** Number of log entries before the crash. */
  readonly cut: number;
  /** The world at the moment of the crash: the last mark before it, or null. */
  readonly world: unknown;
  /** What a later power cut could still take back: empty after a power cut. */
  readonly unsynced: Unsynced;
}

/** Changes that no sync has made durable. */
export interface Unsynced {
  readonly entries: readonly PendingEntry[];
  readonly files: ReadonlyMap<Inode, PendingFile>;
  /** What the versions of the entries are, as programs see them now. */
  readonly nodes: ReadonlyMap<Inode, Node>;
}
const nothingUnsynced: Unsynced = { entries: [], files: new Map(), nodes: new Map() };

/** Combinations at one cut beyond this number are sampled: all old, all new, each alone, then at random by the seed. */
export const MAX_STATES_PER_CUT = 64;

export interface PendingFile {
  durable: Uint8Array;
  pending: DataChange[];
}
export interface PendingEntry {
  readonly directory: Inode;
  readonly name: string;
  durable: Inode | null;
  versions: (Inode | null)[];
}

/** What is durable and what is pending, as the log is walked. */
interface Walk {
  readonly nodes: Map<Inode, Node>;
  readonly files: Map<Inode, PendingFile>;
  readonly entries: Map<string, PendingEntry>;
  /** What is durable of each directory; the maps in it are never changed. */
  readonly durable: Map<Inode, ReadonlyMap<string, Inode>>;
  /** For `ordered`: directory changes that no sync has committed yet, one element per operation. */
  uncommitted: (readonly EntryChange[])[];
  world: unknown;
}

export interface CrashOptions {
  readonly seed: number;
  readonly from?: number;
  /** Only crashes after so many entries. */
  readonly cuts?: ReadonlySet<number>;
  /** Leaves out what a power cut one entry earlier could have left as well, in the same world. */
  readonly onlyNew?: boolean;
}

/** Every crash state after the first `from` log entries of a disk; equal neighbours are left to the caller. */
export function* crashStates(
  { base, log }: DiskHistory,
  model: PersistenceModel,
  options: CrashOptions,
): Generator<CrashState> {
  const walk = startWalk(base);
  const from = options.from ?? 0;
  for (let cut = 0; cut <= log.length; cut += 1) {
    const entry = cut === 0 ? null : (log[cut - 1] ?? null);
    if (entry !== null) advance(walk, entry, model);
    if (cut < from || options.cuts?.has(cut) === false) continue;
    const news = options.onlyNew === true && cut > from && model !== 'kill' ? entry : null;
    for (const image of imagesAt(walk, model, options.seed + cut, news)) {
      if (model !== 'kill') {
        const history = { base: image, log: [] };
        yield { image, history, cut, world: walk.world, unsynced: nothingUnsynced };
        continue;
      }
      const history = { base, log: log.slice(0, cut) };
      yield { image, history, cut, world: walk.world, unsynced: unsyncedIn(walk) };
    }
    const torn = model === 'kill' ? tornWrite(entry) : null;
    if (torn !== null) {
      const history = { base, log: [...log.slice(0, cut - 1), torn] };
      const image = replay(history);
      yield { image, history, cut, world: walk.world, unsynced: unsyncedIn(walk) };
    }
  }
}

function unsyncedIn(walk: Walk): Unsynced {
  const entries = [...walk.entries.values()]
    .filter((entry) => entry.versions.length > 0)
    .map((entry) => ({ ...entry, versions: [...entry.versions] }));
  const nodes = new Map<Inode, Node>();
  for (const inode of entries.flatMap(({ durable, versions }) => [durable, ...versions])) {
    const node = inode === null ? undefined : walk.nodes.get(inode);
    if (inode === null || node === undefined) continue;
    const file = walk.files.get(inode);
    if (file === undefined) nodes.set(inode, node);
    else nodes.set(inode, { kind: 'file', bytes: file.pending.reduce(applyData, file.durable) });
  }
  const files = [...walk.files]
    .filter(([, file]) => file.pending.length > 0)
    .map(([inode, file]): [Inode, PendingFile] => [inode, { ...file, pending: [...file.pending] }]);
  return { entries, files: new Map(files), nodes };
}

/** The disk as programs see it after a history. */
export function replay({ base, log }: DiskHistory): Image {
  const walk = startWalk(base);
  for (const entry of log) advance(walk, entry, 'kill');
  for (const image of imagesAt(walk, 'kill', 0, null)) return image;
  throw new Error('a history has exactly one live image');
}

/** A write that the kill cut short. */
function tornWrite(entry: LogEntry | null): DataChange | null {
  return entry?.do === 'write' && entry.bytes.byteLength > 1 ? half(entry) : null;
}

function startWalk(start: Image): Walk {
  const walk: Walk = {
    nodes: new Map(start.nodes),
    files: new Map(),
    entries: new Map(),
    durable: new Map(start.entries),
    uncommitted: [],
    world: null,
  };
  for (const [inode, node] of start.nodes) {
    if (node.kind === 'file') walk.files.set(inode, { durable: node.bytes, pending: [] });
  }
  for (const [directory, map] of start.entries) {
    for (const [name, inode] of map) entryOf(walk, directory, name).durable = inode;
  }
  return walk;
}

function entryOf(walk: Walk, directory: Inode, name: string): PendingEntry {
  const key = `${directory}/${name}`;
  const found = walk.entries.get(key);
  if (found !== undefined) return found;
  const made: PendingEntry = { directory, name, durable: null, versions: [] };
  walk.entries.set(key, made);
  return made;
}

function advance(walk: Walk, entry: LogEntry, model: PersistenceModel): void {
  switch (entry.do) {
    case 'mark':
      walk.world = entry.world;
      return;
    case 'entries':
      if (entry.made !== null) {
        walk.nodes.set(entry.made.inode, entry.made.node);
        if (entry.made.node.kind === 'directory') walk.durable.set(entry.made.inode, new Map());
        if (entry.made.node.kind === 'file') {
          walk.files.set(entry.made.inode, { durable: entry.made.node.bytes, pending: [] });
        }
      }
      for (const one of entry.changes) {
        entryOf(walk, one.directory, one.name).versions.push(one.after);
      }
      walk.uncommitted.push(entry.changes);
      return;
    case 'write':
    case 'truncate':
      walk.files.get(entry.inode)?.pending.push(entry);
      return;
    case 'sync':
      commitSync(walk, entry.inode, model);
      return;
    case 'failed-sync': {
      // The kernel marks the pages clean and drops them: no later sync brings them back.
      const file = walk.files.get(entry.inode);
      if (file !== undefined && model !== 'kill') file.pending = [];
      return;
    }
  }
}

function commitSync(walk: Walk, inode: Inode, model: PersistenceModel): void {
  const file = walk.files.get(inode);
  if (file !== undefined) {
    file.durable = file.pending.reduce(applyData, file.durable);
    file.pending = [];
  }
  const changed = new Map<Inode, Map<string, Inode>>();
  for (const entry of walk.entries.values()) {
    if (entry.versions.length === 0) continue;
    if (model !== 'ordered' && entry.directory !== inode) continue;
    entry.durable = entry.versions.at(-1) ?? null;
    entry.versions = [];
    const names = changed.get(entry.directory) ?? new Map(walk.durable.get(entry.directory));
    changed.set(entry.directory, names);
    if (entry.durable === null) names.delete(entry.name);
    else names.set(entry.name, entry.durable);
  }
  for (const [directory, names] of changed) walk.durable.set(directory, names);
  if (model === 'ordered') walk.uncommitted = [];
}

/** One thing that may have come out in several ways. */
type Choice = readonly Option[];
interface Option {
  /** Puts it into the image under construction. */
  readonly put: (draft: Draft) => void;
  /** Only since the newest log entry can it have come out like this. */
  readonly isNew: boolean;
}
interface Draft {
  /** Of files whose content is not what is durable of it. */
  readonly contents: Map<Inode, Uint8Array>;
  /** Directories that differ from what is durable of them. */
  readonly entries: Map<Inode, Map<string, Inode>>;
}

/** `news`: only images that the log before this, its newest entry, could not have left; null: all. */
function* imagesAt(
  walk: Walk,
  model: PersistenceModel,
  seed: number,
  news: LogEntry | null,
): Generator<Image> {
  // A sync takes outcomes away and adds none.
  if (news?.do === 'sync' || news?.do === 'failed-sync') return;
  const isFiltered = news !== null && news.do !== 'mark';
  const choices = [...entryChoices(walk, model, news), ...dataChoices(walk, model, news)];
  for (const picks of combinations(
    choices.map((choice) => choice.length),
    seed,
  )) {
    const options = choices.map((choice, index) => choice[picks[index] ?? 0]);
    if (isFiltered && !options.some((option) => option?.isNew)) continue;
    const draft: Draft = { contents: new Map(), entries: new Map() };
    for (const option of options) option?.put(draft);
    yield imageOf(walk, draft);
  }
}

/** Everything that the root leads to. */
function imageOf(walk: Walk, draft: Draft): Image {
  const nodes = new Map<Inode, Node>();
  const entries = new Map<Inode, ReadonlyMap<string, Inode>>();
  const visit = (directory: Inode): void => {
    nodes.set(directory, { kind: 'directory' });
    const names = draft.entries.get(directory) ?? walk.durable.get(directory) ?? new Map();
    entries.set(directory, names);
    for (const inode of names.values()) {
      const node = walk.nodes.get(inode);
      const file = walk.files.get(inode);
      if (node?.kind === 'directory') visit(inode);
      else if (node !== undefined && file === undefined) nodes.set(inode, node);
      else if (file !== undefined) {
        nodes.set(inode, { kind: 'file', bytes: draft.contents.get(inode) ?? file.durable });
      }
    }
  };
  visit(ROOT);
  return { nodes, entries };
}

function setEntry(walk: Walk, draft: Draft, { directory, name, after }: EntryChange): void {
  const names = draft.entries.get(directory) ?? new Map(walk.durable.get(directory));
  draft.entries.set(directory, names);
  if (after === null) names.delete(name);
  else names.set(name, after);
}

/** First the oldest outcome, last the newest. */
function entryChoices(
  walk: Walk,
  model: PersistenceModel,
  news: LogEntry | null,
): readonly Choice[] {
  const changed = news?.do === 'entries' ? news.changes : [];
  if (model === 'weak') {
    return [...walk.entries.values()]
      .filter((entry) => entry.versions.length > 0)
      .map(({ directory, name, durable, versions }) => {
        const isChanged = changed.some((one) => one.directory === directory && one.name === name);
        const before = new Set([durable, ...(isChanged ? versions.slice(0, -1) : versions)]);
        return [...new Set([durable, ...versions])].map((version) => ({
          put: (draft: Draft) => setEntry(walk, draft, { directory, name, after: version }),
          isNew: !before.has(version),
        }));
      });
  }
  const changes = walk.uncommitted;
  const applyFirst = (count: number): Option => ({
    put: (draft) => {
      for (const change of changes.slice(0, count).flat()) setEntry(walk, draft, change);
    },
    isNew: changed.length > 0 && count === changes.length,
  });
  if (model === 'kill') return [[applyFirst(changes.length)]];
  return [Array.from({ length: changes.length + 1 }, (_, count) => applyFirst(count))];
}

function dataChoices(
  walk: Walk,
  model: PersistenceModel,
  news: LogEntry | null,
): readonly Choice[] {
  const choices: Choice[] = [];
  for (const [inode, file] of walk.files) {
    if (file.pending.length === 0) continue;
    const isChanged = (news?.do === 'write' || news?.do === 'truncate') && news.inode === inode;
    const earlier = isChanged ? { ...file, pending: file.pending.slice(0, -1) } : file;
    const before = new Set(contentsOf(earlier, model).map(textOf));
    const distinct = new Map(contentsOf(file, model).map((bytes) => [textOf(bytes), bytes]));
    choices.push(
      [...distinct].map(([text, bytes]) => ({
        put: (draft) => void draft.contents.set(inode, bytes),
        isNew: !before.has(text),
      })),
    );
  }
  return choices;
}

const textOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1');

function contentsOf(file: PendingFile, model: PersistenceModel): readonly Uint8Array[] {
  if (model === 'kill') return [file.pending.reduce(applyData, file.durable)];
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

function half(change: Extract<DataChange, { do: 'write' }>): DataChange {
  return { ...change, bytes: change.bytes.subarray(0, change.bytes.byteLength >> 1) };
}

/** All picks of one option per choice, or, when there are too many, a fair share of them. */
function* combinations(sizes: readonly number[], seed: number): Generator<readonly number[]> {
  const total = sizes.reduce((product, size) => product * size, 1);
  if (total <= MAX_STATES_PER_CUT) {
    for (let number = 0; number < total; number += 1) {
      let rest = number;
      yield sizes.map((size) => {
        const pick = rest % size;
        rest = Math.floor(rest / size);
        return pick;
      });
    }
    return;
  }
  const oldest = sizes.map(() => 0);
  const newest = sizes.map((size) => size - 1);
  yield oldest;
  yield newest;
  let left = MAX_STATES_PER_CUT - 2;
  for (const [index, size] of sizes.entries()) {
    for (let pick = 0; pick < size && left > 1; pick += 1, left -= 2) {
      yield oldest.with(index, pick);
      yield newest.with(index, pick);
    }
  }
  let random = (seed * 2654435761) >>> 0 || 1;
  for (; left > 0; left -= 1) {
    yield sizes.map((size) => {
      random ^= random << 13;
      random ^= random >>> 17;
      random ^= random << 5;
      return (random >>> 0) % size;
    });
  }
}
