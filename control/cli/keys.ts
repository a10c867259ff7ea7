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

async function releaseKeys(path: string): Promise<readonly StoredKey[]> {
  const keys = (await readKeyFile(path)).filter((key) => key.use === 'release');
  if (keys.length > 0) return keys;
  throw new Problem('E_CONFIG', `${path} has no release key: it cannot sign bundles`, { path });
}

/** The release keys that sign a bundle. */
export async function signingKeys(
  session: Session,
  named: string | undefined,
): Promise<readonly StoredKey[]> {
  return releaseKeys(await keyFilePath(session, named));
}

/** The public halves of the release keys that a bundle is verified against. */
export async function trustedKeys(
  session: Session,
  named: string | undefined,
): Promise<readonly PublicKey[]> {
  return (await signingKeys(session, named)).map((key) => key.signer.key);
}
