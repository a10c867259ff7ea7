/** Randomness of the host: ids and jitter. */
import { randomBytes } from 'node:crypto';
import type { Random } from '#/agent/ports.ts';

/** From the kernel's generator. */
export function systemRandom(): Random {
  return {
    hex: (bytes) => randomBytes(bytes).toString('hex'),
    unit: () => randomBytes(4).readUInt32BE() / 2 ** 32,
  };
}
