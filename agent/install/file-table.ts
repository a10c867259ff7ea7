/**
 * The files of a plan in flat memory that all threads share. As objects every thread had a copy of its own of all of them: some
 * ten megabytes for a tree of 11,000 files.
 */
import type { PlannedFile } from './write-plan.ts';

/** Plain data: it travels to the threads. */
export interface FileTable {
  /** Paths one after the other, in UTF-8; path i from `starts[i]` to `starts[i + 1]`. */
  readonly text: Uint8Array;
  readonly starts: Uint32Array;
  /** Numbers in `KINDS`. */
  readonly kinds: Uint8Array;
  readonly sizes: Float64Array;
  /** Mode, uid and gid of each file. */
  readonly owned: Uint32Array;
  /** 32 bytes each. */
  readonly digests: Uint8Array;
}

export type TabledFile = Omit<PlannedFile, 'deviceNumber'>;

const KINDS = ['file', 'image', 'device'] as const;
const OWNED = 3;
const DIGEST_BYTES = 32;

export function packFiles(files: readonly TabledFile[]): FileTable {
  const count = files.length;
  const textBytes = files.reduce((sum, { path }) => sum + Buffer.byteLength(path), 0);
  const table = {
    text: new Uint8Array(new SharedArrayBuffer(textBytes)),
    starts: new Uint32Array(new SharedArrayBuffer((count + 1) * 4)),
    kinds: new Uint8Array(new SharedArrayBuffer(count)),
    sizes: new Float64Array(new SharedArrayBuffer(count * 8)),
    owned: new Uint32Array(new SharedArrayBuffer(count * OWNED * 4)),
    digests: new Uint8Array(new SharedArrayBuffer(count * DIGEST_BYTES)),
  };
  const text = Buffer.from(table.text.buffer);
  for (const [i, { path, kind, sizeBytes, sha256, mode, uid, gid }] of files.entries()) {
    const start = table.starts[i] ?? 0;
    table.starts[i + 1] = start + text.write(path, start);
    table.kinds[i] = KINDS.indexOf(kind);
    table.sizes[i] = sizeBytes;
    table.owned.set([mode, uid, gid], i * OWNED);
    table.digests.set(Buffer.from(sha256, 'hex'), i * DIGEST_BYTES);
  }
  return table;
}

/** Empty for a number that there is not. */
export function pathOf({ text, starts }: FileTable, file: number): string {
  const start = starts[file] ?? 0;
  const end = starts[file + 1] ?? start;
  return Buffer.from(text.buffer, start, end - start).toString();
}

export function fileOf(table: FileTable, file: number): TabledFile | undefined {
  const kind = KINDS[table.kinds[file] ?? KINDS.length];
  if (kind === undefined) return undefined;
  const [mode = 0, uid = 0, gid = 0] = table.owned.subarray(file * OWNED, (file + 1) * OWNED);
  const digest = table.digests.subarray(file * DIGEST_BYTES, (file + 1) * DIGEST_BYTES);
  return {
    path: pathOf(table, file),
    kind,
    sizeBytes: table.sizes[file] ?? 0,
    sha256: Buffer.from(digest).toString('hex'),
    mode,
    uid,
    gid,
  };
}
