/**
 * Tiles of the log (C2SP tlog-tiles): names, and trees read through them. A tile holds up to 256 hashes of one level; the
 * hashes between two levels are computed. docs/specs/audit-log.md.
 */
import { must, Problem } from '#/protocol/errors.ts';
import { HASH_BYTES, LEVELS_MAX, nodeHash, type ReadNode } from './merkle.ts';

const TILE_HEIGHT = 8;
export const TILE_WIDTH = 256;
export const TILE_MAX_BYTES = TILE_WIDTH * HASH_BYTES;
/** Tiles that one proof may need; a proof in a tree of 2^53 leaves needs fewer. */
const TILES_MAX = 32;

export interface Tile {
  /** 0: hashes of leaves; 1: hashes of whole tiles of level 0; and so on. */
  readonly level: number;
  readonly index: number;
  /** Hashes in it, 1 to 256; below 256 it is partial. */
  readonly width: number;
}

/** `tile/0/x001/234.p/17`; `kind` 'entries' names the bundle of entries beside a tile of level 0. */
export function tilePath(tile: Tile, kind: 'hashes' | 'entries' = 'hashes'): string {
  const digits = String(tile.index);
  const padded = digits.padStart(Math.ceil(digits.length / 3) * 3, '0');
  const groups = padded.match(/\d{3}/g) ?? [];
  const name = groups.map((group, at) => (at < groups.length - 1 ? `x${group}` : group)).join('/');
  const partial = tile.width === TILE_WIDTH ? '' : `.p/${tile.width}`;
  return `tile/${kind === 'entries' ? 'entries' : tile.level}/${name}${partial}`;
}

/** The tile of a path, or null for anything that `tilePath` would not write. Entry bundles have level -1. */
export function parseTilePath(path: string): Tile | null {
  const match = /^tile\/(\d{1,2}|entries)\/((?:x\d{3}\/){0,4}\d{3})(?:\.p\/(\d{1,3}))?$/.exec(path);
  if (match === null) return null;
  const [, level = '', name = '', partial] = match;
  const isEntries = level === 'entries';
  const tile = {
    level: isEntries ? 0 : Number(level),
    index: Number(name.replaceAll(/[x/]/g, '')),
    width: partial === undefined ? TILE_WIDTH : Number(partial),
  };
  if (tile.width < 1 || (partial !== undefined && tile.width >= TILE_WIDTH)) return null;
  if (tilePath(tile, isEntries ? 'entries' : 'hashes') !== path) return null;
  return isEntries ? { ...tile, level: -1 } : tile;
}

/** Every tile of a tree of `size` leaves, level by level. */
export function tilesOf(size: number): readonly Tile[] {
  const tiles: Tile[] = [];
  for (let level = 0, count = size; count > 0; level += 1, count = Math.floor(count / TILE_WIDTH)) {
    for (let index = 0; index * TILE_WIDTH < count; index += 1) {
      tiles.push({ level, index, width: Math.min(TILE_WIDTH, count - index * TILE_WIDTH) });
    }
  }
  return tiles;
}

/** The tile of a tree of `size` leaves that a node is computed from, and which of its hashes. */
function placeOf(
  level: number,
  index: number,
  size: number,
): { readonly tile: Tile; readonly first: number; readonly count: number } {
  const tileLevel = Math.floor(level / TILE_HEIGHT);
  const count = 2 ** (level % TILE_HEIGHT);
  const start = index * count;
  const tileIndex = Math.floor(start / TILE_WIDTH);
  const total = Math.floor(size / TILE_WIDTH ** tileLevel);
  const width = Math.min(TILE_WIDTH, total - tileIndex * TILE_WIDTH);
  const first = start - tileIndex * TILE_WIDTH;
  must(first + count <= width, `L4: node ${level}/${index} is in the tree of ${size} leaves`);
  return { tile: { level: tileLevel, index: tileIndex, width }, first, count };
}

/** The root of a whole tile: the hash that stands for it one level up. */
export function tileRoot(hashes: Uint8Array): Uint8Array {
  must(hashes.length === TILE_MAX_BYTES, 'L11: a whole tile has 256 hashes');
  return rootOfHashes(hashes, 0, TILE_WIDTH);
}

/** The root over `count` hashes, a power of two, from the one numbered `first`. */
function rootOfHashes(hashes: Uint8Array, first: number, count: number): Uint8Array {
  if (count === 1) return hashes.subarray(first * HASH_BYTES, (first + 1) * HASH_BYTES);
  const half = count / 2;
  return nodeHash(rootOfHashes(hashes, first, half), rootOfHashes(hashes, first + half, half));
}

/** Reads the nodes of a tree of `size` leaves; `bytesOf` gives the hashes of a tile. */
export function nodesFromTiles(size: number, bytesOf: (tile: Tile) => Uint8Array): ReadNode {
  return (level, index) => {
    const { tile, first, count } = placeOf(level, index, size);
    return rootOfHashes(bytesOf(tile), first, count);
  };
}

/**
 * Runs `compute` over a tree whose tiles come from `fetch`: first to see which it reads, then, with those at hand, for its
 * result. `fetch` gives the hashes of the tile. @throws Problem E_LOG for a tile of another length
 */
export async function overTiles<T>(
  size: number,
  compute: (read: ReadNode) => T,
  fetch: (tile: Tile) => Promise<Uint8Array>,
): Promise<T> {
  const needed = new Map<string, Tile>();
  const zero = new Uint8Array(HASH_BYTES);
  compute((level, index) => {
    must(level < LEVELS_MAX, `L5: level ${level}`);
    const { tile } = placeOf(level, index, size);
    needed.set(tilePath(tile), tile);
    return zero;
  });
  if (needed.size > TILES_MAX) {
    throw new Problem('E_LOG', `${needed.size} tiles for one proof, at most ${TILES_MAX} are read`);
  }
  const tiles = new Map<string, Uint8Array>();
  for (const [path, tile] of needed) {
    const bytes = await fetch(tile);
    if (bytes.length !== tile.width * HASH_BYTES) {
      throw new Problem('E_LOG', `${path} of the log has ${bytes.length} bytes`);
    }
    tiles.set(path, bytes);
  }
  return compute(
    nodesFromTiles(size, (tile) => {
      const bytes = tiles.get(tilePath(tile));
      must(bytes !== undefined, `L6: ${tilePath(tile)} was fetched`);
      return bytes;
    }),
  );
}
