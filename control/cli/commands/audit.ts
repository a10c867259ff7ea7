/** `switchback audit export` and `audit verify`: the log as files, and whether it holds. `audit ls` is in fleet.ts. */
import { resolve } from 'node:path';
import { CHECKPOINT_MAX_BYTES, isOrigin, type LogIdentity } from '#/bundle/log/checkpoint.ts';
import { bytesOfHex, publicKeyOf } from '#/bundle/keys.ts';
import { exportLog } from '#/control/cli/audit/export.ts';
import { read, verifyExport } from '#/control/cli/audit/verify.ts';
import type { CliContext } from '#/control/cli/context.ts';
import { addCommand, type DescribedCommand } from '#/control/cli/describe.ts';
import { renderFields } from '#/control/cli/render/table.ts';
import { openSession, type Session } from '#/control/cli/session.ts';
import { overPublished } from '#/control/cli/trust/published.ts';
import { readLog } from '#/control/trust/targets.ts';
import { Problem } from '#/protocol/errors.ts';

export function addAuditLogCommands(family: DescribedCommand, context: CliContext): void {
  addExport(family, context);
  addVerify(family, context);
}

function addExport(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(
    family,
    'export',
    'Copy the log, its hashes and what hosts saw of it into a directory.',
  );
  command
    .requiredOption('--out <dir>', 'the directory; files in it are never overwritten')
    .explain(['switchback audit export --out ./audit-2026-11-25'], '`{path, size, reports}`')
    .action(async () => {
      const session = openSession(context, command);
      const { client } = await session.connect();
      const path = resolve(context.cwd, command.opts<{ out: string }>().out);
      const result = { path, ...(await exportLog(client, path)) };
      session.print(
        result,
        ({ size, reports }) => `${size} entries and ${reports} reports of hosts are in ${path}\n`,
      );
      session.note(`next: switchback audit verify --export ${path} --origin … --key …`);
    });
}

interface VerifyFlags {
  readonly export: string;
  readonly origin?: string;
  readonly key?: readonly string[];
  readonly since?: string;
}

function addVerify(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(
    family,
    'verify',
    'Check an exported log: every entry, the tree, and that all hosts saw the same.',
  );
  command
    .requiredOption('--export <dir>', 'what `audit export` wrote')
    .option('--origin <text>', 'name of the log, as `policy/log.json` has it')
    .option('--key <hex...>', 'public keys of the log, kept from when the fleet was made')
    .option('--since <file>', 'a checkpoint that you kept: the log must go on from it')
    .explain(
      [
        'switchback audit verify --export ./audit --origin switchback-log/9f86d081884c7d65/1 --key 3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29',
        'switchback audit verify --export ./audit --since last-month/checkpoint',
      ],
      '`{origin, size, root, witnesses, outcomes, isKeyFromControl}`',
    )
    .action(async () => {
      const session = openSession(context, command);
      const flags = command.opts<VerifyFlags>();
      const given = identityOf(flags);
      const log = given ?? (await publishedLog(session));
      const since =
        flags.since === undefined
          ? null
          : (await read(resolve(context.cwd, flags.since), CHECKPOINT_MAX_BYTES)).toString('utf8');
      const found = await verifyExport(resolve(context.cwd, flags.export), log, since);
      session.print({ ...found, isKeyFromControl: given === null }, (result) =>
        renderFields(
          [
            ['log', result.origin],
            ['entries', `${result.size}, all as they were logged`, 'good'],
            ['root', result.root],
            ['witnesses', `${result.witnesses} hosts saw a beginning of this log`],
            ['outcomes', `${result.outcomes} agree with what the hosts signed`],
          ],
          session.style,
        ),
      );
      if (given === null) {
        session.note(
          'the key came from control itself: this shows that the log is whole, not whose it is. Give --origin and --key.',
        );
      }
    });
}

/** The log that the flags name, or null. */
function identityOf({ origin, key }: VerifyFlags): LogIdentity | null {
  if (origin === undefined && key === undefined) return null;
  if (origin === undefined || key === undefined || !isOrigin(origin)) {
    throw new Problem('E_USAGE', 'give both --origin and --key, or neither');
  }
  const keys = key.map((hex) => {
    const bytes = bytesOfHex(hex, 32);
    if (bytes === null) throw new Problem('E_USAGE', `--key ${hex} is not 64 hex digits`);
    return publicKeyOf(bytes);
  });
  return { origin, keys };
}

async function publishedLog(session: Session): Promise<LogIdentity> {
  const { client } = await session.connect();
  const nowMs = session.context.now();
  const policy = await overPublished(client, (store) => readLog({ store, keys: [], nowMs }));
  if (policy === null) throw new Problem('E_LOG', 'the signed policy names no log');
  const keys = policy.keys.map((hex) => publicKeyOf(bytesOfHex(hex, 32) ?? new Uint8Array()));
  return { origin: policy.origin, keys };
}
