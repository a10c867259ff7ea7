/** Which key file a command means, and the keys in it. */
import { resolve } from 'node:path';
import type { PublicKey } from '#/bundle/keys.ts';
import type { Session } from '#/control/cli/session.ts';
import { readSettings } from '#/control/cli/settings.ts';
import { readKeyFile, type StoredKey } from '#/control/trust/key-file.ts';
import { Problem } from '#/protocol/errors.ts';

/** The key file that was named, or that of the settings file. Throws E_USAGE when there is none. */
async function keyFilePath(session: Session, named: string | undefined): Promise<string> {
  const { context, flags } = session;
  if (named !== undefined) return resolve(context.cwd, named);
  const settings = await readSettings(flags, context.env);
  if (settings?.releaseKeys !== undefined) return settings.releaseKeys;
  throw new Problem('E_USAGE', 'which keys? give a key file, or let `switchback init` write one');
}

async function keysFor(
  use: 'release' | 'config',
  path: string,
  what: string,
): Promise<readonly StoredKey[]> {
  const keys = (await readKeyFile(path)).filter((key) => key.use === use);
  if (keys.length > 0) return keys;
  throw new Problem('E_CONFIG', `${path} has no ${use} key: it cannot sign ${what}`, { path });
}

/** The config keys that sign a config set: of the file that was named, else of the one with the release keys. */
export async function configKeys(
  session: Session,
  named: string | undefined,
): Promise<readonly StoredKey[]> {
  return keysFor('config', await keyFilePath(session, named), 'config sets');
}

/** The release keys that sign a bundle. */
export async function signingKeys(
  session: Session,
  named: string | undefined,
): Promise<readonly StoredKey[]> {
  return keysFor('release', await keyFilePath(session, named), 'bundles');
}

/** The public halves of the release keys that a bundle is verified against. */
export async function trustedKeys(
  session: Session,
  named: string | undefined,
): Promise<readonly PublicKey[]> {
  return (await signingKeys(session, named)).map((key) => key.signer.key);
}
