/** `switchback config …`: config sets, plain values and secrets that are pinned together with an artifact. */
import { resolve } from 'node:path';
import { CONFIG_PAYLOAD_TYPE, openConfigSet, requireBoxes } from '#/bundle/config-set.ts';
import type { PublicKey } from '#/bundle/keys.ts';
import { configRole } from '#/bundle/trust/documents.ts';
import { readConfigFile } from '#/control/cli/config-set/files.ts';
import type { CliContext } from '#/control/cli/context.ts';
import { addCommand, addFamily, type DescribedCommand } from '#/control/cli/describe.ts';
import { configKeys } from '#/control/cli/keys.ts';
import { findConfig } from '#/control/cli/lookup.ts';
import { renderFields, renderTable } from '#/control/cli/render/table.ts';
import { formatMoment } from '#/control/cli/render/text.ts';
import { openSession } from '#/control/cli/session.ts';
import { overPublished } from '#/control/cli/trust/published.ts';
import { publicKeys } from '#/control/cli/trust/role-keys.ts';
import { addConfigSet, dropConfigSet } from '#/control/trust/configs.ts';
import { keysOfRole } from '#/control/trust/delegations.ts';
import { addBuild, addSeal, addSign, setFields, shownSet } from './config-make.ts';
import { changeJson, run, withChangeFlags } from './trust-change.ts';

export function addConfigCommands(program: DescribedCommand, context: CliContext): void {
  const family = addFamily(
    program,
    'config',
    'Config sets: values and secrets that are pinned together with an artifact.',
  );
  addBuild(family, context);
  addSign(family, context);
  addSeal(family, context);
  addVerify(family, context);
  addInspect(family, context);
  addImport(family, context);
  addList(family, context);
  addDrop(family, context);
}

function addVerify(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(
    family,
    'verify',
    'Check a config file: its signatures, and that its encrypted secrets are those that were signed.',
  );
  command
    .argument('<file>', 'the config file')
    .option(
      '--key <key...>',
      'the keys that must have signed it: key files or public keys as hex; else those of its scope in control',
    )
    .explain(
      [
        'switchback config verify web-7.config',
        'switchback config verify web-7.config --key ann.json',
      ],
      '`{configId, scope, version, group, artifacts, configSchema, plain, secrets, signers, sealedFor}`',
    )
    .action(async (file: string) => {
      const session = openSession(context, command);
      const named = command.opts<{ key?: readonly string[] }>().key;
      const { envelope, sealed, known } = await readConfigFile(resolve(context.cwd, file));
      let trusted: { readonly keys: readonly PublicKey[]; readonly threshold: number };
      if (named === undefined) {
        const { client } = await session.connect();
        const nowMs = context.now();
        trusted = await overPublished(client, (store) =>
          keysOfRole({ store, keys: [], nowMs }, configRole(known.set.scope)),
        );
      } else {
        const keys = await publicKeys(context.cwd, named);
        trusted = { keys, threshold: keys.length };
      }
      openConfigSet(envelope, trusted);
      requireBoxes(known, sealed.boxes);
      const shown = {
        ...shownSet(known),
        signers: envelope.signatures.map((signature) => signature.keyid),
        sealedFor: Object.keys(sealed.hosts),
      };
      session.print(shown, () =>
        renderFields([...setFields(shown), ['signatures', 'good', 'good']], session.style),
      );
    });
}

function addInspect(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(
    family,
    'inspect',
    'Show what a config file says: its plain values, the names of its secrets, whom it is sealed for.',
  );
  command
    .argument('<file>', 'the config file')
    .explain(
      ['switchback config inspect web-7.config'],
      '`{configId, scope, version, group, artifacts, configSchema, values: {name: text}, secrets, signers, sealedFor}`; signatures are not looked at',
    )
    .action(async (file: string) => {
      const session = openSession(context, command);
      const { envelope, sealed, known } = await readConfigFile(resolve(context.cwd, file));
      const { plain: _names, ...shown } = shownSet(known);
      const result = {
        ...shown,
        values: known.set.plain,
        payloadType: CONFIG_PAYLOAD_TYPE,
        signers: envelope.signatures.map((signature) => signature.keyid),
        sealedFor: Object.keys(sealed.hosts).toSorted(),
      };
      session.print(result, () =>
        renderFields(
          [
            ...setFields(shownSet(known)),
            ...Object.entries(known.set.plain).map(
              ([name, value]) => [`  ${name}`, JSON.stringify(value)] as const,
            ),
            ['signed by', result.signers.join(', ')],
            ['sealed for', result.sealedFor.join(', ') || 'nobody yet'],
          ],
          session.style,
        ),
      );
    });
}

function addImport(family: DescribedCommand, context: CliContext): void {
  const command = withChangeFlags(
    addCommand(
      family,
      'import',
      'List a config file in control, or what is sealed of it anew. Control cannot read its secrets.',
    ),
  );
  command
    .argument('<file>', 'the config file')
    .explain(
      [
        'switchback config import web-7.config --reason "new database"',
        'switchback config import web-7.config --key ann.json --out web-7.proposal --reason "new database"',
      ],
      changeJson,
    )
    .action(async (file: string) => {
      const session = openSession(context, command);
      const path = resolve(context.cwd, file);
      const { envelope, sealed } = await readConfigFile(path);
      const own = await configKeys(session, undefined).catch(() => []);
      await run(context, command, (repository) => addConfigSet(repository, envelope, sealed), own);
    });
}

function addList(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(family, 'ls', 'List the config sets that control has.');
  command
    .explain(
      ['switchback config ls'],
      '`{items: [{configId, scope, version, group, artifacts, configSchema, plain, secrets, createdAtMs, sealedFor, pinnedBy}]}`',
    )
    .action(async () => {
      const session = openSession(context, command);
      const { client } = await session.connect();
      session.print(await client.call('configList', {}), ({ items }) =>
        renderTable(
          items,
          [
            { title: 'CONFIG', value: (item) => item.configId.slice(0, 12) },
            { title: 'SCOPE', value: (item) => `${item.scope} ${item.version}` },
            { title: 'GROUP', value: (item) => item.group },
            { title: 'VALUES', value: (item) => String(item.plain), align: 'right' },
            { title: 'SECRETS', value: (item) => String(item.secrets), align: 'right' },
            { title: 'SEALED FOR', value: (item) => String(item.sealedFor.length), align: 'right' },
            { title: 'MADE', value: (item) => formatMoment(item.createdAtMs) },
            { title: 'PINNED', value: (item) => item.pinnedBy.join(', '), flexible: true },
          ],
          session.style,
          'no config sets',
        ),
      );
    });
}

function addDrop(family: DescribedCommand, context: CliContext): void {
  const command = withChangeFlags(
    addCommand(family, 'drop', 'Take a config set off the list. Hosts that run it go on.'),
  );
  command
    .argument('<config>', 'the config id, its start, or scope/version')
    .explain(['switchback config drop web/6 --reason "password retired"'], changeJson)
    .action(async (text: string) => {
      const session = openSession(context, command);
      const { client } = await session.connect();
      const { configId, scope, version } = await findConfig(client, text);
      const own = await configKeys(session, undefined).catch(() => []);
      await run(
        context,
        command,
        (repository) => dropConfigSet(repository, { configId, scope, version }),
        own,
      );
    });
}
