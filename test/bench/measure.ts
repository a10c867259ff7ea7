/** Runs one command and says what it took, its children included: wall time, CPU, and the peak of the memory of all of them. */
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';

export interface Measured {
  readonly wallMs: number;
  /** User and system time of the command and of every child that was waited for. */
  readonly cpuMs: number;
  /** Proportional set size of the whole process tree, sampled: shared pages count once. */
  readonly peakMb: number;
  readonly stdout: string;
}

const SAMPLE_MS = 60;
const STDERR_MAX = 4096;

/** The shell says CPU times of all its children at the end; the command runs in it with `pipefail`. Throws when it fails. */
export async function measure(script: string): Promise<Measured> {
  const startedMs = performance.now();
  const child = spawn('bash', ['-c', `set -eo pipefail; ${script}\ntimes >&2`], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: process.env['PATH'] ?? '/usr/bin:/bin', HOME: '/root', LC_ALL: 'C' },
  });
  let stdout = '';
  let stderr = '';
  let peakKb = 0;
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr = `${stderr}${text}`.slice(-STDERR_MAX);
  });
  const timer = setInterval(() => {
    if (child.pid !== undefined) peakKb = Math.max(peakKb, treeKb(child.pid));
  }, SAMPLE_MS);
  let wallMs = 0;
  try {
    const code = await new Promise((resolve, reject) => {
      child.on('error', reject);
      child.on('close', (exit) => {
        wallMs = performance.now() - startedMs;
        resolve(exit);
      });
    });
    if (code !== 0) throw new Error(`ended with ${String(code)}: ${script}\n${stderr}`);
  } finally {
    clearInterval(timer);
  }
  return { wallMs, cpuMs: cpuMs(stderr), peakMb: (peakKb * 1024) / 1e6, stdout };
}

/** The last line of `times`: user and system time of the children. */
function cpuMs(stderr: string): number {
  const last = stderr.trim().split('\n').at(-1) ?? '';
  return [...last.matchAll(/(\d+)m([\d.]+)s/g)].reduce(
    (sum, [, minutes, seconds]) => sum + (Number(minutes) * 60 + Number(seconds)) * 1000,
    0,
  );
}

function treeKb(root: number): number {
  let sum = 0;
  const waiting = [root];
  for (let pid = waiting.pop(); pid !== undefined; pid = waiting.pop()) {
    try {
      const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1');
      sum += Number(/^Pss:\s+(\d+)/m.exec(rollup)?.[1] ?? 0);
      for (const thread of readdirSync(`/proc/${pid}/task`)) {
        const children = readFileSync(`/proc/${pid}/task/${thread}/children`, 'latin1');
        waiting.push(...children.trim().split(' ').filter(Boolean).map(Number));
      }
    } catch {
      // Ended since.
    }
  }
  return sum;
}
