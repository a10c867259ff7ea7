/** Seeded randomness: numbers in [0, 1) from sha256 of the seed and a counter. */
import { createHash } from 'node:crypto';

export interface Random {
  unit(): number;
  below(limit: number): number;
  pick<T>(list: readonly T[]): T;
}

export function randomFrom(seed: string): Random {
  let counter = 0;
  const unit = (): number => {
    counter += 1;
    return createHash('sha256').update(`${seed}#${counter}`).digest().readUInt32BE(0) / 2 ** 32;
  };
  const below = (limit: number): number => Math.floor(unit() * limit);
  return {
    unit,
    below,
    pick: (list) => {
      const one = list[below(list.length)];
      if (one === undefined) throw new Error('nothing to pick from');
      return one;
    },
  };
}
