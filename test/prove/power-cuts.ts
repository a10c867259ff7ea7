/**
 * T4: power cuts under the shipped agent on real file systems. The disk is a loop device on a file that logs each write and flush
 * (test/support/power-disk); after a cut it holds everything up to the last flush and any part of what was written after it.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  type Family,
  type FamilyOptions,
  type Finding,
  forEachParallel,
  type Outcome,
  type Scale,
} from './family.ts';

const fileSystems = ['ext4', 'xfs', 'btrfs'] as const;
/** Each on a disk of its own: none waits for another, and two processors have something to do while one syncs. */
const PARALLEL = fileSystems.length;

/** What a run on one file system prints. */
export interface CutsOutcome extends Outcome {
  /** Disks that differ in what can be seen of them: on these it was started again. */
  readonly differing: number;
}

interface Subject {
  /** The program that records and cuts, beside this file. */
  readonly program: string;
  /** Cuts per file system. */
  readonly cuts: Readonly<Record<Scale, number>>;
}
const agent: Subject = { program: 'power-cuts-run.ts', cuts: { ci: 34, full: 500, long: 2000 } };
const control: Subject = {
  program: 'control-cuts-run.ts',
  cuts: { ci: 100, full: 330, long: 1000 },
};
const MEMORY = '/dev/shm';
/** For each file system its log, its versions and some images, which are mostly holes. */
const ROOM_BYTES = 2 * 1024 * 1024 * 1024;
/** Far above what a run takes; a file system that hangs is ended by it. */
const LIMIT_MS = 90 * 60_000;

export const powerCuts: Family = {
  name: 'power cuts',
  usesAgent: true,
  what: 'the shipped agent on ext4, XFS and btrfs, the power cut at any write',
  run: (options) => runOnAll(agent, options),
};

export const controlCuts: Family = {
  name: 'control store',
  what: 'the store of control on ext4, XFS and btrfs, the power cut at any write',
  run: (options) => runOnAll(control, options),
};

async function runOnAll(subject: Subject, options: FamilyOptions): Promise<Outcome> {
  const outcomes: Outcome[] = [];
  await forEachParallel(fileSystems, PARALLEL, async (fileSystem) => {
    outcomes.push(await runOn(subject, fileSystem, options));
  });
  return {
    cases: outcomes.reduce((sum, one) => sum + one.cases, 0),
    states: outcomes.reduce((sum, one) => sum + one.states, 0),
    findings: outcomes.flatMap((one) => one.findings),
  };
}

async function runOn(
  subject: Subject,
  fileSystem: (typeof fileSystems)[number],
  { agentProgram, scale, seed, say }: FamilyOptions,
): Promise<Outcome> {
  const directory = mkdtempSync(join(placeForDisks(), `prove-${fileSystem}-`));
  const count = subject.cuts[scale];
  const args = [
    directory,
    fileSystem,
    subject === agent ? agentProgram : '',
    String(count),
    String(seed),
  ];
  const { code, output } = await inNamespace([join(import.meta.dirname, subject.program), ...args]);
  // Mounts ended with their namespace.
  rmSync(directory, { recursive: true, force: true });
  if (code !== 0) {
    const finding: Finding = {
      fault: 'stuck',
      text: `${fileSystem}: ended with ${code}: ${output}`,
    };
    return { cases: 0, states: 0, findings: [finding] };
  }
  const outcome = JSON.parse(output.trim().split('\n').at(-1) ?? '') as CutsOutcome;
  const { cases, states, differing } = outcome;
  say(`${fileSystem}: ${cases} writes and flushes, ${states} cuts, ${differing} of them differ`);
  return outcome;
}

/** In memory where there is room: what lies under the image of a disk is no part of the question, and each unmount syncs it. */
function placeForDisks(): string {
  try {
    const { bavail, bsize } = statfsSync(MEMORY);
    return bavail * bsize >= ROOM_BYTES ? MEMORY : tmpdir();
  } catch {
    return tmpdir();
  }
}

/** Runs a Node program in a mount namespace of its own. */
async function inNamespace(
  argv: readonly string[],
): Promise<{ readonly code: number | null; readonly output: string }> {
  const child = spawn('unshare', ['-m', '--propagation', 'private', process.execPath, ...argv], {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: LIMIT_MS,
  });
  let output = '';
  for (const stream of [child.stderr, child.stdout]) {
    stream.on('data', (piece: Buffer) => {
      output = (output + piece.toString()).slice(-100_000);
    });
  }
  const code = await new Promise<number | null>((resolve) => child.once('exit', resolve));
  return { code, output };
}
