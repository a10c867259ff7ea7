/** Runs targets for a while: every outcome but a value or a Problem is a finding, and so are slowness and growth. */
import { isProblem } from '#/protocol/errors.ts';
import { mutated, numbers } from './mutate.ts';
import type { FuzzTarget } from './targets.ts';

export interface Finding {
  readonly target: string;
  readonly at: number;
  readonly what: string;
  readonly bytes: Uint8Array;
}

/** One parse may take this long. */
export const PARSE_MAX_MS = 1_000;

/** The bytes of one try: the same for the same seed, target and number. */
export function bytesAt(target: FuzzTarget, seed: number, at: number): Uint8Array {
  let hash = seed >>> 0;
  for (const char of target.name) hash = Math.imul(hash ^ char.charCodeAt(0), 0x01000193) >>> 0;
  return mutated(target.seeds, numbers((hash + Math.imul(at, 0x9e3779b1)) >>> 0));
}

/** One try; null when the parser gave a value or a Problem in time. */
export function tryOnce(target: FuzzTarget, bytes: Uint8Array, at: number): Finding | null {
  const startMs = performance.now();
  let what: string | null = null;
  try {
    target.parse(bytes);
  } catch (error) {
    if (!isProblem(error))
      what = error instanceof Error ? (error.stack ?? error.message) : String(error);
  }
  const tookMs = performance.now() - startMs;
  if (what === null && tookMs > PARSE_MAX_MS) what = `took ${Math.round(tookMs)} ms`;
  return what === null ? null : { target: target.name, at, what, bytes };
}
