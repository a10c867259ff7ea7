/** Virtual time: a heap of things that will happen. Nothing waits; the next one is simply what happens next. */

interface Entry {
  readonly dueMs: number;
  readonly order: number;
  run: (() => void) | null;
}

export interface SimTime {
  /** Virtual milliseconds since the start. */
  nowMs(): number;
  /** Runs `run` at `dueMs`, or now if that is past. Gives the function that takes it back. */
  at(dueMs: number, run: () => void): () => void;
  /** Moves to the next entry up to `untilMs` and runs it. False: there is none. */
  next(untilMs: number): boolean;
}

/** A clock at 0 with an empty heap. Entries of the same moment run in the order in which they were made. */
export function simTime(): SimTime {
  const heap: Entry[] = [];
  let now = 0;
  let order = 0;
  const isBefore = (a: Entry, b: Entry): boolean =>
    a.dueMs < b.dueMs || (a.dueMs === b.dueMs && a.order < b.order);
  const at = (index: number): Entry => heap[index] as Entry;
  const swap = (i: number, j: number): void => {
    const kept = at(i);
    heap[i] = at(j);
    heap[j] = kept;
  };
  const push = (entry: Entry): void => {
    let child = heap.push(entry) - 1;
    while (child > 0) {
      const parent = (child - 1) >> 1;
      if (!isBefore(at(child), at(parent))) return;
      swap(child, parent);
      child = parent;
    }
  };
  const pop = (): Entry => {
    const top = at(0);
    const last = heap.pop() as Entry;
    if (heap.length === 0) return top;
    heap[0] = last;
    for (let parent = 0; ; ) {
      const left = 2 * parent + 1;
      if (left >= heap.length) return top;
      const right = left + 1;
      const child = right < heap.length && isBefore(at(right), at(left)) ? right : left;
      if (!isBefore(at(child), at(parent))) return top;
      swap(child, parent);
      parent = child;
    }
  };
  return {
    nowMs: () => now,
    at(dueMs, run) {
      const entry: Entry = { dueMs: Math.ceil(Math.max(dueMs, now)), order, run };
      order += 1;
      push(entry);
      return () => {
        entry.run = null;
      };
    },
    next(untilMs) {
      while (heap.length > 0 && at(0).dueMs <= untilMs) {
        const entry = pop();
        if (entry.run === null) continue;
        now = entry.dueMs;
        entry.run();
        return true;
      }
      return false;
    },
  };
}

/** Everything simulated is promises without I/O: when the event loop comes round, all of it has run. */
export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
