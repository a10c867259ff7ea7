import { expect, it } from 'vitest';
import { scenarioCases } from '#/test/support/sim-host/scenarios.ts';
import { runHost } from '#/test/support/sim-host/sim-host.ts';

it('an order that comes before the disk was read is refused, not judged by an empty state', async () => {
  const [one] = await scenarioCases();
  if (one === undefined) throw new Error('no scenario');
  const codes: (string | undefined)[] = [];
  await runHost(
    one.disk,
    one.world,
    {
      ...one.scenario,
      onRunner: (runner) => {
        codes.push(runner.command({ kind: 'rollback' })?.code);
        expect(runner.isStarted()).toBe(false);
      },
    },
    1,
  );
  expect(codes).toEqual(['E_BUSY']);
});
