/** `switchback host …`, the changing half: holds, retries, rollbacks, join tokens. */
import { resolve } from 'node:path';
import type { CliContext } from '#/control/cli/context.ts';
import { parseLabels, parseSeconds } from '#/control/cli/arguments.ts';
import { addCommand, type DescribedCommand } from '#/control/cli/describe.ts';
import { readText } from '#/control/cli/files.ts';
import { findHost } from '#/control/cli/lookup.ts';
import { formatMoment } from '#/control/cli/render/text.ts';
import { openSession } from '#/control/cli/session.ts';
import { formatInvitation } from '#/protocol/join-token.ts';
import type { Labels } from '#/protocol/selector.ts';

const CA_MAX_BYTES = 16 * 1024;
const HOST = 'its id, the start of it, or its label `name`';

export function addHostChanges(family: DescribedCommand, context: CliContext): void {
  addHold(family, context);
  addUnhold(family, context);
  addLabel(family, context);
  addMove(family, context);
  addAction(family, context, {
    name: 'retry',
    description: 'Let a host try again a version that it rolled back.',
    examples: ['switchback host retry h-3f2a --reason "disk was replaced"'],
  });
  addAction(family, context, {
    name: 'rollback',
    description: 'Order a host back to its previous version.',
    examples: ['switchback host rollback h-3f2a --reason "slow since 2.4.0"'],
  });
  addAction(family, context, {
    name: 'forget',
    description: 'Remove a host that is gone for good. Its agent is refused from then on.',
    examples: ['switchback host forget h-3f2a --reason "machine returned"'],
  });
  addAction(family, context, {
    name: 're-enrol',
    description: 'Make a join token for a new identity that takes the place of this host.',
    examples: ['switchback host re-enrol h-3f2a --reason "cloned from a snapshot"'],
  });
  addToken(family, context);
}

function addHold(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(family, 'hold', 'Hold a host: nothing is offered to it.');
  command
    .argument('<host>', HOST)
    .requiredOption('--reason <text>', 'why; everybody will see it')
    .explain(
      ['switchback host hold h-3f2a --reason "being debugged"'],
      'the host, as `GET /api/v1/hosts/{host}`',
    )
    .action(async (text: string) => {
      const session = openSession(context, command);
      const { client } = await session.connect();
      const host = await findHost(client, text);
      const { reason } = command.opts<{ reason: string }>();
      const held = await client.call('hostHold', { params: { host }, body: { reason } });
      session.print(held, () => `${host} is held: ${reason}\n`);
    });
}

function addUnhold(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(family, 'unhold', 'End the hold of a host.');
  command
    .argument('<host>', HOST)
    .explain(['switchback host unhold h-3f2a'], 'the host, as `GET /api/v1/hosts/{host}`')
    .action(async (text: string) => {
      const session = openSession(context, command);
      const { client } = await session.connect();
      const host = await findHost(client, text);
      const freed = await client.call('hostUnhold', { params: { host } });
      session.print(freed, () => `${host} is not held any more: ${freed.why}\n`);
    });
}

function addLabel(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(family, 'label', 'Set labels of a host; the others stay.');
  command
    .argument('<host>', HOST)
    .argument('<labels>', 'role=web,zone=a', parseLabels)
    .option('--replace', 'remove the labels that are not named')
    .explain(
      ['switchback host label h-3f2a name=web-1,zone=a'],
      'the host, as `GET /api/v1/hosts/{host}`',
    )
    .action(async (text: string, labels: Labels) => {
      const session = openSession(context, command);
      const { client } = await session.connect();
      const host = await findHost(client, text);
      const isWhole = command.opts<{ replace?: boolean }>().replace === true;
      const before = isWhole ? {} : (await client.call('hostShow', { params: { host } })).labels;
      const body = { labels: { ...before, ...labels } };
      const changed = await client.call('hostLabels', { params: { host }, body });
      session.print(changed, (found) => {
        const list = Object.entries(found.labels).map(([key, value]) => `${key}=${value}`);
        return `${host}: ${list.join(', ')}\n`;
      });
    });
}

function addMove(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(family, 'move', 'Move a host to another group.');
  command
    .argument('<host>', HOST)
    .argument('<group>', 'the group it goes to')
    .requiredOption('--reason <text>', 'why; everybody will see it')
    .explain(
      ['switchback host move h-3f2a db --reason "repurposed"'],
      '`{words, token}`; the token is null',
    )
    .action(async (text: string, group: string) => {
      const session = openSession(context, command);
      const { client } = await session.connect();
      const host = await findHost(client, text);
      const { reason } = command.opts<{ reason: string }>();
      const body = { action: 'move' as const, reason, group };
      const result = await client.call('hostAction', { params: { host }, body });
      session.print(result, (done) => `${done.words}\n`);
    });
}

interface HostAction {
  readonly name: 'retry' | 'rollback' | 'forget' | 're-enrol';
  readonly description: string;
  readonly examples: readonly string[];
}

function addAction(family: DescribedCommand, context: CliContext, action: HostAction): void {
  const command = addCommand(family, action.name, action.description);
  command
    .argument('<host>', HOST)
    .requiredOption('--reason <text>', 'why; everybody will see it')
    .explain(action.examples, '`{words, token}`; the token is null except for re-enrol')
    .action(async (text: string) => {
      const session = openSession(context, command);
      const { client } = await session.connect();
      const host = await findHost(client, text);
      const body = { action: action.name, reason: command.opts<{ reason: string }>().reason };
      const result = await client.call('hostAction', { params: { host }, body });
      session.print(result, (done) =>
        done.token === null ? `${done.words}\n` : `${done.words}\njoin token: ${done.token}\n`,
      );
    });
}

interface TokenFlags {
  readonly group?: string;
  readonly ttl: number;
  readonly labels?: Labels;
  readonly description: string;
  readonly controlUrl?: string;
  readonly ca?: string;
}

function addToken(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(family, 'token', 'Make a join text: good for one host, once.');
  command
    .argument('[group]', 'the group it joins; without it, the selectors of the groups decide')
    .option('--group <group>', 'the same as the argument')
    .option('--ttl <duration>', 'how long it is good, at most 24h', parseSeconds, 3600)
    .option('--labels <labels>', 'labels the host gets: name=web-1,zone=a', parseLabels)
    .option('--description <text>', 'for people', '')
    .option(
      '--control-url <url>',
      'address of control as hosts see it; without it, the one used now',
    )
    .option('--ca <file>', 'PEM of the only authorities that hosts accept for control')
    .explain(
      ['switchback host token web', 'switchback host token web --labels name=web-1 --ttl 15m'],
      '`{join, token, rootSha256, ...}`: the text for the host, and the token as `POST /api/v1/join-tokens`',
    )
    .action(async (argument: string | undefined) => {
      const session = openSession(context, command);
      const { client, url } = await session.connect();
      const flags = command.opts<TokenFlags>();
      const group = argument ?? flags.group;
      const body = {
        ttlSeconds: flags.ttl,
        description: flags.description,
        ...(flags.labels === undefined ? {} : { labels: flags.labels }),
        ...(group === undefined ? {} : { group }),
      };
      const caPem =
        flags.ca === undefined
          ? null
          : await readText(resolve(context.cwd, flags.ca), CA_MAX_BYTES);
      const created = await client.call('joinTokenCreate', { body });
      const join = formatInvitation({
        controlUrls: [flags.controlUrl ?? url],
        token: created.token,
        rootSha256: created.rootSha256,
        caPem,
      });
      session.print({ join, ...created }, () => `${join}\n`);
      session.note(
        `next: on the host, before ${formatMoment(created.expiresAtMs)}: switchback-agent enrol <the text above>`,
      );
    });
}
