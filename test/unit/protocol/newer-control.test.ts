import * as v from 'valibot';
import { expect, it } from 'vitest';
import { reportAnswer, rotateAnswer } from '#/protocol/agent-plane.ts';
import { assignment } from '#/protocol/documents.ts';

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
