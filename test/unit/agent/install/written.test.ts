import { describe, expect, it } from 'vitest';
import { PieceCollector } from '#/agent/install/write-plan.ts';
import { markChunk, markPiece, nothingWritten } from '#/agent/install/written.ts';

describe('what is written', () => {
  it('a file is complete with its last piece and not before, whatever the order', () => {
    const collector = new PieceCollector(3);
    // Chunk 0 fills file 0 twice and file 1 once; chunk 1 ends file 0; file 2 is empty; chunk 2 fills nothing.
    collector.add(0, 0, 0, 0, 10);
    collector.add(0, 0, 50, 0, 10);
    collector.add(0, 1, 0, 0, 10);
    collector.add(1, 0, 10, 0, 40);
    const written = nothingWritten(3, collector.done());
    expect([...written.piecesLeft]).toEqual([3, 1, 0]);
    expect([0, 0, 1, 0].map((file) => markPiece(written, file))).toEqual([
      false,
      false,
      true,
      true,
    ]);
  });

  it('a chunk that two ways bring counts once', () => {
    const written = nothingWritten(0, new PieceCollector(2).done());
    expect([1, 1, 0, 1].map((chunk) => markChunk(written, chunk))).toEqual([
      true,
      false,
      true,
      false,
    ]);
  });
});
