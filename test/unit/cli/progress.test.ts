import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Output } from '#/control/cli/context.ts';
import {
  advance,
  createProgress,
  progressLine,
  startProgress,
} from '#/control/cli/render/progress.ts';
import { displayWidth } from '#/control/cli/render/text.ts';

/** An output that keeps what was written. */
function recorder(isTty: boolean, columns = 80): Output & { readonly written: string[] } {
  const written: string[] = [];
  return { written, isTty, columns, rows: 24, write: (text) => void written.push(text) };
}

describe('progress', () => {
  it('bytes, percent and time left never go backwards, whatever the order and pace of updates', () => {
    const steps = fc.array(fc.record({ bytes: fc.nat(1_000_000), waitMs: fc.nat(5000) }), {
      maxLength: 60,
    });
    fc.assert(
      fc.property(steps, (list) => {
        let state = startProgress(1_000_000, 0);
        let nowMs = 0;
        let shownMs = Number.POSITIVE_INFINITY;
        for (const { bytes, waitMs } of list) {
          nowMs += waitMs;
          const next = advance(state, bytes, nowMs);
          expect(next.doneBytes).toBeGreaterThanOrEqual(state.doneBytes);
          expect(next.doneBytes).toBeLessThanOrEqual(1_000_000);
          if (next.etaMs !== null) {
            expect(next.etaMs).toBeLessThanOrEqual(shownMs);
            shownMs = next.etaMs;
          }
          state = next;
        }
      }),
    );
  });

  it('a stalled transfer shows the time left as unknown instead of keeping an old promise', () => {
    let state = startProgress(1000, 0);
    state = advance(state, 500, 1000);
    expect(state.etaMs).toBe(1000);
    state = advance(state, 501, 20_000);
    expect(state.etaMs).toBeNull();
    expect(progressLine('x', state, 80)).toContain('eta --');
  });

  it('the rate follows a transfer that became faster', () => {
    let state = advance(startProgress(1e9, 0), 1000, 1000);
    for (let second = 2; second < 20; second += 1) {
      state = advance(state, 1000 + (second - 1) * 1e6, second * 1000);
    }
    expect(state.bytesPerSecond).toBeGreaterThan(0.95e6);
  });

  it('a line is never wider than the terminal, down to 20 columns', () => {
    const state = advance(startProgress(5 * 2 ** 30, 0), 2 ** 30, 12_345);
    for (let columns = 20; columns <= 200; columns += 1) {
      expect(
        displayWidth(progressLine('import web-2.4.0.bundle', state, columns)),
      ).toBeLessThanOrEqual(columns);
    }
  });

  it('fits bar, percent, bytes, rate and time left in 80 columns', () => {
    const state = advance(startProgress(1000 * 2 ** 20, 0), 420 * 2 ** 20, 10_000);
    expect(progressLine('import web-2.4.0.bundle', state, 80)).toBe(
      'import web-2.4.0.bundle [####.......]  42%  420 MiB/1.0 GiB  42.0 MiB/s  eta 14s',
    );
  });

  it('an empty file is at 100 percent, not at NaN', () => {
    expect(progressLine('x', startProgress(0, 0), 80)).toMatch(
      /^x .*100%  0 B\/0 B  0 B\/s  in 1ms$/,
    );
  });

  it('a terminal gets one line drawn over itself, and a line feed at the end', () => {
    const out = recorder(true);
    let nowMs = 0;
    const progress = createProgress({
      label: 'x',
      totalBytes: 100,
      out,
      now: () => nowMs,
      json: false,
    });
    for (const bytes of [10, 50, 100]) {
      nowMs += 500;
      progress.update(bytes);
    }
    progress.end();
    progress.end();
    expect(out.written.every((text) => text.startsWith('\r\u001b[K'))).toBe(true);
    expect(out.written.filter((text) => text.endsWith('\n'))).toHaveLength(1);
    expect(out.written.at(-1)).toContain('100%');
  });

  it('a pipe gets a plain line now and then, without escape sequences', () => {
    const out = recorder(false);
    let nowMs = 0;
    const progress = createProgress({
      label: 'x',
      totalBytes: 1000,
      out,
      now: () => nowMs,
      json: false,
    });
    for (let step = 0; step < 100; step += 1) {
      nowMs += 100;
      progress.update(step * 10);
    }
    progress.end();
    expect(out.written.length).toBeLessThanOrEqual(4);
    // oxlint-disable-next-line no-control-regex
    expect(out.written.join('')).not.toMatch(/[\r\u001b]/);
  });

  it('--json gives one object per line, with an unknown time left as null', () => {
    const out = recorder(true);
    let nowMs = 0;
    const progress = createProgress({
      label: 'x',
      totalBytes: 1000,
      out,
      now: () => nowMs,
      json: true,
    });
    progress.update(0);
    nowMs = 6000;
    progress.update(600);
    progress.end();
    const lines = out.written
      .join('')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as object);
    expect(lines[0]).toEqual({
      event: 'progress',
      label: 'x',
      doneBytes: 0,
      totalBytes: 1000,
      bytesPerSecond: 0,
      etaSeconds: null,
    });
    expect(lines[1]).toMatchObject({ doneBytes: 600, bytesPerSecond: 100, etaSeconds: 4 });
  });
});

describe('the end of a progress', () => {
  it('a transfer that is done tells its average rate and its time', () => {
    const out = recorder(false);
    let nowMs = 0;
    const progress = createProgress({
      label: 'x',
      totalBytes: 10 * 2 ** 20,
      out,
      now: () => nowMs,
      json: false,
    });
    nowMs = 100;
    progress.update(10 * 2 ** 20);
    nowMs = 2000;
    progress.end();
    expect(out.written).toHaveLength(1);
    expect(out.written[0]).toMatch(/100%  10\.0 MiB\/10\.0 MiB  5\.0 MiB\/s  in 2s\n$/);
  });
});
