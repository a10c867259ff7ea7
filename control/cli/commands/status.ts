/** `switchback status`: the fleet on one screen, once or live. */
import type { CliContext } from '#/control/cli/context.ts';
import { toneOf } from '#/control/cli/commands/host.ts';
import { addCommand, type DescribedCommand } from '#/control/cli/describe.ts';
import { stateTone } from '#/control/cli/render/rollout.ts';
import { renderFields, renderTable, type TableStyle } from '#/control/cli/render/table.ts';
import { harmless } from '#/control/cli/render/text.ts';
import { openSession } from '#/control/cli/session.ts';
import { watch } from '#/control/cli/watch.ts';
import { type HostCondition, hostConditions } from '#/protocol/host.ts';
import type { SummaryView } from '#/protocol/operator-plane.ts';

export function addStatus(program: DescribedCommand, context: CliContext): void {
  const command = addCommand(
    program,
    'status',
    'Show the fleet on one screen, and what needs a person.',
  );
  command
    .option('--watch', 'go on looking, until Ctrl-C')
    .explain(
      ['switchback status', 'switchback status --watch'],
      'the summary, as `GET /api/v1/summary`; with --watch a line of it whenever it has changed',
    )
    .action(async () => {
      const session = openSession(context, command);
      const { client, url } = await session.connect();
      const look = (): Promise<SummaryView> => client.call('summary', {});
      const frame = (summary: SummaryView): string => statusText(summary, url, session.style);
      if (command.opts<{ watch?: boolean }>().watch !== true) {
        session.print(await look(), frame);
        return;
      }
      await watch(session, {
        look,
        frame,
        news(before, summary) {
          if (before !== null && lasting(before) === lasting(summary)) return '';
          return session.json ? `${JSON.stringify(summary)}\n` : `${frame(summary)}\n`;
        },
        isOver: () => false,
      });
    });
}

/** What of a summary is news when it changes: not the time, nor how many polls there were. */
function lasting(summary: SummaryView): string {
  return JSON.stringify({ ...summary, asOfMs: 0, pollsPerMinute: 0 });
}

function statusText(summary: SummaryView, url: string, style: TableStyle): string {
  const counts = hostConditions
    .filter((condition) => (summary.hosts[condition] ?? 0) > 0)
    .map((condition: HostCondition) =>
      style.paint(toneOf(condition), `${summary.hosts[condition]} ${condition}`),
    );
  const head =
    `${summary.hostsTotal} ${summary.hostsTotal === 1 ? 'host' : 'hosts'}${counts.length === 0 ? '' : `: ${counts.join(', ')}`}\n` +
    renderFields(
      [
        ['control', `${url}, epoch ${summary.epoch}, ${summary.pollsPerMinute} polls a minute`],
        ...(summary.observing === null ? [] : [['observing', summary.observing, 'warn'] as const]),
        ...(summary.shedLevel === 0
          ? []
          : [['shedding load', `level ${summary.shedLevel}`, 'warn'] as const]),
        ...summary.halts.map(
          (halt) => ['halted', `${halt.scope}: ${halt.reason} (${halt.actor})`, 'bad'] as const,
        ),
      ],
      style,
    );
  const groups = renderTable(
    summary.groups,
    [
      { title: 'GROUP', value: (group) => group.name },
      { title: 'PIN', value: (group) => group.pin?.version ?? '-' },
      {
        title: 'ON PIN',
        value: (group) => `${group.hosts.onTarget}/${group.hosts.total}`,
        align: 'right',
      },
    ],
    style,
    'no groups yet: switchback group create NAME',
  );
  const active = summary.rollouts.filter((rollout) => rollout.endedAtMs === null);
  const rollouts = active.map(
    (rollout) =>
      `${style.paint(stateTone(rollout.state), rollout.state)} ${rollout.group} -> ` +
      `${harmless(`${rollout.version}: ${rollout.words}`)}\n`,
  );
  const attention = summary.attention.map(
    (item) => `${style.paint('bad', '!')} ${harmless(item.words)}\n  next: ${harmless(item.act)}\n`,
  );
  return [head, groups, rollouts.join(''), attention.join('')]
    .filter((part) => part !== '')
    .join('\n');
}
