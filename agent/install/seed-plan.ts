/** Which chunks of a new version a local slot holds, and where: the plan of a delta. Pure; nothing here is trusted (F83). */
import { chunkFinder } from '#/bundle/chunk-finder.ts';
import type { ChunkIndex } from '#/bundle/chunk-index.ts';
import type { Manifest } from '#/bundle/manifest.ts';
import { type FileTable, packFiles } from './file-table.ts';
import { type PayloadTarget, type PieceColumns, PieceCollector, planWrites } from './write-plan.ts';

export interface SeedPlan {
  readonly files: FileTable;
  /** By the chunk numbers of the new index. */
  readonly pieces: PieceColumns;
}

export interface Seed {
  readonly manifest: Manifest;
  readonly index: ChunkIndex;
  readonly targets: readonly PayloadTarget[];
}
/** A seed with what a patch starts from. */
export interface OpenSeed extends Seed {
  readonly artifactId: string;
  readonly rawIndex: Uint8Array;
}

/** Where the chunks of `wanted` lie in the seed; each chunk at one place. */
export function planSeed(wanted: ChunkIndex, seed: Seed): SeedPlan {
  const held = planWrites(seed.manifest, seed.index, seed.targets);
  const find = chunkFinder(seed.index);
  const collector = new PieceCollector(wanted.chunkCount);
  for (let chunk = 0; chunk < wanted.chunkCount; chunk += 1) {
    const other = find(wanted, chunk);
    if (other === null || seed.index.rawSizes[other] !== wanted.rawSizes[chunk]) continue;
    addFirstPlace(collector, chunk, held.pieces, other);
  }
  return { files: packFiles(held.files), pieces: collector.done() };
}

/** Pieces are sorted by their offset in the chunk: the first that goes on where the last ended is taken. */
function addFirstPlace(
  collector: PieceCollector,
  chunk: number,
  held: PieceColumns,
  other: number,
): void {
  let filled = 0;
  for (let i = held.starts[other] ?? 0; i < (held.starts[other + 1] ?? 0); i += 1) {
    if (held.chunkOffset[i] !== filled) continue;
    const sizeBytes = held.sizeBytes[i] ?? 0;
    collector.add(chunk, held.file[i] ?? 0, held.fileOffset[i] ?? 0, filled, sizeBytes);
    filled += sizeBytes;
  }
}
