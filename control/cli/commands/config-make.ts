/** `switchback config build | sign | seal`: making a config set on the machine of its owners. */
import { dirname, join, resolve } from 'node:path';
import { addSignatures } from '#/bundle/dsse.ts';
import type { KnownConfig } from '#/bundle/config-set.ts';
import { buildConfigSet, sealAgain } from '#/control/cli/config-set/build.ts';
import {
  readConfigFile,
  readConfigKeys,
  replaceConfigFile,
  replaceConfigKeys,
  writeConfigFile,
  writeConfigKeys,
} from '#/control/cli/config-set/files.ts';
import {
  chooseRecipients,
  keepRecipients,
  readRecipients,
  type Stranger,
} from '#/control/cli/config-set/recipients.ts';
import type { CliContext } from '#/control/cli/context.ts';
import { addCommand, type DescribedCommand } from '#/control/cli/describe.ts';
import { configKeys } from '#/control/cli/keys.ts';
import { renderFields } from '#/control/cli/render/table.ts';
import { openSession, type Session } from '#/control/cli/session.ts';
import { configPath } from '#/control/cli/settings.ts';

/** What commands show of a config set: nothing of its values. */
export function shownSet({ configId, set }: KnownConfig): {
  readonly configId: string;
  readonly scope: string;
  readonly version: number;
  readonly group: string;
  readonly artifacts: readonly string[];
  readonly configSchema: { readonly id: string; readonly version: number };
  readonly plain: readonly string[];
  readonly secrets: readonly string[];
} {
  const { scope, version, group, artifacts, configSchema } = set;
  const plain = Object.keys(set.plain).toSorted();
  const secrets = Object.keys(set.secrets).toSorted();
  return { configId, scope, version, group, artifacts, configSchema, plain, secrets };
}

export function setFields(
  shown: ReturnType<typeof shownSet>,
): readonly (readonly [string, string])[] {
  const { id, version } = shown.configSchema;
  return [
    ['config set', shown.configId],
    ['scope', `${shown.scope}, version ${shown.version}`],
    ['for group', shown.group],
    ['for artifacts', shown.artifacts.join(', ')],
    ['schema', `${id} ${version}`],
    ['plain', shown.plain.join(', ') || 'none'],
    ['secrets', shown.secrets.join(', ') || 'none'],
  ];
}

function seeds(context: CliContext): () => Uint8Array {
  return () => Uint8Array.from(Buffer.from(context.randomHex(32), 'hex'));
}

export function addBuild(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(
    family,
    'build',
    'Make a config set from its definition: encrypt its secrets, sign it.',
  );
  command
    .argument('<definition>', 'the definition, TOML or JSON; it names the files with the secrets')
    .requiredOption('--out <file>', 'the config file; must not exist')
    .option('--keys <file>', 'where its data keys go, for you alone; else <out>.keys')
    .option('--key <file>', 'config keys to sign with; without it those of the settings file')
    .explain(
      ['switchback config build web.toml --out web-7.config'],
      '`{configId, scope, version, group, artifacts, configSchema, plain, secrets, path, keysPath}`; names, never values',
    )
    .action(async (definition: string) => {
      const session = openSession(context, command);
      const flags = command.opts<{ out: string; keys?: string; key?: string }>();
      const signers = (await configKeys(session, flags.key)).map((key) => key.signer);
      const built = await buildConfigSet(
        resolve(context.cwd, definition),
        signers,
        seeds(context),
        context.now(),
      );
      const path = resolve(context.cwd, flags.out);
      const keysPath = resolve(context.cwd, flags.keys ?? `${flags.out}.keys`);
      await writeConfigKeys(keysPath, built.keys);
      await writeConfigFile(path, built.file);
      const shown = { ...shownSet(built.known), path, keysPath };
      session.print(
        shown,
        () =>
          `${renderFields(
            [
              ...setFields(shown),
              ['file', path],
              ['data keys', `${keysPath} (readable by you alone; sealing needs it)`],
            ],
            session.style,
          )}next: switchback config seal ${flags.out}\n`,
      );
    });
}

export function addSign(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(
    family,
    'sign',
    'Add a signature to a config file that you looked at (config inspect).',
  );
  command
    .argument('<file>', 'the config file; it is replaced')
    .option('--key <file>', 'config keys to sign with; without it those of the settings file')
    .explain(['switchback config sign web-7.config --key bob.json'], '`{configId, keyIds}`')
    .action(async (file: string) => {
      const session = openSession(context, command);
      const keys = await configKeys(session, command.opts<{ key?: string }>().key);
      const path = resolve(context.cwd, file);
      const { envelope, sealed, known } = await readConfigFile(path);
      const signers = keys.map((key) => key.signer);
      const signed = addSignatures(envelope, signers);
      await replaceConfigFile(path, { envelope: signed, sealed });
      const keyIds = signed.signatures.map((signature) => signature.keyid);
      session.print({ configId: known.configId, keyIds }, (result) =>
        renderFields(
          [
            ['config set', result.configId],
            ['signed by', keyIds.join(', ')],
          ],
          session.style,
        ),
      );
    });
}

interface SealFlags {
  readonly keys?: string;
  readonly accept?: readonly string[];
  readonly recipients?: string;
}

export function addSeal(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(
    family,
    'seal',
    'Seal the secrets of a config file for the hosts of its group: for those that are new, or have other keys.',
  );
  command
    .argument('<file>', 'the config file; it is replaced')
    .option('--keys <file>', 'its data keys; else <file>.keys')
    .option(
      '--accept <host...>',
      'hosts whose new key you compared with the one that the host itself shows, or all',
    )
    .option(
      '--recipients <file>',
      'the keys of hosts that were accepted before; else beside the settings file',
    )
    .explain(
      [
        'switchback config seal web-7.config',
        'switchback config seal web-7.config --accept h-3f2a00000000000000000000000000aa',
      ],
      '`{configId, sealedFor: [host], added: [host], strangers: [{host, sealKey, why}]}`',
    )
    .action(async (file: string) => {
      const session = openSession(context, command);
      const flags = command.opts<SealFlags>();
      const path = resolve(context.cwd, file);
      const keysPath = resolve(context.cwd, flags.keys ?? `${file}.keys`);
      const { envelope, sealed, known } = await readConfigFile(path);
      const keys = await readConfigKeys(keysPath);
      const { client } = await session.connect();
      const { group } = known.set;
      const answer = await client.call('groupRecipients', { params: { group } });
      const knownPath = recipientsPath(session, flags.recipients);
      const before = await readRecipients(knownPath);
      const chosen = chooseRecipients(group, answer, before, flags.accept ?? []);
      const resealed = sealAgain(known, sealed, keys, chosen.recipients, seeds(context));
      await keepRecipients(knownPath, chosen.known);
      await replaceConfigKeys(keysPath, resealed.keys);
      await replaceConfigFile(path, { envelope, sealed: resealed.sealed });
      const result = {
        configId: known.configId,
        sealedFor: chosen.recipients.map(({ host }) => host),
        added: resealed.added,
        strangers: chosen.strangers,
      };
      session.print(result, () => sealedText(session, result, before === null, file));
    });
}

function recipientsPath(session: Session, named: string | undefined): string {
  const { context, flags } = session;
  if (named !== undefined) return resolve(context.cwd, named);
  return join(dirname(resolve(context.cwd, configPath(flags, context.env))), 'recipients.json');
}

function sealedText(
  session: Session,
  result: {
    readonly sealedFor: readonly string[];
    readonly added: readonly string[];
    readonly strangers: readonly Stranger[];
  },
  isFirst: boolean,
  file: string,
): string {
  const { paint } = session.style;
  const lines = result.strangers.map(
    ({ host, sealKey, why }) => `  ${paint('warn', `${host}  ${sealKey}  ${why}`)}\n`,
  );
  const compare = 'compare each key with the one that the host itself shows, then';
  const left =
    lines.length === 0
      ? ''
      : `\nnot sealed for, until you accept their keys:\n${lines.join('')}${compare}\n  switchback config seal ${file} --accept HOST\n`;
  const first = isFirst ? 'the enrolment key of control is kept from now on\n' : '';
  return `sealed for ${result.sealedFor.length} hosts, ${result.added.length} of them anew\n${first}${left}\nnext: switchback config import ${file} --reason "…"\n`;
}
