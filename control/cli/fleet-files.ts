/**
 * What `switchback init` writes beside the data of control: how `serve` listens, and the operator's own files. Formats:
 * docs/specs/operator-files.md.
 */
import { open, rename, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import * as v from 'valibot';
import { readText } from '#/control/cli/files.ts';
import { readKeyFile, writeKeyFile } from '#/control/trust/key-file.ts';
import { Problem } from '#/protocol/errors.ts';

const SERVE_SCHEMA = 'switchback.serve/1';
const SERVE_MAX_BYTES = 64 * 1024;

export const serveSettings = v.strictObject({
  schema: v.literal(SERVE_SCHEMA),
  /** HOST:PORT. */
  listen: v.pipe(
    v.string(),
    v.regex(/^(?:\[[0-9a-fA-F:]+\]|[^:\s]*):\d{1,5}$/, 'expected HOST:PORT'),
  ),
  /** Address of control as hosts and operators see it, where it is not that of `listen`. */
  publicUrl: v.nullable(v.pipe(v.string(), v.url())),
});
export type ServeSettings = v.InferOutput<typeof serveSettings>;

export const servePath = (dataDir: string): string => join(dataDir, 'serve.json');

/** Host and port of `HOST:PORT`; an empty host is every address. Throws E_USAGE. */
export function listenAddress(text: string): { readonly host: string; readonly port: number } {
  const match = /^(?:\[([0-9a-fA-F:]+)\]|([^:\s]*)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > 65_535) {
    throw new Problem('E_USAGE', `'${text}' is not an address: write HOST:PORT, as 127.0.0.1:8420`);
  }
  return { host: match[1] ?? (match[2] === '' ? '::' : (match[2] ?? '')), port };
}

/** The address to call control at: the public one, else that of `listen`, with loopback for "every address". */
export function urlOf(settings: Pick<ServeSettings, 'listen' | 'publicUrl'>): string {
  if (settings.publicUrl !== null) return settings.publicUrl.replace(/\/+$/, '');
  const { host, port } = listenAddress(settings.listen);
  const isEvery = host === '::' || host === '0.0.0.0';
  const name = isEvery ? '127.0.0.1' : host.includes(':') ? `[${host}]` : host;
  return `http://${name}:${port}`;
}

/** How this control listens; null when `init` was not run by this program. Throws E_CONFIG. */
export async function readServeSettings(dataDir: string): Promise<ServeSettings | null> {
  const path = servePath(dataDir);
  let text: string;
  try {
    text = await readText(path, SERVE_MAX_BYTES);
  } catch (error) {
    const cause = error instanceof Error ? error.cause : undefined;
    if (cause instanceof Error && 'code' in cause && cause.code === 'ENOENT') return null;
    throw error;
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new Problem('E_CONFIG', `${path} is not JSON`, { path }, { cause });
  }
  const parsed = v.safeParse(serveSettings, value);
  if (parsed.success) return parsed.output;
  const issue = parsed.issues[0];
  throw new Problem('E_CONFIG', `${path}: ${v.getDotPath(issue) ?? '(top)'}: ${issue.message}`);
}

/** Writes how control listens, whole or not at all. */
export async function writeServeSettings(
  dataDir: string,
  settings: Omit<ServeSettings, 'schema'>,
): Promise<void> {
  const path = servePath(dataDir);
  const text = `${JSON.stringify({ schema: SERVE_SCHEMA, ...settings }, null, 2)}\n`;
  const file = await open(`${path}.new`, 'w', 0o644);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(`${path}.new`, path);
}

/** The release and config keys of control, copied for those who build: they sign bundles and config sets away from control. */
export async function copyReleaseKeys(controlKeys: string, to: string): Promise<void> {
  const keys = (await readKeyFile(controlKeys)).filter(
    (key) => key.use === 'release' || key.use === 'config',
  );
  if (!keys.some((key) => key.use === 'release'))
    throw new Problem('E_CONFIG', `${controlKeys} has no release key`);
  await writeKeyFile(to, keys);
}

/** Moves a key file, also to another file system; the old one is removed only when the new one is durable. */
export async function moveKeyFile(from: string, to: string): Promise<void> {
  await writeKeyFile(to, await readKeyFile(from));
  await unlink(from);
  const directory = await open(dirname(from), 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
