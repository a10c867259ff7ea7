/**
 * Where each chunk of a bundle goes: files, directories and links to make, and for each chunk the pieces of files that it
 * fills. Pure. Flat columns, because the plan is handed to worker threads and a large image has 10^5 pieces.
 */
import type { ChunkIndex, PayloadIndex } from '#/bundle/chunk-index.ts';
import type { Manifest } from '#/bundle/manifest.ts';
import { slicesOf } from '#/bundle/tree-layout.ts';

/** Where a payload is put. `device`: holes are written as zeros, because old content is there. */
export interface PayloadTarget {
  readonly kind: 'tree' | 'image' | 'device';
  /** Directory of a tree, file of an image, block device. Absolute. */
  readonly path: string;
  /** `major:minor` that a device has to have when it is opened: its path may have come to name another (F37). */
  readonly deviceNumber?: string;
}

export interface PlannedFile {
  readonly path: string;
  readonly kind: 'file' | 'image' | 'device';
  readonly deviceNumber?: string;
  readonly sizeBytes: number;
  /** Of the whole content, for the read-back. */
  readonly sha256: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}
export interface PlannedDirectory {
  readonly path: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}
export interface PlannedLink {
  readonly path: string;
  /** Text of a symbolic link; absolute path of the file for a hard link. */
  readonly target: string;
}

/** Pieces of chunks in files: piece i of chunk c is one of `starts[c]` to `starts[c + 1]`, in ascending order of `chunkOffset`. */
export interface PieceColumns {
  readonly starts: Uint32Array;
  readonly file: Uint32Array;
  readonly fileOffset: Float64Array;
  readonly chunkOffset: Uint32Array;
  readonly sizeBytes: Uint32Array;
}

export interface WritePlan {
  /** Parents before children. */
  readonly directories: readonly PlannedDirectory[];
  readonly files: readonly PlannedFile[];
  readonly symlinks: readonly PlannedLink[];
  readonly hardlinks: readonly PlannedLink[];
  readonly pieces: PieceColumns;
  /** Runs of zeros of devices. */
  readonly zeros: readonly {
    readonly file: number;
    readonly offset: number;
    readonly sizeBytes: number;
  }[];
}

/**
 * How the payloads of a manifest lie in a directory slot: one tree is the slot itself; otherwise each payload is an entry
 * of the slot by its name, an image with `.img` behind it.
 */
export function directoryTargets(manifest: Manifest, slotPath: string): PayloadTarget[] {
  const [first] = manifest.payloads;
  if (manifest.payloads.length === 1 && first?.kind === 'tree') {
    return [{ kind: 'tree', path: slotPath }];
  }
  return manifest.payloads.map((payload) =>
    payload.kind === 'tree'
      ? { kind: 'tree', path: `${slotPath}/${payload.name}` }
      : { kind: 'image', path: `${slotPath}/${payload.name}.img` },
  );
}

/** The plan for `index` with payload i at `targets[i]`. */
export function planWrites(
  manifest: Manifest,
  index: ChunkIndex,
  targets: readonly PayloadTarget[],
): WritePlan {
  const entries = new EntryCollector();
  const pieces = new PieceCollector(index.chunkCount);
  const zeros: { file: number; offset: number; sizeBytes: number }[] = [];
  for (const [number, payload] of index.payloads.entries()) {
    const target = targets[number];
    const described = manifest.payloads[number];
    if (target === undefined || described === undefined) continue;
    if (payload.tree !== null) {
      const fileOfEntry = entries.addTree(target.path, payload.tree.entries);
      addTreePieces(pieces, payload, (entry) => fileOfEntry[entry] ?? 0);
    } else if (described.kind === 'image' && target.kind !== 'tree') {
      const { sizeBytes, sha256 } = described;
      const file = entries.addImage(target, sizeBytes, sha256);
      addImagePieces(pieces, payload, file, target.kind === 'device' ? zeros : null);
    }
  }
  return { ...entries.done(), pieces: pieces.done(), zeros };
}

function addTreePieces(
  pieces: PieceCollector,
  payload: PayloadIndex,
  fileOf: (entry: number) => number,
): void {
  const { tree, chunks, positions, pieceCount } = payload;
  if (tree === null) return;
  for (let i = 0; i < pieceCount; i += 1) {
    const chunk = chunks[i] ?? -1;
    if (chunk < 0) continue;
    const from = positions[i] ?? 0;
    for (const slice of slicesOf(tree.layout, from, (positions[i + 1] ?? 0) - from)) {
      pieces.add(chunk, fileOf(slice.file), slice.fileOffset, slice.rangeOffset, slice.sizeBytes);
    }
  }
}

function addImagePieces(
  pieces: PieceCollector,
  payload: PayloadIndex,
  file: number,
  zeros: { file: number; offset: number; sizeBytes: number }[] | null,
): void {
  const { chunks, positions, pieceCount } = payload;
  for (let i = 0; i < pieceCount; i += 1) {
    const offset = positions[i] ?? 0;
    const sizeBytes = (positions[i + 1] ?? 0) - offset;
    const chunk = chunks[i] ?? -1;
    if (chunk >= 0) pieces.add(chunk, file, offset, 0, sizeBytes);
    else zeros?.push({ file, offset, sizeBytes });
  }
}

type TreeEntries = NonNullable<PayloadIndex['tree']>['entries'];

class EntryCollector {
  readonly #directories: PlannedDirectory[] = [];
  readonly #files: PlannedFile[] = [];
  readonly #symlinks: PlannedLink[] = [];
  readonly #hardlinks: PlannedLink[] = [];

  /** Adds what a listing names below `base`; gives the file number of each entry. */
  addTree(base: string, listed: TreeEntries): Uint32Array {
    const fileOfEntry = new Uint32Array(listed.length);
    for (const [number, entry] of listed.entries()) {
      const path = `${base}/${entry.path}`;
      const { mode, uid, gid } = entry;
      switch (entry.kind) {
        case 'directory':
          this.#directories.push({ path, mode, uid, gid });
          break;
        case 'file': {
          const { sizeBytes, sha256 } = entry;
          fileOfEntry[number] = this.#files.length;
          this.#files.push({ path, kind: 'file', sizeBytes, sha256, mode, uid, gid });
          break;
        }
        case 'symlink':
          this.#symlinks.push({ path, target: entry.target });
          break;
        case 'hardlink':
          this.#hardlinks.push({ path, target: `${base}/${entry.target}` });
          break;
      }
    }
    return fileOfEntry;
  }

  addImage(target: PayloadTarget, sizeBytes: number, sha256: string): number {
    const { path, deviceNumber } = target;
    const kind = target.kind === 'device' ? 'device' : 'image';
    const known = deviceNumber === undefined ? {} : { deviceNumber };
    const owned = { mode: 0o600, uid: 0, gid: 0 };
    return this.#files.push({ path, kind, sizeBytes, sha256, ...owned, ...known }) - 1;
  }

  done(): Pick<WritePlan, 'directories' | 'files' | 'symlinks' | 'hardlinks'> {
    return {
      directories: this.#directories,
      files: this.#files,
      symlinks: this.#symlinks,
      hardlinks: this.#hardlinks,
    };
  }
}

/** Collects pieces in any order and gives them out by chunk. Columns lie in shared memory. */
export class PieceCollector {
  readonly #chunkCount: number;
  readonly #chunk: number[] = [];
  readonly #file: number[] = [];
  readonly #fileOffset: number[] = [];
  readonly #chunkOffset: number[] = [];
  readonly #sizeBytes: number[] = [];

  constructor(chunkCount: number) {
    this.#chunkCount = chunkCount;
  }

  add(
    chunk: number,
    file: number,
    fileOffset: number,
    chunkOffset: number,
    sizeBytes: number,
  ): void {
    this.#chunk.push(chunk);
    this.#file.push(file);
    this.#fileOffset.push(fileOffset);
    this.#chunkOffset.push(chunkOffset);
    this.#sizeBytes.push(sizeBytes);
  }

  done(): PieceColumns {
    const count = this.#chunk.length;
    const columns = {
      starts: new Uint32Array(new SharedArrayBuffer((this.#chunkCount + 1) * 4)),
      file: new Uint32Array(new SharedArrayBuffer(count * 4)),
      fileOffset: new Float64Array(new SharedArrayBuffer(count * 8)),
      chunkOffset: new Uint32Array(new SharedArrayBuffer(count * 4)),
      sizeBytes: new Uint32Array(new SharedArrayBuffer(count * 4)),
    };
    const order = Uint32Array.from({ length: count }, (_, i) => i).sort(
      (a, b) =>
        (this.#chunk[a] ?? 0) - (this.#chunk[b] ?? 0) ||
        (this.#chunkOffset[a] ?? 0) - (this.#chunkOffset[b] ?? 0) ||
        a - b,
    );
    for (let i = 0; i < count; i += 1) {
      const from = order[i] ?? 0;
      const next = (this.#chunk[from] ?? 0) + 1;
      columns.starts[next] = i + 1;
      columns.file[i] = this.#file[from] ?? 0;
      columns.fileOffset[i] = this.#fileOffset[from] ?? 0;
      columns.chunkOffset[i] = this.#chunkOffset[from] ?? 0;
      columns.sizeBytes[i] = this.#sizeBytes[from] ?? 0;
    }
    for (let chunk = 1; chunk <= this.#chunkCount; chunk += 1) {
      if (columns.starts[chunk] === 0) columns.starts[chunk] = columns.starts[chunk - 1] ?? 0;
    }
    return columns;
  }
}
