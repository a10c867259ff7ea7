import { describe, expect, it } from 'vitest';
import { Problem } from '#/protocol/errors.ts';
import { bytesAt, tryOnce } from '#/test/fuzz/run.ts';
import { fuzzTargets } from '#/test/fuzz/targets.ts';
import { requestSamples } from '#/test/fuzz/targets-wire.ts';

const targets = await fuzzTargets();

describe('the fuzzer', () => {
  it.each(targets)(
    'the seeds of $name are refused for their form, so that it only ever knocks at the door',
    async ({ seeds, parse }) => {
      expect(seeds.length).toBeGreaterThan(0);
      for (const seed of seeds) await parse(seed);
    },
  );

  it('a route whose bodies it never takes apart', () => {
    const without = Object.entries(requestSamples()).filter(([, samples]) => samples.length === 0);
    expect(without.map(([route]) => route)).toEqual([]);
  });

  it('a crash, a bug or a slow parser is no finding', async () => {
    const target = (parse: (bytes: Uint8Array) => unknown) => ({ name: 'x', seeds: [], parse });
    const refusal = () => {
      throw new Problem('E_PARSE', 'no');
    };
    expect(tryOnce(target(refusal), new Uint8Array(), 0)).toBeNull();
    const crash = () => {
      throw new TypeError('x is not a function');
    };
    const finding = await tryOnce(target(crash), new Uint8Array(), 0);
    expect(finding?.what).toContain('not a function');
    const bytes = () => bytesAt(targets[0]!, 7, 3);
    expect(bytes()).toEqual(bytes());
  });

  it.each(targets)(
    'two hundred tries of $name find something',
    async (target) => {
      for (let at = 0; at < 200; at += 1)
        expect(await tryOnce(target, bytesAt(target, 1, at), at)).toBeNull();
    },
    60_000,
  );
});
