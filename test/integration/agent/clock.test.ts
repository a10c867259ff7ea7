import { execFileSync, spawnSync } from 'node:child_process';
import { resolve } from 'node:path';
import { describe, expect, it } from 'vitest';

/** A first process of its own, as a container has, with the clocks of the machine. */
const UNSHARE = ['--fork', '--pid', '--mount-proc', process.execPath];
const canUnshare = spawnSync('unshare', [...UNSHARE, '-e', '']).status === 0;
const CLOCK = resolve(import.meta.dirname, '../../../agent/adapters/clock.ts');
const LONG_MS = 60_000;
const PROGRAM = `
const { systemClock } = await import(${JSON.stringify(CLOCK)});
const clock = systemClock();
process.stdout.write(JSON.stringify([clock.monotonicMs(), Number(process.hrtime.bigint() / 1_000_000n)]));
`;

describe('the clock of the host', () => {
  it.skipIf(!canUnshare)(
    'F40 in a container counts from its start, not that of the machine',
    () => {
      const said = execFileSync('unshare', [...UNSHARE, '--input-type=module', '-e', PROGRAM], {
        encoding: 'utf8',
      });
      const [ownMs = -1, machineMs = 0] = JSON.parse(said) as number[];
      expect(ownMs).toBeGreaterThanOrEqual(0);
      expect(ownMs).toBeLessThan(Math.min(LONG_MS, machineMs));
    },
  );
});
