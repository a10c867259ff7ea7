/** `switchback group …`: hosts that share one pin and one rollout policy. */
import type { CliContext } from '#/control/cli/context.ts';
import { parsePercent, parsePercents, parseSeconds, parseWhole } from '#/control/cli/arguments.ts';
import { addCommand, addFamily, type DescribedCommand } from '#/control/cli/describe.ts';
import { renderFields, renderTable, type TableStyle } from '#/control/cli/render/table.ts';
import { formatDuration } from '#/control/cli/render/text.ts';
import { openSession } from '#/control/cli/session.ts';
import { isProblem, Problem } from '#/protocol/errors.ts';
import type { GroupRequest, GroupView } from '#/protocol/group.ts';

interface PolicyFlags {
  readonly selector?: string;
  readonly priority?: number;
  readonly description?: string;
  readonly canary?: number;
  readonly canarySelector?: string;
  readonly waves?: number[];
  readonly maxFailures?: number;
  readonly minSample?: number;
  readonly stopAfter?: number;
  readonly soak?: number;
  readonly maxInFlight?: number;
  readonly deadline?: number;
  readonly attempts?: number;
  readonly poll?: number;
  readonly pollActive?: number;
}

export function addGroupCommands(program: DescribedCommand, context: CliContext): void {
  const family = addFamily(
    program,
    'group',
    'Groups: hosts that share one pin and one rollout policy.',
  );
  addCreate(family, context);
  addList(family, context);
  addShow(family, context);
  addSet(family, context);
  addRemove(family, context);
}

function policyOptions(command: DescribedCommand): DescribedCommand {
  return command
    .option('--selector <selector>', 'hosts that join without naming a group: role=web,zone!=b')
    .option('--priority <n>', 'which group wins when several selectors match', (text) =>
      text.startsWith('-') ? -parseWhole(0)(text.slice(1)) : parseWhole(0)(text),
    )
    .option('--description <text>', 'for people')
    .option('--canary <n>', 'hosts in the first stage; 0 for none', parseWhole(0))
    .option('--canary-selector <selector>', 'hosts that are canaries before others')
    .option('--waves <percents>', 'shares of the later stages: 10,50,100', parsePercents)
    .option(
      '--max-failures <percent>',
      'failure rate that a stage must surely stay below',
      parsePercent,
    )
    .option('--min-sample <n>', 'results a stage needs before it can pass', parseWhole(1))
    .option('--stop-after <n>', 'stop at this many failures among the first results', parseWhole(1))
    .option('--soak <duration>', 'quiet time before the next stage opens', parseSeconds)
    .option('--max-in-flight <n>', 'hosts in an attempt at one time', parseWhole(1))
    .option(
      '--deadline <duration>',
      'an attempt without a result counts as failed after this',
      parseSeconds,
    )
    .option(
      '--attempts <n>',
      'attempts per host and version that control starts by itself',
      parseWhole(1),
    )
    .option('--poll <duration>', 'shortest time between two polls of a quiet host', parseSeconds)
    .option('--poll-active <duration>', 'the same for hosts in an open stage', parseSeconds);
}

type RolloutInput = NonNullable<GroupRequest['rollout']>;

/** The fields of the policy that the flags name. */
function policyOf(flags: PolicyFlags): Partial<RolloutInput> {
  return {
    ...(flags.canary === undefined ? {} : { canaryCount: flags.canary }),
    ...(flags.canarySelector === undefined ? {} : { canarySelector: flags.canarySelector }),
    ...(flags.waves === undefined ? {} : { wavePercents: flags.waves }),
    ...(flags.maxFailures === undefined ? {} : { maxFailurePercent: flags.maxFailures }),
    ...(flags.minSample === undefined ? {} : { minSample: flags.minSample }),
    ...(flags.stopAfter === undefined ? {} : { stopFailures: flags.stopAfter }),
    ...(flags.soak === undefined ? {} : { soakSeconds: flags.soak }),
    ...(flags.maxInFlight === undefined ? {} : { maxInFlight: flags.maxInFlight }),
    ...(flags.deadline === undefined ? {} : { healthyDeadlineSeconds: flags.deadline }),
    ...(flags.attempts === undefined ? {} : { attemptBudget: flags.attempts }),
  };
}

type PollInput = NonNullable<GroupRequest['poll']>;

/** The fields of the poll policy that the flags name. */
function pollOf(flags: PolicyFlags): Partial<PollInput> {
  return {
    ...(flags.poll === undefined ? {} : { minSeconds: flags.poll }),
    ...(flags.pollActive === undefined ? {} : { activeSeconds: flags.pollActive }),
  };
}

function requestOf(
  flags: PolicyFlags,
  rollout: Partial<RolloutInput>,
  poll: Partial<PollInput>,
): Partial<GroupRequest> {
  return {
    ...(flags.selector === undefined ? {} : { selector: flags.selector }),
    ...(flags.priority === undefined ? {} : { priority: flags.priority }),
    ...(flags.description === undefined ? {} : { description: flags.description }),
    ...(Object.keys(rollout).length === 0 ? {} : { rollout: rollout as RolloutInput }),
    ...(Object.keys(poll).length === 0 ? {} : { poll: poll as PollInput }),
  };
}

function addCreate(family: DescribedCommand, context: CliContext): void {
  const command = policyOptions(addCommand(family, 'create', 'Create a group.'));
  command
    .argument('<group>', 'its name')
    .explain(
      [
        'switchback group create web',
        'switchback group create db --canary 2 --waves 25,100 --soak 30m',
      ],
      'the group, as `GET /api/v1/groups/{group}`',
    )
    .action(async (name: string) => {
      const session = openSession(context, command);
      const { client } = await session.connect();
      if (await exists(() => client.call('groupShow', { params: { group: name } }))) {
        throw new Problem('E_CONFLICT', `group ${name} exists already; change it with group set`);
      }
      const flags = command.opts<PolicyFlags>();
      const body = requestOf(flags, policyOf(flags), pollOf(flags));
      const group = await client.call('groupPut', { params: { group: name }, body });
      session.print(group, (created) => details(created, session.style));
      session.note(`next: switchback host token ${name}`);
    });
}

async function exists(show: () => Promise<unknown>): Promise<boolean> {
  try {
    await show();
    return true;
  } catch (error) {
    if (isProblem(error, 'E_NOT_FOUND')) return false;
    throw error;
  }
}

function addList(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(family, 'ls', 'List groups.');
  command
    .explain(['switchback group ls'], '`{items: [group]}`, as `GET /api/v1/groups`')
    .action(async () => {
      const session = openSession(context, command);
      const { client } = await session.connect();
      const { items } = await client.call('groupList', {});
      session.print({ items }, (groups) =>
        renderTable(
          groups.items,
          [
            { title: 'GROUP', value: (group) => group.name },
            { title: 'PIN', value: (group) => group.pin?.version ?? '-' },
            { title: 'CURRENT', value: (group) => group.current?.version ?? '-' },
            { title: 'HOSTS', value: (group) => String(group.hosts.total), align: 'right' },
            { title: 'ON PIN', value: (group) => String(group.hosts.onTarget), align: 'right' },
            {
              title: 'FAILED',
              value: (group) => String(group.hosts.failed),
              align: 'right',
              tone: (group) => (group.hosts.failed > 0 ? 'bad' : 'plain'),
            },
            { title: 'OFFLINE', value: (group) => String(group.hosts.offline), align: 'right' },
            {
              title: 'NOW',
              value: (group) => stateOf(group),
              tone: (group) => (group.halt === null ? 'plain' : 'bad'),
              flexible: true,
            },
          ],
          session.style,
          'no groups yet: switchback group create NAME',
        ),
      );
    });
}

function stateOf(group: GroupView): string {
  if (group.halt !== null) return `halted: ${group.halt.reason}`;
  if (group.activeRollout !== null) return `rollout ${group.activeRollout}`;
  return group.pin === null ? 'no pin' : 'settled';
}

function details(group: GroupView, style: TableStyle): string {
  const policy = group.rollout;
  const selector = group.selector === '' ? 'every host' : (group.selector ?? 'none');
  return renderFields(
    [
      ['group', group.name],
      ['description', group.description === '' ? '-' : group.description],
      [
        'hosts',
        `${group.hosts.total} (${group.hosts.onTarget} on the pin, ${group.hosts.failed} failed, ${group.hosts.offline} offline)`,
      ],
      ['pin', group.pin === null ? 'none' : `${group.pin.version} (${group.pin.reason})`],
      ['current', group.current?.version ?? '-'],
      ['now', stateOf(group), group.halt === null ? 'plain' : 'bad'],
      ['selector', `${selector}, priority ${group.priority}`],
      [
        'canary',
        `${policy.canaryCount} hosts${policy.canarySelector === '' ? '' : `, first ${policy.canarySelector}`}`,
      ],
      ['waves', policy.wavePercents.map((share) => `${share}%`).join(', ')],
      [
        'failure bound',
        `${policy.maxFailurePercent}%, or ${policy.stopFailures} of the first ${policy.stopWithin}`,
      ],
      ['soak', formatDuration(policy.soakSeconds * 1000)],
      ['in flight', `at most ${policy.maxInFlight}`],
      [
        'polls',
        `every ${formatDuration(group.poll.minSeconds * 1000)} or less often, ${formatDuration(group.poll.activeSeconds * 1000)} in an open stage`,
      ],
      [
        'deadline',
        `${formatDuration(policy.healthyDeadlineSeconds * 1000)} per attempt, ${policy.attemptBudget} attempts`,
      ],
      ['revision', String(group.revision)],
    ],
    style,
  );
}

function addShow(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(family, 'show', 'Show one group and its policy.');
  command
    .argument('<group>', 'its name')
    .explain(['switchback group show web'], 'the group, as `GET /api/v1/groups/{group}`')
    .action(async (name: string) => {
      const session = openSession(context, command);
      const { client } = await session.connect();
      const group = await client.call('groupShow', { params: { group: name } });
      session.print(group, (found) => details(found, session.style));
    });
}

function addSet(family: DescribedCommand, context: CliContext): void {
  const command = policyOptions(
    addCommand(
      family,
      'set',
      'Change a group. A rollout that runs keeps the policy it started with.',
    ),
  );
  command
    .argument('<group>', 'its name')
    .explain(
      [
        'switchback group set web --soak 1h --max-failures 2',
        'switchback group set web --canary 3',
      ],
      'the group, as `GET /api/v1/groups/{group}`',
    )
    .action(async (name: string) => {
      const session = openSession(context, command);
      const { client } = await session.connect();
      const flags = command.opts<PolicyFlags>();
      const changed = policyOf(flags);
      const now = await client.call('groupShow', { params: { group: name } });
      // The whole policy goes back with the revision that was read, so that nobody's change is lost in between.
      const rollout = Object.keys(changed).length === 0 ? {} : { ...now.rollout, ...changed };
      const polled = pollOf(flags);
      const poll = Object.keys(polled).length === 0 ? {} : { ...now.poll, ...polled };
      const body = { ...requestOf(flags, rollout, poll), revision: now.revision };
      if (Object.keys(body).length === 1)
        throw new Problem('E_USAGE', 'nothing to change was given');
      const group = await client.call('groupPut', { params: { group: name }, body });
      session.print(group, (found) => details(found, session.style));
    });
}

function addRemove(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(
    family,
    'rm',
    'Remove a group that has no hosts and was never pinned.',
  );
  command
    .argument('<group>', 'its name')
    .explain(['switchback group rm web'], '`{removed}`')
    .action(async (name: string) => {
      const session = openSession(context, command);
      const { client } = await session.connect();
      await client.call('groupDelete', { params: { group: name } });
      session.print({ removed: name }, () => `group ${name} removed\n`);
    });
}
