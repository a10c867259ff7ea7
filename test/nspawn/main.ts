/**
 * `npm run test:nspawn [-- part of a title]`: the packages, the guard and systemd for real, in containers. Needs root,
 * systemd-nspawn, mmdebstrap, and `npm run package`. Prints one line per scenario, and `N passed, N failed` at the end.
 */
import { guardScenarios } from './guard-scenarios.ts';
import { packageScenarios } from './package-scenarios.ts';
import { powerScenarios } from './power-scenarios.ts';
import { World } from './world.ts';

/** Most of a scenario is waiting for the guard. */
const AT_ONCE = 6;

const [filter = ''] = process.argv.slice(2);
const all = [...packageScenarios, ...guardScenarios, ...powerScenarios];
const queue = [...all.filter(({ title }) => title.includes(filter)).entries()];
let [passed, failed] = [0, 0];
const world = await World.create();
const stop = (): void => {
  queue.length = 0;
  void world.close().finally(() => process.exit(1));
};
process.once('SIGINT', stop);
process.once('SIGTERM', stop);
try {
  await Promise.all(Array.from({ length: AT_ONCE }, runner));
} finally {
  await world.close();
}
process.stdout.write(`${passed} passed, ${failed} failed\n`);
process.exitCode = failed === 0 ? 0 : 1;

async function runner(): Promise<void> {
  for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
    const [number, { title, run }] = next;
    const began = performance.now();
    const line = (mark: string): string =>
      `${mark} ${title} (${((performance.now() - began) / 1000).toFixed(0)} s)\n`;
    try {
      await run(world, `sb-${process.pid}-${number}`);
      passed += 1;
      process.stdout.write(line('ok  '));
    } catch (error) {
      failed += 1;
      process.stdout.write(line('FAIL'));
      for (let at: unknown = error; at instanceof Error; at = at.cause)
        process.stdout.write(`     ${at.message.replaceAll('\n', '\n     ')}\n`);
    }
  }
}
