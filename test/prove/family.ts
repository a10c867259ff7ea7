/** A family of proofs: many faults of one kind, tried on one thing, with what became of them. */

/** `ci`: a share for each commit, other cases with each seed. `full`: all that is promised. `long`: more, for hours. */
export const scales = ['ci', 'full', 'long'] as const;
export type Scale = (typeof scales)[number];

export interface FamilyOptions {
  readonly seed: number;
  readonly scale: Scale;
  /** Only cases whose name has this in it, where cases have names: to try one again. */
  readonly match: string;
  /** dist/agent.mjs with its companions, for families that say that they use it. */
  readonly agentProgram: string;
  /** Notes for the reader, printed at once. */
  readonly say: (line: string) => void;
}

export type Fault = 'lost' | 'wrong' | 'stuck';

export interface Finding {
  readonly fault: Fault;
  /** Enough to try it again: the name of the case and what was seen. */
  readonly text: string;
}

export interface Outcome {
  /** Scenarios, call sites, images: what the faults were put into. */
  readonly cases: number;
  /** States, cut points or kills. */
  readonly states: number;
  readonly findings: readonly Finding[];
}

export interface Family {
  readonly name: string;
  readonly what: string;
  /** Runs only when asked for by its name, or with `--long`. */
  readonly isOnlyLong?: boolean;
  /** It runs the shipped agent. */
  readonly usesAgent?: boolean;
  /** It mostly waits, is one thread, or has processes that wait for each other: it runs beside the others. */
  readonly isLight?: boolean;
  run(options: FamilyOptions): Promise<Outcome>;
}

/** The fault that a violation of the simulated host counts as, by its words. */
export function faultOf(text: string): Fault {
  if (/^(?:stuck|bug|stopped|ended in|did not)/.test(text)) return 'stuck';
  return /^(?:I5|I7|I8|lost)/.test(text) ? 'lost' : 'wrong';
}

/** `count` of the items, drawn by the seed; all when there are no more. The order stays. */
export function drawn<T>(items: readonly T[], count: number, seed: number): readonly T[] {
  if (items.length <= count) return items;
  const keyed = items.map((item, at) => ({ item, at, key: scramble(seed * 1_000_003 + at) }));
  return keyed
    .toSorted((a, b) => a.key - b.key)
    .slice(0, count)
    .toSorted((a, b) => a.at - b.at)
    .map(({ item }) => item);
}

function scramble(number: number): number {
  let mixed = number | 0;
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x45d9f3b);
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x45d9f3b);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}

/** Runs `work` for each item, `parallel` at a time. */
export async function forEachParallel<T>(
  items: readonly T[],
  parallel: number,
  work: (item: T, lane: number) => Promise<void>,
): Promise<void> {
  const rest = items.values();
  const lane = async (number: number): Promise<void> => {
    for (const item of rest) await work(item, number);
  };
  await Promise.all(Array.from({ length: parallel }, (_, number) => lane(number)));
}
