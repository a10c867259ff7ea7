/** One simulated host: its disk, clock, power and processes. The agent on it is the real one (agent.ts). */
import { enrol } from '#/agent/adapters/enrol.ts';
import { identityStore } from '#/agent/adapters/identity.ts';
import { makeDirectory } from '#/agent/adapters/durable.ts';
import type { Clock, FileHandlePort, FilePort } from '#/agent/ports.ts';
import type { VersionId, HostId } from '#/protocol/ids.ts';
import { crashStates, type PersistenceModel } from '#/test/support/sim-fs/crash-states.ts';
import type { Image } from '#/test/support/sim-fs/image.ts';
import { simFs, type Operation, type SimFs } from '#/test/support/sim-fs/sim-fs.ts';
import { emptyHost } from '#/test/support/sim-host/scenarios.ts';
import { STATE_DIRECTORY } from '#/test/support/sim-host/sim-host.ts';
import { AGENT_VERSION, startAgent, type AgentWatch, type SimAgent } from './agent.ts';
import { CONTROL_URL } from './control.ts';
import type { Network } from './network.ts';
import { seeded } from './random.ts';
import type { SimTime } from './time.ts';
import type { SimVersion } from './versions.ts';

/** The supervisor starts an agent that ended again after so long. */
const RESTART_MS = 5_000;
const BOOT_MS = 30_000;
/** Monotonic time at which an agent starts after a boot. */
const UPTIME_MS = 8_000;

/** What fails on the disk at the moment. */
export type DiskTrouble = 'full' | 'sync-fails' | null;

export interface HostOptions {
  readonly index: number;
  readonly seed: number;
  readonly time: SimTime;
  readonly network: Network;
  readonly wallMs: () => number;
  readonly versions: () => readonly SimVersion[];
  readonly watch: (host: SimHost) => AgentWatch;
  readonly onBug: (host: SimHost, error: unknown) => void;
}

interface Process {
  isDead: boolean;
  readonly stop: AbortController;
  agent: SimAgent | null;
}

/** Thrown inside the disk by the operation at which the process is killed; nobody above hears of it. */
class Killed extends Error {}
/** What a dead process waits for. */
const never = <T>(): Promise<T> => new Promise<T>(() => undefined);

export class SimHost {
  readonly index: number;
  readonly counts = { powerCuts: 0, kills: 0, boots: 0 };
  id: HostId | null = null;
  group = '';
  disk: SimFs;
  active: { readonly artifactId: VersionId; readonly sinceMs: number } | null = null;
  trouble: DiskTrouble = null;
  /** What the wall clock of this host is wrong by. */
  clockErrorMs = 0;
  isOff = false;
  /** A copy of another machine. */
  isClone = false;
  readonly #options: HostOptions;
  readonly #machine: string;
  #boot = 1;
  #bootedMs = 0;
  #process: Process | null = null;
  #armed: { left: number; readonly act: () => void } | null = null;

  constructor(options: HostOptions, image: Image = emptyHost(), machine?: string) {
    this.#options = options;
    this.index = options.index;
    this.#machine = machine ?? seeded(options.seed, 'machine', options.index).hex(32);
    this.disk = this.#insert(image);
  }

  get machine(): string {
    return this.#machine;
  }

  get agent(): SimAgent | null {
    return this.#process?.agent ?? null;
  }

  get bootId(): string {
    return seeded(this.#options.seed, 'boot', this.index, this.#boot).hex(16);
  }

  /** Joins the fleet with a token, and starts the agent. */
  async enrol(token: string, rootSha256: string): Promise<void> {
    const process = this.#newProcess();
    const files = this.#files(process);
    await makeDirectory(files, STATE_DIRECTORY);
    const identity = await enrol({
      invitation: { controlUrls: [CONTROL_URL], token, rootSha256, caPem: null },
      store: identityStore(files, STATE_DIRECTORY),
      transport: this.#transport(process),
      random: seeded(this.#options.seed, 'keys', this.index),
      wallMs: this.#options.wallMs,
      machine: this.#machine,
      class: 'web',
      arch: 'amd64',
      agentVersion: AGENT_VERSION,
      facts: {},
      replace: false,
    });
    this.id = identity.host;
    this.group = identity.group;
    this.#begin(process);
  }

  /** The same identity on another machine: what a cloned disk is. */
  adopt(of: SimHost): void {
    this.isClone = true;
    this.id = of.id;
    this.group = of.group;
    this.#bootUp(BOOT_MS);
  }

  /** The agent ends at the n-th change of the disk from now, and `act` follows. */
  arm(operations: number, act: () => void): void {
    this.#armed = { left: operations, act };
  }

  disarm(): void {
    this.#armed = null;
  }

  /** SIGKILL: the kernel and the services live on. */
  kill(): void {
    if (this.#process === null) return;
    this.counts.kills += 1;
    this.#end();
    this.#bootUp(RESTART_MS, false);
  }

  /** SIGTERM: the agent comes to a safe point, then is started again. */
  restart(): void {
    this.#process?.stop.abort();
  }

  /** The power goes. What the disk holds afterwards is drawn from what the persistence model allows. */
  powerCut(model: PersistenceModel, draw: number): void {
    this.counts.powerCuts += 1;
    this.#end();
    this.disk = this.#insert(this.imageAfter(model, draw));
    this.active = null;
    this.#bootUp(BOOT_MS);
  }

  /** The disk is replaced by an older one, as when a snapshot is put back. */
  rewind(image: Image): void {
    this.#end();
    this.disk = this.#insert(image);
    this.active = null;
    this.#bootUp(BOOT_MS);
  }

  switchOff(): void {
    this.#end();
    this.isOff = true;
    this.active = null;
  }

  /** It comes back with the disk that it had, as after a shutdown. */
  switchOn(): void {
    this.isOff = false;
    this.#bootUp(BOOT_MS);
  }

  /** One of the disks that a crash now could leave; `draw` in [0, 1) chooses. */
  imageAfter(model: PersistenceModel, draw: number): Image {
    const { log } = this.disk;
    const history = { base: this.#base, log };
    const cut = log.length;
    const seed = Math.floor(draw * 2 ** 31);
    const states = crashStates(history, model, { seed, from: cut, cuts: new Set([cut]) });
    const images = [...states].map((state) => state.image);
    const image = images[Math.floor(draw * images.length)];
    if (image === undefined) throw new Error('a crash leaves some disk');
    return image;
  }

  #base: Image = emptyHost();

  #insert(image: Image): SimFs {
    this.#base = image;
    return simFs(image, (operation) => this.#inject(operation));
  }

  #inject(operation: Operation): string | null {
    const armed = this.#armed;
    if (armed !== null) {
      armed.left -= 1;
      if (armed.left <= 0) {
        this.#armed = null;
        if (this.#process !== null) this.#process.isDead = true;
        this.#options.time.at(this.#options.time.nowMs(), armed.act);
        throw new Killed();
      }
    }
    if (this.trouble === 'full' && /^(?:create|write|mkdir|symlink)$/.test(operation.name))
      return 'ENOSPC';
    return this.trouble === 'sync-fails' && operation.name === 'sync' ? 'EIO' : null;
  }

  #end(): void {
    this.#armed = null;
    if (this.#process === null) return;
    this.#process.isDead = true;
    this.#process = null;
  }

  #bootUp(delayMs: number, isBoot = true): void {
    const { time } = this.#options;
    if (isBoot) {
      this.#boot += 1;
      this.counts.boots += 1;
      this.#bootedMs = time.nowMs() + delayMs;
    }
    const boot = this.#boot;
    time.at(time.nowMs() + delayMs, () => {
      if (this.isOff || this.#process !== null || boot !== this.#boot) return;
      this.#begin(this.#newProcess());
    });
  }

  #newProcess(): Process {
    const process: Process = { isDead: false, stop: new AbortController(), agent: null };
    this.#process = process;
    return process;
  }

  #begin(process: Process): void {
    this.#run(process).then(
      () => {
        if (process.isDead) return;
        this.#end();
        this.#bootUp(RESTART_MS, false);
      },
      (error: unknown) => {
        if (!process.isDead) this.#options.onBug(this, error);
      },
    );
  }

  async #run(process: Process): Promise<void> {
    const { seed, time } = this.#options;
    const label = `${this.#boot}.${Math.round(time.nowMs())}`;
    process.agent = await startAgent({
      files: this.#files(process),
      clock: this.#clock(process),
      random: seeded(seed, 'agent', this.index, label),
      machine: this.#machine,
      transport: this.#transport(process),
      versions: this.#options.versions,
      active: () => this.active,
      setActive: (artifactId) => {
        if (process.isDead) return;
        this.active = artifactId === null ? null : { artifactId, sinceMs: time.nowMs() };
      },
      nowMs: () => time.nowMs(),
      watch: this.#options.watch(this),
      controlUrl: CONTROL_URL,
    });
    if (process.agent === null) throw new Error('the identity of the host is gone');
    await process.agent.run(process.stop.signal);
  }

  #clock(process: Process): Clock {
    const { time, wallMs } = this.#options;
    const bootId = this.bootId;
    const bootedMs = this.#bootedMs;
    return {
      wallMs: () => wallMs() + this.clockErrorMs,
      monotonicMs: () => time.nowMs() - bootedMs + UPTIME_MS,
      bootId: () => bootId,
      sleep(ms, signal) {
        if (signal?.aborted === true) return Promise.resolve(false);
        return new Promise((resolve) => {
          const stop = (): void => {
            forget();
            resolve(false);
          };
          const forget = time.at(time.nowMs() + Math.max(ms, 0), () => {
            signal?.removeEventListener('abort', stop);
            if (!process.isDead) resolve(true);
          });
          signal?.addEventListener('abort', stop, { once: true });
        });
      },
    };
  }

  #transport(process: Process): Parameters<typeof startAgent>[0]['transport'] {
    const { network } = this.#options;
    return {
      exchange: (request) => network.exchange(this.index, request, () => !process.isDead),
      close: () => Promise.resolve(),
    };
  }

  /** The disk as this process has it: once the process is dead, nothing comes back from it any more. */
  #files(process: Process): FilePort {
    const disk = this.disk;
    return living(disk.files, process);
  }
}

function living(files: FilePort, process: { isDead: boolean }): FilePort {
  const guard =
    <A extends readonly unknown[], R>(work: (...given: A) => Promise<R>) =>
    async (...given: A): Promise<R> => {
      if (process.isDead) return never<R>();
      try {
        const result = await work(...given);
        return process.isDead ? await never<R>() : result;
      } catch (error) {
        if (process.isDead || error instanceof Killed) return never<R>();
        throw error;
      }
    };
  const handleOf = (handle: FileHandlePort): FileHandlePort => ({
    read: guard((buffer, position) => handle.read(buffer, position)),
    write: guard((bytes, position) => handle.write(bytes, position)),
    truncate: guard((sizeBytes) => handle.truncate(sizeBytes)),
    sync: guard(() => handle.sync()),
    close: guard(() => handle.close()),
  });
  return {
    open: guard(async (path, flags) => handleOf(await files.open(path, flags))),
    rename: guard((from, to) => files.rename(from, to)),
    unlink: guard((path) => files.unlink(path)),
    mkdir: guard((path, mode) => files.mkdir(path, mode)),
    rmdir: guard((path) => files.rmdir(path)),
    symlink: guard((target, path) => files.symlink(target, path)),
    readlink: guard((path) => files.readlink(path)),
    list: guard((path) => files.list(path)),
    stat: guard((path) => files.stat(path)),
  };
}
