/** What a host that was looked at is known to run, and to hold to go back to. */
import type { Facts } from './facts.ts';
import type { State } from './state.ts';

/** A version that is live now, or that no good slot holds any more, is none to go back to: then it is the newest that one holds. */
export function lookedAt(known: State['known'], facts: Facts): State['known'] {
  const good = facts.slots.filter((slot) => slot.status === 'good' && slot.slot !== facts.live);
  const isHeld = good.some((slot) => slot.artifactId === known.previous);
  const newest = good.toSorted((a, b) => (b.release ?? 0) - (a.release ?? 0))[0];
  return {
    ...known,
    live: facts.live,
    artifactId: facts.liveArtifact,
    previous: isHeld ? known.previous : (newest?.artifactId ?? null),
  };
}
