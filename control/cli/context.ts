/**
 * What a command may touch, as values: commands get this and nothing else, so a test runs them without a process.
 * Only control/cli/main.ts builds the real one.
 */

/** One of the two output streams. */
export interface Output {
  write(text: string): void;
  readonly isTty: boolean;
  /** Width in characters; 80 where nobody knows. */
  readonly columns: number;
  /** Height in lines; 24 where nobody knows. */
  readonly rows: number;
}

export interface CliContext {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Directory that relative paths start at. */
  readonly cwd: string;
  readonly out: Output;
  readonly err: Output;
  /** Milliseconds since 1970. */
  now(): number;
  /** Resolves after `ms`, or early when `signal` fires. */
  sleep(ms: number): Promise<void>;
  /** Fires when the operator presses Ctrl-C or the process is asked to end. */
  readonly signal: AbortSignal;
  /** Random bytes as lower-case hex. */
  randomHex(bytes: number): string;
}

/** A context that touches nothing: for building the command tree where no command is run (docs, completion). */
export const contextForDocs: CliContext = {
  env: {},
  cwd: '.',
  out: { write: () => undefined, isTty: false, columns: 100, rows: 24 },
  err: { write: () => undefined, isTty: false, columns: 100, rows: 24 },
  now: () => 0,
  sleep: () => Promise.resolve(),
  signal: AbortSignal.abort(),
  randomHex: () => '',
};
