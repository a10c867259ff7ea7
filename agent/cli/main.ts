/** `switchback-agent`: finds the command, reads options and settings, prints, and ends with the exit code of the error table. */
import { parseArgs } from 'node:util';
import { loadSettings, type LoadedSettings } from '#/agent/config.ts';
import { errors, isProblem, Problem } from '#/protocol/errors.ts';
import { failureRecord } from '#/protocol/failure-record.ts';
import {
  commonOptions,
  type CliCommand,
  type CliParts,
  type Invocation,
  type Terminal,
} from './command.ts';
import { hostCommands } from './commands-host.ts';
import { imageCommands } from './commands-image.ts';
import { localCommands } from './commands-local.ts';
import { runCommands } from './commands-run.ts';

/** All commands, in the order of the help. */
export const agentCommands: readonly CliCommand[] = [
  ...runCommands,
  ...localCommands,
  ...hostCommands,
  ...imageCommands,
];

/** Runs one command line. Resolves with the exit code; what goes wrong is printed, not thrown, unless it is a bug. */
export async function runCli(
  argv: readonly string[],
  parts: CliParts,
  terminal: Terminal = standardTerminal(),
): Promise<number> {
  const isJson = argv.includes('--json');
  try {
    const ordered = commandFirst(argv);
    const found = findCommand(ordered);
    if (found === null) return printOverview(ordered, terminal, parts);
    return await runCommand(found.command, found.rest, parts, terminal);
  } catch (error) {
    if (!isProblem(error)) throw error;
    printProblem(error, isJson, terminal);
    return errors[error.code].exit;
  }
}

export function standardTerminal(): Terminal {
  return {
    out: (text) => process.stdout.write(text),
    error: (text) => process.stderr.write(text),
    isTty: process.stderr.isTTY === true,
    onInterrupt(act) {
      process.once('SIGINT', act);
      return () => process.off('SIGINT', act);
    },
  };
}

/** Options of every command may stand before it, as in `switchback-agent --config FILE status`: they are moved behind it. */
function commandFirst(argv: readonly string[]): readonly string[] {
  let at = 0;
  for (;;) {
    const word = argv[at] ?? '';
    if (word === '--config' && argv[at + 1] !== undefined) at += 2;
    else if (word === '--json' || word.startsWith('--config=')) at += 1;
    else return [...argv.slice(at), ...argv.slice(0, at)];
  }
}

function findCommand(
  argv: readonly string[],
): { readonly command: CliCommand; readonly rest: readonly string[] } | null {
  const [first, second] = argv;
  if (first === undefined || first.startsWith('-') || first === 'help') return null;
  const two = agentCommands.find((command) => command.name === `${first} ${second}`);
  if (two !== undefined) return { command: two, rest: argv.slice(2) };
  const one = agentCommands.find((command) => command.name === first);
  if (one !== undefined) return { command: one, rest: argv.slice(1) };
  const family = agentCommands.filter((command) => command.name.startsWith(`${first} `));
  if (family.length > 0)
    throw new Problem(
      'E_USAGE',
      `${first} needs one of: ${family.map((command) => command.name).join(', ')}`,
    );
  throw new Problem(
    'E_USAGE',
    `unknown command ${first}; \`switchback-agent --help\` lists what there is`,
  );
}

async function runCommand(
  command: CliCommand,
  rest: readonly string[],
  parts: CliParts,
  terminal: Terminal,
): Promise<number> {
  const { values, positionals } = parse(command, rest);
  if (values['help'] === true) {
    terminal.out(helpText(command));
    return 0;
  }
  if (positionals.length < command.minArguments || positionals.length > command.maxArguments) {
    throw new Problem(
      'E_USAGE',
      `usage: switchback-agent ${command.name} ${command.usage}`.trimEnd(),
    );
  }
  let loaded: LoadedSettings | null = null;
  const source = values['config'];
  const isJson = values['json'] === true;
  const invocation: Invocation = {
    parts,
    terminal,
    options: values,
    arguments: positionals,
    isJson,
    load: () => (loaded ??= loadSettings(typeof source === 'string' ? source : null)),
    print: (value, text) => terminal.out(isJson ? `${JSON.stringify(value)}\n` : text()),
  };
  return await command.run(invocation);
}

function parse(
  command: CliCommand,
  rest: readonly string[],
): { values: Record<string, string | boolean | undefined>; positionals: string[] } {
  const options = Object.fromEntries(
    Object.entries({ ...commonOptions, ...command.options }).map(([option, { type, short }]) => [
      option,
      short === undefined ? { type } : { type, short },
    ]),
  );
  try {
    return parseArgs({ args: [...rest], options, allowPositionals: true, strict: true });
  } catch (cause) {
    // Node adds advice about arguments that begin with a dash; no command has such.
    const why = cause instanceof Error ? cause.message.split(/\. To specify|\n/, 1)[0] : 'not read';
    const usage = `switchback-agent ${command.name} ${command.usage}`.trimEnd();
    throw new Problem('E_USAGE', `${why}; usage: ${usage} [options]`);
  }
}

/** The help of one command. */
export function helpText(command: CliCommand): string {
  const options = Object.entries({ ...command.options, ...commonOptions }).map(([option, spec]) => {
    const short = spec.short === undefined ? '' : `-${spec.short}, `;
    const value = spec.type === 'string' ? ` ${spec.value ?? 'VALUE'}` : '';
    return [`  ${short}--${option}${value}`, spec.doc] as const;
  });
  const width = Math.max(...options.map(([name]) => name.length));
  return [
    `${command.summary}\n\nusage: switchback-agent ${command.name} ${command.usage}`.trimEnd(),
    '\n\noptions:\n',
    ...options.map(([name, doc]) => `${name.padEnd(width)}  ${doc}\n`),
    ...(command.notes === undefined ? [] : [`\n${command.notes}\n`]),
    ...(command.json === undefined ? [] : [`\nwith --json: ${command.json}\n`]),
    '\nexamples:\n',
    ...command.examples.map((example) => `  ${example}\n`),
  ].join('');
}

function printOverview(argv: readonly string[], terminal: Terminal, parts: CliParts): number {
  const [first, ...rest] = argv;
  if (first === '--version' || first === '-V') {
    terminal.out(`switchback-agent ${parts.version}\n`);
    return 0;
  }
  if (first === 'help' && rest.length > 0) {
    const found = findCommand(rest);
    if (found !== null) {
      terminal.out(helpText(found.command));
      return 0;
    }
  }
  const isAsked = first === 'help' || first === '--help' || first === '-h';
  const width = Math.max(...agentCommands.map((command) => command.name.length));
  const text = [
    'Keeps this host on exactly the signed version that its operators pinned.\n\n',
    'usage: switchback-agent COMMAND [options]\n\ncommands:\n',
    ...agentCommands.map((command) => `  ${command.name.padEnd(width)}  ${command.summary}\n`),
    '\n`switchback-agent COMMAND --help` shows options and examples.\n',
  ].join('');
  if (isAsked) terminal.out(text);
  else terminal.error(text);
  return isAsked ? 0 : errors.E_USAGE.exit;
}

function printProblem(problem: Problem, isJson: boolean, terminal: Terminal): void {
  const { code, message, details } = problem;
  const act =
    details['offline'] === true
      ? 'Start it: `systemctl start switchback-agent`, or `switchback-agent run`.'
      : errors[code].act;
  if (isJson) {
    terminal.error(`${JSON.stringify(failureRecord(problem, act))}\n`);
    return;
  }
  terminal.error(`${code}: ${message}\n`);
  for (
    let { cause } = problem, depth = 0;
    cause instanceof Error && depth < 4;
    { cause } = cause, depth += 1
  )
    terminal.error(`  because: ${cause.message.split('\n', 1)[0]}\n`);
  terminal.error(`  next: ${act}\n`);
}
