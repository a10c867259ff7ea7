/** A host without control: the shipped agent as a process of its own, told what to do over its socket. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, openSync, closeSync, writeFileSync } from 'node:fs';
import { readdir, readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { createHash } from 'node:crypto';
import { askAgent } from '#/agent/cli/socket-client.ts';
import type { AttemptEnd, LocalRequest } from '#/agent/local.ts';
import type { StatusView } from '#/agent/local-view.ts';
import { isProblem } from '#/protocol/errors.ts';
import { CLASS, type Releases } from './releases.ts';

/** What a host keeps, and where: `disk` survives a power cut, `volatile` does not. */
export interface HostPlaces {
  readonly disk: string;
  readonly volatile: string;
}

export interface LoneHostOptions extends HostPlaces {
  /** dist/agent.mjs. */
  readonly program: string;
  readonly releases: Releases;
  /** An attempt that a fault holds up is left where it is after this. */
  readonly orderTimeoutMs?: number;
  /** A directory in which Node keeps what it compiled. */
  readonly compileCache?: string;
}

/** A status is waited for so long: far more than any start takes, also on a loaded machine. */
const ANSWER_TIMEOUT_MS = 60_000;
const ASK_EVERY_MS = 15;
/** Far more than an attempt takes, also on a loaded machine. */
const ORDER_TIMEOUT_MS = 60_000;

type Order = Extract<LocalRequest, { ask: 'order' }>['command'];

/** Agents that run, with what traces them: process groups of their own. None outlives this process when it is interrupted. */
const groups = new Set<number>();
process.once('exit', () => {
  for (const group of groups) {
    try {
      process.kill(-group, 'SIGKILL');
    } catch {
      // Gone already.
    }
  }
});

export class LoneHost {
  readonly #options: LoneHostOptions;
  #child: ChildProcess | null = null;
  #exited: Promise<void> = Promise.resolve();

  constructor(options: LoneHostOptions) {
    this.#options = options;
  }

  get slotsRoot(): string {
    return join(this.#options.disk, 'app');
  }
  get stateDirectory(): string {
    return join(this.#options.disk, 'state');
  }
  get #socket(): string {
    return join(this.#options.volatile, 'agent.sock');
  }

  /** Starts the agent; `wrapper` is put before its command line, for example strace. */
  start(wrapper: readonly string[] = []): void {
    const { program, volatile, releases, compileCache } = this.#options;
    mkdirSync(volatile, { recursive: true, mode: 0o700 });
    const config = join(volatile, 'agent.toml');
    writeFileSync(
      config,
      `[state]
directory = "${this.stateDirectory}"
run_directory = "${volatile}/run"
[host]
class = "${CLASS}"
[slots]
root = "${this.slotsRoot}"
reserve_bytes = 0
[local]
socket = "${this.#socket}"
[trust]
anchor_directory = "${releases.anchorDirectory}"
[download]
workers = 1
`,
    );
    const node = [process.execPath, '--import', join(import.meta.dirname, 'one-thread.mjs')];
    const argv = [...wrapper, ...node, program, 'run', '--config', config];
    const log = openSync(join(volatile, 'agent.log'), 'a');
    const child = spawn(argv[0] ?? '', argv.slice(1), {
      env: {
        PATH: process.env['PATH'] ?? '',
        HOME: volatile,
        ...(compileCache === undefined ? {} : { NODE_COMPILE_CACHE: compileCache }),
      },
      stdio: ['ignore', log, log],
      detached: true,
    });
    closeSync(log);
    this.#child = child;
    const group = child.pid;
    if (group !== undefined) groups.add(group);
    this.#exited = new Promise((resolve) => {
      child.once('exit', () => {
        if (group !== undefined) groups.delete(group);
        resolve();
      });
      child.once('error', () => resolve());
    });
  }

  get isRunning(): boolean {
    return this.#child !== null && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Asks until the agent answers. Null when it ended before. */
  async status(): Promise<StatusView | null> {
    const until = performance.now() + ANSWER_TIMEOUT_MS;
    while (performance.now() < until) {
      if (!this.isRunning) return null;
      if (existsSync(this.#socket)) {
        try {
          return await askAgent<StatusView>(this.#socket, { ask: 'status' });
        } catch (error) {
          if (!isProblem(error, 'E_UNAVAILABLE') && !isReset(error)) throw error;
        }
      }
      await pause();
    }
    throw new Error(`the agent does not answer within ${ANSWER_TIMEOUT_MS} ms`);
  }

  /** The status once nothing is under way any more; null when the agent ended before, or never rests. */
  async rest(timeoutMs = ANSWER_TIMEOUT_MS): Promise<StatusView | null> {
    const until = performance.now() + timeoutMs;
    while (performance.now() < until) {
      const status = await this.status();
      if (status === null) return null;
      const isDone = status.state === 'idle' && status.step === 'settled';
      // Before it rests in needs-attention it tidies up, and takes no order.
      const asks = status.state === 'needs-attention' && status.step === 'rest';
      if (isDone || asks) return status;
      await pause();
    }
    return null;
  }

  /** As rest, once the operator has told it to go on: it asked for attention until then. */
  async restAfterHelp(timeoutMs: number): Promise<StatusView | null> {
    const until = performance.now() + timeoutMs;
    while (performance.now() < until) {
      const status = await this.rest(timeoutMs);
      if (status?.state !== 'needs-attention') return status;
      await pause();
    }
    return await this.status();
  }

  /** Gives an order and waits for the end of its attempt; null when the agent died, refused, or did not end it in time. */
  async order(command: Order): Promise<AttemptEnd | null> {
    try {
      const end = askAgent<AttemptEnd>(this.#socket, { ask: 'order', wait: true, command });
      const { orderTimeoutMs = ORDER_TIMEOUT_MS } = this.#options;
      return await Promise.race([end, after(orderTimeoutMs)]);
    } catch (error) {
      if (isProblem(error) || isReset(error)) return null;
      throw error;
    }
  }

  /** Gives an order and does not wait for what comes of it. */
  async tell(command: Order): Promise<void> {
    await askAgent(this.#socket, { ask: 'order', wait: false, command });
  }

  install(file: string): Promise<AttemptEnd | null> {
    return this.order({ kind: 'install-file', path: file });
  }

  /** Ends the agent and whatever it started in its process group, at once. */
  async kill(): Promise<void> {
    const pid = this.#child?.pid;
    if (pid !== undefined) {
      try {
        process.kill(-pid, 'SIGKILL');
      } catch {
        // The whole group has ended already.
      }
    }
    await this.#exited;
    this.#child = null;
  }

  /** SIGTERM, and waits for the end. */
  async stop(): Promise<void> {
    this.#child?.kill('SIGTERM');
    await this.#exited;
    this.#child = null;
  }

  /** The artifact that `current` names, and one digest over all that is in it; null when there is no link. */
  async live(): Promise<{ readonly artifactId: string; readonly digest: string } | null> {
    const target = await readlink(join(this.slotsRoot, 'current')).catch(() => null);
    if (target === null) return null;
    const artifactId = target.replace('releases/', '');
    return { artifactId, digest: await treeDigest(join(this.slotsRoot, target)) };
  }
}

/** One digest over names and contents of a tree; `gone` when it is not there. */
export async function treeDigest(root: string): Promise<string> {
  const hash = createHash('sha256');
  try {
    const entries = await readdir(root, { recursive: true, withFileTypes: true });
    const paths = entries
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name))
      .toSorted();
    for (const path of paths) {
      hash.update(`${path.slice(root.length)}\0`);
      hash.update(await readFile(path));
    }
  } catch (error) {
    return `gone: ${(error as NodeJS.ErrnoException).code}`;
  }
  return hash.digest('hex');
}

function isReset(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException).code ?? '';
  return ['ECONNRESET', 'EPIPE', 'UND_ERR_SOCKET', 'ERR_STREAM_PREMATURE_CLOSE'].includes(code);
}

function after(ms: number): Promise<null> {
  return new Promise((resolve) => {
    setTimeout(() => resolve(null), ms).unref();
  });
}

const pause = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, ASK_EVERY_MS));
