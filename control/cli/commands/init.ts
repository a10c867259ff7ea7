/** `switchback init`: a new fleet, with everything that control and its operator need, and what is not protected yet. */
import { access } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { CliContext } from '#/control/cli/context.ts';
import { addCommand, type DescribedCommand } from '#/control/cli/describe.ts';
import {
  copyReleaseKeys,
  listenAddress,
  moveKeyFile,
  servePath,
  urlOf,
  writeServeSettings,
} from '#/control/cli/fleet-files.ts';
import { readText } from '#/control/cli/files.ts';
import { renderFields } from '#/control/cli/render/table.ts';
import { openSession, type Session } from '#/control/cli/session.ts';
import { CLI_CONFIG_SCHEMA, configPath, writeConfig } from '#/control/cli/settings.ts';
import { trustStatus } from '#/control/trust/starter.ts';
import { Problem } from '#/protocol/errors.ts';

const TOKEN_MAX_BYTES = 4096;
export const DEFAULT_LISTEN = '127.0.0.1:8420';

interface InitFlags {
  readonly data: string;
  readonly listen: string;
  readonly publicUrl?: string;
  readonly rootKey?: string;
}

interface Made {
  readonly dataDir: string;
  readonly url: string;
  readonly config: string;
  readonly releaseKeys: string;
  readonly rootKey: string;
  readonly protectionsOff: readonly string[];
}

export function addInitCommand(program: DescribedCommand, context: CliContext): void {
  const command = addCommand(
    program,
    'init',
    'Make a new fleet: control’s data, keys, and your settings.',
  );
  command
    .requiredOption('--data <dir>', 'directory for the data of control')
    .option('--listen <address>', 'where `serve` listens, HOST:PORT', DEFAULT_LISTEN)
    .option('--public-url <url>', 'address of control as hosts and operators see it')
    .option('--root-key <file>', 'put the root key here, away from control')
    .explain(
      [
        'switchback init --data ~/fleet',
        'switchback init --data ~/fleet --listen 0.0.0.0:8420 --public-url https://control.example',
      ],
      '`{dataDir, url, config, releaseKeys, rootKey, protectionsOff: [text]}`',
    )
    .action(async () => {
      const session = openSession(context, command);
      const made = await init(session, command.opts<InitFlags>());
      session.print(made, (found) => text(found, session));
    });
}

async function init(session: Session, flags: InitFlags): Promise<Made> {
  const { context } = session;
  const dataDir = resolve(context.cwd, flags.data);
  const config = resolve(context.cwd, configPath(session.flags, context.env));
  const releaseKeys = `${config.replace(/\.json$/, '')}.release-keys.json`;
  listenAddress(flags.listen);
  const serve = { listen: flags.listen, publicUrl: flags.publicUrl ?? null };
  const url = urlOf(serve);
  await refuseExisting(servePath(dataDir), 'there is a fleet already');
  await refuseExisting(config, 'settings of another fleet; give another file with --config');
  await refuseExisting(releaseKeys, 'release keys of another fleet');
  const { initControl } = await import('#/control/start.ts');
  const { adminTokenPath, rootKeyPath } = await import('#/control/data-dir.ts');
  // null: an earlier run was cut off after this step; it goes on from what that run made.
  const fresh = await initControl(dataDir, () => context.now());
  const token = fresh ?? (await readText(adminTokenPath(dataDir), TOKEN_MAX_BYTES)).trim();
  const protectionsOff = await protections(dataDir, context.now());
  let rootKey = rootKeyPath(dataDir);
  if (flags.rootKey !== undefined) {
    const away = resolve(context.cwd, flags.rootKey);
    await moveKeyFile(rootKey, away);
    rootKey = away;
  }
  await writeConfig(config, { schema: CLI_CONFIG_SCHEMA, url, token, releaseKeys });
  await copyReleaseKeys(join(dataDir, 'keys', 'trust.json'), releaseKeys);
  await writeServeSettings(dataDir, serve);
  return { dataDir, url, config, releaseKeys, rootKey, protectionsOff };
}

async function refuseExisting(path: string, what: string): Promise<void> {
  let isThere = true;
  try {
    await access(path);
  } catch {
    isThere = false;
  }
  if (isThere) throw new Problem('E_CONFLICT', `${path} exists: ${what}`, { path });
}

/** What starter trust leaves open, by the rules of the repository that was just made. */
async function protections(dataDir: string, nowMs: number): Promise<readonly string[]> {
  const { firstTrustFiles, openDataDir } = await import('#/control/data-dir.ts');
  const dir = await openDataDir(dataDir);
  const files = new Map(
    (await firstTrustFiles(dir, nowMs)).map((file) => [file.name, file.bytes] as const),
  );
  const store = { read: (name: string) => files.get(name) ?? null };
  return trustStatus({ store, keys: dir.trustKeys, nowMs }).protectionsOff;
}

function text(made: Made, session: Session): string {
  const { paint } = session.style;
  const isBeside = made.rootKey.startsWith(`${made.dataDir}/`);
  const root = isBeside
    ? 'the root key lies beside the others: whoever takes over control owns the fleet for ever. Move this file to a medium off the network: '
    : 'the root key must not stay on this machine. Move this file to a medium off the network: ';
  const off = [root + made.rootKey, ...made.protectionsOff, ...plainHttp(made.url)];
  return (
    renderFields(
      [
        ['data of control', made.dataDir],
        ['address', made.url],
        ['your settings', `${made.config} (with an administrator token; readable by you alone)`],
        ['your release keys', `${made.releaseKeys} (they sign bundles)`],
        ['root key', made.rootKey],
      ],
      session.style,
    ) +
    `\nnot protected yet:\n${off.map((line) => `  ${paint('warn', line)}\n`).join('')}` +
    `\nnext:\n  switchback serve --data ${made.dataDir}\n  switchback group create NAME\n  switchback bundle build DIRECTORY --definition FILE --out FILE\n`
  );
}

function plainHttp(url: string): readonly string[] {
  const { protocol, hostname } = new URL(url);
  const isLocal = ['127.0.0.1', 'localhost', '[::1]'].includes(hostname);
  if (protocol === 'https:' || isLocal) return [];
  return ['control is reached without TLS: whoever reads the network reads the tokens in it'];
}
