/**
 * The one table of error codes, and the one error class.
 *
 * Codes are public: operators search for them, dashboards group by them, scripts match on them. A code is never renamed.
 * `docs/reference/errors.md` is generated from this table.
 */

/** How the receiver of an error behaves; see docs/reference/errors.md. */
export type ErrorKind = 'refused' | 'unavailable' | 'exhausted' | 'damaged';

interface ErrorRow {
  readonly kind: ErrorKind;
  /** HTTP status when control answers with it. */
  readonly http: number;
  /** Exit code of a command that ends with it. */
  readonly exit: number;
  /** What happened, one sentence. */
  readonly doc: string;
  /** What to do next, one sentence. */
  readonly act: string;
}

/** Exit codes by kind: scripts branch on these. 1 = a bug, 2 = wrong usage. */
const refused = { kind: 'refused', http: 422, exit: 20 } as const;
const unavailable = { kind: 'unavailable', http: 503, exit: 75 } as const;
const exhausted = { kind: 'exhausted', http: 507, exit: 28 } as const;
const damaged = { kind: 'damaged', http: 500, exit: 74 } as const;

export const errors = {
  // Metadata and signatures (attacks A, B)
  E_SIGS: {
    ...refused,
    doc: 'Too few valid signatures by trusted keys.',
    act: 'Do not retry. Check who published this and which keys are trusted.',
  },
  E_DUPSIG: {
    ...refused,
    doc: 'One key signed more than once.',
    act: 'Do not retry. The publisher must sign with distinct keys.',
  },
  E_KEYID: {
    ...refused,
    doc: 'A key id is not the hash of its key.',
    act: 'Publish keys under their own hash.',
  },
  E_ROLLBACK: {
    ...refused,
    doc: 'Metadata is older than what was already seen.',
    act: 'If control was restored from a backup, refresh its metadata; otherwise suspect a replay.',
  },
  E_EXPIRED: {
    ...refused,
    doc: 'Metadata has expired.',
    act: 'Sign fresh metadata, and check the clock of the host and of the publisher.',
  },
  E_EXPIRES: {
    ...refused,
    doc: 'An expiry date is malformed.',
    act: 'Sign the metadata again with a date as YYYY-MM-DDTHH:MM:SSZ.',
  },
  E_VERSION: {
    ...refused,
    doc: 'A metadata version is not a positive safe integer.',
    act: 'Sign the metadata again with a correct version.',
  },
  E_HASH: {
    ...refused,
    doc: 'Content does not have the signed digest.',
    act: 'Try another source; if all differ, suspect the publisher or the path between.',
  },
  E_HASHALG: { ...refused, doc: 'No sha256 digest is given.', act: 'Publish with sha256.' },
  E_MIX: {
    ...refused,
    doc: 'Metadata of two different releases was mixed.',
    act: 'Publish the whole set again.',
  },
  E_SCHEMA: {
    ...refused,
    doc: 'A document does not have the required shape.',
    act: 'The message names the field and what was expected there.',
  },
  E_PARSE: {
    ...refused,
    doc: 'Bytes are not strict JSON.',
    act: 'The message names the position and the rule that was broken.',
  },
  E_CANON: {
    ...refused,
    doc: 'A number is not written in its canonical form.',
    act: 'Write numbers as plain integers.',
  },
  E_SPEC: {
    ...refused,
    doc: 'The metadata is of a specification version that this program does not know.',
    act: 'Update this program, or publish in version 1.0.',
  },
  E_TYPE: {
    ...refused,
    doc: 'Metadata of one type stands where another is expected.',
    act: 'Publish the whole set again.',
  },
  E_ROOTS: {
    ...refused,
    doc: 'Too many root rotations at once.',
    act: 'Install an agent with a newer embedded root.',
  },
  E_NOTARGET: {
    ...refused,
    doc: 'No trusted role vouches for this target.',
    act: 'Check the name and the delegation of its role.',
  },
  E_LOG: {
    ...refused,
    doc: 'The audit log does not vouch for this, or contradicts what was seen of it before.',
    act: 'Suspect control: export the log and run `switchback audit verify`.',
  },
  E_VSA: {
    ...refused,
    doc: 'No verdict of the policy gates allows this artifact here.',
    act: 'Pin it through control, so that the gates judge it under the current policy.',
  },
  E_GATE: {
    ...refused,
    doc: 'A policy gate denies this.',
    act: 'The message names the rules that denied, each with what it asks for.',
  },
  E_EQUIVOCATION: {
    ...refused,
    doc: 'Two different documents were signed with one version number.',
    act: 'Find out who signed twice; treat that key as suspect.',
  },

  // Artifacts (attacks C)
  E_ARTIFACT: {
    ...refused,
    doc: 'The manifest is not the one that was pinned.',
    act: 'Check that the store serves the right bundle.',
  },
  E_CONFIG_SET: {
    ...refused,
    doc: 'A config set is not the one that was pinned, or not for this artifact, group or config schema.',
    act: 'Build a config set for this artifact and group, and pin it together with the artifact.',
  },
  E_SEAL: {
    ...refused,
    doc: 'A sealed secret does not open with the key of this host and for exactly this artifact and config set, or a key cannot be sealed to.',
    act: 'Seal the config set for this host. If it was sealed, suspect whoever stored it.',
  },
  E_CHUNK: {
    ...damaged,
    doc: 'A chunk does not have its signed digest.',
    act: 'It is fetched from another source; if none has it, publish the bundle again.',
  },
  E_PATH: {
    ...refused,
    doc: 'A path in the bundle is not allowed.',
    act: 'Rebuild the bundle without that entry.',
  },
  E_MODE: {
    ...refused,
    doc: 'A file in the bundle has a kind or mode that its manifest does not allow.',
    act: 'Rebuild the bundle, or allow the mode in its manifest.',
  },
  E_SIZE: {
    ...refused,
    doc: 'A declared size is wrong or over its limit.',
    act: 'Rebuild the bundle.',
  },
  E_SUBJECT: {
    ...refused,
    doc: 'An attestation speaks of another artifact.',
    act: 'Attach the attestation of this artifact.',
  },
  E_BUILDER: {
    ...refused,
    doc: 'Provenance names a builder that its signer may not speak for.',
    act: 'Check the list of trusted builders.',
  },
  E_CLASS: {
    ...refused,
    doc: 'The artifact is for another class or architecture of hosts.',
    act: 'Pin an artifact of the right class for this group.',
  },
  E_AGENT_TOO_OLD: {
    ...refused,
    doc: 'The artifact needs a newer agent.',
    act: 'Update the agent first.',
  },
  E_STEPPING_STONE: {
    ...refused,
    doc: 'The artifact can only be installed over a newer version than the one running.',
    act: 'Pin the version that the message names first.',
  },
  E_FLOOR: {
    ...refused,
    doc: 'The release is below the floor.',
    act: 'Pin a release at or above the floor.',
  },
  E_REVOKED: {
    ...refused,
    doc: 'The artifact or the key was revoked.',
    act: 'Pin another release.',
  },
  E_DENIED: {
    ...refused,
    doc: 'This host rolled this artifact back before and does not try it again on its own.',
    act: 'Release a fixed version, or clear the entry with `switchback host retry`, on the host itself with `switchback-agent retry ID`.',
  },
  E_PIN: {
    ...refused,
    doc: 'The offered artifact is not what the signed pin allows for this host.',
    act: 'Suspect control; compare the signed pin with what control shows.',
  },
  E_SLOT: {
    ...damaged,
    doc: 'A slot read back differs from what was written.',
    act: 'It is written anew once; if it fails again, suspect the disk.',
  },
  E_SPACE: {
    ...exhausted,
    doc: 'Not enough space for the new version.',
    act: 'Free space; the message says how much is missing and where.',
  },
  E_IO: {
    ...damaged,
    doc: 'The file system or device reported an error.',
    act: 'Look at the device; nothing more is written to that slot.',
  },
  E_DISK: {
    ...damaged,
    doc: 'The file system below the slots, or a partition, is not the one that this host was set up on.',
    act: 'Mount or attach the right one; if it was replaced, remove `slots-root.json` or `slots-disk.json` from the state directory.',
  },
  E_READ_ONLY: {
    ...damaged,
    doc: 'The state directory cannot be written.',
    act: 'Make it writable; until then this host is only observed.',
  },
  E_STATE: {
    ...damaged,
    doc: 'A state file is unreadable.',
    act: 'It is rebuilt from what the host really runs; nothing to do unless it repeats.',
  },

  // Transport (attacks D)
  E_TOOBIG: { ...refused, doc: 'More bytes came than the limit allows.', act: 'Check the source.' },
  E_TIMEOUT: {
    ...unavailable,
    doc: 'The other side did not answer in time.',
    act: 'It is tried again; check the network if it repeats.',
  },
  E_NETWORK: {
    ...unavailable,
    doc: 'The connection failed.',
    act: 'It is tried again; check the network if it repeats.',
  },
  E_REDIRECT: {
    ...refused,
    doc: 'The source redirected elsewhere.',
    act: 'Configure the final address.',
  },
  E_ENCODING: {
    ...refused,
    doc: 'The source used a content encoding that was not asked for.',
    act: 'Turn off compression for bundles on the source.',
  },
  E_TLS: {
    ...refused,
    doc: 'The TLS certificate or version is not acceptable.',
    act: 'Check the certificate, its name and the pinned CA.',
  },
  E_LENGTH: {
    ...unavailable,
    doc: 'The body is shorter or longer than announced, or the source changed in between.',
    act: 'It is fetched again.',
  },
  E_RANGE: {
    ...unavailable,
    doc: 'The source answered another range than was asked for.',
    act: 'Another source is used; check that the source honours Range.',
  },
  E_NONCE: {
    ...refused,
    doc: 'An answer does not belong to the question.',
    act: 'Suspect a replay.',
  },
  E_HTTP: {
    ...unavailable,
    doc: 'The other side answered with an unexpected status.',
    act: 'The message has the status; it is tried again.',
  },

  // Requests to control (attacks E)
  E_UNAUTHENTICATED: {
    ...refused,
    http: 401,
    doc: 'The request carries no valid credential.',
    act: 'Enrol the host, or give an operator token with --token or SWITCHBACK_TOKEN.',
  },
  E_FORBIDDEN: {
    ...refused,
    http: 403,
    doc: 'The credential does not allow this.',
    act: 'Ask for a role that does.',
  },
  E_NOT_FOUND: {
    ...refused,
    http: 404,
    doc: 'There is no such thing.',
    act: 'Check the name; the matching `ls` command lists what there is.',
  },
  E_CONFLICT: {
    ...refused,
    http: 409,
    doc: 'The thing has changed or exists already.',
    act: 'Look at what is there now, then repeat the change or choose another name.',
  },
  E_REPORT_SEQUENCE: {
    ...refused,
    http: 409,
    doc: 'A report does not follow the last one of this host.',
    act: 'The agent sends a full report.',
  },
  E_FORKED: {
    ...refused,
    http: 403,
    doc: 'Two machines use one host identity.',
    act: 'Enrol the clone with a new token.',
  },
  E_TOKEN: {
    ...refused,
    http: 401,
    doc: 'The join token is unknown, used, expired or for another group.',
    act: 'Create a new one with `switchback host token`.',
  },
  E_RATE_LIMITED: {
    ...unavailable,
    http: 429,
    doc: 'Too many requests.',
    act: 'Wait as long as Retry-After says.',
  },
  E_USAGE: {
    ...refused,
    http: 400,
    exit: 2,
    doc: 'The request or command is not understood.',
    act: 'The message names the part; --help shows what is accepted.',
  },
  E_UNAVAILABLE: {
    ...unavailable,
    doc: 'Control cannot answer now.',
    act: 'Try again; look at control if it repeats.',
  },
  E_HALTED: {
    ...refused,
    http: 409,
    doc: 'The fleet or group is halted.',
    act: 'Lift the halt with `switchback halt --lift` when it is safe.',
  },
  E_ROLLOUT_FAILED: {
    ...refused,
    http: 409,
    doc: 'The rollout stopped before all of its hosts were on the version.',
    act: 'Look at `switchback rollout show`; then resume or abort it, or pin another release.',
  },

  // The host
  E_INTERRUPTED: {
    ...unavailable,
    doc: 'The process that installs was ended before it was done.',
    act: 'It is started again and goes on from what is on the disk.',
  },
  E_BUSY: {
    ...unavailable,
    doc: 'Another program holds the lock or the address.',
    act: 'Wait for it, or end it.',
  },
  E_CONFIG: {
    ...refused,
    exit: 78,
    doc: 'The configuration is wrong.',
    act: 'The message names the file, the key and what is accepted.',
  },
  E_NOT_ALLOWED_NOW: {
    ...refused,
    doc: 'The host is in a state in which this is not possible.',
    act: 'The message names the state and what ends it.',
  },
  E_HOOK: {
    ...unavailable,
    doc: 'A hook failed or ran over its deadline.',
    act: 'The message has the hook, its exit code and its last output.',
  },
  E_UNHEALTHY: {
    ...refused,
    doc: 'A required health check failed.',
    act: 'The message names the check and its last results.',
  },
  E_DEADLINE: {
    ...refused,
    doc: 'The trial ran over its deadline.',
    act: 'Look at the checks that were not yet passed.',
  },
  E_TRIAL_BOOTS: {
    ...refused,
    doc: 'The trial used up its boots.',
    act: 'Look at the phase that was reached.',
  },
  E_FELL_BACK: {
    ...refused,
    doc: 'The boot loader went back to the previous slot.',
    act: 'Look at the phase that was reached.',
  },
  E_ROLLBACK_FAILED: {
    ...damaged,
    doc: 'The previous version is not healthy either.',
    act: 'Look at the host; automatic actions have stopped.',
  },
  E_ACTIVATION: {
    ...unavailable,
    doc: 'The version could not be started or stopped.',
    act: 'The message names the unit or command and its output.',
  },
  E_RECALLED: {
    ...refused,
    doc: 'The pin was taken back before the switch.',
    act: 'Nothing to do.',
  },
  E_ADRIFT: {
    ...damaged,
    doc: 'The host runs neither the version before the attempt nor the one that was tried.',
    act: 'Find out who changed it; `switchback-agent retry` lets the agent take the host as it is.',
  },
  E_REWOUND: {
    ...refused,
    doc: 'The host was put back to an old snapshot in the middle of an attempt.',
    act: 'Nothing to do; the pin is taken up anew.',
  },
  E_NOT_ATTEMPTED: {
    ...unavailable,
    doc: 'The boot loader did not try the armed slot; the version itself was not judged.',
    act: 'It is tried once more; if it repeats, look at the firmware and the boot loader.',
  },
  E_BOOT: {
    ...damaged,
    doc: "The boot loader's record is damaged, or does not show what was written to it.",
    act: 'The message names the loader and what was read; `switchback-agent doctor` says what it can do here.',
  },
  E_REBOOT: {
    ...unavailable,
    doc: 'The host did not reboot when it was asked to.',
    act: 'Find out what blocks the reboot, then retry.',
  },
  E_ONE_WAY: {
    ...damaged,
    doc: 'The version changed data that the one before it cannot read, so the host was not rolled back.',
    act: 'Look at the host: repair the version forward, or restore the data first.',
  },
  E_WINDOW_CLOSED: {
    ...unavailable,
    doc: 'No maintenance window is open.',
    act: 'It goes on when the next window opens; `explain` says when.',
  },
} as const satisfies Record<string, ErrorRow>;

export type ErrorCode = keyof typeof errors;

/** JSON values that may stand in the details of an error. */
export type JsonValue =
  | null
  | boolean
  | number
  | string
  | readonly JsonValue[]
  | { readonly [key: string]: JsonValue };
export type JsonObject = { readonly [key: string]: JsonValue };

/**
 * An expected failure. `message` says what failed with which values, lower case, without the word "error"; the cause is
 * chained. Catch by `isProblem(error, 'E_…')`, never by `instanceof`: two bundled copies of this class are one to the reader.
 */
export class Problem extends Error {
  override readonly name = 'Problem';
  readonly code: ErrorCode;
  readonly details: JsonObject;

  constructor(
    code: ErrorCode,
    message: string,
    details: JsonObject = {},
    options?: { cause?: unknown },
  ) {
    super(message, options);
    this.code = code;
    this.details = details;
  }

  get kind(): ErrorKind {
    return errors[this.code].kind;
  }
}

/** True for a Problem, and, where codes are given, for one of those codes. */
export function isProblem(error: unknown, ...codes: readonly ErrorCode[]): error is Problem {
  if (!(error instanceof Error) || error.name !== 'Problem' || !('code' in error)) return false;
  return codes.length === 0 || codes.includes((error as Problem).code);
}

/** A bug if it does not hold: crash, let the supervisor restart us and the journal resume. */
export function must(condition: unknown, rule: string): asserts condition {
  if (!condition) throw new Error(`must hold: ${rule}`);
}
