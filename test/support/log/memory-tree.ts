/** A tree in memory: every complete subtree, kept as it grows. */
import type { TreeHead } from '#/bundle/log/checkpoint.ts';
import { leafHash, nodeHash, type ReadNode, rootAt } from '#/bundle/log/merkle.ts';
import { nodesFromTiles, type Tile, tilePath, tilesOf } from '#/bundle/log/tiles.ts';

export class MemoryTree {
  readonly #levels: Uint8Array[][] = [[]];

  get size(): number {
    return this.#levels[0]?.length ?? 0;
  }

  append(data: Uint8Array): void {
    let hash = leafHash(data);
    for (let level = 0; ; level += 1) {
      const row = (this.#levels[level] ??= []);
      row.push(hash);
      if (row.length % 2 === 1) return;
      hash = nodeHash(row.at(-2) as Uint8Array, hash);
    }
  }

  readonly read: ReadNode = (level, index) => {
    const hash = this.#levels[level]?.[index];
    if (hash === undefined) throw new Error(`no node ${level}/${index}`);
    return hash;
  };

  head(size = this.size): TreeHead {
    return { size, root: rootAt(size, this.read) };
  }

  /** The hashes of one tile. */
  tile(tile: Tile): Uint8Array {
    const start = tile.index * 256;
    const row = this.#levels[tile.level * 8]?.slice(start, start + tile.width) ?? [];
    return Buffer.concat(row);
  }

  /** The same tree, read through its tiles. */
  throughTiles(): ReadNode {
    const tiles = new Map(tilesOf(this.size).map((tile) => [tilePath(tile), this.tile(tile)]));
    return nodesFromTiles(this.size, (tile) => tiles.get(tilePath(tile)) as Uint8Array);
  }
}

/** A tree of numbered leaves. */
export function treeOf(size: number, salt = ''): MemoryTree {
  const tree = new MemoryTree();
  for (let index = 0; index < size; index += 1) tree.append(leafOf(index, salt));
  return tree;
}

export function leafOf(index: number, salt = ''): Uint8Array {
  return Buffer.from(`${salt}entry ${index}`);
}
