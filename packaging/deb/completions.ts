/** Completion scripts of both programs, by the same generator. */
import { Argument, Command } from 'commander';
import { type CliCommand, commonOptions } from '#/agent/cli/command.ts';
import { agentCommands } from '#/agent/cli/main.ts';
import { completionScript, type Shell, shells } from '#/control/cli/completion.ts';
import { contextForDocs } from '#/control/cli/context.ts';
import { buildProgram } from '#/control/cli/program.ts';
import type { PackagedFile } from './write-deb.ts';

const paths: Readonly<Record<Shell, (program: string) => string>> = {
  bash: (program) => `/usr/share/bash-completion/completions/${program}`,
  zsh: (program) => `/usr/share/zsh/vendor-completions/_${program}`,
  fish: (program) => `/usr/share/fish/vendor_completions.d/${program}.fish`,
};

export const agentCompletions = (): readonly PackagedFile[] => completionsOf(agentProgram());
export const operatorCompletions = (): readonly PackagedFile[] =>
  completionsOf(buildProgram(contextForDocs));

function completionsOf(program: Command): readonly PackagedFile[] {
  return shells.map((shell) => ({
    path: paths[shell](program.name()),
    content: completionScript(program, shell),
  }));
}

/** The agent's table of commands as a tree of commander's, which is what the generator reads. */
function agentProgram(): Command {
  const program = new Command('switchback-agent');
  for (const spec of agentCommands) {
    const [first = '', second] = spec.name.split(' ');
    if (second === undefined) {
      fill(program.command(first), spec);
      continue;
    }
    const family =
      program.commands.find((command) => command.name() === first) ??
      program.command(first).description(`Commands of ${first}.`);
    fill(family.command(second), spec);
  }
  return program;
}

function fill(command: Command, spec: CliCommand): void {
  command.description(spec.summary);
  if (spec.usage !== '')
    command.addArgument(new Argument(`[${spec.usage.replaceAll(/[[\]]/g, '')}]`));
  for (const [name, option] of Object.entries({ ...spec.options, ...commonOptions })) {
    if (name === 'help') continue;
    const short = option.short === undefined ? '' : `-${option.short}, `;
    const value = option.type === 'string' ? ` <${option.value ?? 'VALUE'}>` : '';
    command.option(`${short}--${name}${value}`, option.doc);
  }
}
