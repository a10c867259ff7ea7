/** Shape of a command of `switchback-agent`. Parsing by node:util, so that the daemon loads no package for it. */
import type { Settings, LoadedSettings } from '#/agent/config.ts';
import type { DriftView } from './render.ts';

export interface OptionSpec {
  readonly type: 'boolean' | 'string';
  readonly short?: string;
  readonly doc: string;
  /** Shown for the value of a string. */
  readonly value?: string;
}

/** What agent/main.ts brings: the parts that only the composition root can build. */
export interface CliParts {
  readonly version: string;
  /** Runs the daemon until SIGTERM, or with `once` until one check and what follows from it have ended. Resolves with the exit code. */
  runDaemon(loaded: LoadedSettings, options: { readonly once: boolean }): Promise<number>;
  /** Compares the live slot with its listing. */
  verifyLive(settings: Settings): Promise<DriftView>;
}

export interface Terminal {
  out(text: string): void;
  error(text: string): void;
  /** Progress is drawn only here. */
  readonly isTty: boolean;
  /** Has `act` done at Ctrl-C, instead of the end of the process. Gives back what ends that. */
  onInterrupt(act: () => void): () => void;
}

export interface Invocation {
  readonly parts: CliParts;
  readonly terminal: Terminal;
  readonly options: Readonly<Record<string, string | boolean | undefined>>;
  readonly arguments: readonly string[];
  readonly isJson: boolean;
  /** Reads the configuration (once). */
  load(): LoadedSettings;
  /** Prints the value as JSON, or the text. */
  print(value: unknown, text: () => string): void;
}

export interface CliCommand {
  readonly name: string;
  readonly summary: string;
  /** Positional arguments as shown in the help: `FILE`, `[ARTIFACT]`. */
  readonly usage: string;
  readonly minArguments: number;
  readonly maxArguments: number;
  readonly options: Readonly<Record<string, OptionSpec>>;
  readonly examples: readonly string[];
  /** What `--json` prints, in one line; a failure is FAILURE_SHAPE on standard error in every command. */
  readonly json?: string;
  /** More text for the help: what the exit code says. */
  readonly notes?: string;
  /** Resolves with the exit code. */
  run(invocation: Invocation): Promise<number>;
}

export const commonOptions: Readonly<Record<string, OptionSpec>> = {
  config: {
    type: 'string',
    value: 'FILE|DIR',
    doc: 'Settings from here instead of the drop-in directories.',
  },
  json: { type: 'boolean', doc: 'Machine-readable output.' },
  help: { type: 'boolean', short: 'h', doc: 'Help with examples.' },
};
