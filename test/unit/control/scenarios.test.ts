import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { runScenario } from '#/test/support/control/scenario.ts';

const folder = join(import.meta.dirname, '../../scenarios');
const names = readdirSync(folder)
  .filter((file) => file.endsWith('.txt'))
  .map((file) => file.slice(0, -4));

describe('scripted rollouts decide what is written beside them', () => {
  it.each(names)('%s', (name) => {
    const out = join(folder, `${name}.out`);
    const found = runScenario(readFileSync(join(folder, `${name}.txt`), 'utf8'));
    // `SCENARIOS=write` records what is decided now; the diff is what a reviewer reads.
    if (process.env['SCENARIOS'] === 'write') writeFileSync(out, found);
    expect(existsSync(out)).toBe(true);
    expect(found).toBe(readFileSync(out, 'utf8'));
  });

  it('every output has its scenario', () => {
    const outputs = readdirSync(folder).filter((file) => file.endsWith('.out'));
    expect(outputs.map((file) => file.slice(0, -4)).sort()).toEqual([...names].sort());
  });
});
