/**
 * `npm run fuzz -- [--seconds=60] [--threads=1] [--seed=N] [--only=TARGET] [--at=N]`. `seconds` is the time of all threads together,
 * dealt evenly to all parsers. Seeds are printed; the same seed makes the same bytes. Ends with `N passed, N failed`: targets without
 * and with findings.
 */
import { bytesAt, tryOnce } from './run.ts';
import { fuzzTargets } from './targets.ts';
import { fuzz } from './watch.ts';

const HANG_MS = 120_000;
const GROWTH_MAX_BYTES = 48 * 1024 * 1024;
const HEAP_MAX_MB = 512;

const args = process.argv.slice(2);
const of = (name: string): string | undefined =>
  args.find((arg) => arg.startsWith(`--${name}=`))?.slice(name.length + 3);
const say = (line: string): void => {
  process.stdout.write(`${line}\n`);
};

const seconds = Number(of('seconds') ?? 60);
const threads = Number(of('threads') ?? 1);
const seed = Number(of('seed') ?? Date.now() % 2 ** 31);
const only = of('only') ?? '';
const at = of('at');
const targets = (await fuzzTargets()).filter(({ name }) => name.includes(only));
if (at !== undefined) {
  for (const target of targets) {
    const finding = await tryOnce(target, bytesAt(target, seed, Number(at)), Number(at));
    say(`${target.name}: ${finding === null ? 'nothing' : finding.what}`);
  }
} else {
  say(`seed ${seed}, ${seconds} s of parsing in ${threads} threads, ${targets.length} parsers`);
  const module = new URL('targets.ts', import.meta.url);
  const limits = { hangMs: HANG_MS, growthMaxBytes: GROWTH_MAX_BYTES, heapMaxMb: HEAP_MAX_MB };
  const result = await fuzz({ seconds, threads, seed, only, targets: module, ...limits });
  say('    tries  KiB kept  parser');
  for (const [target, count] of result.tries) {
    const keptKib = Math.round((result.kept.get(target) ?? 0) / 1024);
    say(`${String(count).padStart(9)} ${String(keptKib).padStart(9)}  ${target}`);
  }
  for (const { target, what } of result.failures) say(`${target}: ${what}`);
  const failed = new Set(result.failures.map(({ target }) => target)).size;
  say(`${Math.max(0, targets.length - failed)} passed, ${failed} failed`);
  process.exitCode = failed === 0 ? 0 : 1;
}
