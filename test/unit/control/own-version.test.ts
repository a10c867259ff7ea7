import { expect, it } from 'vitest';
import { artifactOf, SmallFleet } from '#/test/support/control/small-fleet.ts';

it('a host that was offered its own version before it had told what it runs holds no rollout up', () => {
  const fleet = new SmallFleet({ hosts: 1, policy: { canaryCount: 0, wavePercents: [100] } });
  fleet.put({ ...fleet.host(0), running: null });
  fleet.pin(1);
  fleet.settle();
  expect(fleet.offered()).toEqual([0]);

  // Its first report: it takes no offer of what it runs, so no event of the attempt ever comes.
  fleet.put({ ...fleet.host(0), running: artifactOf(1) });
  const [first] = fleet.settle();
  expect(first).toMatchObject({ kind: 'withdraw' });
  expect(fleet.offered()).toEqual([]);
  expect(fleet.host(0).attempts.at(-1)).toMatchObject({ outcome: 'withdrawn' });
  fleet.now += 3_600_000;
  fleet.put({ ...fleet.host(0), lastSeenAtMs: fleet.now });
  fleet.settle();
  expect(fleet.rollout?.state).toBe('done');
});
