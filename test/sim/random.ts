/** The randomness of a simulation: every stream follows from a label, so that one fault taken out moves no other. */
import { createHash } from 'node:crypto';

export interface SimRandom {
  /** A number in [0, 1). */
  unit(): number;
  /** A whole number from 0 to `count` - 1. */
  below(count: number): number;
  chance(share: number): boolean;
  pick<T>(list: readonly T[]): T;
  bytes(count: number): Uint8Array;
  /** Random bytes as lower-case hex. */
  hex(bytes: number): string;
}

/** The stream of a label (sfc32 over its SHA-256). */
export function seeded(...label: readonly (string | number)[]): SimRandom {
  const digest = createHash('sha256').update(label.join('/')).digest();
  let a = digest.readUInt32LE(0);
  let b = digest.readUInt32LE(4);
  let c = digest.readUInt32LE(8);
  let counter = digest.readUInt32LE(12);
  const next = (): number => {
    const sum = (a + b + counter) >>> 0;
    counter = (counter + 1) >>> 0;
    a = (b ^ (b >>> 9)) >>> 0;
    b = (c + (c << 3)) >>> 0;
    c = ((c << 21) | (c >>> 11)) >>> 0;
    c = (c + sum) >>> 0;
    return sum;
  };
  const unit = (): number => next() / 2 ** 32;
  const below = (count: number): number => Math.floor(unit() * count);
  const bytes = (count: number): Uint8Array =>
    Uint8Array.from({ length: count }, () => next() & 255);
  return {
    unit,
    below,
    chance: (share) => unit() < share,
    pick: (list) => {
      const picked = list[below(list.length)];
      if (picked === undefined) throw new Error('nothing to pick from');
      return picked;
    },
    bytes,
    hex: (count) => Buffer.from(bytes(count)).toString('hex'),
  };
}
