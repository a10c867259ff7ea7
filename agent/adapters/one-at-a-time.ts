/** Calls to the verifier, one after the other: its state on disk has one writer at a time. */
import type { AgentTrust } from './trust-client.ts';

/** The same verifier; a call waits for those before it, whether they failed or not. */
export function oneAtATime(trust: AgentTrust): AgentTrust {
  let last: Promise<unknown> = Promise.resolve();
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const mine = last.then(work, work);
    last = mine.catch(() => undefined);
    return mine;
  };
  return {
    resolve: (assignment, context) => inTurn(() => trust.resolve(assignment, context)),
    resolveFile: (path, context) => inTurn(() => trust.resolveFile(path, context)),
    raiseFloor: (offerClass, release) => inTurn(() => trust.raiseFloor(offerClass, release)),
    refresh: (nowMs) => inTurn(() => trust.refresh(nowMs)),
    seenLog: () => trust.seenLog(),
    status: () => inTurn(() => trust.status()),
    observeSignedTime: (signedMs, systemMs) =>
      inTurn(() => trust.observeSignedTime(signedMs, systemMs)),
  };
}
