/** Answers that are not a success: `{code, message, details, requestId}` with the status of the code. */
import type { ProblemBody } from '#/protocol/api.ts';
import { errors, Problem } from '#/protocol/errors.ts';

/** Some codes stand for another status on this plane than their kind has. */
const statusOf = (problem: Problem): number => {
  const own = problem.details['httpStatus'];
  return typeof own === 'number' ? own : errors[problem.code].http;
};

/** The answer to a failed request. Whatever is no Problem is a bug: the caller logs it and it is answered as 500. */
export function problemAnswer(error: unknown, requestId: string): Response {
  const problem =
    error instanceof Problem
      ? error
      : new Problem('E_UNAVAILABLE', 'control failed; its log has the cause', { httpStatus: 500 });
  const { httpStatus: _, retryAfterSeconds, ...details } = problem.details;
  const body: ProblemBody = { code: problem.code, message: problem.message, details, requestId };
  const headers: Record<string, string> = {
    'content-type': 'application/json',
    'x-request-id': requestId,
    'cache-control': 'no-store',
  };
  if (typeof retryAfterSeconds === 'number') headers['retry-after'] = String(retryAfterSeconds);
  // The rest of a refused body is not read: the connection cannot be used again.
  if (problem.code === 'E_TOOBIG' || problem.code === 'E_TIMEOUT') headers['connection'] = 'close';
  return new Response(JSON.stringify(body), { status: statusOf(problem), headers });
}
