/** A failure of a command, for programs: both command lines print it as one line of JSON on standard error. */
import { errors, isProblem, type JsonObject } from './errors.ts';

/** A bug in the program itself; every expected failure has its exit code in the error table. */
export const EXIT_BUG = 1;

/** Its fields, as the reference pages name them. */
export const FAILURE_SHAPE = '{code, message, details, causes: [text], act, exit}';

const CAUSES_MAX = 8;

/** Messages of the causes, outermost first, without repeats and without an end in a cycle. */
export function causesOf(error: unknown): readonly string[] {
  const causes: string[] = [];
  let cause = error instanceof Error ? error.cause : undefined;
  while (cause !== undefined && cause !== null && causes.length < CAUSES_MAX) {
    if (isProblem(cause)) causes.push(`${cause.code}: ${cause.message}`);
    else causes.push(cause instanceof Error ? cause.message : JSON.stringify(cause));
    cause = cause instanceof Error ? cause.cause : undefined;
  }
  return causes;
}

/** `act`: what to do next, where that of the error table does not fit. */
export function failureRecord(error: unknown, act?: string): JsonObject {
  if (!isProblem(error)) {
    const message = error instanceof Error ? error.message : String(error);
    return { code: 'BUG', message, causes: causesOf(error), act: 'Report it.', exit: EXIT_BUG };
  }
  const { code, message, details } = error;
  const row = errors[code];
  return { code, message, details, causes: causesOf(error), act: act ?? row.act, exit: row.exit };
}
