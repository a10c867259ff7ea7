/** `switchback pin` and `unpin`: which version a group, or one host, is held at. */
import type { CliContext } from '#/control/cli/context.ts';
import { parseMoment } from '#/control/cli/arguments.ts';
import { addCommand, type DescribedCommand } from '#/control/cli/describe.ts';
import { findConfig, findHost, findRelease } from '#/control/cli/lookup.ts';
import { formatMoment } from '#/control/cli/render/text.ts';
import { openSession } from '#/control/cli/session.ts';
import type { PinView } from '#/protocol/pin.ts';

interface PinFlags {
  readonly host?: boolean;
  readonly configSet?: string;
  readonly reason: string;
  readonly expires?: string;
  readonly ticket?: string;
}

const words = (pin: PinView): string => {
  const whom = pin.host === null ? `group ${pin.group}` : `host ${pin.host}`;
  const until = pin.expiresAtMs === null ? '' : `, until ${formatMoment(pin.expiresAtMs)}`;
  return `${whom} is pinned to ${pin.version} (release ${pin.release}, pin ${pin.seq})${until}\n`;
};

export function addPinCommands(program: DescribedCommand, context: CliContext): void {
  addPin(program, context);
  addUnpin(program, context);
}

function addPin(program: DescribedCommand, context: CliContext): void {
  const command = addCommand(
    program,
    'pin',
    'Pin a group to a release. This starts a rollout, canary first.',
  );
  command
    .argument('<target>', 'the group, or with --host the host')
    .argument('<release>', 'version, class/version, or the start of the artifact id')
    .option('--host', 'the target is one host; its pin goes before that of its group')
    .option(
      '--config-set <config>',
      'the config set that goes with it, where the release takes one: its id, its start, or scope/version',
    )
    .requiredOption('--reason <text>', 'why; everybody will see it')
    .option('--expires <when>', 'after this the pin causes no switch: 24h, 7d, 2026-12-01')
    .option('--ticket <id>', 'the ticket it belongs to')
    .explain(
      [
        'switchback pin web 2.4.0 --reason "weekly release"',
        'switchback pin web 2.4.0 --config-set web/7 --reason "new database"',
        'switchback pin h-3f2a 2.3.9 --host --reason "compare with 2.4.0" --expires 7d',
      ],
      '`{pin, rollout}`: the pin, and the rollout it started or null',
    )
    .action(async (target: string, text: string) => {
      const session = openSession(context, command);
      const { client } = await session.connect();
      const flags = command.opts<PinFlags>();
      const release = await findRelease(client, text);
      const config =
        flags.configSet === undefined ? null : await findConfig(client, flags.configSet);
      const body = {
        artifactId: release.artifactId,
        ...(config === null ? {} : { configId: config.configId }),
        reason: flags.reason,
        ...(flags.ticket === undefined ? {} : { ticket: flags.ticket }),
        ...(flags.expires === undefined
          ? {}
          : { expiresAtMs: parseMoment(flags.expires, context.now()) }),
      };
      if (flags.host === true) {
        const host = await findHost(client, target);
        const pin = await client.call('hostPin', { params: { host }, body });
        session.print({ pin, rollout: null }, () => words(pin));
        return;
      }
      const result = await client.call('groupPin', { params: { group: target }, body });
      session.print(result, ({ pin, rollout }) =>
        rollout === null
          ? `${words(pin)}no rollout is needed\n`
          : `${words(pin)}rollout ${rollout.id}: ${rollout.words}\n`,
      );
      if (result.rollout !== null) session.note(`next: switchback rollout watch ${target}`);
    });
}

function addUnpin(program: DescribedCommand, context: CliContext): void {
  const command = addCommand(
    program,
    'unpin',
    'Remove a pin. Hosts stay where they are; a rollout that runs is aborted.',
  );
  command
    .argument('<target>', 'the group, or with --host the host')
    .option('--host', 'the target is one host; it follows its group again')
    .explain(['switchback unpin web', 'switchback unpin h-3f2a --host'], '`{unpinned}`')
    .action(async (target: string) => {
      const session = openSession(context, command);
      const { client } = await session.connect();
      let unpinned = target;
      if (command.opts<{ host?: boolean }>().host === true) {
        unpinned = await findHost(client, target);
        await client.call('hostUnpin', { params: { host: unpinned } });
      } else await client.call('groupUnpin', { params: { group: target } });
      session.print({ unpinned }, () => `${unpinned} is not pinned any more\n`);
    });
}
