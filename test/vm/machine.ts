/** A virtual machine under software emulation: its console is kept, its power can be cut. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { appendFileSync, copyFileSync, existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { type Random, randomFrom } from '#/test/chaos/random.ts';
import { waitFor } from '#/test/support/fleet/fleet.ts';
import { applyCut, type CutKind, type CutResult, readWriteLog } from './write-log.ts';

export type Firmware = 'bios' | 'efi';
const EFI_CODE = '/usr/share/OVMF/OVMF_CODE_4M.fd';
const EFI_VARIABLES = '/usr/share/OVMF/OVMF_VARS_4M.fd';
const MEMORY_MB = 640;
const CONSOLE_KEPT_CHARS = 4 * 1024 * 1024;

export interface MachineOptions {
  readonly directory: string;
  /** Raw; the machine's own. */
  readonly disk: string;
  readonly firmware: Firmware;
  /** Handed over as a systemd credential. */
  readonly join: string;
  /**
   * Seen once in some ten boots with two: one of them never sees that the kernel has changed its own code, and hangs until the
   * watchdog resets the machine (QEMU's TCG). With one, boots take half as long again on an idle machine.
   */
  readonly processors: number;
  /** Whether writes are logged, so that a cut can lose them. Slower. */
  readonly losesWrites: boolean;
  readonly onLine?: (line: string) => void;
}

export class Machine {
  readonly #options: MachineOptions;
  #qemu: ChildProcess | null = null;
  #console = '';
  #line = '';

  constructor(options: MachineOptions) {
    this.#options = options;
    if (options.firmware === 'efi' && !existsSync(this.#variables))
      copyFileSync(EFI_VARIABLES, this.#variables);
  }

  get #variables(): string {
    return join(this.#options.directory, 'variables.fd');
  }
  get #overlay(): string {
    return join(this.#options.directory, 'overlay.qcow2');
  }
  get #log(): string {
    return join(this.#options.directory, 'writes.log');
  }
  get consoleFile(): string {
    return join(this.#options.directory, 'console.log');
  }
  /** All that was said since the machine was made. */
  get console(): string {
    return this.#console;
  }

  powerOn(): void {
    const { disk, losesWrites, join: text, firmware } = this.#options;
    const drive = losesWrites
      ? this.#loggedDrive()
      : ['-drive', `file=${disk},format=raw,if=none,id=disk,cache=unsafe`];
    const efi = [
      '-drive',
      `if=pflash,format=raw,readonly=on,file=${EFI_CODE}`,
      '-drive',
      `if=pflash,format=raw,file=${this.#variables}`,
    ];
    const argv = [
      '-machine',
      'q35',
      '-accel',
      'tcg,thread=multi',
      // A processor with more features has drivers loaded for them, which is slow under emulation.
      '-cpu',
      'Nehalem',
      '-smp',
      String(this.#options.processors),
      '-m',
      String(MEMORY_MB),
      ...(firmware === 'efi' ? efi : []),
      ...drive,
      '-device',
      'virtio-blk-pci,drive=disk,bootindex=0',
      '-netdev',
      'user,id=net',
      '-device',
      'virtio-net-pci,netdev=net,romfile=',
      '-device',
      'i6300esb',
      '-smbios',
      `type=11,value=io.systemd.credential:switchback.join=${text}`,
      '-display',
      'none',
      // For a look at a machine that says nothing: `info registers`.
      '-monitor',
      `unix:${join(this.#options.directory, 'monitor')},server=on,wait=off`,
      '-serial',
      'stdio',
      '-no-user-config',
      '-nodefaults',
    ];
    // A reset ends QEMU and begins another one: after a warm reset of its own the next kernel takes minutes to unpack itself.
    argv.push('-action', 'reboot=shutdown');
    const qemu = spawn('qemu-system-x86_64', argv, { stdio: ['ignore', 'pipe', 'pipe'] });
    qemu.once('exit', (code) => {
      if (this.#qemu !== qemu || code !== 0) return;
      if (losesWrites) this.#keepWrites();
      this.powerOn();
    });
    qemu.stdout.setEncoding('latin1').on('data', (said: string) => this.#hear(said));
    qemu.stderr.setEncoding('utf8').on('data', (said: string) => this.#hear(`qemu: ${said}`));
    this.#qemu = qemu;
  }

  /** The disk as it is stays below; writes go to an overlay that is thrown away, and into the log. */
  #loggedDrive(): readonly string[] {
    for (const path of [this.#overlay, this.#log]) rmSync(path, { force: true });
    execFileSync('qemu-img', [
      'create',
      '-q',
      '-f',
      'qcow2',
      '-b',
      this.#options.disk,
      '-F',
      'raw',
      this.#overlay,
    ]);
    appendFileSync(this.#log, '');
    return [
      '-blockdev',
      `driver=qcow2,node-name=overlay,file.driver=file,file.filename=${this.#overlay},cache.no-flush=on`,
      '-blockdev',
      `driver=file,node-name=log,filename=${this.#log},cache.no-flush=on`,
      '-blockdev',
      'driver=blklogwrites,node-name=disk,file=overlay,log=log,log-sector-size=512',
    ];
  }

  /** After a reset: the disk has what was written, and a new log begins. */
  #keepWrites(): void {
    const log = readWriteLog(this.#log);
    if (!log.isWhole) throw new Error(`the log of a QEMU that ended by itself has a hole`);
    applyCut(log, this.#log, this.#options.disk, 'everything', randomFrom('unused'));
  }

  #hear(said: string): void {
    appendFileSync(this.consoleFile, said, 'latin1');
    this.#console = (this.#console + said).slice(-CONSOLE_KEPT_CHARS);
    const lines = (this.#line + said).split(/[\r\n]+/);
    this.#line = lines.pop() ?? '';
    for (const line of lines) this.#options.onLine?.(line);
  }

  get isOn(): boolean {
    return this.#qemu !== null && this.#qemu.exitCode === null && this.#qemu.signalCode === null;
  }

  /** Until the console says it, after `from` characters of it. */
  async untilSays(pattern: RegExp, timeoutMs: number, from = 0): Promise<string> {
    return await waitFor(`the console says ${pattern.source}`, timeoutMs, async () => {
      if (!this.isOn) throw new Error(`the machine has ended; its console is ${this.consoleFile}`);
      return pattern.exec(this.#console.slice(from))?.[0] ?? null;
    });
  }

  /** How often the loader started `slot` as a trial or as the default; GRUB says it. */
  boots(words: RegExp): number {
    return [...this.#console.matchAll(new RegExp(words, 'g'))].length;
  }

  /** The machine gets no processor for so long, and its clock goes on: a hypervisor that is busy, or moves it elsewhere. */
  async starve(ms: number): Promise<void> {
    this.#qemu?.kill('SIGSTOP');
    await new Promise((resolve) => setTimeout(resolve, ms));
    this.#qemu?.kill('SIGCONT');
  }

  /** SIGKILL to QEMU, without a word to the guest. */
  async powerOff(): Promise<void> {
    const qemu = this.#qemu;
    if (qemu === null || !this.isOn) return;
    this.#qemu = null;
    const gone = new Promise((resolve) => qemu.once('exit', resolve));
    qemu.kill('SIGKILL');
    await gone;
  }

  /** Power off, and the disk is what the cut leaves of it. Null: the log has a hole, the disk is as it was at power on. */
  async cutPower(kind: CutKind, random: Random): Promise<CutResult | null> {
    await this.powerOff();
    const log = readWriteLog(this.#log);
    const result = log.isWhole ? applyCut(log, this.#log, this.#options.disk, kind, random) : null;
    for (const path of [this.#overlay, this.#log]) rmSync(path, { force: true });
    return result;
  }
}
