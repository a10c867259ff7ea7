/** Small schemas that several documents of the HTTP contract share. */
import * as v from 'valibot';

/** Milliseconds since 1970, UTC. */
export const atMs = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
/** A count or a counter. */
export const whole = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
export const positive = v.pipe(v.number(), v.safeInteger(), v.minValue(1));
/** A share in percent, fractions allowed (0.5 is half a percent). */
export const percent = v.pipe(v.number(), v.finite(), v.minValue(0), v.maxValue(100));
/** Why an operator did something; never empty, because unexplained changes are the ones that last. */
export const reason = v.pipe(v.string(), v.trim(), v.minLength(1), v.maxLength(1024));
export const shortText = v.pipe(v.string(), v.maxLength(1024));
/** Raw Ed25519 or X25519 public key, 64 hex digits. */
export const publicKeyHex = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/, 'expected 64 hex digits'));
export const id = (prefix: string) =>
  v.pipe(
    v.string(),
    v.regex(new RegExp(`^${prefix}-[0-9a-f]{16}$`), `expected ${prefix}- and 16 hex digits`),
  );
/** Facts a host tells of itself; nothing that a host says decides its group. */
export const facts = v.pipe(
  v.record(v.pipe(v.string(), v.maxLength(64)), v.union([v.string(), v.number(), v.boolean()])),
  v.maxEntries(128),
);
/** A numeral in a query string. */
export const limitQuery = (max: number, fallback: number) =>
  v.optional(
    v.pipe(v.string(), v.regex(/^[1-9][0-9]{0,5}$/), v.transform(Number), v.maxValue(max)),
    String(fallback),
  );
export const cursorQuery = v.optional(v.pipe(v.string(), v.maxLength(256)));
