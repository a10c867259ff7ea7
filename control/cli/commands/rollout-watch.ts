/** `switchback rollout watch`: the waves and hosts of a rollout, live, until it is settled. */
import { Option } from 'commander';
import type { CliContext } from '#/control/cli/context.ts';
import { hostColumns } from '#/control/cli/commands/host.ts';
import { addCommand, type DescribedCommand } from '#/control/cli/describe.ts';
import { all, findRollout, hosts } from '#/control/cli/lookup.ts';
import {
  changeLine,
  changesBetween,
  renderStages,
  shownState,
  stateTone,
} from '#/control/cli/render/rollout.ts';
import { renderTable } from '#/control/cli/render/table.ts';
import { formatDuration, formatMoment, harmless } from '#/control/cli/render/text.ts';
import { openSession, type Session } from '#/control/cli/session.ts';
import { watch } from '#/control/cli/watch.ts';
import type { Client } from '#/protocol/client.ts';
import { Problem } from '#/protocol/errors.ts';
import type { HostView } from '#/protocol/host.ts';
import type { RolloutView } from '#/protocol/rollout.ts';

/** Hosts on the screen; the ones that matter come first. */
const HOSTS_SHOWN = 15;

const untils = ['settled', 'ended'] as const;

interface Look {
  readonly rollout: RolloutView;
  readonly hosts: readonly HostView[];
}

export function addWatch(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(
    family,
    'watch',
    'Watch a rollout live. Exit code 0: done; 20: halted, aborted or superseded.',
  );
  command
    .argument('<rollout>', 'its id, or the group whose rollout is meant')
    .addOption(
      new Option('--until <when>', 'settled: also stop at a halt; ended: wait until it is over')
        .choices(untils)
        .default('settled'),
    )
    .explain(
      [
        'switchback rollout watch web',
        'switchback rollout watch web --json | jq -c .',
        'switchback rollout watch web && echo shipped',
      ],
      'one line per change: `{event: state|stage|host, rollout, subject, from, to, words}`',
    )
    .action(async (text: string) => {
      const session = openSession(context, command);
      const { client } = await session.connect();
      const rollout = await findRollout(client, text);
      const { until } = command.opts<{ until: (typeof untils)[number] }>();
      const last = await watch(session, {
        look: () => lookAt(client, rollout),
        frame: (look) => frame(look, context.now(), session.style),
        news: (before, look) => newsOf(before, look, session),
        isOver: (look) => isOver(look.rollout, until === 'ended'),
      });
      if (last !== null) judge(last.rollout);
    });
}

async function lookAt(client: Client, id: string): Promise<Look> {
  const rollout = await client.call('rolloutShow', { params: { rollout: id } });
  return { rollout, hosts: await all(hosts(client, { group: rollout.group })) };
}

function newsOf(before: Look | null, look: Look, { json, context }: Session): string {
  const atMs = context.now();
  const lines = changesBetween(before, look).map((change) =>
    json ? `${JSON.stringify({ atMs, ...change })}\n` : changeLine(change, formatMoment(atMs)),
  );
  return lines.join('');
}

function isOver(rollout: RolloutView, untilEnded: boolean): boolean {
  switch (rollout.state) {
    case 'running':
    case 'paused':
      return false;
    case 'halted':
      return !untilEnded;
    case 'done':
    case 'aborted':
    case 'superseded':
      return true;
  }
}

/** Throws unless the rollout is done, so that `watch && next step` is right. */
function judge(rollout: RolloutView): void {
  if (rollout.state === 'done') return;
  throw new Problem(
    'E_ROLLOUT_FAILED',
    `rollout ${rollout.id} is ${rollout.state}: ${rollout.words}`,
    {
      rollout: rollout.id,
      state: rollout.state,
    },
  );
}

/** Hosts that need a look come first, those that are done last. */
function urgency(host: HostView): number {
  const order = [
    'quarantined',
    'needs-attention',
    'failed',
    'updating',
    'held',
    'offline',
    'behind',
  ];
  const at = order.indexOf(host.condition);
  return at === -1 ? order.length : at;
}

function frame(look: Look, nowMs: number, style: Session['style']): string {
  const { rollout } = look;
  const spentMs = (rollout.endedAtMs ?? nowMs) - rollout.startedAtMs;
  const head =
    `${style.paint('bold', `${rollout.group} -> ${rollout.version}`)}  ` +
    `${style.paint(stateTone(rollout.state), rollout.state)}  ${formatDuration(spentMs)}  ${rollout.id}\n` +
    `${harmless(rollout.words)}\n`;
  const sorted = look.hosts.toSorted((a, b) => urgency(a) - urgency(b));
  const table = renderTable(
    sorted.slice(0, HOSTS_SHOWN),
    hostColumns(nowMs).map((column) =>
      column.title === 'STATE' ? { ...column, value: shownState } : column,
    ),
    style,
    'no hosts in this group',
  );
  const more = sorted.length - HOSTS_SHOWN;
  return `${head}\n${renderStages(rollout, style)}\n${table}${more > 0 ? `and ${more} more hosts\n` : ''}`;
}
