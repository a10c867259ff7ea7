/**
 * Where control is and with which token: from flags, else the environment, else the file that `switchback init` wrote.
 * Each source answers for both values separately, so a flag may replace only one of them.
 */
import { chmod, mkdir, readFile, rename, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import * as v from 'valibot';
import { Problem } from '#/protocol/errors.ts';

export const CLI_CONFIG_SCHEMA = 'switchback.cli-config/1';
const CONFIG_MAX_BYTES = 64 * 1024;
const TOKEN_MAX_BYTES = 4096;

export const cliConfig = v.strictObject({
  schema: v.literal(CLI_CONFIG_SCHEMA),
  /** Base address of control, `http://host:port`. */
  url: v.pipe(v.string(), v.url(), v.maxLength(2048)),
  /** Operator token. */
  token: v.pipe(v.string(), v.minLength(1), v.maxLength(TOKEN_MAX_BYTES)),
  /** Key file whose release keys sign bundles; absolute. */
  releaseKeys: v.optional(v.pipe(v.string(), v.startsWith('/'), v.maxLength(4096))),
});
export type CliConfig = v.InferOutput<typeof cliConfig>;

/** The flags that every command takes. */
export interface ConnectionFlags {
  readonly url?: string;
  readonly token?: string;
  readonly tokenFile?: string;
  readonly config?: string;
}

export interface Connection {
  readonly url: string;
  readonly token: string;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** The settings file: --config, else SWITCHBACK_CONFIG, else in the user's configuration directory. */
export function configPath(flags: ConnectionFlags, env: Environment): string {
  if (flags.config !== undefined) return flags.config;
  const named = env['SWITCHBACK_CONFIG'];
  if (named !== undefined && named !== '') return named;
  const xdg = env['XDG_CONFIG_HOME'];
  const base = xdg !== undefined && xdg !== '' ? xdg : join(env['HOME'] ?? '.', '.config');
  return join(base, 'switchback', 'config.json');
}

/** Throws E_USAGE when an address or token is nowhere, E_CONFIG when the file is wrong or readable by others. */
export async function resolveConnection(
  flags: ConnectionFlags,
  env: Environment,
): Promise<Connection> {
  let url = flags.url ?? nonEmpty(env['SWITCHBACK_URL']);
  let token = flags.token ?? nonEmpty(env['SWITCHBACK_TOKEN']);
  if (flags.tokenFile !== undefined) token = await readTokenFile(flags.tokenFile);
  if (url === undefined || token === undefined) {
    const path = configPath(flags, env);
    const config = await readConfig(path, flags.config !== undefined);
    url ??= config?.url;
    token ??= config?.token;
    if (url === undefined || token === undefined) {
      const lacking = url === undefined ? 'the address of control' : 'an operator token';
      throw new Problem(
        'E_USAGE',
        `${lacking} is not known: give --url and --token-file, set SWITCHBACK_URL and ` +
          `SWITCHBACK_TOKEN, or let \`switchback init\` write ${path}`,
      );
    }
  }
  return { url: checkedUrl(url), token };
}

function nonEmpty(text: string | undefined): string | undefined {
  return text === '' ? undefined : text;
}

function checkedUrl(text: string): string {
  if (!URL.canParse(text)) throw new Problem('E_USAGE', `not an address of control: ${text}`);
  const url = new URL(text);
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    throw new Problem('E_USAGE', `the address of control must be http or https: ${text}`);
  }
  return url.href.replace(/\/+$/, '');
}

async function readTokenFile(path: string): Promise<string> {
  const text = (await readPrivate(path, TOKEN_MAX_BYTES)).trim();
  if (text === '') throw new Problem('E_CONFIG', `token file ${path} is empty`);
  return text;
}

/** The settings file of these flags and this environment, or null when there is none. */
export async function readSettings(
  flags: ConnectionFlags,
  env: Environment,
): Promise<CliConfig | null> {
  return readConfig(configPath(flags, env), flags.config !== undefined);
}

/** The settings file, or null when there is none and none was asked for by name. */
async function readConfig(path: string, isRequired: boolean): Promise<CliConfig | null> {
  let text: string;
  try {
    text = await readPrivate(path, CONFIG_MAX_BYTES);
  } catch (error) {
    if (!isRequired && isMissing(error)) return null;
    throw error;
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new Problem('E_CONFIG', `${path} is not JSON`, { path }, { cause });
  }
  const parsed = v.safeParse(cliConfig, value);
  if (parsed.success) return parsed.output;
  const issue = parsed.issues[0];
  const key = v.getDotPath(issue) ?? '(top)';
  throw new Problem('E_CONFIG', `${path}: ${key}: ${issue.message}`, { path, key });
}

/** A file with a secret in it: refused when others may read it, or when it is larger than such a file can be. */
async function readPrivate(path: string, maxBytes: number): Promise<string> {
  let found;
  try {
    found = await stat(path);
  } catch (cause) {
    throw new Problem('E_CONFIG', `read ${path}`, { path }, { cause });
  }
  if ((found.mode & 0o077) !== 0) {
    const mode = (found.mode & 0o777).toString(8);
    throw new Problem('E_CONFIG', `${path} holds a token and others may read it (mode ${mode})`, {
      path,
      fix: `chmod 600 ${path}`,
    });
  }
  if (found.size > maxBytes) {
    throw new Problem('E_CONFIG', `${path} has ${found.size} bytes, at most ${maxBytes} are read`);
  }
  return readFile(path, 'utf8');
}

function isMissing(error: unknown): boolean {
  const cause = error instanceof Error ? error.cause : undefined;
  return cause instanceof Error && 'code' in cause && cause.code === 'ENOENT';
}

/** Writes the settings file, mode 0600 in a directory 0700, whole or not at all. */
export async function writeConfig(path: string, config: CliConfig): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const beside = `${path}.new`;
  await writeFile(beside, `${JSON.stringify(config, null, 2)}\n`, { mode: 0o600 });
  await chmod(beside, 0o600);
  await rename(beside, path);
}
