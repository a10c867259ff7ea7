/**
 * The matrix of faults: each effect of the agent, in each state that asks for it, times each thing that can go wrong with it. Cases
 * and ends are in effect-matrix.json; `EFFECT_MATRIX=write` writes it anew, and the difference is for review.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { type FaultEnd, faultEnds } from '#/test/support/sim-host/effect-faults.ts';
import { scenarioCases } from '#/test/support/sim-host/scenarios.ts';

/** By the end of their titles: a good version, a bad one, and an order back. */
const scenarios = [
  'install and commit',
  'an unhealthy version goes back and is not tried again',
  'an operator orders the host back after the commit',
] as const;
const path = join(import.meta.dirname, 'effect-matrix.json');
const isWriting = process.env['EFFECT_MATRIX'] === 'write';
type Table = Readonly<Record<string, Readonly<Record<string, string>>>>;
const table = JSON.parse(readFileSync(path, 'utf8')) as Table;

async function endsIn(title: string): Promise<ReadonlyMap<string, FaultEnd>> {
  const one = (await scenarioCases()).find((other) => other.title.endsWith(title));
  if (one === undefined) throw new Error(`no scenario ${title}`);
  const found = new Map<string, FaultEnd>();
  for await (const end of faultEnds(one)) found.set(end.name, end);
  return found;
}

if (isWriting) {
  it('writes the matrix', { timeout: 3_600_000 }, async () => {
    const written: Record<string, Record<string, string>> = {};
    for (const title of scenarios) {
      const ends = await endsIn(title);
      written[title] = Object.fromEntries([...ends].map(([name, { end }]) => [name, end]));
    }
    writeFileSync(path, `${JSON.stringify(written, null, 2)}\n`);
  });
}

describe.skipIf(isWriting).each(scenarios)('H02 %s', (title) => {
  let found: ReadonlyMap<string, FaultEnd>;
  beforeAll(async () => {
    found = await endsIn(title);
  });
  const cases = Object.entries(table[title] ?? {});

  it('every effect and fault is in the matrix', () => {
    expect([...found.keys()]).toEqual(cases.map(([name]) => name));
    expect(found.size).toBeGreaterThan(200);
  });

  it.each(cases)('%s: %s', (name, end) => {
    expect(found.get(name)).toEqual({ name, end, problems: [] });
  });
});
