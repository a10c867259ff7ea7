import { describe, expect, it } from 'vitest';
import type { Source } from '#/agent/install/source.ts';
import { SourceSet } from '#/agent/install/source-set.ts';
import { Problem } from '#/protocol/errors.ts';

const settings = {
  attemptsPerSource: 3,
  backoffMs: 100,
  backoffMaxMs: 1000,
  retryAfterMaxMs: 5000,
};
const lost = new Problem('E_NETWORK', 'the connection failed');
const status = (code: number, retryAfterMs?: number): Problem =>
  new Problem('E_HTTP', `answers ${code}`, {
    status: code,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  });

function source(url: string): Source {
  return {
    describe: () => ({ url, kind: 'http', ranged: true }),
    readRange: async function* () {},
    close: async () => undefined,
  };
}

function setOf(...urls: string[]): { set: SourceSet; sources: Source[] } {
  const sources = urls.map(source);
  return { set: new SourceSet(sources, settings, () => 1), sources };
}

const first = ([one]: readonly Source[]): Source => {
  if (one === undefined) throw new Error('a source');
  return one;
};

describe('several sources', () => {
  it('the first is asked until it fails, then the second while the first rests', () => {
    const { set, sources } = setOf('a', 'b');
    expect(set.pick(0).source).toBe(sources[0]);
    set.failed(first(sources), lost, 0);
    expect(set.pick(0)).toEqual({ source: sources[1], waitMs: 0 });
  });

  it('F8 a source of damaged chunks stays behind the other after its rest', () => {
    const { set, sources } = setOf('a', 'b');
    set.failed(first(sources), new Problem('E_CHUNK', 'damaged'), 0);
    expect(set.pick(100_000).source).toBe(sources[1]);
  });

  it('F8 a local file that is damaged is not read again: its bytes stay the same', () => {
    const file: Source = {
      ...source('file:///b'),
      describe: () => ({ url: 'file:///b', kind: 'file', ranged: true }),
    };
    const only = new SourceSet([file], settings, () => 1);
    only.failed(file, new Problem('E_CHUNK', 'damaged'), 0);
    expect(() => only.pick(0)).toThrow(expect.objectContaining({ code: 'E_CHUNK' }));
    // Another source may still have it.
    const [remote] = [source('https://a')];
    const both = new SourceSet([file, remote as Source], settings, () => 1);
    both.failed(file, new Problem('E_CHUNK', 'damaged'), 0);
    expect(both.pick(0)).toEqual({ source: remote, waitMs: 0 });
  });

  it('F7 pauses double up to their limit and have jitter', () => {
    const sources = [source('a')];
    const set = new SourceSet(sources, { ...settings, attemptsPerSource: 10 }, () => 0);
    const waits: number[] = [];
    let now = 0;
    for (let i = 0; i < 6; i += 1) {
      set.failed(first(sources), lost, now);
      const { waitMs } = set.pick(now);
      waits.push(waitMs);
      now += waitMs;
    }
    expect(waits).toEqual([50, 100, 200, 400, 500, 500]);
  });

  it('F7 Retry-After goes before a shorter pause', () => {
    const { set, sources } = setOf('a');
    set.failed(first(sources), status(503, 3000), 0);
    expect(set.pick(0).waitMs).toBe(3000);
  });

  it('F7 a Retry-After beyond the limit gives the source up', () => {
    const { set, sources } = setOf('a');
    set.failed(first(sources), status(429, 3_600_000), 0);
    expect(() => set.pick(0)).toThrow(expect.objectContaining({ code: 'E_HTTP' }));
  });

  it('F7 a refusal is asked for once more, then given up', () => {
    const { set, sources } = setOf('a');
    set.failed(first(sources), status(404), 0);
    expect(set.pick(0).source).toBe(sources[0]);
    set.failed(first(sources), status(404), 10_000);
    expect(() => set.pick(20_000)).toThrow('answers 404');
  });

  it('connections that fail together count as one failure', () => {
    const { set, sources } = setOf('a');
    for (let i = 0; i < 3; i += 1) set.failed(first(sources), lost, 0);
    expect(set.pick(0).source).toBe(sources[0]);
  });

  it('bytes that came make up for the failures before them', () => {
    const { set, sources } = setOf('a');
    for (let round = 0; round < 20; round += 1) {
      set.failed(first(sources), lost, round * 10_000);
      set.delivered(first(sources));
    }
    expect(set.pick(0)).toEqual({ source: sources[0], waitMs: 0 });
  });

  it.each(['E_PATH', 'E_MODE', 'E_SCHEMA', 'E_SIZE', 'E_HASH'] as const)(
    'a bundle whose signed listing is refused with %s is fetched again and again',
    (code) => {
      const { set, sources } = setOf('a', 'b');
      set.failed(first(sources), new Problem(code, 'what the listing says'), 0);
      expect(set.pick(0).source).toBe(sources[1]);
      set.failed(first(sources.slice(1)), new Problem(code, 'what the listing says'), 0);
      expect(() => set.pick(100_000)).toThrow(expect.objectContaining({ code }));
    },
  );

  it('F82 all given up: the problem of the best one, with what each of them failed with', () => {
    const { set, sources } = setOf('a', 'b');
    set.failed(first(sources), new Problem('E_TLS', 'bad certificate'), 0);
    for (let i = 0; i < 3; i += 1) set.failed(first(sources.slice(1)), lost, i * 10_000);
    expect(() => set.pick(0)).toThrow(
      expect.objectContaining({
        code: 'E_TLS',
        details: expect.objectContaining({ sources: ['a E_TLS', 'b E_NETWORK'] }),
      }),
    );
  });

  it('no source at all is a misuse', () => {
    expect(() => setOf().set.pick(0)).toThrow(expect.objectContaining({ code: 'E_USAGE' }));
  });
});
