/**
 * Power cuts at seeded moments of a life full of updates: one machine goes to and fro between two good versions, and again and again
 * QEMU is killed and the disk keeps what was flushed and a random part of the rest. Each time it has to come back by itself, on
 * one of the two, and the last update has to end.
 */
import { type Random, randomFrom } from '#/test/chaos/random.ts';
import type { HostDetail } from '#/protocol/host.ts';
import { cutKinds } from './write-log.ts';
import { firstVersion, secondVersion, type VmVersion } from './versions.ts';
import type { World } from './world.ts';

export interface CutOutcome {
  readonly number: number;
  /** What the agent said it was doing, or what the console said, when the power went. */
  readonly moment: string;
  readonly lost: string;
  readonly cameBackOn: string;
}

/** States of the agent in which a cut is aimed for, so that no phase is only met by luck. */
const AIMS = [
  'downloading',
  'verifying',
  'arming',
  'switching',
  'trial',
  'committing',
  'reboot',
  'any',
] as const;
type Aim = (typeof AIMS)[number];
const AIM_SECONDS = 600;
const BACK_SECONDS = 600;
const PAUSE_MS = 100;
const UPDATE_SECONDS = 1800;

/** Cuts `count` times. Throws at the first one after which the machine is not on exactly one good version. */
export async function cutAgain(
  world: World,
  count: number,
  seed: string,
  onCut: (outcome: CutOutcome) => void,
): Promise<void> {
  const random = randomFrom(seed);
  world.images.prepare([secondVersion]);
  await world.firstBoot();
  await world.images.release(secondVersion);
  let wanted = secondVersion;
  await world.pin(wanted);
  for (let number = 1; number <= count; number += 1) {
    const moment = await untilMoment(world, random);
    const kind = random.pick(cutKinds);
    const result = await world.machine.cutPower(kind, random);
    const lost =
      result === null
        ? 'cut too early to tell'
        : `${result.unflushed} unflushed writes: ${kind} kept (${result.kept} whole, ${result.torn} torn)`;
    const said = world.machine.console.length;
    world.machine.powerOn();
    const back = await world.untilBack(BACK_SECONDS);
    const slots = loaderChoices(world.machine.console.slice(said));
    onCut({ number, moment, lost, cameBackOn: `${back.runningVersion}${slots}` });
    // One that went through is followed by the next one, the other way.
    if (back.runningVersion === wanted.version && back.state === 'idle') {
      wanted = other(wanted);
      await world.pin(wanted);
    }
  }
  await world.untilRests(wanted, UPDATE_SECONDS);
}

function other(version: VmVersion): VmVersion {
  return version === firstVersion ? secondVersion : firstVersion;
}

/** Waits for a phase, then a random part of it. Resolves with what was seen at the end. */
async function untilMoment(world: World, random: Random): Promise<string> {
  const aim: Aim = random.pick(AIMS);
  const until = performance.now() + world.ms(AIM_SECONDS);
  const said = world.machine.console.length;
  let last: HostDetail | null = null;
  while (performance.now() < until) {
    last = await world.detail();
    const isRebooting = /reboot: Restarting system|Booting from Hard Disk|BdsDxe: starting/.test(
      world.machine.console.slice(said),
    );
    if (aim === 'any' || last.state === aim || (aim === 'reboot' && isRebooting)) break;
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
  const extraMs = Math.floor(random.unit() ** 2 * world.ms(20));
  await new Promise((resolve) => setTimeout(resolve, extraMs));
  return `${aim}, ${(extraMs / 1000).toFixed(1)} s later (${last?.state ?? 'unknown'})`;
}

/** What GRUB said that it boots, in order; systemd-boot says nothing. */
function loaderChoices(console: string): string {
  const said = [...console.matchAll(/Switchback: booting slot ([ab]) \(([a-z ]+)\)/g)];
  return said.length === 0
    ? ''
    : `, slot ${said.map(([, slot, why]) => `${slot} ${why}`).join(', ')}`;
}
