/** One run of one command: its global options, its outputs, and the line to control. */
import type { Command } from 'commander';
import { connect, type Connected } from '#/control/cli/connect.ts';
import type { CliContext } from '#/control/cli/context.ts';
import { createProgress, type Progress } from '#/control/cli/render/progress.ts';
import type { TableStyle } from '#/control/cli/render/table.ts';
import { painter, wantsColour } from '#/control/cli/render/text.ts';
import { type ConnectionFlags, resolveConnection } from '#/control/cli/settings.ts';

export interface GlobalOptions extends ConnectionFlags {
  readonly json?: boolean;
}

export interface Session {
  readonly context: CliContext;
  readonly flags: GlobalOptions;
  readonly json: boolean;
  readonly style: TableStyle;
  /** The result: as JSON, or as the text that `render` makes of it. */
  print<Value>(value: Value, render: (value: Value) => string): void;
  /** A remark for the person at the terminal; never in the way of a program. */
  note(text: string): void;
  /** Bytes of work that is going on, on stderr. */
  progress(label: string, totalBytes: number): Progress;
  /** Throws E_USAGE or E_CONFIG when it is not known where control is. */
  connect(): Promise<Connected>;
}

/** The session of `command`, with the options of it and of the program above it. */
export function openSession(context: CliContext, command: Command): Session {
  const flags = command.optsWithGlobals<GlobalOptions>();
  const json = flags.json === true;
  const style: TableStyle = {
    columns: context.out.isTty ? context.out.columns : null,
    paint: painter(!json && wantsColour(context.env, context.out.isTty)),
  };
  return {
    context,
    flags,
    json,
    style,
    print(value, render) {
      context.out.write(json ? `${JSON.stringify(value, null, 2)}\n` : render(value));
    },
    note(text) {
      if (!json) context.err.write(`${text}\n`);
    },
    progress(label, totalBytes) {
      return createProgress({
        label,
        totalBytes,
        out: context.err,
        now: () => context.now(),
        json,
      });
    },
    async connect() {
      return connect(await resolveConnection(flags, context.env), context.signal);
    },
  };
}
