/** Turns the pieces of all payloads into references to distinct chunks; a chunk that was seen before is stored once. */
import { createHash } from 'node:crypto';
import type { PayloadPieces } from '#/bundle/index-encode.ts';
import type { ChunkSink } from '#/bundle/chunker.ts';
import type { ChunkWriter } from '#/control/cli/bundle/chunk-writer.ts';

export type Piece = PayloadPieces['pieces'][number];

export interface ChunkStore extends ChunkSink {
  /** Waits until more can be added; see ChunkWriter. */
  readonly drain: () => Promise<void>;
  /** The pieces since the last call. */
  readonly takePieces: () => Piece[];
}

/** A store over `writer`. */
export function createChunkStore(writer: ChunkWriter): ChunkStore {
  const known = new Map<string, number>();
  let pieces: Piece[] = [];
  return {
    chunk: (bytes) => {
      const digest = createHash('sha256').update(bytes).digest();
      const key = digest.toString('latin1');
      const number = known.get(key) ?? writer.add(digest, bytes);
      known.set(key, number);
      pieces.push({ chunk: number });
    },
    hole: (sizeBytes) => {
      const last = pieces.at(-1);
      if (last !== undefined && 'hole' in last)
        pieces[pieces.length - 1] = { hole: last.hole + sizeBytes };
      else pieces.push({ hole: sizeBytes });
    },
    drain: writer.drain,
    takePieces: () => {
      const taken = pieces;
      pieces = [];
      return taken;
    },
  };
}
