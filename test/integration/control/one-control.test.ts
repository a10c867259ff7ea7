/** Two controls on one data directory, or on one port: the second one ends with words, and without having touched anything. */
import { checkPatch } from '#/control/bundle-check.ts';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { startControl } from '#/control/start.ts';
import { Problem } from '#/protocol/errors.ts';
import { startWorld } from '#/test/support/control/world.ts';

it('a second control on the data directory of a running one is refused, and sweeps no upload of the first', async () => {
  await using world = await startWorld();
  const upload = join(world.dir, 'artifacts', 'x.part');
  writeFileSync(upload, 'on its way');
  const second = startControl({
    dataDir: world.dir,
    port: 0,
    verifyBundle: () => Promise.reject(new Error('no bundle is given here')),
    verifyPatch: checkPatch,
  });
  await expect(second).rejects.toMatchObject({ code: 'E_BUSY' });
  expect(existsSync(upload)).toBe(true);
  await world.restart();
  expect((await world.admin.call('summary', {})).epoch).toBe(1);
});

it('a port that is taken is a refusal that names it, and the directory can be served again at once', async () => {
  await using first = await startWorld();
  await using other = await startWorld();
  const { port } = first.control;
  await expect(other.restart({ port })).rejects.toThrow(Problem);
  await expect(other.restart({ port })).rejects.toThrow(
    `another program listens on 127.0.0.1:${port}`,
  );
  await other.restart();
});
