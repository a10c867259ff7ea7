import { isProblem, type ErrorCode } from '#/protocol/errors.ts';

/** The code of the problem that `action` throws; another error is thrown on, and none is the text `nothing`. */
export function codeOf(action: () => unknown): ErrorCode | 'nothing' {
  try {
    action();
  } catch (error) {
    if (isProblem(error)) return error.code;
    throw error;
  }
  return 'nothing';
}

/** As `codeOf`, for a promise. */
export async function codeOfAsync(action: () => Promise<unknown>): Promise<ErrorCode | 'nothing'> {
  try {
    await action();
  } catch (error) {
    if (isProblem(error)) return error.code;
    throw error;
  }
  return 'nothing';
}

/** The code of the error that the problem thrown by `action` has as its cause: what the runtime refused it with. */
export function causeOf(action: () => unknown): unknown {
  try {
    action();
  } catch (error) {
    if (!isProblem(error)) throw error;
    return error.cause instanceof Error && 'code' in error.cause ? error.cause.code : null;
  }
  return 'nothing';
}
