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
import { createScreen } from '#/control/cli/render/screen.ts';
import { renderTable } from '#/control/cli/render/table.ts';
import { formatDuration, formatMoment, harmless } from '#/control/cli/render/text.ts';
import { openSession, type Session } from '#/control/cli/session.ts';
import type { Client } from '#/protocol/client.ts';
import { isProblem, Problem } from '#/protocol/errors.ts';
import type { HostView } from '#/protocol/host.ts';
import type { RolloutView } from '#/protocol/rollout.ts';

const LOOK_EVERY_MS = 1000;
/** Failed looks in a row before the watch ends: control may restart under it. */
const FAILED_LOOKS_MAX = 30;
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
      const last = await watch(session, client, rollout, until === 'ended');
      if (last !== null) judge(last);
    });
}

/** Looks again and again until the rollout is over; the last look, or null when the operator ended the watch. */
async function watch(
  session: Session,
  client: Client,
  id: string,
  untilEnded: boolean,
): Promise<RolloutView | null> {
  const { context, json, style } = session;
  const isLive = !json && context.out.isTty;
  const screen = createScreen(context.out);
  let before: Look | null = null;
  let failedLooks = 0;
  try {
    while (!context.signal.aborted) {
      try {
        const look: Look = await lookAt(client, id);
        failedLooks = 0;
        if (isLive) screen.draw(frame(look, context.now(), style));
        else {
          for (const change of changesBetween(before, look)) {
            const line = json
              ? `${JSON.stringify({ atMs: context.now(), ...change })}\n`
              : changeLine(change, formatMoment(context.now()));
            context.out.write(line);
          }
        }
        before = look;
        if (isOver(look.rollout, untilEnded)) return look.rollout;
      } catch (error) {
        if (context.signal.aborted) return null;
        failedLooks += 1;
        const isTransient = isProblem(error) && error.kind === 'unavailable';
        if (!isTransient || failedLooks > FAILED_LOOKS_MAX) throw error;
      }
      await context.sleep(LOOK_EVERY_MS);
    }
    return null;
  } finally {
    screen.end();
  }
}

async function lookAt(client: Client, id: string): Promise<Look> {
  const rollout = await client.call('rolloutShow', { params: { rollout: id } });
  return { rollout, hosts: await all(hosts(client, { group: rollout.group })) };
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
