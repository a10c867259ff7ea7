/** How a command says that it failed: `code: message`, the chain of causes, and what to do next. */
import { errors, isProblem, type JsonObject } from '#/protocol/errors.ts';
import { harmless, type Tone } from './text.ts';

/** A bug in the program itself; every expected failure has its exit code in the error table. */
export const EXIT_BUG = 1;

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

export function exitCodeOf(error: unknown): number {
  return isProblem(error) ? errors[error.code].exit : EXIT_BUG;
}

/** The failure for people, several lines. A bug shows its stack: the report about it needs it. */
export function renderFailure(error: unknown, paint: (tone: Tone, text: string) => string): string {
  const causes = causesOf(error).map((cause) => `  caused by: ${harmless(cause)}\n`);
  if (!isProblem(error)) {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    return `${paint('bad', 'bug')}: ${text}\n${causes.join('')}  next: this should not happen; report it with the lines above.\n`;
  }
  const head = `${paint('bad', error.code)}: ${harmless(error.message)}\n`;
  const request = error.details['requestId'];
  const where = typeof request === 'string' ? `  request: ${harmless(request)}\n` : '';
  return `${head}${causes.join('')}${where}  ${paint('bold', 'next')}: ${errors[error.code].act}\n`;
}

/** The failure for programs: one line of JSON on stderr. */
export function failureRecord(error: unknown): JsonObject {
  if (!isProblem(error)) {
    const message = error instanceof Error ? error.message : String(error);
    return { code: 'BUG', message, causes: causesOf(error), act: 'Report it.', exit: EXIT_BUG };
  }
  const row = errors[error.code];
  return {
    code: error.code,
    message: error.message,
    details: error.details,
    causes: causesOf(error),
    act: row.act,
    exit: row.exit,
  };
}
