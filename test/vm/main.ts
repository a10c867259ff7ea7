/**
 * `npm run test:vm -- [--loader grub|systemd-boot] [--firmware bios|efi] [--only REGEX] [--cuts N] [--seed N] [--patience N] [--share ci] [--keep]`:
 * disks made by the image kit, started in QEMU under software emulation, driven by a real control. Needs root, `npm run package`, and
 * the packages of packaging/install-test-tools.sh. Without --loader both are tried. Prints a line per scenario or cut, and at the end
 * `N passed, N failed`.
 */
import { parseArgs } from 'node:util';
import { type Loader, loaders } from '#/control/cli/image/layout.ts';
import { cutAgain } from './cuts.ts';
import type { Firmware } from './machine.ts';
import { scenarios } from './scenarios.ts';
import { World } from './world.ts';

const { values: flags } = parseArgs({
  options: {
    loader: { type: 'string' },
    firmware: { type: 'string' },
    only: { type: 'string', default: '' },
    cuts: { type: 'string' },
    seed: { type: 'string', default: '1' },
    patience: { type: 'string', default: '1' },
    share: { type: 'string' },
    console: { type: 'boolean', default: false },
    keep: { type: 'boolean', default: false },
  },
});
/** The share of a commit: that a disk boots, an update commits, and a kernel that panics is left. */
const CI_SHARE = /boots v1|v1 to v2|kernel panics/;

const only = new RegExp(flags.share === 'ci' ? CI_SHARE : flags.only);
const turns: readonly Loader[] = loaders.filter(
  (loader) => (flags.loader ?? (flags.share === 'ci' ? 'grub' : loader)) === loader,
);
if (turns.length === 0) throw new Error(`--loader is one of ${loaders.join(', ')}`);
let [passed, failed] = [0, 0];
let current: World | null = null;
const stop = (): void =>
  void (current?.close() ?? Promise.resolve()).finally(() => process.exit(1));
process.once('SIGINT', stop);
process.once('SIGTERM', stop);
for (const loader of turns) {
  const world = await World.create({
    loader,
    firmware: firmwareFor(loader),
    losesWrites: flags.cuts !== undefined,
    patience: Number(flags.patience),
    say: (text) => process.stdout.write(`${text}\n`),
    ...(flags.console ? { onLine: (line: string) => process.stdout.write(`  | ${line}\n`) } : {}),
  });
  current = world;
  const failedBefore = failed;
  await (flags.cuts === undefined
    ? runScenarios(world, loader)
    : runCuts(world, loader, Number(flags.cuts)));
  await world.close(flags.keep || failed > failedBefore);
  if (failed > failedBefore) process.stdout.write(`files of this run: ${world.directory}\n`);
}
process.stdout.write(`${passed} passed, ${failed} failed\n`);
process.exitCode = failed === 0 ? 0 : 1;

/** Later steps need the first ones: those are run whatever is chosen. The first failure ends a loader's turn. */
async function runScenarios(world: World, loader: Loader): Promise<void> {
  const chosen = scenarios.filter(({ title }, index) => index <= 1 || only.test(title));
  world.images.prepare(chosen.flatMap(({ version }) => version ?? []));
  for (const { title, run } of chosen) {
    if (!(await line(`${loader}: ${title}`, () => run(world)))) return;
  }
}

async function runCuts(world: World, loader: Loader, count: number): Promise<void> {
  await line(`${loader}: ${count} power cuts, seed ${flags.seed}`, async () => {
    let done = 0;
    await cutAgain(world, count, flags.seed, ({ number, moment, lost, cameBackOn }) => {
      done += 1;
      process.stdout.write(`  cut ${number}: in ${moment}; ${lost}; came back on ${cameBackOn}\n`);
    });
    return `${done} of ${count} came back on exactly one good version, and the last update ended`;
  });
}

async function line(title: string, run: () => Promise<string>): Promise<boolean> {
  const began = performance.now();
  const seconds = (): string => ((performance.now() - began) / 1000).toFixed(0);
  try {
    const seen = await run();
    passed += 1;
    process.stdout.write(`ok   ${title} (${seconds()} s): ${seen}\n`);
    return true;
  } catch (error) {
    failed += 1;
    process.stdout.write(`FAIL ${title} (${seconds()} s)\n`);
    for (let at: unknown = error; at instanceof Error; at = at.cause)
      process.stdout.write(`     ${at.message.replaceAll('\n', '\n     ')}\n`);
    return false;
  }
}

function firmwareFor(loader: Loader): Firmware {
  if (loader === 'systemd-boot' || flags.firmware === 'efi') return 'efi';
  return 'bios';
}
