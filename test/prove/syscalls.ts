/**
 * T7: the shipped agent, killed at a system call, for every call that changes a file or speaks over a socket; and with an error
 * in place of the call. Nothing of the agent knows of it.
 *
 * strace counts `when=N` per call and per thread, and kills at the entry of the call, which then does not run. Each call is swept
 * by itself, and the pool of the agent has one thread (test/support/lone-host/one-thread.mjs), so that a number means the same call in each run as far as possible.
 */
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LoneHost } from '#/test/support/lone-host/lone-host.ts';
import { buildReleases, type Releases } from '#/test/support/lone-host/releases.ts';
import {
  drawn,
  type Family,
  type FamilyOptions,
  type Finding,
  forEachParallel,
  type Outcome,
} from './family.ts';
import {
  chapters,
  diskFindings,
  type Digests,
  digestsOf,
  live,
  prepare,
  recoveryFindings,
  type Told,
} from './lone-host-story.ts';

const calls = [
  'openat,write,pwrite64,pwritev,writev,fsync,fdatasync,sync_file_range,syncfs,fallocate,ftruncate',
  'rename,renameat,renameat2,unlink,unlinkat,link,linkat,symlink,symlinkat,mkdir,mkdirat,rmdir',
  'fchmod,chmod,fchmodat,fchown,chown,lchown,fchownat,utimensat,flock',
  'socket,bind,listen,accept4,connect,sendto,sendmsg,recvfrom,recvmsg,shutdown',
].join(',');

/**
 * With all threads and children. By a filter of the kernel only the calls that are named stop, which costs far less; a signal that
 * is put in at such a stop is not delivered, though, so kills do without.
 */
const strace = ['strace', '-f', '-qq'];
const filtered = [...strace, '--seccomp-bpf'];

/**
 * Calls before which no kill is tried: what was written survives a kill without them, so the files are those of the next call that
 * changes something, before which one is tried. The same holds for a file that is opened to be read.
 */
const syncs = new Set(['fsync', 'fdatasync', 'sync_file_range', 'syncfs']);

/** Errors instead of the call, for those that a disk can answer with. */
const errors: Readonly<Record<string, readonly string[]>> = {
  fsync: ['EIO', 'ENOSPC', 'EINTR'],
  fdatasync: ['EIO', 'ENOSPC'],
  pwrite64: ['EIO', 'ENOSPC', 'EINTR'],
  pwritev: ['EIO', 'ENOSPC'],
  rename: ['EIO', 'ENOSPC', 'EROFS'],
  symlink: ['EIO', 'ENOSPC'],
  mkdir: ['EIO', 'ENOSPC'],
  unlink: ['EIO', 'EROFS'],
  ftruncate: ['EIO', 'EINTR'],
};

const COUNTED_TIMEOUT_MS = 600_000;
/** Hosts at a time, for two processors. After an error the agents mostly wait: a failed store is looked at again after half a minute. */
const PARALLEL = { kill: 2, error: 20 } as const;
/** Of the calls of a story. */
const shares = {
  kill: { ci: 60, full: Number.POSITIVE_INFINITY, long: Number.POSITIVE_INFINITY },
  error: { ci: 16, full: 120, long: Number.POSITIVE_INFINITY },
} as const;

interface Call {
  /** Number of the chapter of the story. */
  readonly chapter: number;
  readonly call: string;
  /** Counted from the start of the process, of each thread by itself. */
  readonly number: number;
}
interface Case extends Call {
  /** What strace does to the call. */
  readonly fault: string;
}

interface Bench {
  readonly directory: string;
  readonly releases: Releases;
  readonly digests: Digests;
  readonly program: string;
}

export const syscallKills: Family = {
  name: 'syscalls killed',
  usesAgent: true,
  isLight: true,
  what: 'the shipped agent, SIGKILL at a system call of an update, a rollback and a bad version',
  run: (options) => sweep(options, 'kill'),
};

export const syscallErrors: Family = {
  name: 'syscalls failed',
  usesAgent: true,
  isLight: true,
  what: 'the shipped agent, a system call answered with EIO, ENOSPC, EINTR or EROFS',
  run: (options) => sweep(options, 'error'),
};

async function sweep(options: FamilyOptions, kind: 'kill' | 'error'): Promise<Outcome> {
  const directory = mkdtempSync(join(tmpdir(), 'prove-syscalls-'));
  try {
    const bench = await setUp(directory, options.agentProgram);
    const counted: Call[] = [];
    for (const chapter of chapters.keys()) counted.push(...(await countCalls(bench, chapter)));
    const all = counted.flatMap((one): Case[] =>
      kind === 'error'
        ? (errors[one.call] ?? []).map((error) => ({ ...one, fault: `error=${error}` }))
        : syncs.has(one.call)
          ? []
          : [{ ...one, fault: 'signal=SIGKILL' }],
    );
    const matching = all.filter((one) => nameOf(one).includes(options.match));
    const cases = drawn(matching, shares[kind][options.scale], options.seed);
    options.say(`${all.length} calls to hit, ${cases.length} of them now`);
    const findings: Finding[] = [];
    let hits = 0;
    await forEachParallel(cases, PARALLEL[kind], async (one, lane) => {
      const { wasHit, found } = await tryCase(bench, one, lane, kind);
      if (wasHit) hits += 1;
      findings.push(...found);
    });
    return { cases: cases.length, states: hits, findings };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function nameOf({ chapter, call, number, fault }: Case): string {
  return `${call} number ${number} of ${chapters[chapter]?.title}, ${fault}`;
}

const templateOf = (chapter: number): string => `before-${chapter}`;

async function setUp(directory: string, program: string): Promise<Bench> {
  const releases = await buildReleases(directory);
  const digests = await digestsOf(directory, releases);
  const bench = { directory, releases, digests, program };
  await prepare(hostOf(bench, templateOf(0)), releases);
  // Each chapter begins on the disk that the one before it left.
  for (const [number, chapter] of chapters.slice(0, -1).entries()) {
    const host = freshHost(bench, templateOf(number + 1), number);
    host.start();
    const isDone = await live(host, releases, [chapter]);
    if (!isDone) throw new Error(`${chapter.title} did not come about`);
    await host.stop();
  }
  return bench;
}

function hostOf(
  { directory, releases, program }: Bench,
  name: string,
  orderTimeoutMs?: number,
): LoneHost {
  const volatile = join(directory, `${name}.run`);
  mkdirSync(volatile, { recursive: true });
  const limit = orderTimeoutMs === undefined ? {} : { orderTimeoutMs };
  const compileCache = join(directory, 'compile-cache');
  const disk = join(directory, name);
  return new LoneHost({ disk, volatile, program, releases, compileCache, ...limit });
}

/** A host of that name as it is before a chapter. */
function freshHost(bench: Bench, name: string, chapter: number, orderTimeoutMs?: number): LoneHost {
  for (const path of [name, `${name}.run`]) {
    rmSync(join(bench.directory, path), { recursive: true, force: true });
  }
  const from = join(bench.directory, templateOf(chapter));
  cpSync(from, join(bench.directory, name), { recursive: true, verbatimSymlinks: true });
  return hostOf(bench, name, orderTimeoutMs);
}

/**
 * Which calls of a chapter there are to hit: those of any thread that touch the host's files or a socket. The start of the agent
 * counts with the first chapter only.
 */
async function countCalls(bench: Bench, chapter: number): Promise<readonly Call[]> {
  const log = join(bench.directory, 'calls.log');
  const part = chapters[chapter];
  if (part === undefined) throw new Error(`no chapter ${chapter}`);
  // Nothing fails here, and strace is slow: it may take as long as it takes.
  const host = freshHost(bench, 'counted', chapter, COUNTED_TIMEOUT_MS);
  host.start([...filtered, '-y', '-s', '0', '-e', `trace=${calls}`, '-o', log]);
  await host.rest(COUNTED_TIMEOUT_MS);
  const startLines = chapter === 0 ? 0 : linesOf(log).length;
  const isDone = await live(host, bench.releases, [part]);
  await host.kill();
  if (!isDone) {
    const said = readFileSync(join(bench.directory, 'counted.run/agent.log'), 'utf8').slice(-2000);
    throw new Error(`the story does not come to its end under strace:\n${said}`);
  }
  const counts = new Map<string, number>();
  const found = new Map<string, Call>();
  for (const [at, line] of linesOf(log).entries()) {
    const match = /^(\d+)\s+(\w+)\((.*)/.exec(line);
    if (match === null) continue;
    const [, thread = '', call = '', rest = ''] = match;
    const number = (counts.get(`${thread} ${call}`) ?? 0) + 1;
    counts.set(`${thread} ${call}`, number);
    const touches = rest.includes(`${bench.directory}/counted`) || /socket:|AF_UNIX/i.test(rest);
    const isLog = rest.includes('agent.log');
    const isOpenedToRead = call === 'openat' && /O_RDONLY/.test(rest) && !/O_CREAT/.test(rest);
    const isTold = touches && !isLog && !isOpenedToRead && at >= startLines;
    if (isTold) found.set(`${call} ${number}`, { chapter, call, number });
  }
  return [...found.values()];
}

const linesOf = (path: string): readonly string[] => readFileSync(path, 'utf8').trim().split('\n');

async function tryCase(
  bench: Bench,
  one: Case,
  lane: number,
  kind: 'kill' | 'error',
): Promise<{ readonly wasHit: boolean; readonly found: readonly Finding[] }> {
  const { releases, digests } = bench;
  const { chapter, call, number, fault } = one;
  const name = nameOf(one);
  const part = chapters[chapter];
  if (part === undefined) throw new Error(`no chapter ${chapter}`);
  const host = freshHost(bench, `lane-${lane}`, chapter);
  const log = join(bench.directory, `lane-${lane}.log`);
  const inject = `inject=${call}:${fault}:when=${number}`;
  const tracer = kind === 'kill' ? strace : filtered;
  host.start([...tracer, '-o', log, '-e', `trace=${call}`, '-e', inject]);
  let told: Told = { isOver: false, mayBeLive: [part.from(releases).artifactId] };
  // One call fails, at most one answer with it: what is told after it is looked at as well.
  await live(host, releases, [part], (now) => {
    told = now;
  });
  await host.kill();
  const written = readFileSync(log, 'utf8');
  const wasHit =
    kind === 'kill' ? written.includes('killed by SIGKILL') : written.includes('(INJECTED)');
  return {
    wasHit,
    found: [
      ...(await diskFindings(host, bench.digests, name)),
      ...(await recoveryFindings(host, releases, digests, told, name, kind === 'error')),
    ],
  };
}
