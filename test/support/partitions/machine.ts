/**
 * A machine with two root partitions, its reboots, and the agent in the slot that was booted: a process of its own, which sees a
 * real root, real block devices and a real clock since boot. Only firmware, kernel and init are left out. Needs root.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { askAgent } from '#/agent/cli/socket-client.ts';
import type { PartitionSlot } from '#/agent/adapters/boot/backend.ts';
import type { AttemptEnd, LocalRequest } from '#/agent/local.ts';
import type { StatusView } from '#/agent/local-view.ts';
import { isProblem } from '#/protocol/errors.ts';
import { grubBoots } from './boot.ts';
import { type HostDisk, partUuids } from './disk.ts';

const repository = join(import.meta.dirname, '../../..');
/** Far more than anything takes on a busy machine; it only ends what hangs. */
const LIMIT_MS = 150_000;
const ASK_EVERY_MS = 50;

type Order = Extract<LocalRequest, { ask: 'order' }>['command'];

export interface MachineOptions {
  readonly directory: string;
  readonly disk: HostDisk;
  readonly anchorDirectory: string;
  /** More lines of the agent's settings. */
  readonly settings?: string;
}

/** Directories that a root image needs so that this machine can boot it. */
export const mountPoints = ['usr', 'data', 'repo', 'run'] as const;

export class Machine implements AsyncDisposable {
  readonly #options: MachineOptions;
  #agent: ChildProcess | null = null;
  #ended: Promise<void> = Promise.resolve();
  /** The slot that runs. */
  slot: PartitionSlot | null = null;
  boots = 0;

  constructor(options: MachineOptions) {
    this.#options = options;
    for (const path of ['new-root', 'data/state', 'run', 'programs']) {
      mkdirSync(this.#at(path), { recursive: true });
    }
    this.rebootsAre('taken');
  }

  #at(path: string): string {
    return join(this.#options.directory, path);
  }
  get #socket(): string {
    return this.#at('run/agent.sock');
  }
  get #rebootFile(): string {
    return this.#at('data/reboots');
  }
  get log(): string {
    return readFileSync(this.#at('agent.log'), 'utf8');
  }

  /** What becomes of an order to reboot: systemd takes it, or refuses. */
  rebootsAre(what: 'taken' | 'refused'): void {
    const code = what === 'taken' ? 0 : 1;
    const script = `#!/bin/sh\necho "$*" >>/data/reboots\nexit ${code}\n`;
    for (const program of ['systemctl', 'reboot']) {
      writeFileSync(join(this.#at('programs'), program), script, { mode: 0o755 });
    }
  }

  /** Orders to reboot of this boot, as they were given. */
  rebootOrders(): readonly string[] {
    if (!existsSync(this.#rebootFile)) return [];
    return readFileSync(this.#rebootFile, 'utf8').trimEnd().split('\n');
  }

  /** Firmware and GRUB: what they choose starts, with the agent in it. `die`: nothing comes up in it, it only was tried. */
  async boot(how: 'agent' | 'die' = 'agent'): Promise<PartitionSlot> {
    await this.powerOff();
    this.slot = await grubBoots(this.#options.disk);
    if (how === 'agent') this.#start(this.slot);
    return this.slot;
  }

  /** Somebody chooses a slot in the menu of the boot loader: no try is counted. */
  async bootInto(slot: PartitionSlot): Promise<void> {
    await this.powerOff();
    this.slot = slot;
    this.#start(slot);
  }

  /** Everything ends at once. */
  async powerOff(): Promise<void> {
    const pid = this.#agent?.pid;
    if (pid !== undefined) {
      try {
        process.kill(-pid, 'SIGKILL');
      } catch {
        // The whole group has ended already.
      }
    }
    await this.#ended;
    this.#agent = null;
    rmSync(this.#at('run'), { recursive: true, force: true });
    mkdirSync(this.#at('run'));
    rmSync(this.#rebootFile, { force: true });
  }

  #start(slot: PartitionSlot): void {
    const { disk, anchorDirectory } = this.#options;
    this.boots += 1;
    const boot = this.#options.directory;
    writeFileSync(this.#at('boot_id'), `${randomUUID()}\n`);
    writeFileSync(this.#at('cmdline'), `BOOT_IMAGE=x root=PARTUUID=${partUuids[slot]} ro quiet\n`);
    const config = this.#at('data/agent.toml');
    writeFileSync(config, this.#settings(disk, anchorDirectory));
    const [uptime = '0'] = readFileSync('/proc/uptime', 'utf8').split('.');
    const offset = String(1 - Number(uptime));
    const node = process.execPath.replace(repository, '/repo');
    const argv = [
      ...['--mount', '--propagation', 'private', '--time', '--fork', '--kill-child'],
      ...['--monotonic', offset, '--boottime', offset],
      join(import.meta.dirname, 'boot-slot.sh'),
      ...[disk.roots[slot].path, this.#at('new-root'), boot],
      ...[this.#at('data'), this.#at('run'), repository],
      ...[node, '/repo/agent/main.ts', 'run', '--config', '/data/agent.toml'],
    ];
    const log = openSync(this.#at('agent.log'), 'a');
    const child = spawn('unshare', argv, {
      env: { PATH: '/usr/sbin:/usr/bin', HOME: '/tmp' },
      stdio: ['ignore', log, log],
      detached: true,
    });
    closeSync(log);
    this.#agent = child;
    this.#ended = new Promise((resolve) => {
      child.once('exit', () => resolve());
      child.once('error', () => resolve());
    });
  }

  #settings(disk: HostDisk, anchorDirectory: string): string {
    return `[state]
directory = "/data/state"
run_directory = "/run"
[host]
class = "web"
machine_id_file = "/data/machine-id"
[slots]
kind = "partition"
partition_a = "${disk.roots.a.path}"
partition_a_uuid = "${partUuids.a}"
partition_b = "${disk.roots.b.path}"
partition_b_uuid = "${partUuids.b}"
reserve_bytes = 0
[boot]
loader = "grub"
esp = "/data/esp"
env = "${disk.env.path}"
[trust]
anchor_directory = "${anchorDirectory}"
[download]
workers = 1
${this.#options.settings ?? ''}`;
  }

  get isRunning(): boolean {
    return this.#agent !== null && this.#agent.exitCode === null && this.#agent.signalCode === null;
  }

  /** Asks until the agent answers. */
  async status(): Promise<StatusView> {
    return await this.#until('the agent answers', async () => {
      if (!this.isRunning) throw new Error(`the agent has ended:\n${this.log.slice(-4000)}`);
      if (!existsSync(this.#socket)) return null;
      try {
        return await askAgent<StatusView>(this.#socket, { ask: 'status' });
      } catch (error) {
        if (isProblem(error, 'E_UNAVAILABLE') || isReset(error)) return null;
        throw error;
      }
    });
  }

  /** Gives an order and does not wait for what comes of it. */
  async tell(command: Order): Promise<void> {
    await this.rest();
    await askAgent(this.#socket, { ask: 'order', wait: false, command });
  }

  /** Gives an order and waits for the end of its attempt in this boot. */
  async order(command: Order): Promise<AttemptEnd> {
    await this.rest();
    return await askAgent<AttemptEnd>(this.#socket, { ask: 'order', wait: true, command });
  }

  /** Waits until the agent has asked for a reboot so often, in this boot. */
  async rebootAsked(times = 1): Promise<void> {
    await this.#until(`reboot asked for ${times} times`, async () => {
      if (!this.isRunning) throw new Error(`the agent has ended:\n${this.log.slice(-4000)}`);
      return this.rebootOrders().length >= times ? true : null;
    });
  }

  /** The status once nothing is under way any more. */
  async rest(): Promise<StatusView> {
    return await this.#until('the agent rests', async () => {
      const status = await this.status();
      const isDone = status.state === 'idle' && status.step === 'settled';
      return isDone || status.state === 'needs-attention' ? status : null;
    });
  }

  async #until<T>(what: string, look: () => Promise<T | null>): Promise<T> {
    const until = performance.now() + LIMIT_MS;
    for (;;) {
      const seen = await look();
      if (seen !== null) return seen;
      if (performance.now() > until) {
        throw new Error(`not within ${LIMIT_MS} ms: ${what}\n${this.log.slice(-6000)}`);
      }
      await new Promise((resolve) => setTimeout(resolve, ASK_EVERY_MS));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.powerOff();
  }
}

function isReset(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException).code ?? '';
  return ['ECONNRESET', 'EPIPE', 'UND_ERR_SOCKET', 'ERR_STREAM_PREMATURE_CLOSE'].includes(code);
}
