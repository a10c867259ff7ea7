import { describe, expect, it } from 'vitest';
import type { Facts, SlotRecord } from '#/agent/core/facts.ts';
import { lookedAt } from '#/agent/core/known.ts';
import type { VersionId } from '#/protocol/ids.ts';

const [v1, v2, v3] = ['1', '2', '3'].map((digit) => digit.repeat(64)) as [
  VersionId,
  VersionId,
  VersionId,
];

function record(slot: string, artifactId: VersionId, status: SlotRecord['status']): SlotRecord {
  return { slot, status, artifactId, release: Number(artifactId[0]) } as SlotRecord;
}

function facts(live: string, liveArtifact: VersionId, slots: readonly SlotRecord[]): Facts {
  return { live, liveArtifact, slots } as Facts;
}

const known = { live: 'b', artifactId: v2, previous: v1, retryGeneration: 4 };

describe('what a host that was looked at goes back to', () => {
  it('is what it was, as long as a good slot holds it', () => {
    const slots = [record('a', v1, 'good'), record('b', v2, 'good')];
    expect(lookedAt(known, facts('b', v2, slots))).toEqual(known);
  });

  it('never is what runs: when the boot loader fell back, it is what ran before', () => {
    const slots = [record('a', v1, 'good'), record('b', v2, 'good')];
    expect(lookedAt(known, facts('a', v1, slots))).toEqual({
      ...known,
      live: 'a',
      artifactId: v1,
      previous: v2,
    });
  });

  it('is nothing when its slot was written over by a version that is not good', () => {
    const slots = [record('a', v3, 'bad'), record('b', v2, 'good')];
    expect(lookedAt(known, facts('b', v2, slots)).previous).toBeNull();
  });

  it('is the newest good one when the journal was lost', () => {
    const slots = [record('a', v1, 'good'), record('c', v3, 'good'), record('b', v2, 'good')];
    const lost = { ...known, previous: null };
    expect(lookedAt(lost, facts('b', v2, slots)).previous).toBe(v3);
  });
});
