/**
 * Runs one program from a version on hosts without systemd: starts it in a session of its own, finds it again after the
 * agent was killed, starts it again when it dies, stops it by its own pid. The record is a file in the run directory; the
 * truth is /proc, where each process that was started here carries its marks.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { VersionId } from '#/protocol/ids.ts';
import { Problem } from '#/protocol/errors.ts';
import type { SlotId } from '#/agent/ports.ts';
import { MINIMAL_ENVIRONMENT } from './exec.ts';
import {
  findByEnvironment,
  identify,
  isRunning,
  killGroup,
  sessionOf,
  signalProcess,
  type ProcessId,
} from './processes.ts';
import {
  openLog,
  readRecord,
  rotateLog,
  writeRecord,
  type ProcessRecord,
} from './supervisor-files.ts';

/** What runs, or shall run. */
export interface Program {
  readonly slot: SlotId;
  readonly artifactId: VersionId;
  readonly argv: readonly string[];
  readonly cwd: string;
  readonly environment: Readonly<Record<string, string>>;
  readonly stopTimeoutMs: number;
  readonly uid: number | null;
  readonly gid: number | null;
}

export interface SupervisorOptions {
  /** Own directory for the record of the process. */
  readonly runDirectory: string;
  readonly logFile: string;
  readonly logMaxBytes: number;
  readonly restartMaxDelayMs: number;
  readonly onEvent: (event: SupervisorEvent) => void;
}

export type SupervisorEvent =
  | { readonly event: 'started' | 'adopted'; readonly pid: number; readonly artifactId: string }
  | { readonly event: 'died'; readonly pid: number; readonly how: string; readonly delayMs: number }
  | { readonly event: 'stopped'; readonly pid: number; readonly signal: 'SIGTERM' | 'SIGKILL' }
  | { readonly event: 'start-failed'; readonly message: string; readonly delayMs: number };

export interface Supervisor {
  /** The program runs when this returns; anything else that was started here does not. E_ACTIVATION when it cannot start. */
  replaceWith(program: Program): Promise<void>;
  /** Looks after the program if it runs and nobody looks after it yet; starts nothing. */
  adopt(program: Program): void;
  /** Artifacts whose processes run now. */
  running(): readonly string[];
  /** Starts after a death since the last `replaceWith`. */
  restarts(): number;
  /** Stops the program and all that this supervisor started. */
  stop(): Promise<void>;
  /** Forgets the program without stopping it: the next agent adopts it. */
  detach(): void;
}

const OWNER = 'SWITCHBACK_SUPERVISOR';
const ARTIFACT = 'SWITCHBACK_ARTIFACT';
const DIGEST = 'SWITCHBACK_PROGRAM';
const WATCH_INTERVAL_MS = 250;
const FIRST_DELAY_MS = 100;
/** A program that ran so long has recovered: the next pause is short again. */
const STABLE_MS = 60_000;
const POLL_MS = 5;
/** After SIGKILL the kernel gets so long; a process in uninterruptible sleep may take for ever. */
const KILL_WAIT_MS = 10_000;
const STRAY_ROUNDS = 2_000;

interface Running {
  readonly id: ProcessId;
  /** It leads the session: the program itself, not one of its children. */
  readonly isLeader: boolean;
  readonly artifactId: string;
  /** Of the whole program: an artifact that is started otherwise than before is another program. */
  readonly digest: string;
  readonly stopTimeoutMs: number;
}

const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** The supervisor whose mark is its run directory: two agents on one host do not see each other's processes. */
export function createSupervisor(options: SupervisorOptions): Supervisor {
  return new ProcessSupervisor(options);
}

class ProcessSupervisor implements Supervisor {
  readonly #options: SupervisorOptions;
  readonly #record: string;
  #wanted: Program | null = null;
  #current: { readonly id: ProcessId; readonly since: number } | null = null;
  #timer: NodeJS.Timeout | null = null;
  #failures = 0;
  #restarts = 0;
  #isBusy = false;
  /** A start that is under way; whoever changes what is wanted waits for it first. */
  #starting: Promise<void> = Promise.resolve();

  constructor(options: SupervisorOptions) {
    this.#options = options;
    this.#record = join(options.runDirectory, 'process.json');
  }

  async replaceWith(program: Program): Promise<void> {
    prepare(program, this.#options);
    this.#isBusy = true;
    try {
      await this.#replaceWith(program);
    } finally {
      this.#isBusy = false;
    }
  }

  async #replaceWith(program: Program): Promise<void> {
    await this.#settle();
    const digest = digestOf(program);
    const kept = this.#find().find((one) => one.isLeader && one.digest === digest);
    await this.#endAll(kept?.id.pid ?? null);
    this.#wanted = program;
    this.#failures = 0;
    this.#restarts = 0;
    if (kept !== undefined) this.#adopt(program, kept.id);
    else await this.#start(program);
    this.#watch();
  }

  adopt(program: Program): void {
    if (this.#wanted !== null || this.#isBusy) return;
    const digest = digestOf(program);
    const found = this.#find().find((one) => one.isLeader && one.digest === digest);
    if (found === undefined) return;
    this.#wanted = program;
    this.#adopt(program, found.id);
    this.#watch();
  }

  running(): readonly string[] {
    return [...new Set(this.#find().map((one) => one.artifactId))];
  }

  restarts(): number {
    return this.#restarts;
  }

  async stop(): Promise<void> {
    await this.#settle();
    await this.#endAll(null);
    this.#current = null;
  }

  detach(): void {
    this.#unwatch();
    this.#wanted = null;
    this.#current = null;
  }

  /** Nothing is wanted and nothing is being started when this returns. */
  async #settle(): Promise<void> {
    this.#unwatch();
    this.#wanted = null;
    await this.#starting.catch(() => undefined);
    this.#unwatch();
  }

  /** Ends everything that was started here, but not the session of `keptPid`. */
  async #endAll(keptPid: number | null): Promise<void> {
    const isKept = (one: Running): boolean => keptPid !== null && sessionOf(one.id.pid) === keptPid;
    const leaders = this.#find().filter((one) => one.isLeader && !isKept(one));
    await Promise.all(leaders.map((one) => this.#end(one)));
    for (let round = 0; round < STRAY_ROUNDS; round += 1) {
      const strays = this.#find().filter((one) => !isKept(one));
      if (strays.length === 0) return;
      for (const stray of strays) signalProcess(stray.id, 'SIGKILL');
      await wait(POLL_MS);
    }
    throw new Problem('E_ACTIVATION', 'processes of the version before do not end after SIGKILL');
  }

  #adopt(program: Program, id: ProcessId): void {
    this.#current = { id, since: performance.now() };
    writeRecord(this.#record, recordOf(id, program));
    this.#options.onEvent({ event: 'adopted', pid: id.pid, artifactId: program.artifactId });
  }

  async #start(program: Program): Promise<void> {
    const log = openLog(this.#options.logFile);
    const child = spawnProgram(program, this.#options.runDirectory, log);
    if (log !== 'ignore') closeSync(log);
    await spawned(child, program);
    const pid = child.pid ?? 0;
    // A program that died at once is found dead by the watch; its identity then is only a number that nobody signals.
    const id = identify(pid) ?? { pid, startTicks: -1 };
    this.#current = { id, since: performance.now() };
    child.once('exit', (code, signal) => {
      if (this.#current?.id === id) this.#died(signal ?? `exit code ${code}`);
    });
    child.unref();
    writeRecord(this.#record, recordOf(id, program));
    this.#options.onEvent({ event: 'started', pid, artifactId: program.artifactId });
  }

  /** Looks after the program: its life, and the size of its log. */
  #watch(): void {
    this.#timer = setTimeout(() => {
      this.#timer = null;
      if (this.#wanted === null) return;
      rotateLog(this.#options.logFile, this.#options.logMaxBytes);
      if (this.#current !== null && !isRunning(this.#current.id)) this.#died('it is gone');
      else this.#watch();
    }, WATCH_INTERVAL_MS);
    this.#timer.unref();
  }

  #unwatch(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  #died(how: string): void {
    const dead = this.#current;
    if (dead === null || this.#wanted === null) return;
    this.#unwatch();
    this.#current = null;
    // Children that outlived their parent would keep its ports.
    killGroup(dead.id.pid);
    if (performance.now() - dead.since > STABLE_MS) this.#failures = 0;
    const delayMs = this.#nextDelayMs();
    this.#options.onEvent({ event: 'died', pid: dead.id.pid, how, delayMs });
    this.#startLater(delayMs);
  }

  #nextDelayMs(): number {
    const delayMs = Math.min(FIRST_DELAY_MS * 2 ** this.#failures, this.#options.restartMaxDelayMs);
    this.#failures = Math.min(this.#failures + 1, 30);
    return delayMs;
  }

  #startLater(delayMs: number): void {
    this.#timer = setTimeout(() => {
      this.#timer = null;
      const program = this.#wanted;
      if (program === null) return;
      this.#restarts += 1;
      this.#starting = this.#start(program).then(
        () => {
          if (this.#wanted === program && this.#timer === null) this.#watch();
        },
        (error: unknown) => {
          const nextMs = this.#nextDelayMs();
          const message = error instanceof Error ? error.message : String(error);
          this.#options.onEvent({ event: 'start-failed', message, delayMs: nextMs });
          if (this.#wanted === program) this.#startLater(nextMs);
        },
      );
    }, delayMs);
    this.#timer.unref();
  }

  /** All that this supervisor started: by mark, and by the record for programs that overwrite their environment. */
  #find(): readonly Running[] {
    const found = new Map<number, Running>();
    for (const one of findByEnvironment(OWNER, this.#options.runDirectory)) {
      const { environment, ...id } = one;
      found.set(id.pid, {
        id,
        isLeader: sessionOf(id.pid) === id.pid,
        artifactId: environment.get(ARTIFACT) ?? '',
        digest: environment.get(DIGEST) ?? '',
        stopTimeoutMs: Number(environment.get('SWITCHBACK_STOP_TIMEOUT_MS')) || 10_000,
      });
    }
    const record = readRecord(this.#record);
    const id = record === null ? null : { pid: record.pid, startTicks: record.startTicks };
    if (record !== null && id !== null && !found.has(id.pid) && isRunning(id)) {
      found.set(record.pid, { ...record, id, isLeader: true });
    }
    return [...found.values()];
  }

  async #end(one: Running): Promise<void> {
    signalProcess(one.id, 'SIGTERM');
    let signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM';
    if (!(await gone(one.id, one.stopTimeoutMs))) {
      signal = 'SIGKILL';
      signalProcess(one.id, 'SIGKILL');
      if (!(await gone(one.id, KILL_WAIT_MS))) {
        throw new Problem('E_ACTIVATION', `process ${one.id.pid} does not end after SIGKILL`, {
          pid: one.id.pid,
        });
      }
    }
    killGroup(one.id.pid);
    this.#options.onEvent({ event: 'stopped', pid: one.id.pid, signal });
  }
}

function digestOf(program: Program): string {
  return createHash('sha256').update(JSON.stringify(program)).digest('hex').slice(0, 32);
}

const recordOf = (id: ProcessId, program: Program): ProcessRecord => ({
  v: 1,
  ...id,
  artifactId: program.artifactId,
  digest: digestOf(program),
  stopTimeoutMs: program.stopTimeoutMs,
});

/** All that can fail or take time before the old version is stopped. */
function prepare(program: Program, options: SupervisorOptions): void {
  const executable = program.argv[0] ?? '';
  const file = executable.startsWith('/') ? executable : null;
  try {
    mkdirSync(options.runDirectory, { recursive: true, mode: 0o700 });
    if (!statSync(program.cwd).isDirectory()) throw new Error(`${program.cwd}: not a directory`);
    if (file !== null && (statSync(file).mode & 0o111) === 0)
      throw new Error(`${file}: not executable`);
  } catch (cause) {
    throw new Problem('E_ACTIVATION', `prepare to start ${executable}`, {}, { cause });
  }
}

/** The whole environment of a program, with the marks by which it is found again. */
export function programEnvironment(program: Program, owner: string): Record<string, string> {
  return {
    ...MINIMAL_ENVIRONMENT,
    ...program.environment,
    [OWNER]: owner,
    [ARTIFACT]: program.artifactId,
    [DIGEST]: digestOf(program),
    SWITCHBACK_SLOT: program.slot,
    SWITCHBACK_STOP_TIMEOUT_MS: String(program.stopTimeoutMs),
  };
}

function spawnProgram(program: Program, owner: string, log: number | 'ignore'): ChildProcess {
  const [file = '', ...args] = program.argv;
  return spawn(file, args, {
    cwd: program.cwd,
    env: programEnvironment(program, owner),
    stdio: ['ignore', log, log],
    detached: true,
    ...(program.uid === null ? {} : { uid: program.uid }),
    ...(program.gid === null ? {} : { gid: program.gid }),
  });
}

function spawned(child: ChildProcess, program: Program): Promise<void> {
  return new Promise((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', (cause) =>
      reject(new Problem('E_ACTIVATION', `start ${program.argv[0]}`, {}, { cause })),
    );
  });
}

async function gone(id: ProcessId, timeoutMs: number): Promise<boolean> {
  const endMs = performance.now() + timeoutMs;
  while (isRunning(id)) {
    if (performance.now() >= endMs) return false;
    await wait(POLL_MS);
  }
  return true;
}
