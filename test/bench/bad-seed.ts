/**
 * What an updater makes of a live version that is not what it should be (F83): 200 bytes of v1 are flipped in blocks that v2
 * needs unchanged. Right is a repaired result, or a refusal. An exit code of 0 with another result is the worst there is.
 */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { type FileHandle, open, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createHash } from 'node:crypto';
import { promisify } from 'node:util';
import { type Case, sha256Of } from './cases.ts';

const run = promisify(execFile);
const FLIPS = 200;
const BLOCK_BYTES = 4096;
const READ_BLOCKS = 256;
/** Where in a block the byte lies. */
const WITHIN = 2000;

export interface BadSeedRow {
  readonly name: string;
  readonly outcome: 'repaired' | 'refused' | 'WRONG, exit code 0';
  readonly says: string;
}

async function* blocksOf(file: FileHandle): AsyncGenerator<[number, string]> {
  const buffer = new Uint8Array(READ_BLOCKS * BLOCK_BYTES);
  const zeros = Buffer.alloc(BLOCK_BYTES);
  for (let number = 0; ; number += READ_BLOCKS) {
    const { bytesRead } = await file.read(buffer, 0, buffer.byteLength, number * BLOCK_BYTES);
    if (bytesRead === 0) return;
    for (let i = 0; i * BLOCK_BYTES < bytesRead; i += 1) {
      const block = buffer.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES);
      if (Buffer.compare(block, zeros) === 0) continue;
      yield [number + i, createHash('sha256').update(block).digest('latin1').slice(0, 12)];
    }
  }
}

/** Places of v1, spread over it, in blocks that v2 has too. */
export async function placesToFlip(v1: string, v2: string): Promise<readonly number[]> {
  await using wanted = await open(v2);
  const needed = new Set<string>();
  for await (const [, digest] of blocksOf(wanted)) needed.add(digest);
  await using old = await open(v1);
  const common: number[] = [];
  for await (const [number, digest] of blocksOf(old)) if (needed.has(digest)) common.push(number);
  const every = Math.max(1, Math.floor(common.length / FLIPS));
  return common
    .filter((_, i) => i % every === 0)
    .slice(0, FLIPS)
    .map((number) => number * BLOCK_BYTES + WITHIN);
}

/** Flips one bit at each place; once more restores the file. */
export async function flip(path: string, places: readonly number[]): Promise<void> {
  await using file = await open(path, 'r+');
  const byte = new Uint8Array(1);
  for (const place of places) {
    await file.read(byte, 0, 1, place);
    byte[0] = (byte[0] ?? 0) ^ 0x40;
    await file.write(byte, 0, 1, place);
  }
  await file.sync();
}

/** Marks an image whose bytes are flipped right now: nobody may take it for v1. */
const markOf = (path: string): string => `${path}.damaged`;

/** Removes the image of v1 when an earlier run was cut off while it was damaged: it is made anew. */
export async function endDamage(data: string): Promise<void> {
  const image = join(data, 'v1.img');
  if (!existsSync(markOf(image))) return;
  await rm(image, { force: true });
  await rm(markOf(image));
}

/** Runs each case with its seed damaged, and puts the seed right again. */
export async function badSeedRows(
  cases: readonly Case[],
  places: readonly number[],
  expected: string,
): Promise<BadSeedRow[]> {
  const rows: BadSeedRow[] = [];
  for (const one of cases) {
    if (one.seed === undefined) continue;
    await one.prepare();
    const seed = await one.seed();
    await writeFile(markOf(seed), '');
    await flip(seed, places);
    try {
      const ended = await runAll(one);
      const isRight = ended.isGood && (await sha256Of(await one.result())) === expected;
      rows.push({
        name: one.name,
        outcome: !ended.isGood ? 'refused' : isRight ? 'repaired' : 'WRONG, exit code 0',
        says: sayingOf(ended.text),
      });
      process.stderr.write(`bad seed: ${one.name}: ${rows.at(-1)?.outcome ?? ''}\n`);
    } finally {
      await flip(seed, places);
      await rm(markOf(seed));
    }
  }
  return rows;
}

/** All steps of a case; the text is what the first says, or the one that failed. */
async function runAll(one: Case): Promise<{ readonly isGood: boolean; readonly text: string }> {
  const texts: string[] = [];
  for (const { script } of one.steps) {
    try {
      texts.push((await run('bash', ['-eo', 'pipefail', '-c', script])).stdout);
    } catch (error) {
      const { stderr, message } = error as { stderr?: string; message: string };
      return { isGood: false, text: stderr ?? message };
    }
  }
  return { isGood: true, text: texts[0] ?? '' };
}

/** What the program says about it, in a few words. */
function sayingOf(text: string): string {
  if (text.startsWith('{')) {
    const { rottenSeedChunks, unpatchedChunks } = JSON.parse(text) as Record<string, number>;
    return `${rottenSeedChunks ?? 0} rotten chunks reported, ${unpatchedChunks ?? 0} of the patch fetched as chunks`;
  }
  const lines = text
    .split('\n')
    .filter((line) => /error|mismatch|invalid|corrupt|fail/i.test(line));
  return (lines.at(-1) ?? 'nothing').replaceAll('|', ' ').slice(0, 100);
}
