/** docs/reference/agent-cli.md, from the agent's table of commands. */
import { type CliCommand, commonOptions, type OptionSpec } from '#/agent/cli/command.ts';
import { agentCommands } from '#/agent/cli/main.ts';
import { FAILURE_SHAPE } from '#/protocol/failure-record.ts';

/** The page: one section per command, in the order of the help. */
export function agentCliPage(): string {
  const list = agentCommands.map(
    ({ name, summary }) =>
      `- [\`${name}\`](#switchback-agent-${name.replaceAll(' ', '-')}): ${summary}`,
  );
  return [
    '# switchback-agent\n',
    intro,
    `## Options of every command\n\n${optionTable(commonOptions)}`,
    `## Commands\n\n${list.join('\n')}\n`,
    ...agentCommands.map(section),
  ].join('\n');
}

function section(command: CliCommand): string {
  const usage = ['switchback-agent', command.name, command.usage].filter((word) => word !== '');
  const parts = [
    `## switchback-agent ${command.name}\n`,
    `${command.summary}\n`,
    `\`\`\`\n${usage.join(' ')}\n\`\`\`\n`,
  ];
  if (Object.keys(command.options).length > 0) parts.push(optionTable(command.options));
  if (command.json !== undefined) parts.push(`With \`--json\`: \`${command.json}\`\n`);
  if (command.notes !== undefined) parts.push(`${command.notes}\n`);
  if (command.examples.length > 0) parts.push(`\`\`\`\n${command.examples.join('\n')}\n\`\`\`\n`);
  return parts.join('\n');
}

function optionTable(options: Readonly<Record<string, OptionSpec>>): string {
  const rows = Object.entries(options).map(([name, option]) => {
    const short = option.short === undefined ? '' : `-${option.short}, `;
    const value = option.value === undefined ? '' : ` ${option.value}`;
    return `| \`${short}--${name}${value.replaceAll('|', '\\|')}\` | ${option.doc.replaceAll('|', '\\|')} |`;
  });
  return `| option | meaning |\n| --- | --- |\n${rows.join('\n')}\n`;
}

const intro = `Generated from the commands in \`agent/cli\`; do not edit. \`switchback-agent <command> --help\` shows the same.

Exit codes are those of [the error table](errors.md): 0 done, 1 a bug, 2 wrong usage, 20 refused, 28 no room, 74 damaged, 75 try again
later, 78 wrong configuration.

With \`--json\`, a failure is a line \`${FAILURE_SHAPE}\` on standard error, in every
command, as with \`switchback\`.
`;
