/** One try of one target: every outcome but a value or a Problem is a finding, and so is slowness. */
import { isProblem } from '#/protocol/errors.ts';
import { mutated, numbers } from './mutate.ts';

export interface FuzzTarget {
  readonly name: string;
  readonly seeds: readonly Uint8Array[];
  /** Throws nothing but Problems. */
  readonly parse: (bytes: Uint8Array) => unknown;
}

export interface Finding {
  readonly target: string;
  readonly at: number;
  readonly what: string;
  readonly bytes: Uint8Array;
}

/** One parse may take this long, of the processor: a machine that does much else makes nothing slow. */
export const PARSE_MAX_MS = 1_000;
const MICROSECONDS = 1_000;

function cpuMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / MICROSECONDS;
}

/** The bytes of one try: the same for the same seed, target and number. */
export function bytesAt(target: FuzzTarget, seed: number, at: number): Uint8Array {
  let hash = seed >>> 0;
  for (const char of target.name) hash = Math.imul(hash ^ char.charCodeAt(0), 0x01000193) >>> 0;
  return mutated(target.seeds, numbers((hash + Math.imul(at, 0x9e3779b1)) >>> 0));
}

/** One try; null when the parser gave a value or a Problem in time. Waits only for parsers that read files. */
export function tryOnce(
  target: FuzzTarget,
  bytes: Uint8Array,
  at: number,
): Finding | null | Promise<Finding | null> {
  const startMs = cpuMs();
  const found = (error: unknown): Finding | null => {
    const tookMs = cpuMs() - startMs;
    const what =
      unexpected(error) ?? (tookMs > PARSE_MAX_MS ? `took ${Math.round(tookMs)} ms` : null);
    return what === null ? null : { target: target.name, at, what, bytes };
  };
  try {
    const value = target.parse(bytes);
    return value instanceof Promise ? value.then(() => found(null), found) : found(null);
  } catch (error) {
    return found(error);
  }
}

function unexpected(error: unknown): string | null {
  if (error === null || isProblem(error)) return null;
  return error instanceof Error ? (error.stack ?? error.message) : `threw ${String(error)}`;
}
