/**
 * Runs programs: never a shell, own session, a time limit that ends everything the program started, bounded output.
 * All that the agent starts goes through here, or through the supervisor (F43, H06).
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import type { Readable } from 'node:stream';
import { findByEnvironment, killGroup, signalProcess } from './processes.ts';

export interface ExecRequest {
  readonly argv: readonly string[];
  readonly timeoutMs: number;
  readonly cwd?: string;
  /** Variables beside the minimal environment. The agent's own environment is never passed on. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Of stdout and of stderr each; the end is kept. */
  readonly maxOutputBytes?: number;
  /** Time between SIGTERM and SIGKILL at the limit; 0: SIGKILL at once. */
  readonly killGraceMs?: number;
  /** What the program left running: ended with it (default), or left alone because it is a service that was started. */
  readonly leftovers?: 'kill' | 'keep';
  /** Output goes to this file instead of a pipe: a service that was started must not die of a pipe that nobody reads. */
  readonly outputFile?: string;
  readonly signal?: AbortSignal;
}

export interface ExecResult {
  /** null: ended by a signal or not started. */
  readonly code: number | null;
  readonly signal: string | null;
  /** `timeout` and `aborted`: it was ended by us. */
  readonly ended: 'exit' | 'timeout' | 'aborted' | 'not-started';
  readonly stdout: string;
  readonly stderr: string;
  readonly durationMs: number;
}

export interface Exec {
  /** Runs one program to its end. Never throws for what the program does; `not-started` has the reason in stderr. */
  run(request: ExecRequest): Promise<ExecResult>;
}

/** Marks all descendants, so that those which left the session are found too. */
const MARK = 'SWITCHBACK_EXEC';
const OUTPUT_MAX_BYTES = 16 * 1024;
/** How long the output of a program that has ended may still come. */
const DRAIN_MS = 500;
/** A fork bomb gets so many rounds of SIGKILL. */
const KILL_ROUNDS = 50;

export const MINIMAL_ENVIRONMENT: Readonly<Record<string, string>> = {
  PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  LANG: 'C.UTF-8',
  HOME: '/',
};

/** The exec layer of a host. `monotonicMs` only measures durations. */
export function createExec(monotonicMs: () => number = () => performance.now()): Exec {
  return { run: (request) => runProgram(request, monotonicMs) };
}

async function runProgram(request: ExecRequest, monotonicMs: () => number): Promise<ExecResult> {
  const mark = randomBytes(8).toString('hex');
  const startMs = monotonicMs();
  const limit = request.maxOutputBytes ?? OUTPUT_MAX_BYTES;
  const output =
    request.outputFile === undefined ? null : openSync(request.outputFile, 'a+', 0o600);
  const outputStart = output === null ? 0 : fstatSync(output).size;
  const child = start(request, mark, output);
  const stdout = keepEnd(child.stdout, limit);
  const stderr = keepEnd(child.stderr, limit);
  let ended: ExecResult['ended'] = 'exit';
  const timers: NodeJS.Timeout[] = [];
  const end = (why: 'timeout' | 'aborted'): void => {
    if (ended !== 'exit') return;
    ended = why;
    const graceMs = request.killGraceMs ?? 0;
    if (graceMs === 0) killMarked(child, mark);
    else {
      terminate(child);
      timers.push(setTimeout(() => killMarked(child, mark), graceMs));
    }
  };
  timers.push(setTimeout(() => end('timeout'), request.timeoutMs));
  const onAbort = (): void => end('aborted');
  request.signal?.addEventListener('abort', onAbort, { once: true });
  if (request.signal?.aborted === true) onAbort();
  const exit = await exitOf(child);
  for (const timer of timers) clearTimeout(timer);
  request.signal?.removeEventListener('abort', onAbort);
  if (request.leftovers !== 'keep' || ended !== 'exit') killMarked(child, mark);
  await drained(child);
  const written = output === null ? '' : readEnd(output, outputStart, limit);
  if (output !== null) closeSync(output);
  return {
    code: exit.code,
    signal: exit.signal,
    ended: exit.failure === null ? ended : 'not-started',
    stdout: output === null ? stdout() : written,
    stderr: exit.failure ?? stderr(),
    durationMs: Math.round(monotonicMs() - startMs),
  };
}

/** What was appended to the file since `from`, its last `limit` bytes. */
function readEnd(file: number, from: number, limit: number): string {
  const begin = Math.max(from, fstatSync(file).size - limit);
  const buffer = Buffer.alloc(limit);
  return buffer.toString('utf8', 0, readSync(file, buffer, 0, limit, begin));
}

function start(request: ExecRequest, mark: string, output: number | null): ChildProcess {
  const [program = '', ...args] = request.argv;
  const sink = output ?? 'pipe';
  return spawn(program, args, {
    cwd: request.cwd ?? '/',
    // A service that stays must not carry the mark of the command that started it: it would be found and killed.
    env: {
      ...MINIMAL_ENVIRONMENT,
      ...request.environment,
      ...(request.leftovers === 'keep' ? {} : { [MARK]: mark }),
    },
    stdio: ['ignore', sink, sink],
    detached: true,
    shell: false,
  });
}

function exitOf(
  child: ChildProcess,
): Promise<{ code: number | null; signal: string | null; failure: string | null }> {
  return new Promise((resolve) => {
    child.once('error', (error: NodeJS.ErrnoException) => {
      const failure = `start ${child.spawnfile}: ${error.code ?? error.message}`;
      if (child.pid === undefined) resolve({ code: null, signal: null, failure });
    });
    child.once('exit', (code, signal) => resolve({ code, signal, failure: null }));
  });
}

/** Collects a stream but keeps only its last `limit` bytes. */
function keepEnd(stream: Readable | null, limit: number): () => string {
  let kept = Buffer.alloc(0);
  stream?.on('data', (piece: Buffer) => {
    kept = Buffer.concat([kept, piece]);
    if (kept.byteLength > limit) kept = Buffer.from(kept.subarray(kept.byteLength - limit));
  });
  stream?.on('error', () => undefined);
  return () => kept.toString('utf8');
}

function terminate(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, 'SIGTERM');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** SIGKILL for the group and for each marked process, until none is found: a program may fork while it is hunted. */
function killMarked(child: ChildProcess, mark: string): void {
  if (child.pid === undefined) return;
  killGroup(child.pid);
  for (let round = 0; round < KILL_ROUNDS; round += 1) {
    const found = findByEnvironment(MARK, mark);
    if (found.length === 0) return;
    for (const stray of found) signalProcess(stray, 'SIGKILL');
  }
}

/** Waits for the end of the output, but not for a stray that keeps the pipe open. */
function drained(child: ChildProcess): Promise<void> {
  const streams = [child.stdout, child.stderr].filter((stream) => stream !== null);
  if (streams.every((stream) => stream.closed || stream.destroyed)) return Promise.resolve();
  return new Promise((resolve) => {
    const finish = (): void => {
      clearTimeout(timer);
      for (const stream of streams) stream.destroy();
      resolve();
    };
    const timer = setTimeout(finish, DRAIN_MS);
    let open = streams.filter((stream) => !stream.closed).length;
    for (const stream of streams) {
      stream.once('close', () => {
        open -= 1;
        if (open === 0) finish();
      });
    }
  });
}

/** One line about how a program ended, for people: `exit code 3: last line of its output`. */
export function describeExit(result: ExecResult): string {
  const output = `${result.stdout}\n${result.stderr}`.trim().split('\n').slice(-3).join(' | ');
  const tail = output === '' ? '' : `: ${output}`;
  const how = {
    exit: result.signal === null ? `exit code ${result.code}` : `ended by ${result.signal}`,
    timeout: `killed after ${result.durationMs} ms`,
    aborted: 'stopped by us',
    'not-started': 'not started',
  }[result.ended];
  return `${how}${tail}`.slice(0, 1024);
}
