/** A Debian with systemd as its first process, in a container of its own: boots, reboots, loses its power. */
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  readdirSync,
  openSync,
  readFileSync,
  rmdirSync,
  writeFileSync,
} from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { waitFor } from '#/test/support/fleet/fleet.ts';

const BOOT_TIMEOUT_MS = 60_000;
const COMMAND_TIMEOUT_MS = 120_000;
const REBOOT_EXIT_CODE = 133;

export interface CommandOutput {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export class Container {
  readonly name: string;
  /** The root that it sees, from outside. */
  readonly root: string;
  readonly #directory: string;
  readonly #namespace: string;
  #nspawn: ChildProcess | null = null;
  #isMounted = false;

  private constructor(name: string, directory: string, namespace: string) {
    this.name = name;
    this.#directory = directory;
    this.#namespace = namespace;
    this.root = join(directory, 'root');
  }

  /** Its files lie over those of `lower`, which are not changed. */
  static async create(
    name: string,
    lower: string,
    directory: string,
    namespace: string,
  ): Promise<Container> {
    const container = new Container(name, directory, namespace);
    const [upper, work] = [join(directory, 'upper'), join(directory, 'work')];
    for (const path of [upper, work, container.root]) mkdirSync(path, { recursive: true });
    await promisify(execFile)('mount', [
      '-t',
      'overlay',
      'overlay',
      '-o',
      `lowerdir=${lower},upperdir=${upper},workdir=${work}`,
      container.root,
    ]);
    container.#isMounted = true;
    return container;
  }

  /** Boots, and waits until the system manager has started everything. */
  async boot(): Promise<void> {
    for (const group of this.#groups()) mkdirSync(group, { recursive: true });
    const log = openSync(join(this.#directory, 'console.log'), 'a');
    this.#nspawn = spawn(
      '/bin/sh',
      [
        '-c',
        'for group in $GROUPS_OF_IT; do echo $$ >"$group/cgroup.procs"; done; exec systemd-nspawn "$@"',
        'sh',
        '--register=no',
        '--keep-unit',
        '--quiet',
        '--boot',
        '--console=pipe',
        '--resolv-conf=off',
        `--machine=${this.name}`,
        `--directory=${this.root}`,
        `--network-namespace-path=${this.#namespace}`,
      ],
      {
        stdio: ['ignore', log, log],
        env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', GROUPS_OF_IT: this.#groups().join(' ') },
      },
    );
    closeSync(log);
    await this.waitUntilUp();
  }

  async waitUntilUp(): Promise<void> {
    await waitFor(`${this.name} boots`, BOOT_TIMEOUT_MS, async () => {
      if (this.#leader() === null) return null;
      const { stdout } = await this.try('systemctl is-system-running');
      return ['running', 'degraded'].includes(stdout.trim()) ? true : null;
    });
  }

  /** Control groups of its own: two system managers in one would end each other's services. */
  #groups(): readonly string[] {
    const isUnified = existsSync('/sys/fs/cgroup/cgroup.controllers');
    const hierarchies = isUnified
      ? ['/sys/fs/cgroup']
      : ['/sys/fs/cgroup/systemd', '/sys/fs/cgroup/unified'].filter((path) => existsSync(path));
    return hierarchies.map((path) => join(path, this.name));
  }

  /** The first process of the container, by its pid outside. */
  #leader(): number | null {
    const pid = this.#nspawn?.pid;
    if (pid === undefined) return null;
    try {
      const [leader] = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').split(' ');
      return leader === undefined || leader === '' ? null : Number(leader);
    } catch {
      return null;
    }
  }

  /** A shell command in the container; throws with its output when it fails. */
  async run(command: string): Promise<string> {
    const { code, stdout, stderr } = await this.try(command);
    if (code !== 0) throw new Error(`${this.name}: ${command}: exit ${code}\n${stdout}${stderr}`);
    return stdout;
  }

  async try(command: string): Promise<CommandOutput> {
    const leader = this.#leader();
    if (leader === null) return { code: 255, stdout: '', stderr: 'the container is down' };
    return await new Promise((resolve) => {
      execFile(
        'nsenter',
        ['-t', String(leader), '-a', '/bin/sh', '-c', command],
        {
          timeout: COMMAND_TIMEOUT_MS,
          maxBuffer: 16 * 1024 * 1024,
          env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8', HOME: '/root' },
        },
        (error, stdout, stderr) => {
          const code = error === null ? 0 : typeof error.code === 'number' ? error.code : 255;
          resolve({ code, stdout, stderr });
        },
      );
    });
  }

  /** An orderly reboot: nspawn ends with a code that asks whoever keeps its unit for another start. */
  async reboot(): Promise<void> {
    const nspawn = this.#nspawn;
    await this.try('systemctl reboot');
    await waitFor(`${this.name} goes down`, BOOT_TIMEOUT_MS, async () =>
      nspawn?.exitCode === REBOOT_EXIT_CODE ? true : null,
    );
    await this.boot();
  }

  /** All processes at once, nspawn too, without a word to any of them: frozen first, so that none sees another one go. */
  async cutPower(): Promise<void> {
    const nspawn = this.#nspawn;
    if (nspawn === null) return;
    const gone = new Promise((resolve) =>
      nspawn.exitCode === null && nspawn.signalCode === null
        ? nspawn.once('exit', resolve)
        : resolve(null),
    );
    const groups = this.#groups().filter((path) => existsSync(join(path, 'cgroup.kill')));
    if (groups.length === 0)
      throw new Error('power cuts need cgroup.kill of the unified hierarchy');
    for (const group of groups) {
      writeFileSync(join(group, 'cgroup.freeze'), '1');
      await this.#untilGroup(group, 'frozen 1');
      writeFileSync(join(group, 'cgroup.kill'), '1');
      await this.#untilGroup(group, 'populated 0');
      writeFileSync(join(group, 'cgroup.freeze'), '0');
    }
    await gone;
    this.#nspawn = null;
  }

  async #untilGroup(group: string, event: string): Promise<void> {
    const events = join(group, 'cgroup.events');
    await waitFor(
      `${this.name}: ${event}`,
      COMMAND_TIMEOUT_MS,
      async () => (readFileSync(events, 'latin1').includes(event) ? true : null),
      1,
    );
  }

  /** Its last words, for a failure. */
  async journal(lines = 30): Promise<string> {
    const { stdout } = await this.try(
      `journalctl --no-pager -o short-monotonic -n ${lines} -u 'switchback-*' -u web.service`,
    );
    return stdout.replaceAll(/^(.{300}).*$/gm, '$1…');
  }

  /** Powers off; what it has written stays in the upper layer. Resolves with that. */
  async detach(): Promise<string> {
    await this.cutPower();
    if (this.#isMounted) await promisify(execFile)('umount', [this.root]);
    this.#isMounted = false;
    for (const group of this.#groups()) removeGroup(group);
    return join(this.#directory, 'upper');
  }

  async remove(): Promise<void> {
    await this.detach();
    await rm(this.#directory, { recursive: true, force: true });
  }
}

/** A control group and those in it, which no process is in any more. */
function removeGroup(path: string): void {
  if (!existsSync(path)) return;
  for (const entry of readdirSync(path, { withFileTypes: true }))
    if (entry.isDirectory()) removeGroup(join(path, entry.name));
  rmdirSync(path);
}
