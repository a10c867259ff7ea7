/** `switchback token …`: who may do what at control. A secret is shown once; control keeps its hash. */
import { Option } from 'commander';
import { parseSeconds } from '#/control/cli/arguments.ts';
import type { CliContext } from '#/control/cli/context.ts';
import { addCommand, addFamily, type DescribedCommand } from '#/control/cli/describe.ts';
import { renderTable } from '#/control/cli/render/table.ts';
import { formatMoment } from '#/control/cli/render/text.ts';
import { openSession } from '#/control/cli/session.ts';
import { type ApiTokenView, type Role, roles } from '#/protocol/operator-plane.ts';

interface CreateFlags {
  readonly role: Role;
  readonly groups?: readonly string[];
  readonly ttl?: string;
}

const scopeOf = (token: ApiTokenView): string => token.groups?.join(', ') ?? 'all groups';
const standing = (token: ApiTokenView): string =>
  token.revokedAtMs !== null
    ? 'revoked'
    : token.expiresAtMs === null
      ? 'good'
      : `until ${formatMoment(token.expiresAtMs)}`;

export function addTokenCommands(program: DescribedCommand, context: CliContext): void {
  const family = addFamily(program, 'token', 'Api tokens: who may do what at control.');
  const create = addCommand(family, 'create', 'Make a token for a person or a script.');
  create
    .argument('<name>', 'who uses it; stands in the audit log')
    .addOption(new Option('--role <role>', 'what it may do').choices(roles).makeOptionMandatory())
    .option('--groups <group...>', 'operator and approver: change these groups only')
    .option('--ttl <duration>', 'when it expires: 8h, 90d; else never')
    .explain(
      [
        'switchback token create ann --role operator --groups web db --ttl 90d',
        'switchback token create dashboard --role viewer',
      ],
      '`{id, name, role, groups, expiresAtMs, token}`; `token` is shown this once',
    )
    .action(async (name: string) => {
      const session = openSession(context, create);
      const { role, groups, ttl } = create.opts<CreateFlags>();
      const { client } = await session.connect();
      const made = await client.call('apiTokenCreate', {
        body: {
          name,
          role,
          ...(groups === undefined ? {} : { groups: [...groups] }),
          ...(ttl === undefined ? {} : { ttlSeconds: parseSeconds(ttl) }),
        },
      });
      session.note(`${made.name}: ${made.role}, ${scopeOf(made)}, ${standing(made)}; shown once:`);
      session.print(made, ({ token }) => `${token}\n`);
    });
  const list = addCommand(family, 'ls', 'List tokens, without their secrets.');
  list
    .explain(
      ['switchback token ls'],
      '`{items: [{id, name, role, groups, expiresAtMs, revokedAtMs}]}`',
    )
    .action(async () => {
      const session = openSession(context, list);
      const { client } = await session.connect();
      const { items } = await client.call('apiTokenList', {});
      session.print({ items }, (found) =>
        renderTable(
          found.items,
          [
            { title: 'ID', value: (token) => token.id },
            { title: 'NAME', value: (token) => token.name, flexible: true },
            { title: 'ROLE', value: (token) => token.role },
            { title: 'MAY CHANGE', value: scopeOf, flexible: true },
            { title: 'STANDING', value: standing },
          ],
          session.style,
          'no tokens',
        ),
      );
    });
  const revoke = addCommand(family, 'revoke', 'End a token at once.');
  revoke
    .argument('<id>', 'its id')
    .explain(['switchback token revoke at-0123456789abcdef'], '`{revoked}`')
    .action(async (id: string) => {
      const session = openSession(context, revoke);
      const { client } = await session.connect();
      await client.call('apiTokenRevoke', { params: { id } });
      session.print({ revoked: id }, () => `${id} is revoked\n`);
    });
}
