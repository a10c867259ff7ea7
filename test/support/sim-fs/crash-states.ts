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
import { contentsOf, type PendingFile, type PersistenceModel, tornWrite } from './contents.ts';
import { applyData, type EntryChange, type LogEntry } from './log.ts';

export { type PersistenceModel, persistenceModels } from './contents.ts';

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

/** A directory entry that a sync has not reached since it changed; a value. */
export interface PendingEntry {
  readonly directory: Inode;
  readonly name: string;
  readonly durable: Inode | null;
  readonly versions: readonly (Inode | null)[];
}

/** What is durable and what is pending, as the log is walked. */
interface Walk {
  readonly alike: Alike | null;
  readonly nodes: Map<Inode, Node>;
  readonly files: Map<Inode, PendingFile>;
  /** Those files of which something is pending. */
  readonly unsynced: Set<Inode>;
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
  /** Absent: every byte and every name counts. */
  readonly alike?: Alike;
}

/** What does not count: of states that differ in nothing else, one is formed. */
export interface Alike {
  /** What files of such names hold counts for nothing. */
  readonly isMoot: (name: string) => boolean;
  /** Nor does it count whether they are there. */
  readonly isPresenceMoot: boolean;
  /** Equal texts: the same to every reader of a file of that name. */
  readonly meaning: (bytes: Uint8Array, name: string) => string;
}

/** Every crash state after the first `from` log entries of a disk; equal neighbours are left to the caller. */
export function* crashStates(
  { base, log }: DiskHistory,
  model: PersistenceModel,
  options: CrashOptions,
): Generator<CrashState> {
  const walk = startWalk(base, options.alike ?? null);
  const from = options.from ?? 0;
  for (let cut = 0; cut <= log.length; cut += 1) {
    const entry = cut === 0 ? null : (log[cut - 1] ?? null);
    const before = entry?.do === 'write' ? walk.files.get(entry.inode) : undefined;
    if (entry !== null) advance(walk, entry, model);
    if (cut < from || options.cuts?.has(cut) === false) continue;
    if (cut > from && entry !== null && isMoot(walk, entry)) continue;
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
      const content = applyData(before?.live ?? new Uint8Array(), torn);
      const image = liveImage(walk, new Map([[torn.inode, content]]));
      yield { image, history, cut, world: walk.world, unsynced: unsyncedIn(walk) };
    }
  }
}

/** No one who looks at the disk sees that this has happened. */
function isMoot({ alike, durable, entries }: Walk, entry: LogEntry): boolean {
  if (alike?.isPresenceMoot !== true) return false;
  switch (entry.do) {
    case 'mark':
      return false;
    case 'entries':
      return entry.changes.every(({ name }) => alike.isMoot(name));
    case 'write':
    case 'truncate':
      return namesOf({ durable, entries }, entry.inode).every(alike.isMoot);
    case 'sync':
    case 'failed-sync':
      return true;
  }
}

/** All names by which a file is or may come to be found. */
function namesOf({ durable, entries }: Pick<Walk, 'durable' | 'entries'>, inode: Inode): string[] {
  const names = new Set<string>();
  for (const directory of durable.values()) {
    for (const [name, other] of directory) if (other === inode) names.add(name);
  }
  for (const { name, versions } of entries.values()) if (versions.includes(inode)) names.add(name);
  return [...names].sort();
}

function unsyncedIn(walk: Walk): Unsynced {
  const entries = [...walk.entries.values()];
  const nodes = new Map<Inode, Node>();
  for (const inode of entries.flatMap(({ durable, versions }) => [durable, ...versions])) {
    const node = inode === null ? undefined : walk.nodes.get(inode);
    if (inode === null || node === undefined) continue;
    const file = walk.files.get(inode);
    if (file === undefined) nodes.set(inode, node);
    else nodes.set(inode, { kind: 'file', bytes: file.live });
  }
  return { entries, files: new Map(pendingFiles(walk)), nodes };
}

function pendingFiles(walk: Walk): readonly (readonly [Inode, PendingFile])[] {
  return [...walk.unsynced].flatMap((inode) => {
    const file = walk.files.get(inode);
    return file === undefined ? [] : [[inode, file] as const];
  });
}

/** The disk as programs see it after a history. */
export function replay({ base, log }: DiskHistory): Image {
  const walk = startWalk(base, null);
  for (const entry of log) advance(walk, entry, 'kill');
  return liveImage(walk, new Map());
}

/** What programs see now, but for these contents. */
function liveImage(walk: Walk, other: ReadonlyMap<Inode, Uint8Array>): Image {
  const draft: Draft = { contents: new Map(), entries: new Map() };
  for (const [inode, { live }] of pendingFiles(walk)) draft.contents.set(inode, live);
  for (const [inode, content] of other) draft.contents.set(inode, content);
  putLiveEntries(walk, draft);
  return imageOf(walk, draft);
}

function startWalk(start: Image, alike: Alike | null): Walk {
  const walk: Walk = {
    alike,
    nodes: new Map(start.nodes),
    files: new Map(),
    unsynced: new Set(),
    entries: new Map(),
    durable: new Map(start.entries),
    uncommitted: [],
    world: null,
  };
  for (const [inode, node] of start.nodes) {
    if (node.kind === 'file') walk.files.set(inode, synced(node.bytes));
  }
  return walk;
}

const synced = (bytes: Uint8Array): PendingFile => ({ durable: bytes, pending: [], live: bytes });

function changeEntry(walk: Walk, { directory, name, after }: EntryChange): void {
  const key = `${directory}/${name}`;
  const durable = walk.durable.get(directory)?.get(name) ?? null;
  const before = walk.entries.get(key) ?? { directory, name, durable, versions: [] };
  walk.entries.set(key, { ...before, versions: [...before.versions, after] });
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
          walk.files.set(entry.made.inode, synced(entry.made.node.bytes));
        }
      }
      for (const one of entry.changes) changeEntry(walk, one);
      if (model === 'ordered') walk.uncommitted.push(entry.changes);
      return;
    case 'write':
    case 'truncate': {
      const file = walk.files.get(entry.inode);
      if (file === undefined) return;
      const { durable, pending, live } = file;
      const after = { durable, pending: [...pending, entry], live: applyData(live, entry) };
      walk.files.set(entry.inode, after);
      walk.unsynced.add(entry.inode);
      return;
    }
    case 'sync':
      commitSync(walk, entry.inode, model);
      return;
    case 'failed-sync': {
      // The kernel marks the pages clean and drops them: no later sync brings them back.
      const file = walk.files.get(entry.inode);
      if (file === undefined || model === 'kill') return;
      walk.files.set(entry.inode, synced(file.durable));
      walk.unsynced.delete(entry.inode);
      return;
    }
  }
}

function commitSync(walk: Walk, inode: Inode, model: PersistenceModel): void {
  const file = walk.files.get(inode);
  if (file !== undefined && walk.unsynced.delete(inode)) walk.files.set(inode, synced(file.live));
  const changed = new Map<Inode, Map<string, Inode>>();
  for (const [key, { directory, name, versions }] of walk.entries) {
    if (model !== 'ordered' && directory !== inode) continue;
    const names = changed.get(directory) ?? new Map(walk.durable.get(directory));
    changed.set(directory, names);
    const after = versions.at(-1) ?? null;
    if (after === null) names.delete(name);
    else names.set(name, after);
    walk.entries.delete(key);
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

function putLiveEntries(walk: Walk, draft: Draft): void {
  for (const entry of walk.entries.values()) setEntry(walk, draft, newestOf(entry));
}

function newestOf({ directory, name, versions }: PendingEntry): EntryChange {
  return { directory, name, after: versions.at(-1) ?? null };
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
  const { alike } = walk;
  const isLeftOut = (name: string): boolean => alike?.isPresenceMoot === true && alike.isMoot(name);
  const changed = news?.do === 'entries' ? news.changes : [];
  if (model === 'weak') {
    return [...walk.entries.values()].map((entry) => {
      const { directory, name, durable, versions } = entry;
      if (isLeftOut(name)) {
        const newest = newestOf(entry);
        return [{ put: (draft: Draft) => setEntry(walk, draft, newest), isNew: false }];
      }
      const isChanged = changed.some((one) => one.directory === directory && one.name === name);
      const before = new Set([durable, ...(isChanged ? versions.slice(0, -1) : versions)]);
      return [...new Set([durable, ...versions])].map((version) => ({
        put: (draft: Draft) => setEntry(walk, draft, { directory, name, after: version }),
        isNew: !before.has(version),
      }));
    });
  }
  if (model === 'kill') return [[{ put: (draft) => putLiveEntries(walk, draft), isNew: false }]];
  const changes = walk.uncommitted;
  const applyFirst = (count: number): Option => ({
    put: (draft) => {
      for (const change of changes.slice(0, count).flat()) setEntry(walk, draft, change);
    },
    isNew: changed.some(({ name }) => !isLeftOut(name)) && count === changes.length,
  });
  return [Array.from({ length: changes.length + 1 }, (_, count) => applyFirst(count))];
}

function dataChoices(
  walk: Walk,
  model: PersistenceModel,
  news: LogEntry | null,
): readonly Choice[] {
  return pendingFiles(walk).map(([inode, file]) => {
    const isChanged = (news?.do === 'write' || news?.do === 'truncate') && news.inode === inode;
    const names = walk.alike === null ? [] : namesOf(walk, inode);
    const all = contentsOf(file, model, walk.alike, names);
    const earlier = isChanged ? { ...file, pending: file.pending.slice(0, -1) } : file;
    const before = isChanged ? contentsOf(earlier, model, walk.alike, names) : all;
    return [...all].map(([text, bytes]) => ({
      put: (draft: Draft) => void draft.contents.set(inode, bytes),
      isNew: !before.has(text),
    }));
  });
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
