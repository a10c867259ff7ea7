/**
 * Takes the protections of the verifier out, one at a time, in a copy of the tree, and runs the tests that must notice.
 * `npm run trust:mutants -- [--only=TEXT] [--shard=I/N]`. Exit code 1 when one lives. Ends with `N passed, N failed`.
 */
import { spawn } from 'node:child_process';
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type TextMutant, trustMutants } from './trust.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
/** What the tests need of the tree. */
const parts = [
  'agent',
  'bundle',
  'control',
  'packaging',
  'protocol',
  'test',
  'package.json',
  'tsconfig.json',
  'vitest.config.ts',
];
const say = (line: string): void => {
  process.stdout.write(`${line}\n`);
};
const TEST_TIMEOUT_MS = 600_000;

interface Verdict {
  readonly mutant: TextMutant;
  readonly verdict: 'killed' | 'lives' | 'no such text';
  readonly seconds: number;
}

async function copyOfTree(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'trust-mutants-'));
  for (const part of parts) await cp(join(root, part), join(directory, part), { recursive: true });
  await symlink(join(root, 'node_modules'), join(directory, 'node_modules'));
  return directory;
}

/** True when the tests pass. */
async function passes(
  directory: string,
  tests: readonly string[],
  titles: string | null = null,
): Promise<boolean> {
  const child = spawn(
    process.execPath,
    [
      join(root, 'node_modules', 'vitest', 'vitest.mjs'),
      'run',
      '--bail',
      '1',
      '--reporter',
      'dot',
      ...(titles === null ? [] : ['--testNamePattern', titles, '--passWithNoTests']),
      ...tests.map((test) => `test/${test}.test.ts`),
    ],
    { cwd: directory, stdio: 'ignore', detached: true },
  );
  const timer = setTimeout(() => {
    // A mutant may run for ever: that is noticed, too.
    if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
  }, TEST_TIMEOUT_MS);
  const code = await new Promise<number | null>((done) => child.on('close', done));
  clearTimeout(timer);
  return code === 0;
}

async function tryOne(directory: string, mutant: TextMutant): Promise<Verdict> {
  const path = join(directory, mutant.file);
  const original = await readFile(path, 'utf8');
  const startMs = performance.now();
  const took = (): number => Math.round((performance.now() - startMs) / 100) / 10;
  if (original.split(mutant.from).length !== 2)
    return { mutant, verdict: 'no such text', seconds: took() };
  await writeFile(
    path,
    original.replace(mutant.from, () => mutant.to),
  );
  try {
    const { tests, titles } = mutant;
    const isKilled =
      (titles !== null && !(await passes(directory, tests, titles))) ||
      !(await passes(directory, tests));
    const verdict = isKilled ? 'killed' : 'lives';
    return { mutant, verdict, seconds: took() };
  } finally {
    await writeFile(path, original);
  }
}

const only = process.argv.find((one) => one.startsWith('--only='))?.slice('--only='.length) ?? '';
/** `--shard=2/4`: every fourth mutant, from the second on. All of `1/N` to `N/N` together are all of them. */
const shard = /^--shard=(\d+)\/(\d+)$/.exec(
  process.argv.find((one) => one.startsWith('--shard=')) ?? '--shard=1/1',
);
if (shard === null) throw new Error('--shard=I/N: I from 1 to N');
const [index, count] = [Number(shard[1]), Number(shard[2])];
if (index < 1 || index > count) throw new Error('--shard=I/N: I from 1 to N');
const mutants = trustMutants
  .filter(({ name, file }) => name.includes(only) || file.includes(only))
  .filter((_mutant, at) => at % count === index - 1);
const workers = Math.min(2, availableParallelism());
const copies = await Promise.all(Array.from({ length: workers }, copyOfTree));
const verdicts: Verdict[] = [];
try {
  const all = [...new Set(mutants.flatMap((mutant) => mutant.tests))];
  if (!(await passes(copies[0] ?? root, all)))
    throw new Error('the tests fail without any mutant: nothing can be said');
  const queue = [...mutants];
  await Promise.all(
    copies.map(async (directory) => {
      for (let mutant = queue.shift(); mutant !== undefined; mutant = queue.shift()) {
        const verdict = await tryOne(directory, mutant);
        verdicts.push(verdict);
        const { name, file } = mutant;
        say(
          `${verdict.verdict.padEnd(12)} ${String(verdict.seconds).padStart(6)} s  ${file}: ${name}`,
        );
      }
    }),
  );
} finally {
  for (const directory of copies) await rm(directory, { recursive: true, force: true });
}
const failed = verdicts.filter(({ verdict }) => verdict !== 'killed');
for (const { mutant, verdict } of failed) say(`${verdict}: ${mutant.file}: ${mutant.name}`);
say(`${verdicts.length - failed.length} passed, ${failed.length} failed`);
process.exitCode = failed.length === 0 ? 0 : 1;
