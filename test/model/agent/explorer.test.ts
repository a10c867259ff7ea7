import { describe, expect, it } from 'vitest';
import { type Exploration, explore } from './explore.ts';
import { mutants } from './mutants.ts';
import { kinds, natures, realMachine } from './world.ts';

function told(found: Exploration): string {
  const { counterexample } = found;
  if (counterexample === null) return '';
  return `${counterexample.message}\n  ${counterexample.trace.join('\n  ')}`;
}

describe('every state that host, guard, boot loader and world can reach', () => {
  let states = 0;
  const visited = new Set<string>();
  for (const kind of kinds) {
    for (const nature of natures) {
      it(`I1-I16 hold: ${kind} slots, ${nature} version, any one disturbance`, () => {
        const found = explore({ kind, nature, disturbances: 1 }, realMachine);
        expect(told(found)).toBe('');
        states += found.states;
        for (const name of found.visited) visited.add(name);
      });
    }
  }
  for (const [kind, nature] of [
    ['directory', 'unhealthy'],
    ['partition', 'good'],
    ['not-enabled', 'unhealthy'],
  ] as const) {
    it(`I1-I16 hold: ${kind} slots, ${nature} version, any two disturbances`, () => {
      const found = explore({ kind, nature, disturbances: 2 }, realMachine);
      expect(told(found)).toBe('');
      states += found.states;
      for (const name of found.visited) visited.add(name);
    });
  }
  it('the exploration is as large as it is said to be, and comes to every state', () => {
    process.stdout.write(`agent machine: ${states} states explored\n`);
    expect(states).toBeGreaterThan(100_000);
    expect([...visited].toSorted()).toEqual(
      [
        'aborted',
        'adrift',
        'arming',
        'checking',
        'committed',
        'committing',
        'downloading',
        'idle',
        'needs-attention',
        'offered',
        'preflight',
        'refused',
        'rollback-verify',
        'rolled-back',
        'rolling-back',
        'staged',
        'switching',
        'trial',
        'verifying',
        'waiting',
      ].toSorted(),
    );
  });
});

describe('a machine without one of its protections is caught', () => {
  it('there are enough mutants', () => {
    expect(mutants.length).toBeGreaterThanOrEqual(20);
    expect(new Set(mutants.map((one) => one.name)).size).toBe(mutants.length);
  });
  for (const mutant of mutants) {
    it(`one that ${mutant.name}`, () => {
      const { kind, nature, disturbances } = mutant;
      const found = explore({ kind, nature, disturbances }, mutant.machine);
      expect(mutant.caughtBy).toContain(found.counterexample?.invariant);
    });
  }
});
