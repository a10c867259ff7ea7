/** The fuzzer itself: parsers with a bug planted in each are found out, one without is not. */
import { describe, expect, it } from 'vitest';
import { fuzz, type FuzzResult } from '#/test/fuzz/watch.ts';
import { bytesAt, tryOnce } from '#/test/fuzz/run.ts';
import { fuzzTargets as planted } from '#/test/fuzz/planted.ts';

const targets = new URL('../fuzz/planted.ts', import.meta.url);
const run = (only: string, seconds: number, hangMs = 60_000): Promise<FuzzResult> =>
  fuzz({
    ...{ targets, only, seconds, threads: 1, seed: 7, hangMs },
    ...{ growthMaxBytes: 8 * 1024 * 1024, heapMaxMb: 64 },
  });
const whats = ({ failures }: FuzzResult, target: string): string =>
  failures.flatMap((one) => (one.target === target ? [one.what] : [])).join('\n');

describe('a planted bug', () => {
  it('crashes, now or in a promise, and are told with what shows them again', async () => {
    const result = await run('crash', 2);
    expect(whats(result, 'crash')).toContain('TypeError');
    expect(whats(result, 'crash-async')).toContain('SyntaxError');
    const [, at] = /--only=crash --seed=7 --at=(\d+)/.exec(whats(result, 'crash')) ?? [];
    const target = (await planted()).find(({ name }) => name === 'crash')!;
    expect(await tryOnce(target, bytesAt(target, 7, Number(at)), Number(at))).toMatchObject({
      what: expect.stringContaining('TypeError') as string,
    });
  });

  it('a parse of more than a second', async () => {
    expect(whats(await run('slow', 3), 'slow')).toMatch(/took \d+ ms/);
  });

  it('a parse that never ends', async () => {
    expect(whats(await run('hang', 600, 2000), 'hang')).toContain('no answer for 2000 ms');
  });

  it('memory that is kept, as objects and outside of the heap', async () => {
    const result = await run('keeps', 8);
    expect(whats(result, 'keeps-objects')).toContain('keeps memory');
    expect(whats(result, 'keeps-buffers')).toContain('keeps memory');
  });

  it('memory without end in one parse', async () => {
    expect(whats(await run('eats', 600, 120_000), 'eats-memory')).toContain('memory');
  });

  it('a parser without a bug is let go', async () => {
    const { failures, tries } = await run('good', 1);
    expect(failures).toEqual([]);
    expect(tries.get('good')).toBeGreaterThan(10);
  });
});
