/** What stands in the listing of a tree. Format: docs/specs/bundle-format.md, section 4. */

export type EntryKind = 'directory' | 'file' | 'symlink' | 'hardlink';

interface EntryCommon {
  /** Relative, `/` between components, no `/` at the end; UTF-8 in normal form C. */
  readonly path: string;
  /** Permission bits, at most 0o777 (0o7777 where the manifest allows setuid); 0o777 for links. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}
export type TreeEntry = EntryCommon &
  (
    | { readonly kind: 'directory' }
    | { readonly kind: 'file'; readonly sizeBytes: number; readonly sha256: string }
    /** `target` is the text of the link. */
    | { readonly kind: 'symlink'; readonly target: string }
    /** `target` is the path of an earlier file of the listing, which carries mode and owner. */
    | { readonly kind: 'hardlink'; readonly target: string }
  );

const beyond = /[\ud800-\uffff]/;

/** Order of the listing: by the bytes of the path, so that a directory stands before what is in it. */
export function comparePaths(a: string, b: string): number {
  // Without surrogates and what lies beyond them, the order of the code units is that of the bytes.
  if (beyond.test(a) || beyond.test(b)) return Buffer.compare(Buffer.from(a), Buffer.from(b));
  return a < b ? -1 : a > b ? 1 : 0;
}
