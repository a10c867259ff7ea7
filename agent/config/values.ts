/** Kinds of values that several settings have. */
import * as v from 'valibot';

export const whole = (min: number, max: number) =>
  v.pipe(v.number(), v.safeInteger(), v.minValue(min), v.maxValue(max));
export const path = v.pipe(v.string(), v.regex(/^\/[^\0]*$/, 'expected an absolute path'));
export const text = (max: number) => v.pipe(v.string(), v.minLength(1), v.maxLength(max));
