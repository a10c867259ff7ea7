/** What a loaded service on the host feels of an install: latencies with and without one, by the priority of the install. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Case } from './cases.ts';

const SERVICE = join(import.meta.dirname, 'latency-service.ts');
const SETTLE_MS = 1_000;
/** Before each install, as long as one is. */
const QUIET_MS = 3_000;

/** Services have sessions of their own, which the scheduler weighs against each other (sched(7), "autogroup"). */
const asService = { detached: true };

export interface LatencyRow {
  readonly name: string;
  readonly requests: number;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly p999Us: number;
}

const at = (sorted: readonly number[], share: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;

async function latenciesDuring(socket: string, work: () => Promise<void>): Promise<number[]> {
  const load = spawn(process.execPath, [SERVICE, 'load', socket], {
    ...asService,
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  let text = '';
  load.stdout.setEncoding('utf8').on('data', (part: string) => {
    text += part;
  });
  const closed = once(load, 'close');
  await work();
  load.stdin.end();
  await closed;
  return JSON.parse(text) as number[];
}

/** Runs `rounds` rounds: each case once, after a quiet window. `installs` are by name; the first row is the quiet one. */
export async function latencyRows(
  installs: readonly { readonly name: string; readonly one: Case }[],
  rounds: number,
  scratch: string,
): Promise<LatencyRow[]> {
  const socket = join(scratch, 'service.sock');
  const service = spawn(
    process.execPath,
    [SERVICE, 'serve', socket, join(scratch, 'service.log')],
    { ...asService, stdio: ['ignore', 'pipe', 'inherit'] },
  );
  try {
    await once(service.stdout, 'data');
    await sleep(SETTLE_MS);
    const found = new Map<string, number[]>();
    const add = (name: string, latencies: readonly number[]): void => {
      found.set(name, [...(found.get(name) ?? []), ...latencies]);
    };
    for (let i = 0; i < rounds; i += 1) {
      for (const { name, one } of installs) {
        await one.prepare();
        await runScript('sync');
        await sleep(SETTLE_MS);
        add('no install', await latenciesDuring(socket, () => sleep(QUIET_MS)));
        add(name, await latenciesDuring(socket, () => runScript(one.steps[0]?.script ?? 'false')));
        process.stderr.write(`latency: ${name}\n`);
      }
    }
    return [...found].map(([name, latencies]) => {
      const sorted = latencies.toSorted((a, b) => a - b);
      return {
        name,
        requests: sorted.length,
        p50Us: at(sorted, 0.5),
        p99Us: at(sorted, 0.99),
        p999Us: at(sorted, 0.999),
      };
    });
  } finally {
    await end(service);
  }
}

async function runScript(script: string): Promise<void> {
  const child = spawn('bash', ['-eo', 'pipefail', '-c', script], { stdio: 'ignore' });
  const [code] = (await once(child, 'close')) as [number];
  if (code !== 0) throw new Error(`ended with ${code}: ${script}`);
}

async function end(child: ChildProcess): Promise<void> {
  const closed = once(child, 'close');
  child.kill('SIGTERM');
  await closed;
}
