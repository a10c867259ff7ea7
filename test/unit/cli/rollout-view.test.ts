import { describe, expect, it } from 'vitest';
import { messagesOf } from '#/control/cli/event-stream.ts';
import { all } from '#/control/cli/lookup.ts';
import { changesBetween, stageBar } from '#/control/cli/render/rollout.ts';
import type { HostView } from '#/protocol/host.ts';
import type { Counts, RolloutView } from '#/protocol/rollout.ts';

const none: Counts = {
  members: 0,
  inFlight: 0,
  confirmed: 0,
  failed: 0,
  overdue: 0,
  offline: 0,
  onTarget: 0,
};

describe('the bar of a stage', () => {
  it('one failed host among ten thousand is not seen', () => {
    expect(stageBar({ ...none, members: 10_000, confirmed: 9_999, failed: 1 })).toBe(
      `${'#'.repeat(19)}x`,
    );
  });

  it('is not 20 wide, whatever the counts', () => {
    for (const members of [0, 1, 2, 3, 7, 100]) {
      for (const failed of [0, 1, members]) {
        const rest = Math.max(0, members - failed);
        expect(
          stageBar({ ...none, members, failed, confirmed: rest, inFlight: rest }),
        ).toHaveLength(20);
      }
    }
  });
});

describe('changes between two looks', () => {
  const rollout = (state: string, stage: string) =>
    ({
      id: 'r-1',
      group: 'web',
      state,
      words: 'w',
      stages: [{ name: 'canary', state: stage, words: 's' }],
    }) as unknown as RolloutView;
  const host = (id: string, phase: string | null) =>
    ({ id, labels: {}, phase, condition: 'current', why: 'y' }) as unknown as HostView;

  it('the first look tells everything, the second only what is new', () => {
    const first = { rollout: rollout('running', 'open'), hosts: [host('h-1', 'downloading')] };
    expect(changesBetween(null, first).map((change) => change.event)).toEqual([
      'state',
      'stage',
      'host',
    ]);
    expect(changesBetween(first, first)).toEqual([]);
    const second = {
      rollout: rollout('running', 'open'),
      hosts: [host('h-1', null), host('h-2', 'trial')],
    };
    expect(
      changesBetween(first, second).map(({ subject, from, to }) => [subject, from, to]),
    ).toEqual([
      ['h-1', 'downloading', 'current'],
      ['h-2', null, 'trial'],
    ]);
  });
});

describe('the event stream', () => {
  const collect = async (...chunks: string[]): Promise<readonly string[]> => {
    const stream = async function* (): AsyncGenerator<Uint8Array> {
      for (const chunk of chunks) yield await Promise.resolve(new TextEncoder().encode(chunk));
    };
    return all(messagesOf(stream()));
  };

  it('a message is cut at the border of two chunks, also inside a character', async () => {
    const bytes = new TextEncoder().encode('id: 1\ndata: {"a":"ü"}\n\n');
    const split = async function* (): AsyncGenerator<Uint8Array> {
      for (const byte of bytes) yield await Promise.resolve(Uint8Array.of(byte));
    };
    expect(await all(messagesOf(split()))).toEqual(['{"a":"ü"}']);
  });

  it('comments, other fields, CRLF and several data lines are misread', async () => {
    expect(
      await collect(': keep-alive\n\n', 'event: x\r\ndata: 1\r\ndata:2\r\n\r\n', 'data: 3'),
    ).toEqual(['1\n2']);
  });

  it('a line without end takes memory without limit', async () => {
    await expect(collect(`data: ${'x'.repeat(2 * 1024 * 1024)}`)).rejects.toMatchObject({
      code: 'E_TOOBIG',
    });
  });
});
