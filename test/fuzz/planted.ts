/** Parsers with bugs, one of each kind that the fuzzer has to find: what test/integration/fuzz.test.ts is about. */
import { Problem } from '#/protocol/errors.ts';
import type { FuzzTarget } from './run.ts';

const kept: unknown[] = [];
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
        const untilMs = performance.now() + (bytes.includes(0x5d) ? 1200 : 0);
        while (performance.now() < untilMs);
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
        kept.push(Array.from({ length: 200 }, () => ({ of: bytes.length })));
        return refuse();
      },
    },
    {
      name: 'keeps-buffers',
      seeds,
      parse(bytes) {
        kept.push(Buffer.alloc(16 * 1024, bytes.length));
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
