/** `switchback key …`: key files. The secrets never leave them. */
import { resolve } from 'node:path';
import { Option } from 'commander';
import { hexOf } from '#/bundle/keys.ts';
import type { CliContext } from '#/control/cli/context.ts';
import { addCommand, addFamily, type DescribedCommand } from '#/control/cli/describe.ts';
import { renderTable } from '#/control/cli/render/table.ts';
import { openSession } from '#/control/cli/session.ts';
import {
  readKeyFile,
  type StoredKey,
  storedKeyOf,
  writeKeyFile,
} from '#/control/trust/key-file.ts';
import { type KeyUse, keyUses } from '#/control/trust/repository.ts';

interface ShownKey {
  readonly use: KeyUse;
  readonly keyId: string;
  readonly public: string;
}

const shown = (key: StoredKey): ShownKey => ({
  use: key.use,
  keyId: key.signer.key.keyId,
  public: hexOf(key.signer.key.bytes),
});

export function addKeyCommands(program: DescribedCommand, context: CliContext): void {
  const family = addFamily(program, 'key', 'Key files: make and look at signing keys.');
  addNew(family, context);
  addShow(family, context);
}

function addNew(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(
    family,
    'new',
    'Make a key file with one new key, readable by you alone.',
  );
  command
    .argument('<file>', 'the key file; must not exist')
    .addOption(
      new Option('--use <use>', 'what the key is for').choices(keyUses).makeOptionMandatory(),
    )
    .explain(
      ['switchback key new second-release.json --use release'],
      '`{path, keys: [{use, keyId, public}]}`; never a secret',
    )
    .action(async (file: string) => {
      const session = openSession(context, command);
      const { use } = command.opts<{ use: KeyUse }>();
      const path = resolve(context.cwd, file);
      const key = storedKeyOf(use, Uint8Array.from(Buffer.from(context.randomHex(32), 'hex')));
      await writeKeyFile(path, [key]);
      session.print(
        { path, keys: [shown(key)] },
        () => `${path}: ${use} key ${shown(key).keyId}\n`,
      );
    });
}

function addShow(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(
    family,
    'show',
    'Show the ids and public halves of the keys in a file.',
  );
  command
    .argument('<file>', 'the key file')
    .explain(
      ['switchback key show release.json'],
      '`{path, keys: [{use, keyId, public}]}`; never a secret',
    )
    .action(async (file: string) => {
      const session = openSession(context, command);
      const path = resolve(context.cwd, file);
      const keys = (await readKeyFile(path)).map(shown);
      session.print({ path, keys }, (found) =>
        renderTable(
          found.keys,
          [
            { title: 'USE', value: (key) => key.use },
            { title: 'KEY ID', value: (key) => key.keyId },
            { title: 'PUBLIC', value: (key) => key.public },
          ],
          session.style,
          'no keys',
        ),
      );
    });
}
