/**
 * T11: the real download over a real link, between two network namespaces, that fails as links do: nothing is answered, nothing is
 * refused, packets vanish. The link is good again after a while, and then the version is there, whole, without a new start.
 */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Cable, type End, HOST, SERVER } from '#/test/support/cable.ts';
import { bundleOf } from '#/test/support/install/host.ts';
import { makeTree } from '#/test/support/install/payloads.ts';
import { treeDigest } from '#/test/support/lone-host/lone-host.ts';
import { directoryLayout } from '#/agent/install/layout.ts';
import { drawn, type Family, type Finding, forEachParallel } from './family.ts';

/** Most of a case is waiting. */
const PARALLEL = 4;
const CI_CASES = 6;
/** So that the download takes seconds, and a fault finds it on its way. */
const RATE = '4mbit';
const SLOW_RATE = '64kbit';
/** Longer than any patience of the download with a silent peer. */
const FAULT_MS = 2500;
/** What may come, of the size of the file: what was on its way at a fault comes again. */
const MAX_RECEIVED = 2;
/** Far above what anything here takes. */
const LINE_LIMIT_MS = 120_000;
const program = join(import.meta.dirname, 'links-run.ts');

interface LinkFault {
  readonly begin: (cable: Cable) => Promise<void>;
  readonly end?: (cable: Cable) => Promise<void>;
}

const faults: Readonly<Record<string, LinkFault>> = {
  'the cable of the host is out': {
    begin: (cable) => cable.setLink('host', 'down'),
    end: (cable) => cable.setLink('host', 'up'),
  },
  'the cable of the server is out': {
    begin: (cable) => cable.setLink('server', 'down'),
    end: (cable) => cable.setLink('server', 'up'),
  },
  'answers vanish': {
    begin: (cable) => cable.ip('server', 'route', 'add', 'blackhole', `${HOST}/32`),
    end: (cable) => cable.ip('server', 'route', 'del', 'blackhole', `${HOST}/32`),
  },
  'the server cannot be reached': {
    begin: (cable) => cable.ip('host', 'route', 'add', 'unreachable', `${SERVER}/32`),
    end: (cable) => cable.ip('host', 'route', 'del', 'unreachable', `${SERVER}/32`),
  },
  'large packets vanish': {
    begin: (cable) => cable.setMtu('host', 576),
    end: (cable) => cable.setMtu('host', 1500),
  },
  'the link is slow': {
    begin: (cable) => cable.setRate('change', SLOW_RATE),
    end: (cable) => cable.setRate('change', RATE),
  },
  'the host gets another address': { begin: (cable) => cable.moveHost() },
};

const moments = ['before the first request', 'after the first bytes', 'in the middle'] as const;
type Moment = (typeof moments)[number];
/** What the host says at that moment, once it has begun. */
const words: Readonly<Record<Exclude<Moment, 'before the first request'>, string>> = {
  'after the first bytes': 'some',
  'in the middle': 'half',
};

interface Case {
  readonly name: string;
  readonly fault: LinkFault;
  readonly moment: Moment;
  /** The first source has a name that nobody resolves. */
  readonly hasName: boolean;
}

const cases: readonly Case[] = [
  ...Object.entries(faults).flatMap(([name, fault]) =>
    moments.map((moment) => ({ name: `${name}, ${moment}`, fault, moment, hasName: false })),
  ),
  {
    name: 'a name does not resolve',
    fault: { begin: () => Promise.resolve() },
    moment: 'before the first request',
    hasName: true,
  },
];

interface Prepared {
  readonly directory: string;
  readonly bundle: string;
  readonly bundleBytes: number;
  readonly artifactId: string;
  readonly expected: string;
}

export const links: Family = {
  name: 'links',
  isLight: true,
  what: 'the real download between two network namespaces whose link is cut, blackholed, narrowed or slowed',
  async run({ seed, scale, match }) {
    const directory = await mkdtemp(join(tmpdir(), 'prove-links-'));
    try {
      const prepared = await prepare(directory);
      const matching = cases.filter(({ name }) => name.includes(match));
      const chosen = scale === 'ci' ? drawn(matching, CI_CASES, seed) : matching;
      const findings: Finding[] = [];
      await forEachParallel(chosen, PARALLEL, async (one) => {
        findings.push(...(await tryCase(one, prepared)));
      });
      return { cases: chosen.length, states: chosen.length, findings };
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  },
};

async function prepare(directory: string): Promise<Prepared> {
  const tree = join(directory, 'tree');
  await mkdir(tree);
  await makeTree(tree, { version: '1' });
  const bundle = join(directory, 'v1.bundle');
  const { artifactId } = await bundleOf({
    input: tree,
    out: bundle,
    version: '1',
    release: 1,
  });
  const { size: bundleBytes } = await stat(bundle);
  const expected = await treeDigest(tree);
  return { directory, bundle, bundleBytes, artifactId, expected };
}

async function tryCase(one: Case, prepared: Prepared): Promise<readonly Finding[]> {
  const { name, fault, moment, hasName } = one;
  const root = await mkdtemp(join(prepared.directory, 'host-'));
  await using cable = await Cable.create(RATE);
  const start = (end: End, ...args: readonly string[]): Lines =>
    new Lines(cable.start(end, [process.execPath, ...process.execArgv, program, ...args]));
  await using server = start('server', 'serve', prepared.bundle, SERVER);
  const url = await server.next(/^http/);
  const sources = hasName ? [url.replace(SERVER, 'images.test'), url] : [url];
  await using host = start('host', 'install', root, prepared.bundle, ...sources);
  await host.next(/^ready$/);
  if (moment === 'before the first request') {
    await fault.begin(cable);
    host.send('go');
  } else {
    host.send('go');
    await host.next(new RegExp(`^(?:${words[moment]}|ended)`));
    await fault.begin(cable);
  }
  await new Promise((resolve) => setTimeout(resolve, FAULT_MS));
  await fault.end?.(cable);
  const ended = await host.next(/^ended/);
  const receivedBytes = Number(/^ended (\d+)/.exec(ended)?.[1]);
  const found = await treeDigest(directoryLayout(root).release(prepared.artifactId));
  await rm(root, { recursive: true, force: true });
  if (found !== prepared.expected) {
    const isGone = found.startsWith('gone');
    return [{ fault: isGone ? 'stuck' : 'wrong', text: `${name}: ${ended}; ${found}` }];
  }
  if (receivedBytes <= MAX_RECEIVED * prepared.bundleBytes) return [];
  const text = `${name}: ${receivedBytes} bytes came of a file of ${prepared.bundleBytes}`;
  return [{ fault: 'stuck', text }];
}

/** The output of a program, line by line. */
class Lines {
  readonly #child: ChildProcess;
  readonly #lines: string[] = [];
  readonly #exit: Promise<unknown>;
  #wake: () => void = () => undefined;
  #isOver = false;

  constructor(child: ChildProcess) {
    this.#child = child;
    this.#exit = once(child, 'close');
    if (child.stdout === null) throw new Error('the output of a program is read');
    createInterface({ input: child.stdout })
      .on('line', (line) => {
        this.#lines.push(line);
        this.#wake();
      })
      .on('close', () => {
        this.#isOver = true;
        this.#wake();
      });
  }

  /** The first line like this from now on, or that came before; earlier ones are read over. */
  async next(pattern: RegExp): Promise<string> {
    const limit = AbortSignal.timeout(LINE_LIMIT_MS);
    const isLate = once(limit, 'abort');
    for (;;) {
      for (let line = this.#lines.shift(); line !== undefined; line = this.#lines.shift()) {
        if (pattern.test(line)) return line;
      }
      if (this.#isOver || limit.aborted) throw new Error(`no line like ${pattern}`);
      const woken = new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      await Promise.race([woken, isLate]);
    }
  }

  send(line: string): void {
    this.#child.stdin?.write(`${line}\n`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#exit;
  }
}
