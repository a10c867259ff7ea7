/** `switchback trust init | hold | drop`: the keys in the hands of control, on its own machine. */
import { resolve } from 'node:path';
import type { CliContext } from '#/control/cli/context.ts';
import { addCommand, type DescribedCommand } from '#/control/cli/describe.ts';
import { openSession } from '#/control/cli/session.ts';
import { secretKeys } from '#/control/cli/trust/role-keys.ts';

/** Adds the three commands. */
export function addTrustKeyCommands(family: DescribedCommand, context: CliContext): void {
  const init = addCommand(
    family,
    'init',
    'Make all keys and the first signed metadata of a fleet, without settings: `init` does more.',
  );
  init
    .requiredOption('--data <dir>', 'directory for the data of control')
    .explain(['switchback trust init --data ~/fleet'], '`{dataDir, rootKey, made}`')
    .action(async () => {
      const session = openSession(context, init);
      const dataDir = resolve(context.cwd, init.opts<{ data: string }>().data);
      const { initControl } = await import('#/control/start.ts');
      const { rootKeyPath } = await import('#/control/data-dir.ts');
      const made = (await initControl(dataDir, () => context.now())) !== null;
      session.print({ dataDir, rootKey: rootKeyPath(dataDir), made }, (found) =>
        made
          ? `${dataDir}: keys and first metadata\nmove ${found.rootKey} to a medium off the network, then: switchback trust status\n`
          : `${dataDir} has its keys already; nothing was changed\n`,
      );
    });
  const hold = addCommand(
    family,
    'hold',
    'Give control keys to sign with, as before a rotation of timestamp or snapshot. Restart it then.',
  );
  hold
    .requiredOption('--data <dir>', 'the data of control')
    .requiredOption('--key <file...>', 'key files; they stay where they are')
    .explain(['switchback trust hold --data ~/fleet --key timestamp.json'], '`{held: [keyId]}`')
    .action(async () => {
      const flags = hold.opts<{ data: string; key: readonly string[] }>();
      const added = await secretKeys(context.cwd, flags.key);
      await change(context, hold, flags.data, (keys) => {
        const known = new Set(keys.map((key) => key.signer.key.keyId));
        return [...keys, ...added.filter((key) => !known.has(key.signer.key.keyId))];
      });
    });
  const drop = addCommand(
    family,
    'drop',
    'Take a key out of the hands of control, once its role has others. Restart control then.',
  );
  drop
    .argument('<keyId...>', 'ids of the keys')
    .requiredOption('--data <dir>', 'the data of control')
    .explain(['switchback trust drop 3f2a… --data ~/fleet'], '`{held: [keyId]}`')
    .action(async (keyIds: readonly string[]) => {
      const { data } = drop.opts<{ data: string }>();
      await change(context, drop, data, (keys) =>
        keys.filter((key) => !keyIds.includes(key.signer.key.keyId)),
      );
    });
}

type Keys = Awaited<ReturnType<typeof secretKeys>>;

async function change(
  context: CliContext,
  command: DescribedCommand,
  data: string,
  edit: (keys: Keys) => Keys,
): Promise<void> {
  const session = openSession(context, command);
  const { changeTrustKeys } = await import('#/control/data-dir.ts');
  const keys = await changeTrustKeys(resolve(context.cwd, data), edit);
  const held = keys.map((key) => key.signer.key.keyId);
  session.print(
    { held },
    () =>
      `control holds:\n${keys.map((key) => `  ${key.use} ${key.signer.key.keyId}\n`).join('')}restart control\n`,
  );
}
