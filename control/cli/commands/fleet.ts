/** Commands about the whole fleet: `halt`, `audit ls`, `events`. */
import type { CliContext } from '#/control/cli/context.ts';
import { parseWhole } from '#/control/cli/arguments.ts';
import { addAuditLogCommands } from '#/control/cli/commands/audit.ts';
import { addCommand, addFamily, type DescribedCommand } from '#/control/cli/describe.ts';
import { readEvents } from '#/control/cli/event-stream.ts';
import { renderTable } from '#/control/cli/render/table.ts';
import { formatMoment, harmless } from '#/control/cli/render/text.ts';
import { openSession } from '#/control/cli/session.ts';
import type { AuditEntry } from '#/protocol/operator-plane.ts';

export function addFleetCommands(program: DescribedCommand, context: CliContext): void {
  addHalt(program, context);
  addAudit(program, context);
  addEvents(program, context);
}

function addHalt(program: DescribedCommand, context: CliContext): void {
  const command = addCommand(
    program,
    'halt',
    'Stop the fleet or a group at once: no offers, no switches. --lift ends it.',
  );
  command
    .option('--group <group>', 'only this group; without it the whole fleet')
    .option('--lift', 'end the halt')
    .requiredOption('--reason <text>', 'why; everybody will see it')
    .explain(
      [
        'switchback halt --reason "502s since 10:40"',
        'switchback halt --lift --group web --reason "fixed"',
      ],
      'the halt, as `POST /api/v1/halt`; with --lift `{lifted}`',
    )
    .action(async () => {
      const session = openSession(context, command);
      const { client } = await session.connect();
      const { group, lift, reason } = command.opts<{
        group?: string;
        lift?: boolean;
        reason: string;
      }>();
      const body = { reason, ...(group === undefined ? {} : { group }) };
      const scope = group === undefined ? 'the fleet' : `group ${group}`;
      if (lift === true) {
        await client.call('lift', { body });
        session.print({ lifted: group ?? 'fleet' }, () => `the halt of ${scope} is lifted\n`);
        return;
      }
      session.print(await client.call('halt', { body }), () => `${scope} is halted: ${reason}\n`);
      session.note(
        `next: switchback halt --lift${group === undefined ? '' : ` --group ${group}`} --reason "…"`,
      );
    });
}

const subjectOf = (entry: AuditEntry): string => `${entry.subject}`;
const detailsOf = (entry: AuditEntry): string =>
  Object.entries(entry.details)
    .map(([key, value]) => `${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`)
    .join(' ');

function addAudit(program: DescribedCommand, context: CliContext): void {
  const family = addFamily(program, 'audit', 'The audit log: every change, who made it, and why.');
  addAuditLogCommands(family, context);
  const command = addCommand(family, 'ls', 'List entries, oldest first.');
  command
    .option('--after <id>', 'only entries after this one', parseWhole(0))
    .option('--subject <subject>', 'only about this: group/web, host/h-…, rollout/r-…')
    .option('--limit <n>', 'at most so many, up to 1000', parseWhole(1), 100)
    .explain(
      ['switchback audit ls --subject group/web', 'switchback audit ls --after 120 --json'],
      '`{items: [entry], nextCursor}`, as `GET /api/v1/audit`',
    )
    .action(async () => {
      const session = openSession(context, command);
      const { client } = await session.connect();
      const { after, subject, limit } = command.opts<{
        after?: number;
        subject?: string;
        limit: number;
      }>();
      const query = {
        limit: String(Math.min(limit, 1000)),
        ...(after === undefined ? {} : { after: String(after) }),
        ...(subject === undefined ? {} : { subject }),
      };
      session.print(await client.call('audit', { query }), ({ items }) =>
        renderTable(
          items,
          [
            { title: 'ID', value: (entry) => String(entry.id), align: 'right' },
            { title: 'WHEN', value: (entry) => formatMoment(entry.atMs) },
            { title: 'WHO', value: (entry) => entry.actor },
            { title: 'WHAT', value: (entry) => entry.type },
            { title: 'ABOUT', value: subjectOf, flexible: true },
            { title: 'DETAILS', value: detailsOf, flexible: true },
          ],
          session.style,
          'no entries',
        ),
      );
    });
}

function addEvents(program: DescribedCommand, context: CliContext): void {
  const command = addCommand(
    program,
    'events',
    'Follow what happens, as it happens. Ends with Ctrl-C.',
  );
  command
    .option('--after <id>', 'start after this entry of the audit log', parseWhole(0))
    .option('--count <n>', 'end after so many events', parseWhole(1))
    .explain(
      ['switchback events', 'switchback events --json --after 0 | jq -c .type'],
      'one line per event: the audit entry',
    )
    .action(async () => {
      const session = openSession(context, command);
      const { client } = await session.connect();
      const { after, count } = command.opts<{ after?: number; count?: number }>();
      let seen = 0;
      for await (const entry of readEvents(client, context, after)) {
        const line = session.json
          ? JSON.stringify(entry)
          : harmless(
              `${formatMoment(entry.atMs)} ${entry.actor} ${entry.type} ${entry.subject} ${detailsOf(entry)}`.trimEnd(),
            );
        context.out.write(`${line}\n`);
        seen += 1;
        if (seen === count) return;
      }
    });
}
