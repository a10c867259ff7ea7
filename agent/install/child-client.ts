/** Runs a task in the install child and ends the child with it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Problem } from '#/protocol/errors.ts';
import type { FromChild, ToChild } from './child-messages.ts';
import { problemData, problemFrom } from './jobs.ts';
import { type InstallPriority, sessionNice, withPriority } from './priority.ts';
import type { RequestHeaders } from './source.ts';
import type {
  DownloadOutcome,
  DownloadTask,
  ReadBackOutcome,
  ReadBackTask,
  TaskProgress,
} from './task.ts';
import { entryBeside } from './world.ts';

/** After an abort the child has so long to stop at a safe point. */
const ABORT_GRACE_MS = 5_000;
const STDERR_MAX_BYTES = 8 * 1024;
/**
 * Young generation small: the work is in buffers, not in objects. Those buffers make V8 think of its old generation, which is
 * small too: marking it bit by bit and on other threads took 8 % of the processor time of an install.
 */
const NODE_FLAGS = [
  '--max-old-space-size=96',
  '--max-semi-space-size=1',
  '--no-incremental-marking',
  '--no-concurrent-marking',
  '--no-warnings',
];

export interface ChildClient {
  download(
    task: DownloadTask,
    onProgress: (progress: TaskProgress) => void,
    signal: AbortSignal,
  ): Promise<DownloadOutcome>;
  readBack(
    task: ReadBackTask,
    onProgress: (progress: TaskProgress) => void,
    signal: AbortSignal,
  ): Promise<ReadBackOutcome>;
}

export interface ChildOptions {
  readonly priority: InstallPriority;
  readonly requestHeaders: RequestHeaders | null;
  /** Hears the pid of each child: for tests that kill it, and for priorities. */
  readonly onStart?: (pid: number) => void;
}

/** Problems of the tasks come through as they are; E_INTERRUPTED when the child is killed. */
export function createChildClient(options: ChildOptions): ChildClient {
  return {
    async download(task, onProgress, signal) {
      const asksForHeaders = options.requestHeaders !== null;
      const last = await converse(
        options,
        { do: 'download', task, asksForHeaders },
        onProgress,
        signal,
      );
      if (last.is !== 'downloaded') throw new Error(`unexpected answer ${last.is}`);
      return last.outcome;
    },
    async readBack(task, onProgress, signal) {
      const last = await converse(options, { do: 'readBack', task }, onProgress, signal);
      if (last.is !== 'readBack') throw new Error(`unexpected answer ${last.is}`);
      return last.outcome;
    },
  };
}

type Last = Extract<FromChild, { is: 'downloaded' | 'readBack' | 'failed' | 'aborted' }>;

async function converse(
  options: ChildOptions,
  request: ToChild,
  onProgress: (progress: TaskProgress) => void,
  signal: AbortSignal,
): Promise<Last> {
  signal.throwIfAborted();
  const child = start(options.priority);
  if (child.pid !== undefined) options.onStart?.(child.pid);
  let killTimer: NodeJS.Timeout | null = null;
  const onAbort = (): void => {
    say(child, { do: 'abort' });
    killTimer = setTimeout(() => child.kill('SIGKILL'), ABORT_GRACE_MS);
  };
  signal.addEventListener('abort', onAbort);
  try {
    const ended = untilEnd(child, options, onProgress);
    say(child, request);
    if (signal.aborted) onAbort();
    const last = await ended;
    signal.throwIfAborted();
    if (last.is === 'failed') throw problemFrom(last.problem);
    if (last.is === 'aborted') throw interrupted('was told to stop');
    return last;
  } finally {
    signal.removeEventListener('abort', onAbort);
    if (killTimer !== null) clearTimeout(killTimer);
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
  }
}

function start(priority: InstallPriority): ChildProcess {
  const command = [process.execPath, ...NODE_FLAGS, fileURLToPath(entryBeside('child'))];
  const [program = process.execPath, ...rest] = withPriority(command, priority, existsSync);
  // Nothing of the agent's environment reaches the child (H11).
  const child = spawn(program, rest, {
    // A session of its own, for its priority.
    detached: true,
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    serialization: 'advanced',
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C', UV_THREADPOOL_SIZE: '2' },
    cwd: '/',
  });
  if (child.pid !== undefined) giveWay(child.pid, sessionNice[priority.cpu]);
  return child;
}

function giveWay(pid: number, nice: number): void {
  try {
    writeFileSync(`/proc/${pid}/autogroup`, String(nice));
  } catch {
    // A kernel without autogroups, or a child that is gone already.
  }
}

function untilEnd(
  child: ChildProcess,
  options: ChildOptions,
  onProgress: (progress: TaskProgress) => void,
): Promise<Last> {
  return new Promise((resolve, reject) => {
    let last: Last | null = null;
    let stderr = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      stderr = `${stderr}${text}`.slice(-STDERR_MAX_BYTES);
    });
    child.on('message', (message: FromChild) => {
      switch (message.is) {
        case 'progress':
          onProgress(message.progress);
          return;
        case 'headers':
          void answerHeaders(child, options.requestHeaders, message);
          return;
        case 'downloaded':
        case 'readBack':
        case 'failed':
        case 'aborted':
          last = message;
      }
    });
    child.on('error', (error) => reject(interrupted(error.message)));
    child.on('close', (code, signal) => {
      if (last !== null) resolve(last);
      else if (signal !== null) reject(interrupted(`was ended by ${signal}`));
      // It ends itself with 0 only after an answer, or because this process is going away.
      else if (code === 0) reject(interrupted('ended without an answer'));
      else reject(new Error(`install child ended with ${code}: ${stderr}`));
    });
  });
}

async function answerHeaders(
  child: ChildProcess,
  requestHeaders: RequestHeaders | null,
  { question, url, refresh }: Extract<FromChild, { is: 'headers' }>,
): Promise<void> {
  try {
    const headers = (await requestHeaders?.({ method: 'GET', url }, refresh)) ?? {};
    say(child, { do: 'headers', question, headers });
  } catch (error) {
    const problem = problemData(error);
    if (problem === null) throw error;
    say(child, { do: 'headersFailed', question, problem });
  }
}

/** A child that is gone cannot be told anything; its end is noticed by `close`. */
function say(child: ChildProcess, message: ToChild): void {
  if (child.connected) child.send(message, () => undefined);
}

function interrupted(what: string): Problem {
  return new Problem('E_INTERRUPTED', `the install child ${what}`);
}
