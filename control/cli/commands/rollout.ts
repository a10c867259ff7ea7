/** `switchback rollout …`: attempts to bring a group to one version, and the switch to stop them. */
import { Option } from 'commander';
import type { CliContext } from '#/control/cli/context.ts';
import { addWatch } from '#/control/cli/commands/rollout-watch.ts';
import { addCommand, addFamily, type DescribedCommand } from '#/control/cli/describe.ts';
import { findRollout } from '#/control/cli/lookup.ts';
import { renderFields, renderTable } from '#/control/cli/render/table.ts';
import { renderStages, stateTone } from '#/control/cli/render/rollout.ts';
import { formatAgo, formatMoment } from '#/control/cli/render/text.ts';
import { openSession } from '#/control/cli/session.ts';
import type { Client } from '#/protocol/client.ts';
import { type RolloutState, type RolloutView, rolloutStates } from '#/protocol/rollout.ts';

const ROLLOUT = 'its id, or the group whose rollout is meant';

export function addRolloutCommands(program: DescribedCommand, context: CliContext): void {
  const family = addFamily(program, 'rollout', 'Rollouts: watch them, pause them, end them.');
  addList(family, context);
  addShow(family, context);
  addWatch(family, context);
  addOrder(family, context, {
    name: 'pause',
    description: 'Make no new offers; attempts that run go on.',
    examples: ['switchback rollout pause web --reason "looking at latency"'],
    send: (client, rollout, reason) =>
      client.call('rolloutPause', { params: { rollout }, body: { reason } }),
  });
  addOrder(family, context, {
    name: 'resume',
    description: 'Go on with a paused or halted rollout; failures up to now are accepted.',
    examples: ['switchback rollout resume web --reason "the failed host had a bad disk"'],
    send: (client, rollout, reason) =>
      client.call('rolloutResume', { params: { rollout }, body: { reason } }),
  });
  addOrder(family, context, {
    name: 'promote',
    description: 'Open the next stage now, without waiting for its soak or sample.',
    examples: ['switchback rollout promote web --reason "security fix"'],
    send: (client, rollout, reason) =>
      client.call('rolloutPromote', { params: { rollout }, body: { reason } }),
  });
  addAbort(family, context);
}

function addList(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(family, 'ls', 'List rollouts, newest first.');
  command
    .option('--group <group>', 'only this group')
    .addOption(new Option('--state <state>', 'only in this state').choices(rolloutStates))
    .explain(
      ['switchback rollout ls --state halted'],
      '`{items: [rollout]}`, as `GET /api/v1/rollouts`; the newest 50',
    )
    .action(async () => {
      const session = openSession(context, command);
      const { client } = await session.connect();
      const { group, state } = command.opts<{ group?: string; state?: RolloutState }>();
      const query = {
        ...(group === undefined ? {} : { group }),
        ...(state === undefined ? {} : { state }),
      };
      const { items } = await client.call('rolloutList', { query });
      session.print({ items }, (rollouts) =>
        renderTable(
          rollouts.items,
          [
            { title: 'ROLLOUT', value: (rollout) => rollout.id },
            { title: 'GROUP', value: (rollout) => rollout.group },
            { title: 'VERSION', value: (rollout) => rollout.version },
            {
              title: 'STATE',
              value: (rollout) => rollout.state,
              tone: (rollout) => stateTone(rollout.state),
            },
            {
              title: 'CONFIRMED',
              value: (rollout) => `${rollout.counts.confirmed}/${rollout.counts.members}`,
              align: 'right',
            },
            {
              title: 'FAILED',
              value: (rollout) => String(rollout.counts.failed + rollout.counts.overdue),
              align: 'right',
              tone: (rollout) => (rollout.counts.failed > 0 ? 'bad' : 'plain'),
            },
            { title: 'STARTED', value: (rollout) => formatAgo(rollout.startedAtMs, context.now()) },
            { title: 'WHAT NEXT', value: (rollout) => rollout.words, flexible: true },
          ],
          session.style,
          'no rollouts',
        ),
      );
    });
}

function addShow(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(family, 'show', 'Show one rollout, its stages and its decisions.');
  command
    .argument('<rollout>', ROLLOUT)
    .explain(
      ['switchback rollout show web'],
      'the rollout with its decisions, as `GET /api/v1/rollouts/{rollout}`',
    )
    .action(async (text: string) => {
      const session = openSession(context, command);
      const { client } = await session.connect();
      const rollout = await findRollout(client, text);
      const view = await client.call('rolloutShow', { params: { rollout } });
      session.print(view, (found) => {
        const { style } = session;
        const fields = renderFields(
          [
            ['rollout', found.id],
            ['group', found.group],
            ['version', `${found.version} (${found.artifactId})`],
            ['from', found.previous?.version ?? '-'],
            ['state', found.state, stateTone(found.state)],
            ['next', found.words],
            ['reason', `${found.reason} (${found.actor})`],
            ['started', formatMoment(found.startedAtMs)],
            ['ended', formatMoment(found.endedAtMs)],
          ],
          style,
        );
        const decisions = renderTable(
          found.decisions,
          [
            { title: 'WHEN', value: (decision) => formatMoment(decision.atMs) },
            { title: 'DECISION', value: (decision) => decision.kind },
            { title: 'HOST', value: (decision) => decision.host?.slice(0, 12) ?? '-' },
            { title: 'WHY', value: (decision) => decision.words, flexible: true },
          ],
          style,
          'no decisions yet',
        );
        return `${fields}\n${renderStages(found, style)}\n${decisions}`;
      });
    });
}

interface Order {
  readonly name: string;
  readonly description: string;
  readonly examples: readonly string[];
  readonly send: (client: Client, rollout: string, reason: string) => Promise<RolloutView>;
}

const outcome = (rollout: RolloutView): string =>
  `rollout ${rollout.id} of ${rollout.group} is ${rollout.state}: ${rollout.words}\n`;

function addOrder(family: DescribedCommand, context: CliContext, order: Order): void {
  const command = addCommand(family, order.name, order.description);
  command
    .argument('<rollout>', ROLLOUT)
    .requiredOption('--reason <text>', 'why; everybody will see it')
    .explain(order.examples, 'the rollout, as in `GET /api/v1/rollouts`')
    .action(async (text: string) => {
      const session = openSession(context, command);
      const { client } = await session.connect();
      const rollout = await findRollout(client, text);
      const { reason } = command.opts<{ reason: string }>();
      session.print(await order.send(client, rollout, reason), outcome);
    });
}

function addAbort(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(
    family,
    'abort',
    'End a rollout; what was not switched is taken back.',
  );
  command
    .argument('<rollout>', ROLLOUT)
    .requiredOption('--reason <text>', 'why; everybody will see it')
    .option('--revert', 'bring the hosts that switched back to the previous version')
    .explain(
      [
        'switchback rollout abort web --reason "wrong build"',
        'switchback rollout abort web --revert --reason "data loss"',
      ],
      'the rollout, as in `GET /api/v1/rollouts`',
    )
    .action(async (text: string) => {
      const session = openSession(context, command);
      const { client } = await session.connect();
      const rollout = await findRollout(client, text);
      const { reason, revert } = command.opts<{ reason: string; revert?: boolean }>();
      const body = { reason, revert: revert === true };
      session.print(await client.call('rolloutAbort', { params: { rollout }, body }), outcome);
    });
}
