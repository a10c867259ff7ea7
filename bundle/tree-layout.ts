/**
 * Where the content of a tree's files lies in the stream of its payload; derived from the listing, so that it cannot
 * overlap or leave gaps. Format: docs/specs/bundle-format.md, section 4.3.
 */
import { Problem } from '#/protocol/errors.ts';
import type { TreeEntry } from '#/bundle/tree-entry.ts';

/** Files below this size are packed together in front of the stream; larger ones start a chunk of their own. */
export const SMALL_FILE_MAX_BYTES = 64 * 1024;

const EMPTY_SHA256 = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855';

/** Where the files of a tree lie in the stream of its payload. */
export interface TreeLayout {
  readonly streamBytes: number;
  /** Sum of all file sizes, shared content counted each time: what the slot needs. */
  readonly contentBytes: number;
  /** Distinct contents in stream order, none of them empty. */
  readonly contents: readonly Content[];
}
export interface Content {
  readonly position: number;
  readonly sizeBytes: number;
  /** Entry numbers of the files with this content, in the order of the listing. */
  readonly files: readonly number[];
}

/**
 * Derives where the content of each file lies: small files first, then the others, each in the order of the listing; a
 * digest that stood before takes no room. Throws E_SIZE when the sum is not a safe integer or one digest has two sizes.
 */
export function treeLayout(entries: readonly TreeEntry[]): TreeLayout {
  const byDigest = new Map<string, { sizeBytes: number; files: number[] }>();
  let contentBytes = 0;
  for (const [number, entry] of entries.entries()) {
    if (entry.kind !== 'file') continue;
    contentBytes += entry.sizeBytes;
    if (!Number.isSafeInteger(contentBytes))
      throw new Problem('E_SIZE', 'files of the tree sum up to 2^53 bytes or more');
    if (entry.sizeBytes === 0) {
      // Empty files are in no chunk, so this is the only place where their digest is looked at.
      if (entry.sha256 === EMPTY_SHA256) continue;
      throw new Problem('E_HASH', `an empty file cannot have the digest ${entry.sha256}`);
    }
    const known = byDigest.get(entry.sha256);
    if (known === undefined) {
      byDigest.set(entry.sha256, { sizeBytes: entry.sizeBytes, files: [number] });
    } else if (known.sizeBytes === entry.sizeBytes) {
      known.files.push(number);
    } else {
      throw new Problem(
        'E_SIZE',
        `digest ${entry.sha256} stands for ${known.sizeBytes} and for ${entry.sizeBytes} bytes`,
      );
    }
  }
  const all = [...byDigest.values()];
  let position = 0;
  const contents: Content[] = [];
  const small = all.filter((content) => isSmallFile(content.sizeBytes));
  const large = all.filter((content) => !isSmallFile(content.sizeBytes));
  for (const content of [...small, ...large]) {
    contents.push({ position, ...content });
    position += content.sizeBytes;
  }
  return { streamBytes: position, contentBytes, contents };
}

/** Small files share chunks; a large one starts and ends its own. */
export function isSmallFile(sizeBytes: number): boolean {
  return sizeBytes < SMALL_FILE_MAX_BYTES;
}

/** A part of a file that a part of the stream fills. */
export interface Slice {
  /** Entry number in the listing. */
  readonly file: number;
  readonly fileOffset: number;
  /** From the start of the given stream range. */
  readonly rangeOffset: number;
  readonly sizeBytes: number;
}

/** What bytes `position` to `position + sizeBytes` of the stream are in the files, shared content once per file. */
export function slicesOf(layout: TreeLayout, position: number, sizeBytes: number): Slice[] {
  const slices: Slice[] = [];
  const end = position + sizeBytes;
  for (let i = contentAt(layout, position); i < layout.contents.length; i += 1) {
    const content = layout.contents[i];
    if (content === undefined || content.position >= end) break;
    const from = Math.max(position, content.position);
    const to = Math.min(end, content.position + content.sizeBytes);
    for (const file of content.files) {
      slices.push({
        file,
        fileOffset: from - content.position,
        rangeOffset: from - position,
        sizeBytes: to - from,
      });
    }
  }
  return slices;
}

/** Number of the content that holds `position`. */
function contentAt(layout: TreeLayout, position: number): number {
  let low = 0;
  let high = layout.contents.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >>> 1;
    if ((layout.contents[middle]?.position ?? 0) <= position) low = middle;
    else high = middle - 1;
  }
  return low;
}
