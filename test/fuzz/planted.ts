/** Parsers with bugs, one of each kind that the fuzzer has to find: what test/integration/fuzz.test.ts is about. */
import { Problem } from '#/protocol/errors.ts';
import type { FuzzTarget } from './run.ts';

const kept: unknown[] = [];
/** So often at most something is kept: a fast machine must not run out of memory before it is looked at. */
const KEEP_EVERY_MS = 20;
let keptMs = 0;
const MEBIBYTE = 1024 * 1024;
/** Objects that take about a mebibyte. */
const OBJECTS = 25_000;

function keep(make: () => unknown): void {
  if (performance.now() - keptMs < KEEP_EVERY_MS) return;
  kept.push(make());
  keptMs = performance.now();
}

function cpuMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}
const seeds = [Buffer.from('{"length":12,"text":"abcdefgh"}')];

/** Refuses everything, as it should. */
const refuse = (): never => {
  throw new Problem('E_PARSE', 'not one of ours');
};

/** The targets. `good` has no bug. */
export function fuzzTargets(): Promise<readonly FuzzTarget[]> {
  const targets: readonly FuzzTarget[] = [
    { name: 'good', seeds, parse: refuse },
    {
      // Only for some bytes: a length that is not looked at before it is used.
      name: 'crash',
      seeds,
      parse: (bytes) => (bytes.includes(0xff) ? (null as never as Buffer).length : refuse()),
    },
    {
      name: 'crash-async',
      seeds,
      parse: async (bytes) => {
        await Promise.resolve();
        return bytes.length % 5 === 0 ? JSON.parse('{') : refuse();
      },
    },
    {
      name: 'slow',
      seeds,
      parse(bytes) {
        const untilMs = cpuMs() + (bytes.includes(0x5d) ? 1200 : 0);
        while (cpuMs() < untilMs);
        return refuse();
      },
    },
    {
      name: 'hang',
      seeds,
      parse(bytes) {
        for (let at = 0; bytes.includes(0x80); at = (at + 1) % 7);
        return refuse();
      },
    },
    {
      name: 'keeps-objects',
      seeds,
      parse(bytes) {
        keep(() => Array.from({ length: OBJECTS }, () => ({ of: bytes.length })));
        return refuse();
      },
    },
    {
      name: 'keeps-buffers',
      seeds,
      parse(bytes) {
        keep(() => Buffer.alloc(MEBIBYTE, bytes.length));
        return refuse();
      },
    },
    {
      name: 'eats-memory',
      seeds,
      parse(bytes) {
        const all: object[] = [];
        while (bytes.includes(0x7b)) all.push({ all });
        return refuse();
      },
    },
  ];
  return Promise.resolve(targets);
}
