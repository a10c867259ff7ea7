/** docs/reference/cli.md, from the command tree itself. */
import type { Argument, Option } from 'commander';
import { contextForDocs } from '#/control/cli/context.ts';
import { type DescribedCommand, leavesOf } from '#/control/cli/describe.ts';
import { buildProgram } from '#/control/cli/program.ts';
import { FAILURE_SHAPE } from '#/protocol/failure-record.ts';

/** The page: one section per command, in the order of `--help`. */
export function cliPage(): string {
  const program = buildProgram(contextForDocs);
  const commands = leavesOf(program);
  const list = commands.map(
    ({ name, command }) => `- [\`${name}\`](#switchback-${anchor(name)}): ${command.description()}`,
  );
  return [
    '# switchback\n',
    intro,
    `## Options of every command\n\n${optionTable(program.options)}`,
    `## Commands\n\n${list.join('\n')}\n`,
    ...commands.map(({ name, command }) => section(name, command)),
  ].join('\n');
}

const anchor = (name: string): string => name.replaceAll(' ', '-');

function section(name: string, command: DescribedCommand): string {
  const words = command.registeredArguments.map((argument) => argumentWord(argument));
  const usage = [
    'switchback',
    name,
    ...words,
    ...(command.options.length > 0 ? ['[options]'] : []),
  ];
  const parts = [
    `## switchback ${name}\n`,
    `${command.description()}\n`,
    `\`\`\`\n${usage.join(' ')}\n\`\`\`\n`,
  ];
  if (command.registeredArguments.length > 0) {
    const rows = command.registeredArguments.map((argument) => {
      const choices =
        argument.argChoices === undefined ? '' : ` (${argument.argChoices.join(', ')})`;
      return `| \`${argumentWord(argument)}\` | ${cell(argument.description)}${choices} |`;
    });
    parts.push(`| argument | meaning |\n| --- | --- |\n${rows.join('\n')}\n`);
  }
  if (command.options.length > 0) parts.push(optionTable(command.options));
  parts.push(
    `With \`--json\`: ${command.jsonShape}\n`,
    `\`\`\`\n${command.examples.join('\n')}\n\`\`\`\n`,
  );
  return parts.join('\n');
}

function argumentWord(argument: Argument): string {
  const name = argument.variadic ? `${argument.name()}...` : argument.name();
  return argument.required ? `<${name}>` : `[${name}]`;
}

function optionTable(options: readonly Option[]): string {
  const rows = options.map((option) => {
    const choices = option.argChoices === undefined ? '' : ` (${option.argChoices.join(', ')})`;
    const fallback =
      option.defaultValue === undefined || option.defaultValue === ''
        ? ''
        : `; default ${String(option.defaultValue)}`;
    const needed = option.mandatory ? ' **Required.**' : '';
    return `| \`${option.flags}\` | ${cell(option.description)}${choices}${fallback}${needed} |`;
  });
  return `| option | meaning |\n| --- | --- |\n${rows.join('\n')}\n`;
}

const cell = (text: string): string => text.replaceAll('|', '\\|');

const intro = `Generated from the command tree in \`control/cli\`; do not edit. \`switchback <command> --help\` shows the same.

Where control is and who you are comes from flags, else from \`SWITCHBACK_URL\` and \`SWITCHBACK_TOKEN\`, else from the settings
file that \`switchback init\` wrote (mode 0600; a file that others may read is refused).

Exit codes: 0 done, 1 a bug, 2 wrong usage, 20 refused, 28 no room, 74 damaged, 75 try again later, 78 wrong configuration,
130 ended by Ctrl-C. See [errors](errors.md).

Results go to standard output; progress, remarks and failures to standard error. Colour is used on a terminal only, and never
when \`NO_COLOR\` is set. With \`--json\`, progress comes as lines \`{event: "progress", label, doneBytes, totalBytes,
bytesPerSecond, etaSeconds}\` on standard error, and a failure as a line
\`${FAILURE_SHAPE}\` there. The shapes that are named by an API call are those of [the API](api.md).
`;
