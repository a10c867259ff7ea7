import * as v from 'valibot';
import { expect, it } from 'vitest';
import { reportAnswer, rotateAnswer } from '#/protocol/agent-plane.ts';
import { assignment } from '#/protocol/documents.ts';
import { safeParseNewer } from '#/protocol/newer.ts';

const today = {
  generation: 3,
  group: 'web',
  offer: {
    artifactId: 'a'.repeat(64),
    rolloutId: null,
    sources: ['https://images.example/a.bundle'],
    retryGeneration: 0,
  },
  halted: false,
  rollbackGeneration: 0,
  why: '',
};

it('an assignment with fields of a newer control is taken, without them', () => {
  const newer = { ...today, later: 1, offer: { ...today.offer, mirrors: [] } };
  expect(v.parse(assignment, newer)).toEqual(v.parse(assignment, today));
});

it('answers to reports and key changes with fields of a newer control are taken', () => {
  const answer = { ackSeq: 1, wantFacts: false, pollAfterSeconds: 30 };
  expect(v.parse(reportAnswer, { ...answer, later: true })).toEqual(answer);
  const statement = { payloadType: 'x', payload: 'e30=', signatures: [{ keyid: 'k', sig: 's' }] };
  expect(v.parse(rotateAnswer, { statement, later: {} })).toEqual({ statement });
});

const view = v.strictObject({
  id: v.number(),
  parts: v.array(v.strictObject({ name: v.string() })),
  end: v.nullable(v.union([v.strictObject({ at: v.number() }), v.literal('never')])),
});

it('views for operators are taken with fields of a newer control, and held to all that is known', () => {
  const known = { id: 1, parts: [{ name: 'a' }], end: { at: 2 } };
  const newer = {
    later: 1,
    also: 2,
    ...known,
    parts: [{ name: 'a', x: {}, y: 0 }],
    end: { at: 2, by: 'me' },
  };
  expect(safeParseNewer(view, newer).output).toEqual(known);
  for (const broken of [
    { ...known, id: '1' },
    { id: 1, parts: [], later: 3 },
    { ...known, end: { by: 1 } },
    null,
  ])
    expect(safeParseNewer(view, broken).success).toBe(false);
});

it('a body of nothing but unknown fields is refused in bounded time', () => {
  const strange = Object.fromEntries(Array.from({ length: 10_000 }, (_, n) => [`f${n}`, n]));
  expect(safeParseNewer(view, strange).success).toBe(false);
});
