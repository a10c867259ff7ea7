/** `switchback join …`: the join texts that are out, and taking one back before it is used. `host token` makes them. */
import type { CliContext } from '#/control/cli/context.ts';
import { addCommand, addFamily, type DescribedCommand } from '#/control/cli/describe.ts';
import { renderTable } from '#/control/cli/render/table.ts';
import { formatMoment } from '#/control/cli/render/text.ts';
import { openSession } from '#/control/cli/session.ts';
import type { JoinTokenView } from '#/protocol/operator-plane.ts';

export function addJoinCommands(program: DescribedCommand, context: CliContext): void {
  const family = addFamily(program, 'join', 'Join tokens: each lets one host in, once.');
  const list = addCommand(family, 'ls', 'List join tokens, without their secrets.');
  list
    .explain(['switchback join ls'], '`{items}`, as `GET /api/v1/join-tokens`')
    .action(async () => {
      const session = openSession(context, list);
      const { client } = await session.connect();
      const { items } = await client.call('joinTokenList', {});
      session.print({ items }, (found) =>
        renderTable(
          found.items,
          [
            { title: 'ID', value: (token) => token.id },
            { title: 'GROUP', value: (token) => token.group ?? 'by selector' },
            { title: 'STANDING', value: (token) => standing(token, context.now()) },
            { title: 'MADE BY', value: (token) => token.actor },
            { title: 'FOR', value: (token) => token.description || '-', flexible: true },
          ],
          session.style,
          'no join tokens',
        ),
      );
    });
  const revoke = addCommand(family, 'revoke', 'Take a join token back before it is used.');
  revoke
    .argument('<id>', 'its id')
    .explain(['switchback join revoke jt-0123456789abcdef'], '`{revoked}`')
    .action(async (id: string) => {
      const session = openSession(context, revoke);
      const { client } = await session.connect();
      await client.call('joinTokenRevoke', { params: { id } });
      session.print({ revoked: id }, () => `${id} lets nobody in any more\n`);
    });
}

function standing(token: JoinTokenView, nowMs: number): string {
  if (token.usedAtMs !== null) return `used by ${token.usedBy ?? 'a host'}`;
  const when = formatMoment(token.expiresAtMs);
  return token.expiresAtMs <= nowMs ? `expired ${when}` : `good until ${when}`;
}
