/** What is done to a machine, in this order, on one disk: each step begins where the one before has ended, and each but the first may be left out. */
import {
  badVersions,
  firstVersion,
  lastVersion,
  secondVersion,
  type VmVersion,
} from './versions.ts';
import type { World } from './world.ts';

export interface Scenario {
  readonly title: string;
  /** What it updates to; null: nothing. */
  readonly version: VmVersion | null;
  /** Resolves with what was seen, for the line that is printed. */
  readonly run: (world: World) => Promise<string>;
}

/** An update may download, write and read back a root under emulation, boot it and watch it. */
const UPDATE_SECONDS = 900;
/** Polls in which a denied version is offered and must not be taken. */
const NOT_AGAIN_SECONDS = 20;

const commit = (from: VmVersion, to: VmVersion): Scenario => ({
  title: `${from.name} to ${to.name} commits`,
  version: to,
  async run(world) {
    await world.images.release(to);
    await world.pin(to);
    const { previous } = await world.untilRests(to, UPDATE_SECONDS);
    if (previous === null) throw new Error('the version before is not kept');
    return `runs ${to.version}`;
  },
});

/** Longer than the kernel's own threshold of a soft lockup, shorter than a watchdog is fed in. */
const STARVED_MS = 25_000;

/** The machine is held in a trial: neither kernel, watchdog, guard nor agent may take that for a fault of the version. */
const commitStarved = (to: VmVersion): Scenario => ({
  title: `F64 ${to.name} commits, though the machine gets no processor for ${STARVED_MS / 1000} s of its trial`,
  version: to,
  async run(world) {
    await world.images.release(to);
    await world.pin(to);
    const trial = await world.untilState('trial', UPDATE_SECONDS);
    await world.machine.starve(STARVED_MS);
    const { bootId } = await world.untilRests(to, UPDATE_SECONDS);
    if (bootId !== trial.bootId) throw new Error('the machine has restarted');
    return `runs ${to.version}, in the boot of its trial`;
  },
});

const takenBack = (bad: VmVersion): Scenario => ({
  title: `F36 a version of which ${bad.wrong} is taken back`,
  version: bad,
  async run(world) {
    await world.images.release(bad);
    const said = world.machine.console.length;
    const { runningVersion: good } = await world.detail();
    if (good === null) throw new Error('control does not know what the host runs');
    await world.pin(bad);
    const told = await world.untilTakenBack(bad, good, UPDATE_SECONDS);
    if (!bad.shows.test(world.machine.console.slice(said)))
      throw new Error(
        `the console does not show ${bad.shows.source}: it went wrong in another way`,
      );
    const before = (await world.detail()).bootId;
    await new Promise((resolve) => setTimeout(resolve, world.ms(NOT_AGAIN_SECONDS)));
    const after = await world.detail();
    if (after.bootId !== before || after.state !== 'idle') throw new Error('it was tried again');
    return `back on ${after.runningVersion}, ${told.code}: ${told.words}`;
  },
});

export const scenarios: readonly Scenario[] = [
  {
    title: `a new disk boots ${firstVersion.name}, enrols and rests`,
    version: null,
    async run(world) {
      await world.firstBoot();
      return `host ${world.id.slice(0, 12)}`;
    },
  },
  commit(firstVersion, secondVersion),
  ...badVersions.map(takenBack),
  commitStarved(lastVersion),
];
