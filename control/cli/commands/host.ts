/** `switchback host …`, the reading half: what a host runs, why, and what happened to it. */
import type { CliContext } from '#/control/cli/context.ts';
import { parseWhole } from '#/control/cli/arguments.ts';
import { addHostChanges } from '#/control/cli/commands/host-change.ts';
import { addCommand, addFamily, type DescribedCommand } from '#/control/cli/describe.ts';
import { all, findHost, hosts } from '#/control/cli/lookup.ts';
import { type Column, renderFields, renderTable } from '#/control/cli/render/table.ts';
import { formatAgo, formatMoment, type Tone } from '#/control/cli/render/text.ts';
import { openSession } from '#/control/cli/session.ts';
import {
  type HostCondition,
  type HostDetail,
  type HostWhy,
  type HostView,
  hostConditions,
} from '#/protocol/host.ts';
import { Option } from 'commander';

export function addHostCommands(program: DescribedCommand, context: CliContext): void {
  const family = addFamily(
    program,
    'host',
    'Hosts: what they run, why, and what happened to them.',
  );
  addList(family, context);
  addShow(family, context);
  addWhy(family, context);
  addTimeline(family, context);
  addHostChanges(family, context);
}

/** How loudly a condition speaks. */
export function toneOf(condition: HostCondition): Tone {
  switch (condition) {
    case 'quarantined':
    case 'needs-attention':
    case 'failed':
      return 'bad';
    case 'offline':
    case 'held':
    case 'behind':
      return 'warn';
    case 'updating':
      return 'bold';
    case 'current':
      return 'good';
    case 'unpinned':
      return 'dim';
  }
}

/** The columns of a list of hosts; `nowMs` for the time since they were last heard. */
export function hostColumns(nowMs: number): readonly Column<HostView>[] {
  return [
    { title: 'HOST', value: (host) => host.id.slice(0, 12) },
    { title: 'NAME', value: (host) => host.labels['name'] ?? '-' },
    { title: 'GROUP', value: (host) => host.group },
    { title: 'CONDITION', value: (host) => host.condition, tone: (host) => toneOf(host.condition) },
    { title: 'RUNS', value: (host) => host.runningVersion ?? '-' },
    { title: 'WANTED', value: (host) => host.targetVersion ?? '-' },
    { title: 'STATE', value: (host) => host.phase ?? host.state },
    { title: 'SEEN', value: (host) => formatAgo(host.lastSeenAtMs, nowMs) },
    { title: 'WHY', value: (host) => host.why, flexible: true },
  ];
}

function addList(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(family, 'ls', 'List hosts.');
  command
    .option('--group <group>', 'only this group')
    .option('--selector <selector>', 'only hosts with these labels: role=web,zone!=b')
    .addOption(
      new Option('--condition <word>', 'only hosts in this condition').choices(hostConditions),
    )
    .explain(
      [
        'switchback host ls --group web',
        'switchback host ls --condition failed',
        'switchback host ls --json | jq -r ".items[].id"',
      ],
      '`{items: [host]}`, as `GET /api/v1/hosts`; all pages',
    )
    .action(async () => {
      const session = openSession(context, command);
      const { client } = await session.connect();
      const { group, selector, condition } = command.opts<{
        group?: string;
        selector?: string;
        condition?: HostCondition;
      }>();
      const query = {
        ...(group === undefined ? {} : { group }),
        ...(selector === undefined ? {} : { selector }),
        ...(condition === undefined ? {} : { condition }),
      };
      const items = await all(hosts(client, query));
      session.print({ items }, (found) =>
        renderTable(found.items, hostColumns(context.now()), session.style, 'no hosts'),
      );
    });
}

function fieldsOf(host: HostDetail, nowMs: number): readonly (readonly [string, string, Tone?])[] {
  const facts = Object.entries(host.facts).map(([key, value]) => `${key}=${value}`);
  return [
    ['host', host.id],
    ['group', `${host.group} (class ${host.class}, ${host.arch})`],
    [
      'labels',
      Object.entries(host.labels)
        .map(([key, value]) => `${key}=${value}`)
        .join(', ') || '-',
    ],
    ['condition', host.condition, toneOf(host.condition)],
    ['why', host.why],
    ['runs', `${host.runningVersion ?? 'nothing'} (${host.running ?? '-'})`],
    ['previous', host.previous ?? '-'],
    ['wanted', `${host.targetVersion ?? '-'} (${host.target ?? '-'})`],
    ['state', host.phase === null ? host.state : `${host.state}, attempt is ${host.phase}`],
    [
      'healthy',
      host.healthy === null ? 'not known' : host.healthy ? 'yes' : 'no',
      host.healthy === false ? 'bad' : 'plain',
    ],
    ['last seen', formatAgo(host.lastSeenAtMs, nowMs)],
    [
      'hold',
      host.hold === null ? 'none' : `${host.hold.reason} (${host.hold.actor})`,
      host.hold === null ? 'plain' : 'warn',
    ],
    ['pin', host.pin === null ? 'that of its group' : `${host.pin.version}: ${host.pin.reason}`],
    ['quarantine', host.quarantine?.reason ?? 'none', host.quarantine === null ? 'plain' : 'bad'],
    [
      'denied here',
      host.denied.map((entry) => `${entry.artifactId.slice(0, 12)} (${entry.code})`).join(', ') ||
        'nothing',
    ],
    ['agent', `${host.agentVersion}, report ${host.reportSeq}`],
    ['facts', facts.join(', ') || '-'],
  ];
}

function addShow(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(family, 'show', 'Show one host and its latest attempts.');
  command
    .argument('<host>', 'its id, the start of it, or its label `name`')
    .explain(['switchback host show h-3f2a'], 'the host, as `GET /api/v1/hosts/{host}`')
    .action(async (text: string) => {
      const session = openSession(context, command);
      const { client } = await session.connect();
      const id = await findHost(client, text);
      const host = await client.call('hostShow', { params: { host: id } });
      session.print(host, (found) => {
        const attempts = renderTable(
          found.attempts,
          [
            { title: 'ATTEMPT', value: (attempt) => String(attempt.n), align: 'right' },
            { title: 'VERSION', value: (attempt) => attempt.version },
            { title: 'PHASE', value: (attempt) => attempt.phase },
            {
              title: 'OUTCOME',
              value: (attempt) => attempt.outcome,
              tone: (attempt) =>
                attempt.outcome === 'failed'
                  ? 'bad'
                  : attempt.outcome === 'confirmed'
                    ? 'good'
                    : 'plain',
            },
            { title: 'CODE', value: (attempt) => attempt.code ?? '-' },
            { title: 'OFFERED', value: (attempt) => formatMoment(attempt.offeredAtMs) },
            { title: 'MESSAGE', value: (attempt) => attempt.message, flexible: true },
          ],
          session.style,
          'no attempts yet',
        );
        return `${renderFields(fieldsOf(found, context.now()), session.style)}\n${attempts}`;
      });
    });
}

function addWhy(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(family, 'why', 'Say why a host is offered what it is offered.');
  command
    .argument('<host>', 'its id, the start of it, or its label `name`')
    .explain(
      ['switchback host why h-3f2a'],
      'the rules in their order, as `GET /api/v1/hosts/{host}/why`',
    )
    .action(async (text: string) => {
      const session = openSession(context, command);
      const { client } = await session.connect();
      const host = await findHost(client, text);
      const why = await client.call('hostWhy', { params: { host } });
      session.print(why, (found) => {
        const steps = renderTable(
          found.steps,
          [
            { title: '', value: (step) => (step.applies ? '>' : ' ') },
            {
              title: 'RULE',
              value: (step) => step.rule,
              tone: (step) => (step.applies ? 'bold' : 'dim'),
            },
            { title: 'HERE', value: (step) => step.words, flexible: true },
          ],
          session.style,
          'no rules',
        );
        const at = found.next.atMs === null ? '' : ` (${formatMoment(found.next.atMs)})`;
        const lines = renderFields(
          [
            ['answer', found.answer, 'bold'],
            ['target', found.target ?? 'none'],
            ['offered', found.isOffered ? 'yes' : 'no'],
            ...(found.failed === null ? [] : [failedField(found.failed)]),
            ...(found.says === '' ? [] : [['host says', found.says] as const]),
            ['next', `${found.next.words}${at}`],
          ],
          session.style,
        );
        return `${lines}\n${steps}`;
      });
    });
}

function failedField(failed: NonNullable<HostWhy['failed']>): readonly [string, string, Tone] {
  return ['failed here', `${failed.version}: ${failed.code}, ${failed.message}`, 'bad'];
}

function addTimeline(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(family, 'timeline', 'Show what happened to a host, newest first.');
  command
    .argument('<host>', 'its id, the start of it, or its label `name`')
    .option('--limit <n>', 'at most so many entries', parseWhole(1), 50)
    .explain(
      ['switchback host timeline h-3f2a --limit 20'],
      '`{items: [entry]}`, as `GET /api/v1/hosts/{host}/timeline`',
    )
    .action(async (text: string) => {
      const session = openSession(context, command);
      const { client } = await session.connect();
      const host = await findHost(client, text);
      const limit = String(Math.min(command.opts<{ limit: number }>().limit, 500));
      const { items } = await client.call('hostTimeline', { params: { host }, query: { limit } });
      session.print({ items }, (found) =>
        renderTable(
          found.items,
          [
            { title: 'WHEN', value: (entry) => formatMoment(entry.atMs) },
            { title: 'EVENT', value: (entry) => entry.kind },
            {
              title: 'CODE',
              value: (entry) => entry.code ?? '-',
              tone: (entry) => (entry.code === null ? 'dim' : 'bad'),
            },
            { title: 'VERSION', value: (entry) => entry.version ?? '-' },
            { title: 'WHAT', value: (entry) => entry.words, flexible: true },
          ],
          session.style,
          'nothing happened to this host yet',
        ),
      );
    });
}
