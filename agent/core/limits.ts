/** Every bound of the machine, in one place. Times in run milliseconds unless they say otherwise. */
const second = 1000;
const minute = 60 * second;
const hour = 60 * minute;

export const limits = {
  /** Runs of one operation in one state, before the state gives up. */
  tries: 5,
  retryBaseMs: 2 * second,
  retryCapMs: 5 * minute,
  /** Attempts that did not end in a verdict: how soon the same offer is taken up again. */
  attemptBackoffBaseMs: minute,
  attemptBackoffCapMs: hour,
  /** The same, when the offer itself was refused. */
  refusedBackoffCapMs: 6 * hour,
  pollBackoffBaseMs: 5 * second,
  pollBackoffCapMs: 15 * minute,
  pollMinMs: second,
  pollMaxMs: 24 * hour,
  /** A poll without an answer for so long is taken as lost. */
  pollAnswerMs: 5 * minute,
  /** A slot that failed its read-back is written anew so often (F24). */
  rewrites: 1,
  /** Tickets per attempt: the first, and one more when the host never came to the switch (F34, I6). */
  arms: 2,
  /** Reboots asked for before the host counts as not rebooting (F33), and the time that each gets. */
  reboots: 3,
  rebootWaitMs: 2 * minute,
  /** Rounds of rolling back before an operator is needed (F51). */
  rollbackRounds: 3,
  /** Time that one round of checks of the old version gets. */
  rollbackVerifyMs: 5 * minute,
  /** Restarts of a version seen in its trial that are forgiven (F47). */
  restarts: 3,
  windowRecheckMs: 15 * minute,
  storeRecheckMs: 30 * second,
  /** No new attempt while more reports than this wait for the outbox. */
  unreportedForNewAttempt: 8,
  /** Longest sleep of a trial: its deadline and restarts are looked at at least so often. */
  trialTickMs: 10 * second,
} as const;
