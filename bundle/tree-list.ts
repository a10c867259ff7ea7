/**
 * The listing of a tree: every directory, file and link with mode, owner, size and digest. One list serves extraction,
 * read-back, drift detection and reuse by file. Format: docs/specs/bundle-format.md, section 4.
 */
import { Problem, must } from '#/protocol/errors.ts';
import { byteReader, byteWriter, type ByteReader } from '#/bundle/byte-reader.ts';
import { checkTree, type TreeRules } from '#/bundle/tree-check.ts';
import type { EntryKind, TreeEntry } from '#/bundle/tree-entry.ts';

export const TREE_LIST_VERSION = 1;
/** More entries are refused before anything is allocated (C13, F15). */
export const TREE_MAX_ENTRIES = 512 * 1024;
const MAGIC = 'SWBTREE1';
const DIGEST_BYTES = 32;
const kinds: readonly EntryKind[] = ['directory', 'file', 'symlink', 'hardlink'];

/** The canonical bytes of a listing. `entries` are sorted by `comparePaths` and pass `checkTree`. */
export function encodeTreeList(entries: readonly TreeEntry[]): Uint8Array {
  const out = byteWriter(entries.length * 96 + 64);
  const numberOf = new Map<string, number>();
  out.put(Buffer.from(MAGIC, 'latin1'));
  out.u32(TREE_LIST_VERSION);
  out.u32(entries.length);
  // Extended attributes: none in this version; readers refuse another count.
  out.u32(0);
  for (const { kind } of entries) out.u8(kinds.indexOf(kind));
  for (const { mode } of entries) out.u16(mode);
  for (const { uid } of entries) out.u32(uid);
  for (const { gid } of entries) out.u32(gid);
  putTexts(
    out,
    entries.map(({ path }) => path),
  );
  for (const [number, entry] of entries.entries())
    if (entry.kind === 'file') numberOf.set(entry.path, number);
  for (const entry of entries) if (entry.kind === 'file') out.u64(entry.sizeBytes);
  for (const entry of entries) if (entry.kind === 'file') out.put(Buffer.from(entry.sha256, 'hex'));
  putTexts(
    out,
    entries.flatMap((entry) => (entry.kind === 'symlink' ? [entry.target] : [])),
  );
  for (const entry of entries) {
    if (entry.kind !== 'hardlink') continue;
    const target = numberOf.get(entry.target);
    must(target !== undefined, 'a hard link names a file of the listing');
    out.u32(target);
  }
  return out.done();
}

/** Texts as shared prefix with the one before, length of the rest, then all rests: small, and fast to compress. */
function putTexts(out: ReturnType<typeof byteWriter>, texts: readonly string[]): void {
  const rests: Uint8Array[] = [];
  let before: Uint8Array = new Uint8Array(0);
  for (const text of texts) {
    const bytes = Buffer.from(text);
    const shared = sharedPrefix(before, bytes);
    out.u16(shared);
    out.u16(bytes.byteLength - shared);
    rests.push(bytes.subarray(shared));
    before = bytes;
  }
  for (const rest of rests) out.put(rest);
}

function sharedPrefix(a: Uint8Array, b: Uint8Array): number {
  const limit = Math.min(a.byteLength, b.byteLength);
  let shared = 0;
  while (shared < limit && a[shared] === b[shared]) shared += 1;
  return shared;
}

/**
 * Parses and checks a listing from a verified index. Throws E_SCHEMA (form), E_SIZE (counts, sizes), E_PATH (paths,
 * links), E_MODE (kinds, modes).
 */
export function parseTreeList(bytes: Uint8Array, rules: TreeRules): readonly TreeEntry[] {
  const reader = byteReader(bytes, 'listing');
  if (Buffer.from(reader.take(8)).toString('latin1') !== MAGIC)
    throw malformed('does not start with its mark');
  const version = reader.u32();
  if (version !== TREE_LIST_VERSION)
    throw malformed(`has version ${version}, this program knows ${TREE_LIST_VERSION}`);
  const count = reader.u32();
  if (count > TREE_MAX_ENTRIES) {
    throw new Problem('E_SIZE', `listing has ${count} entries, the limit is ${TREE_MAX_ENTRIES}`);
  }
  if (reader.u32() !== 0)
    throw malformed('has extended attributes, which this version does not know');
  reader.expect(count, 1 + 2 + 4 + 4 + 4, 'entries');
  const kindColumn = column(count, () => kindOf(reader.u8()));
  const modes = column(count, reader.u16);
  const uids = column(count, reader.u32);
  const gids = column(count, reader.u32);
  const paths = takeTexts(reader, count);
  const details = takeDetails(reader, kindColumn, paths);
  if (reader.remaining() !== 0) throw malformed(`has ${reader.remaining()} bytes after its end`);
  const entries = paths.map((path, i): TreeEntry => {
    const detail = details[i];
    must(detail !== undefined, 'each entry has its detail');
    return { path, mode: modes[i] ?? 0, uid: uids[i] ?? 0, gid: gids[i] ?? 0, ...detail };
  });
  checkTree(entries, rules);
  return entries;
}

type Detail = TreeEntry extends infer E
  ? E extends TreeEntry
    ? Omit<E, 'path' | 'mode' | 'uid' | 'gid'>
    : never
  : never;

function takeDetails(
  reader: ByteReader,
  kindColumn: readonly EntryKind[],
  paths: readonly string[],
): Detail[] {
  const counted = (kind: EntryKind): number => kindColumn.filter((other) => other === kind).length;
  const fileCount = counted('file');
  reader.expect(fileCount, 8 + DIGEST_BYTES, 'files');
  const sizes = column(fileCount, reader.u64);
  const digests = column(fileCount, () => Buffer.from(reader.take(DIGEST_BYTES)).toString('hex'));
  const linkCount = counted('symlink');
  reader.expect(linkCount, 4, 'links');
  const targets = takeTexts(reader, linkCount);
  let file = 0;
  let link = 0;
  return kindColumn.map((kind, number): Detail => {
    switch (kind) {
      case 'directory':
        return { kind };
      case 'file':
        file += 1;
        return { kind, sizeBytes: sizes[file - 1] ?? 0, sha256: digests[file - 1] ?? '' };
      case 'symlink':
        link += 1;
        return { kind, target: targets[link - 1] ?? '' };
      case 'hardlink': {
        const target = reader.u32();
        if (target >= number || kindColumn[target] !== 'file') {
          throw new Problem('E_PATH', `hard link ${number} does not name an earlier file`);
        }
        return { kind, target: paths[target] ?? '' };
      }
    }
  });
}

function kindOf(code: number): EntryKind {
  const kind = kinds[code];
  if (kind === undefined)
    throw new Problem(
      'E_MODE',
      `listing has an entry of kind ${code}: only directories, files and links are allowed`,
    );
  return kind;
}

function column<T>(count: number, read: () => T): T[] {
  const values: T[] = [];
  for (let i = 0; i < count; i += 1) values.push(read());
  return values;
}

function takeTexts(reader: ByteReader, count: number): string[] {
  reader.expect(count, 4, 'texts');
  const lengths = column(count, () => [reader.u16(), reader.u16()] as const);
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  let before: Uint8Array = new Uint8Array(0);
  return lengths.map(([shared, restBytes]) => {
    if (shared > before.byteLength) throw malformed('has a text with an impossible prefix');
    const rest = reader.take(restBytes);
    const bytes = new Uint8Array(shared + restBytes);
    bytes.set(before.subarray(0, shared));
    bytes.set(rest, shared);
    if (sharedPrefix(before, bytes) !== shared)
      throw malformed('has a text whose prefix is not the longest');
    before = bytes;
    try {
      return decoder.decode(bytes);
    } catch (cause) {
      throw new Problem('E_PATH', 'listing has a text that is not UTF-8', {}, { cause });
    }
  });
}

function malformed(what: string): Problem {
  return new Problem('E_SCHEMA', `listing ${what}`);
}
