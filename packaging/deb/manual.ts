/** Man pages, from the tables of commands that the programs themselves use. */
import { type CliCommand, commonOptions, type OptionSpec } from '#/agent/cli/command.ts';
import { agentCommands } from '#/agent/cli/main.ts';
import { contextForDocs } from '#/control/cli/context.ts';
import { leavesOf } from '#/control/cli/describe.ts';
import { buildProgram } from '#/control/cli/program.ts';

export interface ManualOrigin {
  readonly version: string;
  readonly epochS: number;
}

/** Text for troff: no line begins with a control character, hyphens are hyphens. */
const escaped = (text: string): string =>
  text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll(/`([^`]*)`/g, '\\fB$1\\fR')
    .replaceAll(/^(['.])/gm, '\\&$1');

const paragraph = (text: string): string => `.PP\n${escaped(text)}\n`;
const tagged = (tag: string, text: string): string =>
  `.TP\n\\fB${escaped(tag)}\\fR\n${escaped(text)}\n`;
const example = (lines: readonly string[]): string =>
  `.PP\n.nf\n${lines.map((line) => `    ${escaped(line)}\n`).join('')}.fi\n`;

function page(
  name: string,
  section: 1 | 8,
  summary: string,
  origin: ManualOrigin,
  sections: readonly (readonly [string, string])[],
): string {
  const date = new Date(origin.epochS * 1000).toISOString().slice(0, 10);
  return [
    `.TH ${name.toUpperCase()} ${section} ${date} "Switchback ${origin.version}" "System administration"\n`,
    `.SH NAME\n${name} \\- ${escaped(summary)}\n`,
    ...sections.map(([title, text]) => `.SH ${title}\n${text}`),
  ].join('');
}

/** switchback-agent(8). */
export function agentManual(origin: ManualOrigin): string {
  return page(
    'switchback-agent',
    8,
    'keeps this host on exactly the signed version that its operators pinned',
    origin,
    [
      ['SYNOPSIS', '\\fBswitchback\\-agent\\fR \\fICOMMAND\\fR [options]\n'],
      [
        'DESCRIPTION',
        paragraph(
          'Without a command line the package runs it as a service. These commands look at it, and steer it.',
        ),
      ],
      ['COMMANDS', agentCommands.map(agentCommand).join('')],
      ['OPTIONS OF EVERY COMMAND', optionsOf(commonOptions)],
      [
        'FILES',
        [
          tagged(
            '/etc/switchback/config.d/*.toml',
            'Settings; files count in the order of their names.',
          ),
          tagged('/var/lib/switchback', 'State: journal, ticket, identity, trust. Never edit it.'),
          tagged('/opt/switchback', 'Versions, and `current`, the link to the one that is live.'),
        ].join(''),
      ],
      ['SEE ALSO', '\\fBswitchback\\-guard\\fR(8)\n'],
    ],
  );
}

function agentCommand(command: CliCommand): string {
  const title = `${command.name} ${command.usage}`.trimEnd();
  return [
    `.SS ${escaped(title)}\n${escaped(command.summary)}\n`,
    optionsOf(command.options),
    command.notes === undefined ? '' : paragraph(command.notes),
    example(command.examples),
  ].join('');
}

function optionsOf(options: Readonly<Record<string, OptionSpec>>): string {
  return Object.entries(options)
    .map(([name, option]) => {
      const short = option.short === undefined ? '' : `-${option.short}, `;
      const value = option.value === undefined ? '' : ` ${option.value}`;
      return tagged(`${short}--${name}${value}`, option.doc);
    })
    .join('');
}

/** switchback-guard(8). */
export function guardManual(origin: ManualOrigin): string {
  return page('switchback-guard', 8, 'takes a version back when the agent cannot', origin, [
    [
      'SYNOPSIS',
      '\\fB/usr/lib/switchback/switchback\\-guard\\fR \\fBboot\\fR|\\fBround\\fR|\\fBloop\\fR|\\fBleave\\fR [\\fISTATE\\fR]\n',
    ],
    [
      'DESCRIPTION',
      paragraph(
        'A shell script with units of its own. It takes a version on trial back when the agent is dead, hung, deleted, or out of time. It needs nothing of the agent, and no network.',
      ),
    ],
    [
      'COMMANDS',
      [
        tagged('boot', 'Once per boot, before the agent: counts trial boots.'),
        tagged('round', 'One look; the timer calls it every ten seconds.'),
        tagged('loop', 'Both, for ever: for hosts without systemd.'),
        tagged('leave', 'Takes back what is on trial now; removing the package calls it.'),
      ].join(''),
    ],
    ['EXIT STATUS', '0 done or nothing to do, 1 could not do what has to be done.\n'],
    ['SEE ALSO', '\\fBswitchback\\-agent\\fR(8)\n'],
  ]);
}

/** switchback(1). */
export function operatorManual(origin: ManualOrigin): string {
  const program = buildProgram(contextForDocs);
  const commands = leavesOf(program).map(({ name, command }) => {
    const words = command.registeredArguments.map((argument) =>
      argument.required ? `<${argument.name()}>` : `[${argument.name()}]`,
    );
    return [
      `.SS ${escaped([name, ...words].join(' '))}\n${escaped(command.description())}\n`,
      ...command.options.map(({ flags, description }) => tagged(flags, description)),
      example(command.examples),
    ].join('');
  });
  return page('switchback', 1, 'operates a fleet of hosts that run signed versions', origin, [
    ['SYNOPSIS', '\\fBswitchback\\fR \\fICOMMAND\\fR [options]\n'],
    ['COMMANDS', commands.join('')],
    [
      'OPTIONS OF EVERY COMMAND',
      program.options.map(({ flags, description }) => tagged(flags, description)).join(''),
    ],
    ['SEE ALSO', '\\fBswitchback\\-control\\fR(8)\n'],
  ]);
}

/** switchback-control(8); `usage` is what `switchback-control --help` prints. */
export function controlManual(origin: ManualOrigin, usage: string): string {
  return page('switchback-control', 8, 'the control server of a fleet', origin, [
    ['SYNOPSIS', '\\fBswitchback\\-control\\fR \\fBinit\\fR|\\fBserve\\fR [options]\n'],
    ['DESCRIPTION', `.PP\n.nf\n${escaped(usage.trimEnd())}\n.fi\n`],
    [
      'FILES',
      [
        tagged('/etc/default/switchback-control', 'Address and options of the service.'),
        tagged('/var/lib/switchback-control', 'Data and keys. Back it up.'),
      ].join(''),
    ],
    ['SEE ALSO', '\\fBswitchback\\fR(1)\n'],
  ]);
}
