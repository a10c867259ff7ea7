/**
 * Power cuts at seeded moments of a life full of updates: one machine goes to and fro between good versions, with a bad one now
 * and then, and again and again QEMU is killed and the disk keeps what was flushed and a random part of the rest. Each time it has
 * to come back by itself on a good one, and the last update has to end.
 */
import { type Random, randomFrom } from '#/test/chaos/random.ts';
import type { HostDetail } from '#/protocol/host.ts';
import { waitFor } from '#/test/support/fleet/fleet.ts';
import { cutKinds } from './write-log.ts';
import {
  goodVersions,
  lastVersion,
  secondVersion,
  unhealthyVersion,
  type VmVersion,
} from './versions.ts';
import type { World } from './world.ts';

export interface CutOutcome {
  readonly number: number;
  /** What the agent said it was doing, or what the console said, when the power went. */
  readonly moment: string;
  readonly lost: string;
  readonly cameBackOn: string;
}

/** States of the agent in which a cut is aimed for, so that no phase is only met by luck; in the order of an update. */
const AIMS = [
  'downloading',
  'verifying',
  'arming',
  'switching',
  'reboot',
  'trial',
  'committing',
  'rolling-back',
  'any',
] as const;
type Aim = (typeof AIMS)[number];
/** Of the phases of an update, how many are cut. */
const AIMED_SHARE = 0.75;
const AIM_SECONDS = 600;
const BACK_SECONDS = 600;
const PAUSE_MS = 100;
const UPDATE_SECONDS = 1800;
/** What a cut in a trial may end as: its boots are used up, or its time. */
const CUT_CODES = /^E_(?:FELL_BACK|TRIAL_BOOTS|DEADLINE)$/;
/** A cut comes up to so long after the phase has begun, in half of all cases in the first eighth of it: most writes are made then. */
const LATER_SECONDS = 20;

/** Cuts `count` times, from update to update. Throws at the first one after which the machine is not on exactly one good version. */
export async function cutAgain(
  world: World,
  count: number,
  seed: string,
  onCut: (outcome: CutOutcome) => void,
): Promise<void> {
  const random = randomFrom(seed);
  const life = await Life.begin(world, true);
  const aims = aimsOf(random);
  for (let number = 1; number <= count; number += 1)
    onCut(await cutOnce(life, number, aims.next().value, random));
  await life.untilOver();
}

/** One update, first to second version, cut once for each of these seeds, in the order of its phases; it has to go through. */
export async function cutOneUpdate(
  world: World,
  seeds: readonly string[],
  onCut: (outcome: CutOutcome) => void,
): Promise<void> {
  const phases = AIMS.filter((aim) => aim !== 'any' && aim !== 'rolling-back');
  const cuts = seeds.map((seed) => {
    const random = randomFrom(seed);
    return { random, phase: random.below(phases.length) };
  });
  const life = await Life.begin(world, false);
  for (const [index, { random, phase }] of cuts.toSorted((x, y) => x.phase - y.phase).entries())
    onCut(await cutOnce(life, index + 1, phases[phase] ?? 'any', random));
  await life.untilOver();
}

/** In the order of an update, again and again: in any other, most of the time would go into waiting for a phase that was just over. */
function* aimsOf(random: Random): Generator<Aim, never> {
  for (;;) for (const aim of AIMS) if (random.unit() < AIMED_SHARE) yield aim;
}

/** Which version the machine is on its way to. */
class Life {
  readonly world: World;
  readonly #returns: boolean;
  #wanted: VmVersion = secondVersion;
  /** Something was done for it since it was ordered. */
  #hasBegun = false;
  /** What the other slot holds when that is over: no update to it downloads anything. Null: not known. */
  #held: VmVersion | null = null;

  private constructor(world: World, returns: boolean) {
    this.world = world;
    this.#returns = returns;
  }

  /** On the first version, and the second one is pinned. `returns`: one that went through is followed by the next. */
  static async begin(world: World, returns: boolean): Promise<Life> {
    world.images.prepare(
      returns ? [secondVersion, unhealthyVersion, lastVersion] : [secondVersion],
    );
    if (!world.machine.isOn) await world.firstBoot();
    await world.images.release(secondVersion);
    await world.pin(secondVersion);
    return new Life(world, returns);
  }

  /** What may run in a trial after a cut, and is then taken back. */
  get bad(): VmVersion | null {
    return this.#wanted === unhealthyVersion ? unhealthyVersion : null;
  }

  /** Resolves with whether something is left to come; the next version is one whose update comes to what is aimed for. */
  async goesOn(host: HostDetail, aim: Aim): Promise<boolean> {
    this.#look(host);
    if (!this.#isOver(host)) {
      await this.#tryAgain(host);
      return true;
    }
    if (!this.#returns) return false;
    const running = goodVersions.find(({ version }) => version === host.runningVersion) ?? null;
    const next = this.#nextFor(aim, running);
    this.#held = next === unhealthyVersion ? next : running;
    await this.#order(next, host);
    return true;
  }

  #nextFor(aim: Aim, running: VmVersion | null): VmVersion {
    if (aim === 'rolling-back') return unhealthyVersion;
    const others = goodVersions.filter((version) => version !== running);
    const isDownload = aim === 'downloading';
    const fit = others.find((version) => (version !== this.#held) === isDownload);
    return fit ?? (running === secondVersion ? lastVersion : secondVersion);
  }

  async untilOver(): Promise<void> {
    const { world } = this;
    const isOver = async (): Promise<true | null> => {
      const host = await world.detail();
      this.#look(host);
      if (this.#isOver(host)) return true;
      await this.#tryAgain(host);
      return null;
    };
    await waitFor('the last update ends', world.ms(UPDATE_SECONDS), isOver, PAUSE_MS);
  }

  async #order(version: VmVersion, { id }: HostDetail): Promise<void> {
    this.#wanted = version;
    this.#hasBegun = false;
    await this.world.images.release(version);
    await this.world.pin(version);
    if (denialOf(await this.world.detail()) !== undefined) await this.#retry(id);
  }

  #look(host: HostDetail): void {
    if (host.state !== 'idle') this.#hasBegun = true;
  }

  #isOver(host: HostDetail): boolean {
    if (host.state !== 'idle' || host.targetVersion !== this.#wanted.version) return false;
    if (this.bad !== null) return this.#hasBegun && denialOf(host) !== undefined;
    return host.runningVersion === this.#wanted.version;
  }

  /** Cuts may use up the boots of a trial; the version is then taken back as it should, and an operator orders it anew. */
  async #tryAgain(host: HostDetail): Promise<void> {
    if (host.state !== 'idle' || host.targetVersion !== this.#wanted.version) return;
    const denied = denialOf(host);
    if (denied === undefined || this.bad !== null) return;
    // Ordered anew already: the host has not polled since.
    if (host.attempts.some(({ outcome }) => outcome === 'open')) return;
    if (!CUT_CODES.test(denied.code))
      throw new Error(`${this.#wanted.version} is good, and was taken back: ${denied.code}`);
    await this.#retry(host.id);
  }

  async #retry(id: string): Promise<void> {
    await this.world.fleet.cli(['host', 'retry', id, '--reason', 'power cuts']);
  }
}

function denialOf(host: HostDetail): HostDetail['denied'][number] | undefined {
  return host.denied.find(({ artifactId }) => artifactId === host.target);
}

async function cutOnce(life: Life, number: number, aim: Aim, random: Random): Promise<CutOutcome> {
  const { world } = life;
  const moment = await untilMoment(life, aim, random);
  const kind = random.pick(cutKinds);
  const result = await world.cutPower(kind, random);
  const lost =
    result === null
      ? 'the log of writes has a hole, so the disk is as it was at power on'
      : `${result.unflushed} unflushed writes: ${kind} kept (${result.kept} whole, ${result.torn} torn)`;
  const said = world.machine.console.length;
  world.machine.powerOn();
  const back = await world.untilBack(BACK_SECONDS, life.bad);
  const slots = loaderChoices(world.machine.console.slice(said));
  return { number, moment, lost, cameBackOn: `${back.runningVersion}${slots}` };
}

/** Waits for a phase, then a random part of it. Resolves with what was seen at the end. */
async function untilMoment(life: Life, aim: Aim, random: Random): Promise<string> {
  const { world } = life;
  const until = performance.now() + world.ms(AIM_SECONDS);
  const said = world.machine.console.length;
  let last: HostDetail | null = null;
  while (performance.now() < until) {
    last = await world.detail();
    const isRebooting = /reboot: Restarting system|Booting from Hard Disk|BdsDxe: starting/.test(
      world.machine.console.slice(said),
    );
    if (aim === 'any' || last.state === aim || (aim === 'reboot' && isRebooting)) break;
    if (!(await life.goesOn(last, aim))) break;
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
  const extraMs = Math.floor(random.unit() ** 3 * world.ms(LATER_SECONDS));
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
