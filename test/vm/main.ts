/**
 * `npm run test:vm -- [--loader grub|systemd-boot] [--firmware bios|efi] [--only REGEX] [--cuts N] [--seed N] [--patience N] [--processors N] [--share ci] [--keep]`:
 * disks made by the image kit, started in QEMU under software emulation, driven by a real control. Needs root, `npm run package`, and
 * the packages of packaging/install-test-tools.sh. Without --loader both are tried. Prints a line per scenario or cut, and at the end
 * `N passed, N failed`. `--share ci`: GRUB, one update with power cuts in phases of two fixed seeds and a fresh one, and a kernel that panics.
 */
import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import { type Loader, loaders } from '#/control/cli/image/layout.ts';
import { cutAgain, cutOneUpdate, type CutOutcome } from './cuts.ts';
import type { Firmware } from './machine.ts';
import { scenarios } from './scenarios.ts';
import { secondVersion } from './versions.ts';
import { World } from './world.ts';

const { values: flags } = parseArgs({
  options: {
    loader: { type: 'string' },
    firmware: { type: 'string' },
    only: { type: 'string', default: '' },
    cuts: { type: 'string' },
    seed: { type: 'string' },
    patience: { type: 'string', default: '1' },
    processors: { type: 'string', default: '2' },
    share: { type: 'string' },
    console: { type: 'boolean', default: false },
    keep: { type: 'boolean', default: false },
  },
});
/** Power cuts of the share of a commit: in arming and in committing, beside one of a fresh seed. Each costs a boot, or two and another update. */
const CI_SEEDS = ['2', '4'] as const;
const CI_SCENARIO = /kernel panics/;
const FRESH_SEEDS = 1_000_000;

const isCi = flags.share === 'ci';
if (flags.share !== undefined && !isCi) throw new Error('--share is ci');
const seed = flags.seed ?? (isCi ? String(randomInt(FRESH_SEEDS)) : '1');
const only = new RegExp(flags.only);
const turns: readonly Loader[] = loaders.filter(
  (loader) => (flags.loader ?? (isCi ? 'grub' : loader)) === loader,
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
    processors: Number(flags.processors),
    losesWrites: flags.cuts !== undefined || isCi,
    patience: Number(flags.patience),
    say: (text) => process.stdout.write(`${text}\n`),
    ...(flags.console ? { onLine: (line: string) => process.stdout.write(`  | ${line}\n`) } : {}),
  });
  current = world;
  const failedBefore = failed;
  if (isCi) await runShare(world, loader);
  else if (flags.cuts !== undefined) await runCuts(world, loader, Number(flags.cuts));
  else await runScenarios(world, loader);
  await world.close(flags.keep || failed > failedBefore);
  if (failed > failedBefore) process.stdout.write(`files of this run: ${world.directory}\n`);
}
process.stdout.write(`${passed} passed, ${failed} failed\n`);
process.exitCode = failed === 0 ? 0 : 1;

/** A machine is started whatever is chosen. The first failure ends a loader's turn. */
async function runScenarios(world: World, loader: Loader): Promise<void> {
  const chosen = scenarios.filter(({ title }, index) => index === 0 || only.test(title));
  world.images.prepare(chosen.flatMap(({ version }) => version ?? []));
  for (const { title, run } of chosen) {
    if (!(await line(`${loader}: ${title}`, () => run(world)))) return;
  }
}

async function runShare(world: World, loader: Loader): Promise<void> {
  const [first] = scenarios;
  const bad = scenarios.filter(({ title }) => CI_SCENARIO.test(title));
  world.images.prepare([secondVersion, ...bad.flatMap(({ version }) => version ?? [])]);
  if (first === undefined) throw new Error('there are no scenarios');
  if (!(await line(`${loader}: ${first.title}`, () => first.run(world)))) return;
  const isOn = await line(
    `${loader}: v1 to v2 commits through power cuts, seeds ${[...CI_SEEDS, seed].join(', ')}`,
    async () => {
      await cutOneUpdate(world, [...CI_SEEDS, seed], sayCut);
      return `runs ${secondVersion.version}`;
    },
  );
  if (!isOn) return;
  for (const { title, run } of bad)
    if (!(await line(`${loader}: ${title}`, () => run(world)))) return;
}

async function runCuts(world: World, loader: Loader, count: number): Promise<void> {
  await line(`${loader}: ${count} power cuts, seed ${seed}`, async () => {
    let done = 0;
    await cutAgain(world, count, seed, (outcome) => {
      done += 1;
      sayCut(outcome);
    });
    return `${done} of ${count} came back on exactly one good version, and the last update ended`;
  });
}

function sayCut({ number, moment, lost, cameBackOn }: CutOutcome): void {
  const text = `  cut ${number}: in ${moment}; ${lost}; came back on ${cameBackOn}`;
  process.stdout.write(`${text}\n`);
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
