/** The record of a run: every change of the disk, every sync, and the marks at which the world outside changed. */
import type { Inode, Node } from './image.ts';

/** One directory entry that changed: from what to what. */
export interface EntryChange {
  readonly directory: Inode;
  readonly name: string;
  readonly after: Inode | null;
}

export type LogEntry =
  /** Create, mkdir, symlink, unlink, rmdir; a rename has two changes. `made` is a node that came into being. */
  | {
      readonly do: 'entries';
      readonly changes: readonly EntryChange[];
      readonly made: { readonly inode: Inode; readonly node: Node } | null;
    }
  | {
      readonly do: 'write';
      readonly inode: Inode;
      readonly position: number;
      readonly bytes: Uint8Array;
    }
  | { readonly do: 'truncate'; readonly inode: Inode; readonly sizeBytes: number }
  | { readonly do: 'sync'; readonly inode: Inode }
  /** The sync failed: what was pending may be lost for ever, whatever a later sync answers (durability, finding 5). */
  | { readonly do: 'failed-sync'; readonly inode: Inode }
  /** Something outside the disk changed: the whole new state of the world. */
  | { readonly do: 'mark'; readonly world: unknown };

/** A data change of one file. */
export type DataChange = Extract<LogEntry, { readonly do: 'write' | 'truncate' }>;

/** File content after one change. Writing past the end leaves zeros between. */
export function applyData(before: Uint8Array, change: DataChange): Uint8Array {
  if (change.do === 'truncate') {
    const cut = new Uint8Array(change.sizeBytes);
    cut.set(before.subarray(0, change.sizeBytes));
    return cut;
  }
  const end = change.position + change.bytes.byteLength;
  const after = new Uint8Array(Math.max(before.byteLength, end));
  after.set(before);
  after.set(change.bytes, change.position);
  return after;
}
