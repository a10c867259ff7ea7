/** The agent as it is shipped, as a process with a disk of its own, started and ended as a service manager would. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Far more than anything takes, also on a machine that does much else. */
const TIMEOUT_MS = 240_000;
const LOOK_EVERY_MS = 25;

export interface Start {
  /** Milliseconds by which its clock is off. */
  readonly clockOffMs?: number;
  readonly env?: Readonly<Record<string, string>>;
  /** A program that starts it, in the place of Node. */
  readonly launcher?: string;
}

export class AgentProcess {
  readonly program: string;
  readonly directory: string;
  #child: ChildProcess | null = null;
  #exited: Promise<void> = Promise.resolve();

  /** `program`: agent.mjs. `directory` is there. */
  constructor(program: string, directory: string) {
    this.program = program;
    this.directory = directory;
  }

  /** What survives a power cut. */
  get disk(): string {
    return join(this.directory, 'disk');
  }
  get stateDirectory(): string {
    return join(this.disk, 'state');
  }
  get slots(): string {
    return join(this.disk, 'app');
  }
  get isRunning(): boolean {
    return this.#child?.exitCode === null && this.#child.signalCode === null;
  }
  get #config(): string {
    return join(this.directory, 'agent.toml');
  }

  log(): string {
    return readFileSync(join(this.directory, 'agent.log'), 'utf8');
  }

  /** Writes its settings. `more`: lines below them. */
  configure(more = ''): void {
    mkdirSync(this.disk, { recursive: true });
    const machine = Buffer.from(this.directory).toString('hex').slice(-32);
    writeFileSync(join(this.directory, 'machine-id'), `${machine}\n`);
    const settings = `[state]
directory = "${this.stateDirectory}"
run_directory = "${join(this.directory, 'run')}"
[host]
class = "web"
machine_id_file = "${join(this.directory, 'machine-id')}"
[slots]
root = "${this.slots}"
reserve_bytes = 0
[local]
socket = "${join(this.directory, 'agent.sock')}"
[poll]
interval_ms = 1000
min_interval_ms = 100
first_spread_ms = 0
[download]
workers = 1
${more}`;
    writeFileSync(this.#config, settings);
  }

  /** Runs one of its commands; resolves with what it printed. */
  command(...args: readonly string[]): Promise<string> {
    return new Promise((resolve, reject) => {
      const argv = [this.program, ...args, '--config', this.#config];
      execFile(process.execPath, argv, { timeout: TIMEOUT_MS }, (error, stdout, stderr) =>
        error === null ? resolve(stdout) : reject(new Error(`${args[0]}: ${stderr}${stdout}`)),
      );
    });
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  start({ clockOffMs = 0, env = {}, launcher }: Start = {}): void {
    const shift = join(this.directory, 'clock.mjs');
    writeFileSync(shift, `const now = Date.now; Date.now = () => now() + ${clockOffMs};\n`);
    const log = openSync(join(this.directory, 'agent.log'), 'w');
    const wrong = clockOffMs === 0 ? [] : ['--import', shift];
    const argv = ['run', '--config', this.#config];
    const [command, args] =
      launcher === undefined
        ? [process.execPath, [...wrong, this.program, ...argv]]
        : [launcher, argv];
    const child = spawn(command, args, {
      env: { PATH: process.env['PATH'] ?? '', HOME: this.directory, ...env },
      stdio: ['ignore', log, log],
      detached: true,
    });
    closeSync(log);
    this.#child = child;
    this.#exited = new Promise((resolve) => {
      child.once('exit', () => resolve());
      child.once('error', () => resolve());
    });
  }

  /** Looks until `isDone` answers. Throws when the agent ends, or nothing comes. `told`: for the message then. */
  async until<T>(
    isDone: () => Promise<T | null> | T | null,
    more: { readonly meanwhile?: (() => void) | null; readonly told?: () => string } = {},
  ): Promise<T> {
    const deadline = performance.now() + TIMEOUT_MS;
    for (;;) {
      const answer = await isDone();
      if (answer !== null) return answer;
      const what = (): string => `${more.told?.() ?? ''} ${this.log().slice(-3000)}`;
      if (!this.isRunning) throw new Error(`the agent ended: ${what()}`);
      if (performance.now() > deadline) throw new Error(`not within ${TIMEOUT_MS} ms: ${what()}`);
      more.meanwhile?.();
      const pauseMs = typeof more.meanwhile === 'function' ? 1 : LOOK_EVERY_MS;
      await new Promise((done) => setTimeout(done, pauseMs));
    }
  }

  /** Starts it and kills it after so long, as a power cut would. */
  async killedAfter(delayMs: number): Promise<void> {
    this.start();
    await new Promise((done) => setTimeout(done, delayMs));
    const pid = this.#child?.pid;
    if (pid !== undefined && this.isRunning) process.kill(-pid, 'SIGKILL');
    await this.#exited;
    this.#child = null;
  }

  /** SIGTERM, and waits for the end. */
  async stop(): Promise<void> {
    const child = this.#child;
    if (child === null) return;
    child.kill('SIGTERM');
    const timer = setTimeout(() => child.kill('SIGKILL'), 30_000);
    await this.#exited;
    clearTimeout(timer);
    this.#child = null;
  }
}
