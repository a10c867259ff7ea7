/** The command tree of `switchback`. Built anew for each run, for the docs and for the completion: it holds no state. */
import { addAttestCommand } from '#/control/cli/commands/attest.ts';
import { addGateCommands } from '#/control/cli/commands/trust-policy.ts';
import { addBundleCommands } from '#/control/cli/commands/bundle.ts';
import { addCompletionCommand } from '#/control/cli/commands/completion.ts';
import { addConfigCommands } from '#/control/cli/commands/config.ts';
import { addFleetCommands } from '#/control/cli/commands/fleet.ts';
import { addGroupCommands } from '#/control/cli/commands/group.ts';
import { addHostCommands } from '#/control/cli/commands/host.ts';
import { addImageCommands } from '#/control/cli/commands/image.ts';
import { addInitCommand } from '#/control/cli/commands/init.ts';
import { addJoinCommands } from '#/control/cli/commands/join.ts';
import { addKeyCommands } from '#/control/cli/commands/key.ts';
import { addPinCommands } from '#/control/cli/commands/pin.ts';
import { addReleaseCommands } from '#/control/cli/commands/release.ts';
import { addRolloutCommands } from '#/control/cli/commands/rollout.ts';
import { addServeCommand } from '#/control/cli/commands/serve.ts';
import { addStatus } from '#/control/cli/commands/status.ts';
import { addTokenCommands } from '#/control/cli/commands/token.ts';
import { addTrustCommands } from '#/control/cli/commands/trust.ts';
import { addVersionCommand } from '#/control/cli/commands/version.ts';
import type { CliContext } from '#/control/cli/context.ts';
import { DescribedCommand } from '#/control/cli/describe.ts';

const environment = `
Environment:
  SWITCHBACK_URL      address of control, as --url
  SWITCHBACK_TOKEN    operator token, as --token-file with the token in it
  SWITCHBACK_CONFIG   settings file, as --config
  NO_COLOR            any value: no colour

\`switchback help COMMAND\` shows one command, \`switchback --version\` the version.

Exit codes: 0 done, 1 a bug, 2 wrong usage, 20 refused, 28 no room, 74 damaged, 75 try again later,
78 wrong configuration. The code of each error is in docs/reference/errors.md.
`;

/** The whole tree; actions run with `context`. */
export function buildProgram(context: CliContext): DescribedCommand {
  const program = new DescribedCommand('switchback')
    .description('Keeps a fleet of hosts on exactly the signed version that its operators pinned.')
    .option('--json', 'print the result, progress and failures as JSON')
    .option('--url <url>', 'address of control')
    .option('--token <token>', 'operator token (others on this machine can see it: prefer a file)')
    .option('--token-file <file>', 'file with the operator token, readable by you alone')
    .option('--config <file>', 'settings file, instead of the one in your configuration directory')
    .helpCommand(false)
    .showHelpAfterError(false)
    .configureHelp({ showGlobalOptions: true, helpWidth: Math.min(context.out.columns, 100) })
    .configureOutput({
      writeOut: (text) => context.out.write(text),
      writeErr: (text) => context.err.write(text),
      // Wrong usage is told once, by run(), in the form of every other failure.
      outputError: () => undefined,
    })
    .exitOverride()
    .addHelpText('after', environment);
  addInitCommand(program, context);
  addServeCommand(program, context);
  addBundleCommands(program, context);
  addImageCommands(program, context);
  addKeyCommands(program, context);
  addAttestCommand(program, context);
  addGateCommands(program, context);
  addReleaseCommands(program, context);
  addConfigCommands(program, context);
  addGroupCommands(program, context);
  addPinCommands(program, context);
  addHostCommands(program, context);
  addRolloutCommands(program, context);
  addStatus(program, context);
  addFleetCommands(program, context);
  addTokenCommands(program, context);
  addJoinCommands(program, context);
  addTrustCommands(program, context);
  addCompletionCommand(program, context);
  addVersionCommand(program, context);
  return program;
}
