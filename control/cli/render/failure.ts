/** How a command says that it failed: `code: message`, the chain of causes, and what to do next. */
import { errors, isProblem } from '#/protocol/errors.ts';
import { causesOf, EXIT_BUG } from '#/protocol/failure-record.ts';
import { harmless, type Tone } from './text.ts';

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
