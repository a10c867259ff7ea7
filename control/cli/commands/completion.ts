/** `switchback completion SHELL`: prints the script that the shell loads. */
import { Argument } from 'commander';
import { completionScript, shells } from '#/control/cli/completion.ts';
import type { CliContext } from '#/control/cli/context.ts';
import { addCommand, type DescribedCommand } from '#/control/cli/describe.ts';
import { openSession } from '#/control/cli/session.ts';

export function addCompletionCommand(program: DescribedCommand, context: CliContext): void {
  const command = addCommand(program, 'completion', 'Print the completion script for a shell.');
  command
    .addArgument(new Argument('<shell>', 'which shell').choices(shells))
    .explain(
      [
        'source <(switchback completion bash)',
        'switchback completion zsh > "${fpath[1]}/_switchback"',
        'switchback completion fish > ~/.config/fish/completions/switchback.fish',
      ],
      '`{shell, script}`',
    )
    .action((shell: (typeof shells)[number]) => {
      const script = completionScript(program, shell);
      openSession(context, command).print({ shell, script }, (value) => value.script);
    });
}
