/**
 * A program that is started again when it dies, as systemd would: the stand-in for the init system of a host wherever a
 * fleet runs as plain processes (demo, chaos). It ends only what it started, by its own pid.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, mkdirSync, openSync } from 'node:fs';
import { dirname } from 'node:path';

export interface ProgramOptions {
  readonly name: string;
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly logFile: string;
  /** Pause before a restart, like RestartSec=. */
  readonly restartDelayMs: number;
  /** Restarts after which it is given up, so that a crash loop ends a run instead of hiding in it. */
  readonly maxRestarts: number;
}

export class SupervisedProcess {
  readonly name: string;
  readonly logFile: string;
  readonly #options: ProgramOptions;
  #child: ChildProcess | null = null;
  #timer: NodeJS.Timeout | null = null;
  #wanted = false;
  #restarts = 0;
  #exited: Promise<void> = Promise.resolve();

  constructor(options: ProgramOptions) {
    this.name = options.name;
    this.logFile = options.logFile;
    this.#options = options;
  }

  get pid(): number | null {
    return this.#child?.pid ?? null;
  }

  get restarts(): number {
    return this.#restarts;
  }

  get gaveUp(): boolean {
    return this.#wanted && this.#child === null && this.#restarts >= this.#options.maxRestarts;
  }

  start(): void {
    this.#wanted = true;
    this.#spawn();
  }

  /** Kills the running process at once; the supervisor starts it again. False when it was not running. */
  kill(signal: NodeJS.Signals = 'SIGKILL'): boolean {
    return this.#child?.kill(signal) ?? false;
  }

  /** Ends it for good: SIGTERM, then SIGKILL after `graceMs`. */
  async stop(graceMs = 5000): Promise<void> {
    this.#wanted = false;
    if (this.#timer !== null) clearTimeout(this.#timer);
    const child = this.#child;
    if (child === null) return;
    child.kill('SIGTERM');
    const force = setTimeout(() => child.kill('SIGKILL'), graceMs);
    await this.#exited;
    clearTimeout(force);
  }

  #spawn(): void {
    const [program, ...args] = this.#options.argv;
    if (program === undefined) throw new Error(`${this.name}: empty argv`);
    mkdirSync(dirname(this.logFile), { recursive: true });
    const log = openSync(this.logFile, 'a');
    const child = spawn(program, args, {
      env: { ...this.#options.env },
      stdio: ['ignore', log, log],
    });
    closeSync(log);
    this.#child = child;
    this.#exited = new Promise((resolve) => {
      const ended = (): void => {
        this.#child = null;
        resolve();
        if (this.#wanted && this.#restarts < this.#options.maxRestarts) {
          this.#restarts += 1;
          this.#timer = setTimeout(() => this.#spawn(), this.#options.restartDelayMs);
        }
      };
      child.once('exit', ended);
      child.once('error', ended);
    });
  }
}
