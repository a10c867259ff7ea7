/** A control, a machine, and what both say of the host: one disk, one loader. */
import { mkdirSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Loader } from '#/control/cli/image/layout.ts';
import type { Random } from '#/test/chaos/random.ts';
import type { HostDetail, TimelineEntry } from '#/protocol/host.ts';
import type { HostId } from '#/protocol/ids.ts';
import { Fleet, waitFor } from '#/test/support/fleet/fleet.ts';
import { debianRoot, Images } from './images.ts';
import { type Firmware, Machine } from './machine.ts';
import { firstVersion, goodVersions, type VmVersion } from './versions.ts';
import type { CutKind, CutResult } from './write-log.ts';

const GROUP = 'vm';
/** QEMU's name for this machine's loopback, inside of its network. */
const HOST_ADDRESS = '10.0.2.2';

export interface WorldOptions {
  readonly loader: Loader;
  readonly firmware: Firmware;
  readonly processors: number;
  readonly losesWrites: boolean;
  /** Emulated machines are as slow as this one is busy: all waiting is so many times as long. */
  readonly patience: number;
  readonly say: (text: string) => void;
  readonly onLine?: (line: string) => void;
}

export class World {
  readonly fleet: Fleet;
  readonly images: Images;
  readonly machine: Machine;
  readonly directory: string;
  readonly #options: WorldOptions;
  #id = '';
  /** The last boot that control had heard of when the power went. */
  #bootBeforeCut: string | null = null;

  private constructor(
    fleet: Fleet,
    images: Images,
    machine: Machine,
    directory: string,
    options: WorldOptions,
  ) {
    this.fleet = fleet;
    this.images = images;
    this.machine = machine;
    this.directory = directory;
    this.#options = options;
  }

  get id(): string {
    return this.#id;
  }

  /** The first version's disk and a control that knows it; the machine is off. */
  static async create(options: WorldOptions): Promise<World> {
    const directory = await mkdtemp(join(tmpdir(), 'switchback-vm-'));
    const fleet = await Fleet.create(join(directory, 'fleet'), { publicHost: HOST_ADDRESS });
    try {
      await fleet.cli(['group', 'create', GROUP, '--poll', '2s', '--poll-active', '2s']);
      const images = new Images(fleet, directory, await debianRoot(), options.loader);
      options.say(`disk of ${firstVersion.version} for ${options.loader}`);
      const disk = await images.disk(firstVersion);
      const url = `http://${HOST_ADDRESS}:${fleet.port}`;
      const { join: text } = await fleet.json<{ join: string }>([
        'host',
        'token',
        GROUP,
        '--control-url',
        url,
      ]);
      mkdirSync(join(directory, 'machine'));
      const machine = new Machine({
        directory: join(directory, 'machine'),
        disk,
        firmware: options.firmware,
        join: text,
        processors: options.processors,
        losesWrites: options.losesWrites,
        ...(options.onLine === undefined ? {} : { onLine: options.onLine }),
      });
      return new World(fleet, images, machine, directory, options);
    } catch (error) {
      await fleet.stop();
      throw error;
    }
  }

  ms(seconds: number): number {
    return seconds * 1000 * this.#options.patience;
  }

  /** From power on to a host that control knows and that rests on the first version. */
  async firstBoot(): Promise<void> {
    this.machine.powerOn();
    this.#id = await waitFor(
      'the host enrols',
      this.ms(300),
      async () => {
        if (!this.machine.isOn) throw new Error(`QEMU has ended: ${this.machine.consoleFile}`);
        const { items } = await this.fleet.api().call('hostList', { query: { group: GROUP } });
        return items[0]?.id ?? null;
      },
      2000,
    );
    await this.pin(firstVersion);
    await this.untilRests(firstVersion, 300);
  }

  async pin(version: VmVersion): Promise<void> {
    await this.fleet.cli(['pin', this.#id, version.version, '--host', '--reason', 'test/vm']);
  }

  async detail(): Promise<HostDetail> {
    return await this.fleet.api().call('hostShow', { params: { host: this.#id as HostId } });
  }

  /** Control hears from the running version that nothing is under way. */
  async untilRests(version: VmVersion, seconds: number): Promise<HostDetail> {
    return await this.#until(
      `the host rests on ${version.version}`,
      seconds,
      (host) =>
        host.runningVersion === version.version &&
        host.state === 'idle' &&
        host.isOnline &&
        host.healthy !== false,
    );
  }

  async untilState(state: string, seconds: number): Promise<HostDetail> {
    return await this.#until(`the host is in ${state}`, seconds, (host) => host.state === state);
  }

  /** QEMU is killed, and the disk keeps what the cut leaves of it. What control is told after this is of another boot. */
  async cutPower(kind: CutKind, random: Random): Promise<CutResult | null> {
    const result = await this.machine.cutPower(kind, random);
    this.#bootBeforeCut = (await this.detail()).bootId;
    return result;
  }

  /** After a cut: a host that has started anew and tells what it runs, which is a good version. A trial of `bad` may go on first. */
  async untilBack(seconds: number, bad: VmVersion | null): Promise<HostDetail> {
    const host = await this.#until(
      'the host is back',
      seconds,
      ({ bootId, isOnline, runningVersion }) =>
        isOnline &&
        bootId !== null &&
        bootId !== this.#bootBeforeCut &&
        (bad === null || runningVersion !== bad.version),
    );
    if (!goodVersions.some(({ version }) => version === host.runningVersion))
      throw new Error(`the host runs ${host.runningVersion}`);
    if (host.state === 'needs-attention') throw new Error(`the host needs attention: ${host.why}`);
    return host;
  }

  /** The version was tried, taken back, reported and denied, and version `good` runs again. Resolves with what control was told. */
  async untilTakenBack(version: VmVersion, good: string, seconds: number): Promise<TimelineEntry> {
    const detail = await this.#until(
      `${version.version} is on the deny-list and the host rests on ${good}`,
      seconds,
      (host) =>
        host.runningVersion === good &&
        host.state === 'idle' &&
        host.targetVersion === version.version &&
        host.denied.some(
          ({ artifactId, code }) => artifactId === host.target && version.code.test(code),
        ),
    );
    const attempt = detail.attempts.find((one) => one.version === version.version);
    if (attempt === undefined)
      throw new Error(`control was not told of an attempt of ${version.version}`);
    const params = { host: this.#id as HostId };
    const { items } = await this.fleet
      .api()
      .call('hostTimeline', { params, query: { limit: '100' } });
    const told = items.find(
      (entry) =>
        entry.version === version.version && entry.code !== null && version.code.test(entry.code),
    );
    if (told === undefined)
      throw new Error(
        `the timeline has no ${version.code.source}: ${JSON.stringify(items.slice(0, 6))}`,
      );
    return told;
  }

  async #until(
    what: string,
    seconds: number,
    holds: (host: HostDetail) => boolean,
  ): Promise<HostDetail> {
    let last: HostDetail | null = null;
    return await waitFor(
      what,
      this.ms(seconds),
      async () => {
        if (!this.machine.isOn) throw new Error(`QEMU has ended: ${this.machine.consoleFile}`);
        last = await this.detail();
        return holds(last) ? last : null;
      },
      2000,
    ).catch((error: unknown) => {
      const seen =
        last === null
          ? 'nothing'
          : `${last.runningVersion} ${last.state}, ${last.why}, denied ${JSON.stringify(last.denied)}`;
      throw new Error(`${String(error)}; last seen: ${seen}; console: ${this.machine.consoleFile}`);
    });
  }

  /** `keep`: the files stay, for a look at them. */
  async close(keep = false): Promise<void> {
    await this.machine.powerOff();
    await this.fleet.stop();
    if (!keep) await rm(this.directory, { recursive: true, force: true });
  }
}
