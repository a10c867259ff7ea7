/** Runs one command line to its exit code. Never throws: every failure is told on stderr. */
import { type Command, CommanderError } from 'commander';
import type { CliContext } from '#/control/cli/context.ts';
import type { DescribedCommand } from '#/control/cli/describe.ts';
import { buildProgram } from '#/control/cli/program.ts';
import { exitCodeOf, renderFailure } from '#/control/cli/render/failure.ts';
import { painter, wantsColour } from '#/control/cli/render/text.ts';
import { Problem } from '#/protocol/errors.ts';
import { failureRecord } from '#/protocol/failure-record.ts';

/** Exit code of a command that the operator ended: 128 + SIGINT, as shells have it. */
export const EXIT_INTERRUPTED = 130;

/** `args`: without the program's own name. Resolves to the exit code. */
export async function run(args: readonly string[], context: CliContext): Promise<number> {
  const program = buildProgram(context);
  try {
    await program.parseAsync([...asCommand(args)], { from: 'user' });
    return context.signal.aborted && !isServing(args) ? EXIT_INTERRUPTED : 0;
  } catch (error) {
    if (context.signal.aborted) return EXIT_INTERRUPTED;
    const failure = asFailure(error, program, args);
    if (failure === null) return 0;
    if (args.includes('--json')) context.err.write(`${JSON.stringify(failureRecord(failure))}\n`);
    else {
      const paint = painter(wantsColour(context.env, context.err.isTty));
      context.err.write(renderFailure(failure, paint));
    }
    return exitCodeOf(failure);
  }
}

/** For `serve`, being ended is the way it ends. */
function isServing(args: readonly string[]): boolean {
  return args.includes('serve');
}

/** What people type out of habit: `--version`, `-V`, `help`, `help pin`. */
function asCommand(args: readonly string[]): readonly string[] {
  const [first, ...rest] = args;
  if (first === '--version' || first === '-V') return ['version', ...rest];
  return first === 'help' ? [...rest, '--help'] : args;
}

/** null: not a failure (help or the version was asked for). Complaints of the parser become E_USAGE, with the usage of the command. */
function asFailure(error: unknown, program: DescribedCommand, args: readonly string[]): unknown {
  if (!(error instanceof CommanderError)) return error;
  if (error.exitCode === 0) return null;
  if (error.code === 'commander.help') return new Problem('E_USAGE', 'which command? see above');
  const message = error.message.replace(/^error: /, '').replaceAll(/\s*\n\s*/g, ' ');
  return new Problem('E_USAGE', `${message}; usage: ${usageOf(program, args)}`);
}

/** How the command that `args` name is called: as far as they name one. */
function usageOf(program: DescribedCommand, args: readonly string[]): string {
  let found: Command = program;
  let path = program.name();
  for (const word of args) {
    const below = found.commands.find((child) => child.name() === word);
    if (below === undefined) continue;
    found = below;
    path = `${path} ${word}`;
  }
  return `${path} ${found.usage()}`;
}
